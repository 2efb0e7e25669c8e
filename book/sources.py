"""What the book takes from the rest of the repository, so that nothing is written twice.

The lessons, a chapter or the misconceptions of a lesson, the auditor's faults, and what it found in batches
of public frameworks, each as Markdown.
"""

import json
import re
import textwrap
import tomllib
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
import pages
import publish
from lessons import EVERY, LESSONS, NOTEBOOKS, QUIZ, ROOT, cells, read, title_and_aim
from nbformat import NotebookNode

BOOK = ROOT / "book"
COPIES = BOOK / NOTEBOOKS.name
"""The lessons' copies have the notebooks' own paths, so that a link to a notebook holds in both places."""
TO_THE_REPOSITORY = re.compile(r"\[([^]]+)\]\(\.\./([^)]+)\)")
SWITCHES = f"""(switches)=
Switch them yourself, and see what each position is asked for, what a model trained so says,
and its losses. (They are stored from these trainings of the course's own model; the page trains nothing.)

{pages.shifts()}"""
TO_TOUCH = {
    ("01_garbled_output", "cell-30"): ("everyone else's answers turn to garbage.", pages.slider("../")),
    ("02_fix_with_masks", "cell-58"): ("5 pads on the left, and no mask.", pages.slider("../")),
    ("03_label_misalignment", "cell-38"): ("Only mixing them is wrong.", SWITCHES),
}
"""What a page has beside its lesson's text, by lesson and cell, with the words that it stands behind."""
REASONS = "<details><summary>Reasons</summary>"
"""Where a question's options have their reasons folded, the page lets them be pressed."""
MISCONCEPTION = re.compile(r'^- \*"(.+?)"\* (.+)$', flags=re.MULTILINE)


def copy_lessons(outputs: Path, repository: str, tag: str) -> None:
    """Put copies of lessons and quiz where Sphinx looks for them, figures' alt text as myst-nb takes it.

    Args:
        outputs: The folder of the executed lessons that are shown.
        repository: Where links to the code lead; if it is empty, their words stay without a link.
        tag: The version that they lead to.
    """
    COPIES.mkdir(exist_ok=True)
    for old in {copy.name for copy in COPIES.glob("*.ipynb")} - {path.name for path in EVERY}:
        (COPIES / old).unlink()  # a lesson that has another name now
    for path in EVERY:
        notebook = read(outputs / path.name)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                link = rf"[\1]({repository}/blob/{tag}/\2)" if repository else r"\1"
                cell.source = TO_THE_REPOSITORY.sub(link, cell.source)
                if added := TO_TOUCH.get((path.stem, cell.id)):
                    words, what = added
                    cell.source = cell.source.replace(words, f"{words}\n\n{what}")
                continue
            cell.outputs = [output for output in cell.outputs if not is_progress_bar(output)]
            for output in cell.outputs:
                if output.get("data", {}).get("text/plain", "").startswith("Not answered yet"):
                    output.data = {"text/html": to_do(path, repository, tag)}
                if "image/png" in output.get("data", {}):
                    cell.metadata["mystnb"] = {"image": {"alt": output.data["text/plain"]}}
        if path == QUIZ:  # a page checks by itself
            notebook.cells = [cell for cell in notebook.cells if REASONS in cell.source or cell.id == "title"]
        text = nbformat.writes(notebook)
        copy = COPIES / path.name
        if not copy.is_file() or copy.read_text(encoding="utf-8") != text:  # else Sphinx would read it anew
            copy.write_text(text, encoding="utf-8")


def progress() -> str:
    """Return where the start page says how far one is, with the number of questions of each page."""
    asked = {path.stem: markdown_of(path).count(REASONS) for path in EVERY}
    told = json.dumps({page: number for page, number in asked.items() if number})
    return f"<p id='progress' data-questions='{told}'></p>"


def to_do(path: Path, repository: str, tag: str) -> str:
    """Return what stands below an exercise that nobody has answered: on a page nobody can."""
    notebook = f"{NOTEBOOKS.name}/{path.name}"
    there = f"<code>{notebook}</code>"
    if repository:
        there += f' (<a href="{publish.links(repository, tag, notebook)["Colab"]}">open it in Colab</a>)'
    return f"<p>Do it in the notebook, {there}: there this cell says whether your answer is right.</p>"


def is_progress_bar(output: NotebookNode) -> bool:
    """Tell a bar, of which a page would show the text before its first step, from what is worth reading."""
    return "%|" in output.get("data", {}).get("text/plain", "")


def markdown_of(path: Path) -> str:
    """Return all Markdown cells of a notebook as one text."""
    return "\n\n".join(cell.source for cell in cells(path, "markdown"))


def chapter(lesson: str, heading: str) -> str:
    """Return what a lesson says under a heading of the second level, without the heading."""
    text = markdown_of(NOTEBOOKS / f"{lesson}.ipynb")
    return re.split(r"^## ", text.split(f"## {heading}\n", 1)[1], flags=re.MULTILINE)[0]


def link(path: Path) -> str:
    """Return a link to a lesson, with its title as words."""
    title, _ = title_and_aim(read(path))
    return f"[{title}]({COPIES.name}/{path.name})"


def minutes_table() -> str:
    """Return the lessons with their minutes, and what they build on, as their own heads say it."""
    lines = ["| lesson | minutes | before it |", "|---|---|---|"]
    total = 0
    for path in LESSONS:
        _, aim = title_and_aim(read(path))
        minutes, before = re.fullmatch(r"(\d+) minutes · before this: (.+)", aim).groups()
        lines.append(f"| {link(path)} | {minutes} | {before} |")
        total += int(minutes)
    return "\n".join([*lines, f"| all of them | {total} | |"])


