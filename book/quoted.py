"""What the slides quote as Markdown: outputs and guesses of the lessons, sketches of the teaching guide."""

import re

from lessons import LESSONS, ROOT, cells, shown

OUTPUTS = {
    "in_a_batch": (1, "cell-07"),
    "alone": (1, "alone"),
    "tokens": (0, "cell-09"),
    "template": (0, "cell-13"),
    "end": (0, "cell-17"),
    "pad": (0, "cell-19"),
    "two_rows": (1, "cell-10"),
    "three_tests": (1, "cell-12"),
    "more_pads": (1, "cell-14"),
    "mask": (1, "cell-16"),
    "as_alone": (1, "cell-18"),
    "silent": (1, "cell-33"),
    "sides": (2, "three-ways"),
    "mask_from_ids": (2, "cell-44"),
    "anna": (2, "cell-46"),
    "two_labels": (3, "cell-04"),
    "counting": (3, "cell-09"),
    "four": (3, "cell-20"),
    "never_stops": (5, "cell-07"),
    "labels_from_ids": (5, "cell-09"),
    "stops": (5, "cell-18"),
    "collators": (7, "cell-07"),
    "one_call": (7, "cell-11"),
}
"""For each name the lesson's number, and the cell."""
LARGE, MANY = 60, 17
"""Up to how many columns a block is shown in large letters, and from how many lines on in small ones."""
GUESSES = {"guess_tokens": (0, 0), "guess_batch": (1, 0), "guess_side": (2, 0), "guess_skips": (3, 0)}
GUESSES |= {"guess_stops": (5, 0), "guess_collators": (7, 0)}
"""For each name the lesson's number, and which of its guesses it is."""


def output(number: int, cell_id: str) -> str:
    """Return what a cell has stored as text, as a block."""
    (cell,) = (cell for cell in cells(LESSONS[number], "code") if cell.id == cell_id)
    return block(shown(cell).strip("\n"))


def block(text: str) -> str:
    """Return a text as a block, in letters as large as a slide has room for."""
    lines = text.splitlines()
    size = "small" if len(lines) > MANY else "large" if max(map(len, lines)) <= LARGE else "medium"
    return f"````{{container}} {size}\n```text\n{text}\n```\n````"


def guess(number: int, which: int) -> str:
    """Return one of a lesson's guesses: the question, and the options without their reasons."""
    text = "\n\n".join(cell.source for cell in cells(LESSONS[number], "markdown"))
    asked = re.findall(r"(?s)(?:\*\*Your guess:\*\*|## Your guess\n)(.+?)<details>", text)
    question = asked[which].strip()
    return question[0].upper() + question[1:]


def figure(number: int, cell_id: str, half: str) -> str:
    """Return half of the picture that a cell has stored, ``"upper"`` or ``"lower"``, with its alt text."""
    (cell,) = (cell for cell in cells(LESSONS[number], "code") if cell.id == cell_id)
    (data,) = (each.data for each in cell.outputs if "image/png" in each.get("data", {}))
    return f"![{data['text/plain']}](data:image/png;base64,{''.join(data['image/png'].split())}){{.{half}}}"


def sketches() -> dict[str, str]:
    """Return the board sketches of the teaching guide by their names here, ``sketch_1`` and so on."""
    guide = (ROOT / "book" / "teaching.md").read_text(encoding="utf-8")
    found = re.findall(r"(?s)\n### (\d)\. .+?\n\n```text\n(.+?)\n```", guide)
    return {f"sketch_{number}": block(text) for number, text in found}


def everything() -> dict[str, str]:
    """Return all of it by the names that the slides use."""
    return {
        **{name: output(*where) for name, where in OUTPUTS.items()},
        **{name: guess(*where) for name, where in GUESSES.items()},
        **sketches(),
        "arrows_right": figure(3, "cell-16", "upper"),
        "arrows_wrong": figure(3, "cell-16", "lower"),
    }
