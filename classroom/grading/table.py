"""The table of a class: a row for each student, a column for each exercise."""

import csv
import io
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classroom.exercises import EXERCISES
from classroom.grading.returned import Returned, printable

SIGNS = {"": " ", "not answered": "–", "wrong": "✗", "right": "✓"}
"""What an exercise can be, in rising order, and its sign in the table. Not returned is an empty word."""
STATUSES = list(SIGNS)
NOTES = 10  # of a notebook: one with thousands must not bury the table, nor fill a spreadsheet's cell
LEGEND = "✓ right   ✗ wrong   – not answered   blank: not returned"


@dataclass
class Graded:
    """What came of one notebook.

    Args:
        returned: The notebook.
        asks: The exercises that its cells ask.
        statuses: What was checked, and how it turned out.
        notes: What was wrong with the notebook.
    """

    returned: Returned
    asks: set[str] = field(default_factory=set)
    statuses: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, told: dict[str, Any]) -> None:
        """Take in what `classroom.grading.one` has told. The last answer to an exercise counts."""
        self.asks.update(told.get("asks", ()))
        if "note" in told:
            self.notes.append(printable(told["note"]))
        # A stub that was left below does not undo an answer.
        if told.get("status") == "not answered":
            self.statuses.setdefault(told["exercise"], "not answered")
        elif "status" in told:
            self.statuses[told["exercise"]] = told["status"]


def grades(graded: list[Graded]) -> dict[str, dict[str, str]]:
    """Return for each student the status of each exercise, and an empty one where nothing was returned.

    A lesson has the exercises that any of its returned notebooks has: a deleted cell is not answered. Of
    several notebooks of a student the best answer counts.
    """
    asks: dict[str, set[str]] = defaultdict(set)
    for one in graded:
        asks[one.returned.lesson or one.returned.place] |= one.asks | set(one.statuses)
    columns = [name for name in EXERCISES if any(name in names for names in asks.values())]
    students = sorted({one.returned.student for one in graded}, key=lambda name: (name.casefold(), name))
    table = {student: dict.fromkeys(columns, "") for student in students}
    for one in graded:
        row = table[one.returned.student]
        for name in asks[one.returned.lesson or one.returned.place]:
            row[name] = max(row[name], one.statuses.get(name, "not answered"), key=STATUSES.index)
    return table


def notes(graded: list[Graded]) -> dict[str, list[str]]:
    """Return for each student what is to be said of the notebooks: of each its first notes."""
    noted: dict[str, list[str]] = defaultdict(list)
    for one in graded:
        more = len(one.notes) - NOTES
        said = one.notes[:NOTES] + ([f"and {more} more notes"] if more > 0 else [])
        noted[one.returned.student] += [f"{one.returned.place}: {note}" for note in said]
    return noted


def as_text(graded: list[Graded]) -> str:
    """Write the table with a sign a status; over each column stands its exercise, and below are the notes."""
    table, noted = grades(graded), notes(graded)
    width = max(map(len, table))
    headings = [*next(iter(table.values())), "sum"]
    lines = [" " * width + "  " + "│ " * place + "┌ " + name for place, name in enumerate(headings)]
    for student, row in table.items():
        signs = [SIGNS[status] for status in row.values()]
        lines.append("  ".join([student.ljust(width), " ".join([*signs, str(signs.count(SIGNS["right"]))])]))
    return "\n".join([*lines, "", LEGEND, *(f"- {note}" for student in table for note in noted[student])])


def write_csv(graded: list[Graded], path: Path) -> None:
    """Write the table in words, with the notes, for a spreadsheet. The file is written whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    table, noted = grades(graded), notes(graded)
    headings = ["student", *next(iter(table.values())), "sum", "notes"]
    rows = [
        [student, *row.values(), list(row.values()).count("right"), "; ".join(noted[student])]
        for student, row in table.items()
    ]
    text = io.StringIO()
    # Spreadsheets run what begins like a formula.
    csv.writer(text).writerows(
        [re.sub(r"^(?=[=+\-@])", "'", str(value)) for value in row] for row in [headings, *rows]
    )
    # Without the mark that utf-8-sig writes first, Excel takes the file for Latin-1.
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text.getvalue(), encoding="utf-8-sig", newline="")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
