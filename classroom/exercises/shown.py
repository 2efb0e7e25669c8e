"""A verdict as a notebook shows it: a box with the progress of the lesson, and the hint unfolded below it.

A hint's text stands on its card, in the lesson, and nowhere else. So it is read from there: from the
repository's notebooks, or, where there are none, from those that were installed with the course.
"""

import contextlib
import json
import re
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

CHECKED = re.compile(r'^exercises\.check\("(\w+)", \w+\)$', re.MULTILINE)
HINT = re.compile(r'<details><summary>Hint: "(.+?)"</summary>\n\n(.*?)\n</details>', re.DOTALL)
# Half transparent, so that they do on a light page and on a dark one.
COLOURS = {"right": "#009e73", "wrong": "#d55e00", "not answered": "#888888"}


@dataclass(frozen=True)
class Printed:
    """A card as its lesson prints it: the lesson, and the hints by their titles, as Markdown."""

    lesson: str
    hints: dict[str, str]


@dataclass(frozen=True)
class Shown:
    """Something that a notebook shows in its best form, and that reads well as plain text."""

    text: str
    form: str
    content: str

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/plain": self.text, self.form: self.content}


def box(status: str, text: str, said: str, progress: str) -> Shown:
    """Draw a verdict.

    Args:
        status: ``"right"``, ``"wrong"`` or ``"not answered"``.
        text: The verdict in one line, for where there are no boxes.
        said: What the box says, in which `` ` `` makes code.
        progress: A line about the lesson; may be empty.
    """
    colour = COLOURS[status]
    style = f"border-left: 5px solid {colour}; background: {colour}22; padding: 6px 12px; margin: 4px 0"
    body = re.sub("`(.+?)`", r"<code>\1</code>", escape(said))
    line = f'<br><small style="opacity: 0.8">{escape(progress)}</small>' * bool(progress)
    return Shown(text, "text/html", f'<div role="status" style="{style}">{body}{line}</div>')


def hint(title: str, text: str) -> Shown:
    """Unfold a hint: quoted Markdown, as it stands on the card."""
    quoted = f"**Hint: “{title}”**\n\n{text}".replace("\n", "\n> ")
    return Shown(f"Hint: “{title}”", "text/markdown", f"> {quoted}")


@cache
def printed_cards() -> dict[str, Printed]:
    """Read all cards out of the lessons. Of a notebook that is absent or damaged there are none."""
    cards = {}
    for lesson, path in sorted(_notebooks().items()):
        for card, stub in pairwise(_read(path)):
            for name in CHECKED.findall(stub):
                cards[name] = Printed(lesson, dict(HINT.findall(card)))
    return cards


def sources(notebook: str) -> list[str]:
    """Return the sources of a notebook's cells, by its name; none if it is absent or damaged."""
    path = _notebooks().get(notebook)
    return _read(path) if path else []


def _read(path: Path) -> list[str]:
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return ["".join(cell["source"]) for cell in cells]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _notebooks() -> dict[str, Path]:
    """Find the notebooks by their names: in the repository, or among what was installed."""
    paths = list((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
    if not paths:
        with contextlib.suppress(metadata.PackageNotFoundError):
            files: Any = metadata.files("silent-bugs") or ()
            paths = [Path(file.locate()) for file in files if file.suffix == ".ipynb"]
    # Not the copies that a reader keeps beside them.
    return {path.stem: path for path in paths if re.fullmatch(r"\d\d_\w+|quiz", path.stem)}
