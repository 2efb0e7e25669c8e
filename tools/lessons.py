"""The lessons' notebooks and what is in them: the one reader for the tools, the book and the tests."""

import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
"""The lessons in the order of their numbers."""
QUIZ = NOTEBOOKS / "quiz.ipynb"
EVERY = [*LESSONS, QUIZ]
EXECUTED = ROOT / "build" / "lessons"
"""Where ``make run`` leaves the lessons' copies with a reader's own outputs."""


def read(path: Path) -> NotebookNode:
    """Read a notebook; the sources of its cells are strings."""
    return nbformat.read(path, as_version=4)


def cells(path: Path, kind: str) -> list[NotebookNode]:
    """Return the cells of one kind, ``"code"`` or ``"markdown"``."""
    return [cell for cell in read(path).cells if cell.cell_type == kind]


def printed(cell: NotebookNode) -> str:
    """Return what a cell has stored as printed text."""
    return "".join(output.get("text", "") for output in cell.get("outputs", []))


def shown(cell: NotebookNode) -> str:
    """Return what a cell has stored as text: printed, or as the text of a table; not of a picture."""
    texts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        texts.append(output.get("text", "") or data.get("text/plain", "") * ("image/png" not in data))
    return "\n".join(texts)


def title_and_aim(notebook: NotebookNode) -> tuple[str, str]:
    """Return a lesson's heading, and the line of prerequisites and minutes under it without its links."""
    heading, *rest = [line for line in notebook.cells[0].source.splitlines() if line.strip()]
    return heading.lstrip("# "), re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", rest[0].strip("* "))
