"""Grade a folder of returned notebooks: a table of students by exercises.

    python -m tinylib.exercises.grade returned --csv grades.csv

A notebook lies in its student's folder (``anna/01_garbled_output.ipynb``), or has the student in its name
(``01_garbled_output_anna.ipynb``). Each is run in a process of its own, see `tinylib.exercises.grade_one`,
and judged by the checker of the lessons; what a notebook has stored or prints counts for nothing. Keep it to
notebooks of people you know: the process is limited and watched, but it is no sandbox.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import re
import secrets
import site
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

import tinylib
from tinylib.exercises import EXERCISES

LESSONS = (
    "00_start_here", "01_garbled_output", "02_fix_with_masks", "03_label_misalignment",
    "04_fine_tune_correctly", "05_pad_is_not_eos", "06_packing", "07_audit_your_pipeline", "08_scale_up",
)  # fmt: skip
SIGNS = {"": " ", "not answered": "–", "wrong": "✗", "right": "✓"}
"""What an exercise can be, in rising order, and its sign in the table. Not returned is an empty word."""
STATUSES = list(SIGNS)
COPY = re.compile(r"^(copy of )+|([ _-]+copy[ _-]?\d*|\s*\(\d+\))+$", re.IGNORECASE)
"""What browsers, desktops, JupyterLab and Colab add to the name of a copy."""
INHERITED = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "LANG")
ROOT = Path(tinylib.__file__).parent.parent


@dataclass
class Graded:
    """What came of one notebook."""

    path: Path
    student: str
    lesson: str
    asks: set[str] = field(default_factory=set)
    statuses: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def notebooks(folder: Path) -> list[Path]:
    """Find the returned notebooks; hidden files and folders, such as checkpoints, are not returned ones.

    Raises:
        ValueError: There is no such folder, it has no notebooks, or it contains the course itself.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    for part in (ROOT / "tinylib", Path(sys.prefix)):
        if part.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{folder} contains {part}; returned notebooks need a folder of their own")
    found = [
        path
        for path in sorted(folder.rglob("*.ipynb"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise ValueError(f"there are no notebooks in {folder}")
    return found


def student_and_lesson(path: Path, folder: Path) -> tuple[str, str]:
    """Tell from its place and name whose notebook this is, and of which lesson (empty: of none)."""
    name = COPY.sub("", path.stem)
    lesson = next((lesson for lesson in LESSONS if lesson in name), "")
    parts = path.relative_to(folder).parts
    if len(parts) > 1:
        student = parts[0]
    else:
        rest = name.split(lesson, 1) if lesson else [name]
        student = " ".join(filter(None, (part.strip(" _-") for part in rest))) or folder.resolve().name
    return unicodedata.normalize("NFC", printable(student)), lesson


def printable(text: str) -> str:
    """Replace what a terminal might obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def grade(path: Path, folder: Path, seconds: int = 60, memory: int = 2000) -> Graded:
    """Grade one notebook. Whatever is wrong with it is a note; the last answer to an exercise counts.

    Args:
        path: The notebook.
        folder: Where all returned notebooks are: the notebook must not read there.
        seconds: It is stopped after so many.
        memory: It is stopped when it takes more than so many megabytes.
    """
    graded = Graded(path, *student_and_lesson(path, folder))
    try:
        if path.is_symlink() or not path.is_file():
            raise OSError("it is a link or a folder, not a file")
        notebook = path.read_bytes()
    except OSError as error:
        graded.notes.append(printable(str(error)))
        return graded
    # What cannot be removed, since the notebook has changed its permissions, is left to the system.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        lines, end = _run(notebook, folder, own, seconds, memory)
    for line in lines:
        graded.asks.update(line.get("asks", ()))
        if "note" in line:
            graded.notes.append(printable(line["note"]))
        # A stub that was left below does not undo an answer.
        if line.get("status") == "not answered":
            graded.statuses.setdefault(line["exercise"], "not answered")
        elif "status" in line:
            graded.statuses[line["exercise"]] = line["status"]
    if end or {"done": True} not in lines:
        graded.notes.append(end or "Python ended before the notebook's end")
    return graded


def _run(
    notebook: bytes, folder: Path, own: str, seconds: int, memory: int
) -> tuple[list[dict[str, Any]], str]:
    """Return what the process told, and why it was stopped, if it was."""
    # Of the teacher's environment it gets what Python needs to start, no tokens and no caches.
    environment = {key: os.environ[key] for key in INHERITED if key in os.environ}
    environment |= dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP"), own)
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONUSERBASE": site.getuserbase(), "PYTHONUTF8": "1"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}
    secret = secrets.token_hex(16).encode()
    with tempfile.TemporaryFile() as given:  # a pipe would have to be fed while the process is watched
        given.write(secret + b"\n" + notebook)
        given.seek(0)
        process = psutil.Popen(
            [sys.executable, "-P", "-m", "tinylib.exercises.grade_one", str(folder.resolve()), str(seconds)],
            stdin=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=own, env=environment,
        )  # fmt: skip
    end, output, deadline = "", None, time.monotonic() + seconds
    try:
        while output is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                output, _ = process.communicate(timeout=0.1)
            if output is None and _megabytes(process) > memory:
                end = f"it took more than {memory} MB of memory and was stopped"
            elif output is None and time.monotonic() > deadline:
                end = f"it ran longer than {seconds} seconds and was stopped"
            if end:
                _kill(process)
    finally:
        _kill(process)  # also after Ctrl-C
    lines = [line.removeprefix(secret) for line in output.splitlines() if line.startswith(secret)]
    return [json.loads(line) for line in lines], end


def _tree(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [*process.children(recursive=True), process]
    return []


def _megabytes(process: psutil.Process) -> float:
    total = 0
    for each in _tree(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += each.memory_info().rss
    return total / 1e6


def _kill(process: psutil.Process) -> None:
    for each in _tree(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()


def grades(graded: list[Graded]) -> dict[str, dict[str, str]]:
    """Return for each student the status of each exercise, and an empty one where nothing was returned.

    A lesson has the exercises that any of its returned notebooks has: a deleted cell is not answered. Of
    several notebooks of a student the best answer counts.
    """
    asks: dict[str, set[str]] = defaultdict(set)
    for one in graded:
        asks[one.lesson or str(one.path)] |= one.asks | set(one.statuses)
    columns = [name for name in EXERCISES if any(name in names for names in asks.values())]
    students = sorted({one.student for one in graded}, key=lambda name: (name.casefold(), name))
    table = {student: dict.fromkeys(columns, "") for student in students}
    for one in graded:
        row = table[one.student]
        for name in asks[one.lesson or str(one.path)]:
            row[name] = max(row[name], one.statuses.get(name, "not answered"), key=STATUSES.index)
    return table


def as_text(table: dict[str, dict[str, str]]) -> str:
    """Write the table with a sign a status; over each column stands its exercise."""
    width = max(map(len, table))
    headings = [*next(iter(table.values())), "sum"]
    lines = [" " * width + "  " + "│ " * place + "┌ " + name for place, name in enumerate(headings)]
    for student, row in table.items():
        signs = [SIGNS[status] for status in row.values()]
        lines.append("  ".join([student.ljust(width), " ".join([*signs, str(signs.count(SIGNS["right"]))])]))
    return "\n".join(lines)


def write_csv(table: dict[str, dict[str, str]], notes: dict[str, list[str]], path: Path) -> None:
    """Write the table in words, with the notes, for a spreadsheet. The file is written whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    headings = ["student", *next(iter(table.values())), "sum", "notes"]
    rows = [
        [student, *row.values(), list(row.values()).count("right"), "; ".join(notes[student])]
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


def main() -> None:
    """Run ``python -m tinylib.exercises.grade``."""
    parser = argparse.ArgumentParser(
        prog="python -m tinylib.exercises.grade", description="Grade a folder of returned notebooks."
    )
    parser.add_argument(
        "folder", type=Path, help="has a folder for each student, or notebooks with their names"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table here as well")
    parser.add_argument("--seconds", type=int, default=60, help="a notebook's limit (%(default)s)")
    parser.add_argument("--memory", type=int, default=2000, metavar="MB", help="and its limit (%(default)s)")
    options = parser.parse_args()
    if min(options.seconds, options.memory) <= 0:
        parser.error("--seconds and --memory must be 1 or more")
    if options.csv and (options.csv.is_dir() or not options.csv.absolute().parent.is_dir()):
        parser.error(f"{options.csv} cannot be written: it is a folder, or its folder does not exist")
    try:
        paths = notebooks(options.folder)
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.reconfigure(encoding="utf-8")  # Windows writes a file in a code page without ✓
    done, notes = [], defaultdict(list)
    for number, path in enumerate(paths, 1):
        start = time.monotonic()
        try:
            one = grade(path, options.folder, options.seconds, options.memory)
        except KeyboardInterrupt:
            print(f"interrupted: {len(paths) - len(done)} notebooks are not graded")
            break
        done.append(one)
        place = printable(path.relative_to(options.folder).as_posix())
        notes[one.student] += [f"{place}: {note}" for note in one.notes]
        count = f"{list(one.statuses.values()).count('right')} right{', see its notes' if one.notes else ''}"
        print(f"{number} of {len(paths)}  {place}  {count}  {time.monotonic() - start:.1f} s", flush=True)
    if not done:
        return
    table = grades(done)
    print(f"\n{as_text(table)}\n\n✓ right   ✗ wrong   – not answered   blank: not returned")
    for student in table:
        for note in notes[student]:
            print(f"- {note}")
    if options.csv:
        try:
            write_csv(table, notes, options.csv)
        except OSError as error:
            sys.exit(f"{options.csv} could not be written: {error}")


if __name__ == "__main__":
    main()