def misconceptions(path: Path) -> dict[str, str]:
    """Return the misconceptions that a lesson has met, each with its reply."""
    return dict(MISCONCEPTION.findall(markdown_of(path).split("**Misconceptions met**")[1]))


def questions_tables() -> str:
    """Return for each lesson its misconceptions, the question that exposes each, and the lesson's reply.

    Raises:
        ValueError: A misconception has no question in ``questions.toml``, or a question no misconception.
    """
    questions = tomllib.loads((BOOK / "questions.toml").read_text(encoding="utf-8"))
    met = {path: misconceptions(path) for path in LESSONS}
    if odd := {said for found in met.values() for said in found} ^ set(questions):
        raise ValueError(f"in a lesson or in questions.toml, but not in both: {sorted(odd)}")
    lines = []
    for path, found in met.items():
        lines += [f"### {link(path)}", "", "| they think | ask | the lesson's reply |", "|---|---|---|"]
        cells = [(said, questions[said], reply) for said, reply in found.items()]
        lines += ["| " + " | ".join(text.replace("|", r"\|") for text in row) + " |" for row in cells] + [""]
    return "\n".join(lines)


def faults() -> dict[str, dict[str, str]]:
    """Return all that the auditor can find, by its code."""
    return tomllib.loads((ROOT / "batchaudit" / "faults.toml").read_text(encoding="utf-8"))


def fault_list() -> str:
    """Return each of the auditor's faults under a heading of its own, with a target of the code's name."""
    by_number = {path.name[:2]: path for path in LESSONS}
    lines = []
    for code, fault in faults().items():
        lesson = by_number[re.match(r"lesson (\d\d)", fault["lesson"])[1]]
        lines += [f"({code})=", f"### {fault['what'].rstrip('.')}", "", f"`{code}`", ""]
        lines += [f"- **{name.capitalize()}:** {fault[name]}" for name in ("symptom", "cause", "fix")]
        lines += [f"- **Lesson:** {link(lesson)}", ""]
    return "\n".join(lines)


def framework_results() -> list[dict[str, Any]]:
    """Return what `make frameworks` has written down: a dictionary for each mode of each framework."""
    return json.loads((ROOT / "benchmarks" / "frameworks.json").read_text(encoding="utf-8"))


def framework_truth() -> dict[str, dict[str, Any]]:
    """Return what is right and wrong in each mode, by framework and mode, as it was read by hand."""
    path = ROOT / "benchmarks" / "frameworks" / "truth.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def frameworks_counts() -> str:
    """Return how many modes there are, and how the audit did on them, as a table."""
    results, truth = framework_results(), framework_truth()
    so = [truth[r["wheel"]][r["mode"]] for r in results]
    outcomes = [outcome for r in results for outcome in r["outcomes"].values()]
    rows = {
        "frameworks": len({r["wheel"].split("==")[0] for r in results}),
        "modes": len(results),
        "modes in which nothing is wrong": sum("faults" not in one for one in so),
        "false alarms": sum(len(r["false"]) for r in results),
        "faults and notes that are so": len(outcomes),
        "of these found, in just these rows": outcomes.count("found"),
        "told as *not checked*": outcomes.count("not checked"),
        "missed": outcomes.count("missed"),
    }
    return "\n".join(["| what | how many |", "|---|---|", *(f"| {name} | {n} |" for name, n in rows.items())])


def templates_table() -> str:
    """Return what the auditor finds with each of TRL's chat templates."""
    stored = json.loads((ROOT / "benchmarks" / "templates.json").read_text(encoding="utf-8"))
    kinds = list(next(iter(stored["templates"].values())))
    lines = [f"| template (TRL {stored['trl']}) | {' | '.join(kinds)} |", "|---|" + "---|" * len(kinds)]
    for name, found in stored["templates"].items():
        cells = [_template_cell(found[kind]) for kind in kinds]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _template_cell(counts: dict[str, int] | None) -> str:
    if counts is None:
        return "not tried"
    told = [f"{counts['found']} of {sum(counts.values()) - counts['false']} found"]
    return ", ".join(
        told + [f"{number} {what}" for what, number in counts.items() if number and what != "found"]
    )


def frameworks_list() -> str:
    """Return each framework under a heading of its own, with its modes."""
    truth = framework_truth()
    lines = []
    for wheel, results in groupby(framework_results(), key=lambda result: result["wheel"]):
        name, version = wheel.split("==")
        lines += [
            f"### {name} {version}",
            "",
            f"[The release](https://pypi.org/project/{name}/{version}/)",
            "",
        ]
        for result in results:
            lines += _framework_mode(result, truth[wheel][result["mode"]], truth["lines"].get(wheel))
    return "\n".join(lines)


def _framework_mode(result: dict[str, Any], so: dict[str, Any], tag: str | None) -> list[str]:
    """Say of one mode what is right and what is not, where it is done, and what the audit says."""
    path, line = so["source"].split(":")
    source = f"[`{path}`, line {line}]({tag}{path}#L{line})" if tag else f"`{path}`, line {line}"
    told = [f"[`{code}`](#{code}) {outcome}" for code, outcome in result["outcomes"].items()]
    lines = [f"**`{result['mode']}`** in {source}", "", f"- **Right:** {so['right']}."]
    if "wrong" in so:
        reported = f" [Reported]({so['issue']})." if "issue" in so else ""
        lines.append(f"- **Not:** {so['wrong']}.{reported}")
    lines += [f"- **Audit:** {'; '.join(told) or 'no findings'}.", ""]
    for code, finding in result["findings"].items():
        if code in so.get("faults", {}) and finding["grid"]:
            told_there = textwrap.fill(f"{code}: {finding['detail']}", 80)
            lines += ["```text", told_there, "", finding["grid"], "```", ""]
    return lines
