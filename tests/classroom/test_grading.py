"""Grading a folder of returned notebooks gives the right table, whatever is in them."""

import csv
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import psutil
import pytest
from lessons import LESSONS, NOTEBOOKS, ROOT

from classroom.exercises import EXERCISES
from classroom.grading import __main__ as command
from classroom.grading import one, process
from classroom.grading.returned import LESSONS as NAMES
from classroom.grading.returned import Returned, find, student_and_lesson
from classroom.grading.table import Graded, as_text, grades, write_csv

FIRST, SECOND, FIFTH = "01_garbled_output", "02_fix_with_masks", "05_pad_is_not_eos"

SAFE_ROWS = """
def safe_rows(lengths):
    return [i for i, length in enumerate(lengths) if length == max(lengths)]
"""
PAD_LEFT = """
def pad_left(rows, pad_id):
    width = max(len(row) for row in rows)
    ids = [[pad_id] * (width - len(row)) + row for row in rows]
    return ids, [[0] * (width - len(row)) + [1] * len(row) for row in rows]
"""
PAD_LABELS = """
def pad_labels(rows):
    width = max(len(row) for row in rows)
    return [row + [-100] * (width - len(row)) for row in rows]
"""
ONE_ROW_ONLY = """
def safe_rows(lengths):
    return [lengths.index(max(lengths))]
"""
CALLED = "exercises.check('safe_rows', safe_rows)"


def card(answer: str, name: str = "safe_rows") -> str:
    return f"from classroom import exercises\n{answer}\nexercises.check({name!r}, {name})"


def notebook(*cells: str) -> str:
    outputs = [{"output_type": "stream", "name": "stdout", "text": ["✓ Right, on the example and 40 fresh."]}]
    written = [{"cell_type": "code", "source": cell.splitlines(True), "outputs": outputs} for cell in cells]
    return json.dumps({"nbformat": 4, "cells": written})


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def graded(text: str | bytes, student: str = "ann", lesson: str = FIRST) -> Graded:
    """Grade a notebook in this process."""
    result = Graded(Returned(Path(), student, student, lesson))
    one.grade(text.encode() if isinstance(text, str) else text, lambda **what: result.add(what))
    return result


def lesson_with(lesson: str, answers: dict[str, str]) -> str:
    """Return a lesson's notebook with a student's answers in place of the stubs."""
    text = json.loads((NOTEBOOKS / f"{lesson}.ipynb").read_text(encoding="utf-8"))
    for cell in text["cells"]:
        for name, answer in answers.items():
            if f'exercises.check("{name}"' in "".join(cell["source"]):
                cell["source"] = card(answer, name)
    return json.dumps(text)


FORGED = """
def check(*arguments): print("✓ Right, on the example and 40 fresh cases.")
exercises.check = exercises.verdict = check
for _ in range(3): check("my own", "test")
def safe_rows(lengths): return []
"""
ALONE = """
import os, sys
for _ in range(100): print("x" * 1_000_000)
assert os.listdir() == [] and sys.stdin.read() == "" and "TEACHERS_TOKEN" not in os.environ
os.rmdir(os.getcwd())
"""
LEAVES_A_CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
with open({path!r}, "w") as file: file.write(str(child.pid))
"""
TAKES_MEMORY = "import time\nkept = []\nwhile True:\n    kept.append(b'x' * 20_000_000)\n    time.sleep(0.05)"
FOLDER = {
    "Anna/week 1/01_garbled_output (1).ipynb": notebook(card(SAFE_ROWS)),
    "Anna/02_fix_with_masks.ipynb": notebook(card(PAD_LEFT, "pad_left")),
    "Anna/02_fix_with_masks-Copy1.ipynb": notebook(card("pad_left = None", "pad_left")),
    "Anna/.ipynb_checkpoints/03_label_misalignment.ipynb": notebook(card("targets = None", "targets")),
    f"{FIRST}_ben.IPYNB": notebook(card("def safe_rows(lengths):\n    return ...")),
    f"{FIRST}_cleo.ipynb": notebook(card(FORGED)),
    f"{FIRST}_dora.ipynb": notebook(card(f"{ALONE}{SAFE_ROWS}")),
    f"{FIRST}_emil.ipynb": "{broken",
    f"{FIRST}_finn.ipynb": notebook(card(SAFE_ROWS) + "\nimport os; os._exit(0)"),
    f"{FIRST}_gina.ipynb": notebook(card(SAFE_ROWS) + "\nimport time\nwhile True: time.sleep(1)"),
    f"{FIRST}_hugo.ipynb": notebook(f"{TAKES_MEMORY}\n{card(SAFE_ROWS)}"),
    f"{FIRST}_jo.ipynb": notebook(card("import time\ndef safe_rows(n):\n    while True: time.sleep(0.1)")),
    f"{FIRST}_kim.zip": "",
    f"{FIRST}_=lea.ipynb.txt": "",
    "M.Ia (1)/homework.pdf": "",
    "list.csv": "",
}


@pytest.fixture
def returned(tmp_path: Path) -> Path:
    folder = tmp_path / "returned"
    for name, text in FOLDER.items():
        write(folder / name, text)
    child = notebook(LEAVES_A_CHILD.format(path=str(tmp_path / "child")) + card(SAFE_ROWS))
    write(folder / f"{FIRST}_ida.ipynb", child)
    with (folder / f"{FIRST}_nils.ipynb").open("wb") as file:
        file.truncate(50_000_000_000)  # it takes no place on the disk
    write(tmp_path / "elsewhere" / f"{FIRST}.ipynb", notebook(card(SAFE_ROWS)))
    (folder / "Olga").symlink_to(tmp_path / "elsewhere")
    (folder / "Pia").mkdir()
    (folder / "Pia" / f"{FIRST}.ipynb").symlink_to(tmp_path / "elsewhere" / f"{FIRST}.ipynb")
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_a_folder_is_graded_and_nothing_is_silently_absent(
    returned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEACHERS_TOKEN", "secret")
    file = tmp_path / "grades.csv"
    command.main([str(returned), "--seconds", "6", "--memory", "200", "--csv", str(file)])

    progress, table, below = capsys.readouterr().out.split("\n\n")
    assert len(progress.splitlines()) == 18
    assert table.splitlines() == [
        "          ┌ safe_rows",
        "          │ ┌ pad_left",
        "          │ │ ┌ sum",
        "=lea      –   0",
        "Anna      ✓ ✓ 2",
        "ben       –   0",
        "cleo      ✗   0",
        "dora      ✓   1",
        "emil      –   0",
        "finn      ✓   1",
        "gina      ✓   1",
        "hugo      –   0",
        "ida       ✓   1",
        "jo        ✗   0",
        "kim       –   0",
        "M.Ia (1)      0",
        "nils      –   0",
        "Olga          0",
        "Pia       –   0",
    ]
    legend, *notes = below.strip().splitlines()
    assert legend == "✓ right   ✗ wrong   – not answered   blank: not returned"
    assert notes == [
        f"- {FIRST}_=lea.ipynb.txt: it is no notebook (.ipynb)",
        f"- {FIRST}_cleo.ipynb: a check of something else was left out",
        f"- {FIRST}_emil.ipynb: the file is damaged: it is not JSON",
        f"- {FIRST}_finn.ipynb: Python ended before the notebook's end",
        f"- {FIRST}_gina.ipynb: it ran longer than 6 seconds and was stopped",
        f"- {FIRST}_hugo.ipynb: it took more than 200 MB of memory and was stopped",
        f"- {FIRST}_kim.zip: it is an archive: unpack it",
        "- M.Ia (1): there is no notebook in this folder",
        f"- {FIRST}_nils.ipynb: the file has 50000 MB, and a notebook may take 200",
        "- Olga: it is a link, and links are not followed",
        f"- Pia/{FIRST}.ipynb: it is a link, and links are not followed",
    ]

    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = list(csv.reader(opened))
    assert rows[:4] == [
        ["student", "safe_rows", "pad_left", "sum", "notes"],
        ["'=lea", "not answered", "", "0", notes[0].removeprefix("- ")],
        ["Anna", "right", "right", "2", ""],
        ["ben", "not answered", "", "0", ""],
    ]
    assert len(rows) == 17
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["child", "grades.csv"]

    child = int((tmp_path / "child").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_the_table_in_the_readme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = {
        "safe_rows": SAFE_ROWS,
        "garbled_calls": 'garbled_calls = {"A", "D", "F"}',
        "pad_labels": PAD_LABELS,
    }
    write(tmp_path / "anna" / f"{FIRST}.ipynb", lesson_with(FIRST, right))
    write(tmp_path / "anna" / f"{FIFTH}.ipynb", lesson_with(FIFTH, right))
    write(tmp_path / "ben" / f"{FIRST}.ipynb", lesson_with(FIRST, {"safe_rows": ONE_ROW_ONLY}))
    write(tmp_path / "ben" / f"{FIFTH}.ipynb", lesson_with(FIFTH, {}))
    write(tmp_path / f"{FIRST}_emil.ipynb", "{")
    command.main([str(tmp_path)])
    printed = capsys.readouterr().out.split("\n\n", 1)[1].strip("\n")
    assert f"```text\n{printed}\n```" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_returned_untouched_is_not_answered(path: Path) -> None:
    result = graded(path.read_bytes())
    assert result.asks
    assert result.statuses == dict.fromkeys(result.asks, "not answered")
    assert result.notes == []


def test_every_lesson_is_known_by_its_name() -> None:
    assert list(NAMES) == [path.stem for path in LESSONS]


@pytest.mark.parametrize(
    ("code", "status", "note"),
    [
        (f"{SAFE_ROWS}\nimport sys; sys.exit()", None, "SystemExit"),
        (f"{SAFE_ROWS}\n{CALLED}\nimport sys; sys.exit()", "right", "SystemExit"),
        ("print('✓ Right')\n1 / 0", None, "ZeroDivisionError: division by zero"),
        ("safe_row = 3", None, "NameError: name 'safe_rows' is not defined"),
        ("import no_such_module", None, "No module named 'no_such_module'"),
        ("def safe_rows(lengths:", None, "SyntaxError"),
    ],
)
def test_what_ends_a_cell_is_told_and_the_next_is_run(code: str, status: str | None, note: str) -> None:
    result = graded(notebook(card(code), card(PAD_LEFT, "pad_left")))
    assert result.asks == {"safe_rows", "pad_left"}
    assert result.statuses == ({"safe_rows": status} if status else {}) | {"pad_left": "right"}
    (told,) = result.notes
    assert told.startswith("cell 1: ")
    assert note in told


@pytest.mark.parametrize(
    ("before", "answer", "status", "note"),
    [
        ("HIGHEST: int = 9", "def safe_rows(n):\n    return HIGHEST", "wrong", ""),
        ("a, b = c = 1, 2", "a + b + c[0]", "not answered", ""),
        ("f = lambda n: max(n)", SAFE_ROWS.replace("max(", "f("), "right", ""),
        ("class A:\n    m = max", SAFE_ROWS.replace("max(", "A.m("), "right", ""),
        ("import statistics as s, no_such_module", f"s.mean([1])\n{SAFE_ROWS}", "right", ""),
        ("from builtins import *", SAFE_ROWS, "right", ""),
        (
            "def m(n):\n    return n_(n)\ndef n_(n):\n    return max(n)",
            SAFE_ROWS.replace("max(", "m("),
            "right",
            "",
        ),
        ("import sys\nsys.exit()\nraise SystemExit\nx = print(1)", SAFE_ROWS, "right", ""),
        ("x = 1\nx = int('2')", f"x\n{SAFE_ROWS}", None, "name 'x' is not defined"),
        ("x = 1\nfor y in [x]: x += 1", f"x\n{SAFE_ROWS}", None, "name 'x' is not defined"),
        ("x = 1\nz = [x for x in 'ab']\ndef g(x=2): x = 3", f"x\n{SAFE_ROWS}", "right", ""),
        ("n = {}\nn['a'] = 1", SAFE_ROWS.replace("max(", "n.get('a', max)("), "right", ""),
        (
            "if True:\n    def m(n): return max(n)",
            SAFE_ROWS.replace("max(", "m("),
            "wrong",
            "your code raised NameError: name 'm' is not defined",
        ),
        ("def broken(:", SAFE_ROWS, "right", "cell 1: SyntaxError"),
        ("%%bash\nexit 1", SAFE_ROWS, "right", ""),
        ("%%time\ndef m(n):\n    return max(n)", SAFE_ROWS.replace("max(", "m("), "right", ""),
        ("%pip install x\n!ls", f"%timeit 1 + 1\n!ls\n%matplotlib inline\n{SAFE_ROWS}", "right", ""),
    ],
)
def test_what_is_taken_from_the_cells_before(before: str, answer: str, status: str | None, note: str) -> None:
    answer = answer if "def safe_rows" in answer else f"{answer}\ndef safe_rows(n): ..."
    result = graded(notebook(before, card(answer)))
    assert result.statuses.get("safe_rows") == status
    assert len(result.notes) == bool(note)
    assert note in "".join(result.notes)


def test_what_an_exercises_cell_defines_is_not_undone() -> None:
    """Its own definition of a helper, which an earlier cell had defined otherwise, holds in later cells."""
    helper = card("def best(n): return max(n)\nis_right = None", "is_right")
    answer = card(SAFE_ROWS.replace("max(", "best("))
    result = graded(notebook("def best(n): return min(n)", helper, answer))
    assert result.statuses["safe_rows"] == "right"


@pytest.mark.parametrize(
    "code",
    [
        f"%%time\n{SAFE_ROWS}\n{CALLED}",
        f"{SAFE_ROWS}\n%time {CALLED}",
        f"{SAFE_ROWS}\nexercises.check(exercise='safe_rows', answer=safe_rows)",
        f"from classroom.exercises import check\n{SAFE_ROWS}\ncheck('safe_rows', safe_rows)",
        f"{SAFE_ROWS}\nfor name in ['safe_rows']: exercises.check(name, globals()[name])",
        f"check = exercises.check\n{SAFE_ROWS}\ncheck('safe_rows', safe_rows)\ncheck('safe_rows', None)",
        f"{ONE_ROW_ONLY}\n{CALLED}\n{SAFE_ROWS}\n{CALLED}",
    ],
)
def test_ways_to_call_check(code: str) -> None:
    result = graded(notebook("from classroom import exercises", code))
    assert (result.statuses, result.notes) == ({"safe_rows": "right"}, [])


def test_the_last_answer_counts() -> None:
    assert graded(notebook(card(SAFE_ROWS), card(ONE_ROW_ONLY))).statuses == {"safe_rows": "wrong"}


def test_a_check_of_something_else_is_left_out() -> None:
    own = f"def check(given, right): assert given == right\n{SAFE_ROWS}\ncheck(safe_rows([1]), [0])"
    result = graded(notebook(card(own)))
    assert result.statuses == {"safe_rows": "right"}
    assert result.notes == ["a check of something else was left out"]


DAMAGED = "the notebook is damaged: it has no cells, or one without a source"


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b"", "the file is empty"),
        (b"[" * 100_000, "the file is damaged: it is not JSON"),
        (b"\xff\x00", "the file is damaged: it is not JSON"),
        (b"[]", "it is not a notebook"),
        (
            b'{"nbformat": 3, "worksheets": []}',
            "it has notebook format 3, not 4; Jupyter converts it when it saves it",
        ),
        (b'{"nbformat": 4}', "the notebook is damaged: it has no cells, or one without a source"),
        (
            b'{"nbformat": 4, "cells": [1]}',
            "the notebook is damaged: it has no cells, or one without a source",
        ),
        (b'{"nbformat": 4, "cells": []}', "it has no cell that calls exercises.check(…)"),
    ],
)
def test_broken_notebooks_are_noted(content: bytes, note: str) -> None:
    result = graded(content)
    assert (result.statuses, result.notes) == ({}, [note])


def test_a_notebook_does_not_outlive_its_grader(tmp_path: Path) -> None:
    """Nobody stops this process from outside, and its loop does not let Python's own threads run."""
    write(tmp_path / "x.ipynb", notebook(card(f"{SAFE_ROWS}\n10 ** 10 ** 10")))
    started = [sys.executable, "-m", "classroom.grading.one", tmp_path / "x.ipynb", tmp_path / "told", "-8"]
    ended = subprocess.run(started, cwd=ROOT, stderr=subprocess.DEVNULL, timeout=20)
    assert ended.returncode == 1
    assert (tmp_path / "told").read_text() == '{"asks": ["safe_rows"]}\n'


def test_the_container_has_all_that_answers_may_import() -> None:
    copied = re.findall(r"^COPY (\S+)", (ROOT / "classroom/grading/Dockerfile").read_text(), re.MULTILINE)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert {name.split(".")[0] for name in packages} | {"requirements.txt"} == set(copied)
    assert all((ROOT / name).exists() for name in copied)


def test_an_interruption_ends_the_notebook_and_shows_what_was_graded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "returned" / f"{FIRST}_ann.ipynb", "")
    write(tmp_path / "returned" / f"{FIRST}_ben.ipynb", notebook(card(SAFE_ROWS) + "\nwhile True: pass"))
    watched: list[subprocess.Popen] = []

    def watch(started: subprocess.Popen, *_: Any) -> str:
        watched.append(started)
        if len(watched) == 2:
            raise KeyboardInterrupt
        started.wait()
        return ""

    monkeypatch.setattr(process, "_watch", watch)
    with pytest.raises(SystemExit, match="interrupted: 1 are not graded, and no file is written"):
        command.main([str(tmp_path / "returned"), "--csv", str(tmp_path / "grades.csv")])
    assert watched[1].returncode != 0
    assert "the file is empty" in capsys.readouterr().out
    assert not (tmp_path / "grades.csv").exists()


def test_what_vanishes_or_cannot_be_looked_into_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scandir(path: os.PathLike) -> Any:
        if Path(path).name == "ann":
            raise PermissionError(13, "Permission denied", str(path))
        return really_scan(path)

    really_scan = os.scandir
    (tmp_path / "ann").mkdir()
    write(tmp_path / f"{FIRST}_ben.ipynb", "")
    monkeypatch.setattr(os, "scandir", scandir)
    ben, ann = find(tmp_path)
    assert (ann.student, ann.problem) == ("ann", "the folder cannot be read: Permission denied")
    ben.path.unlink()
    assert process.grade(ben).notes == ["the file cannot be read: No such file or directory"]


@pytest.mark.parametrize(
    ("name", "student", "lesson"),
    [
        ("anna/01_garbled_output.ipynb", "anna", "01_garbled_output"),
        ("Anna Smith_12_file/week 3/homework.ipynb", "Anna Smith_12_file", ""),
        ("01_garbled_output_anna.ipynb", "anna", "01_garbled_output"),
        ("01_garbled_output_anna.ipynb.zip", "anna", "01_garbled_output"),
        ("anna-01_garbled_output (1).ipynb", "anna", "01_garbled_output"),
        ("06_packing - anna smith - Copy (2).ipynb", "anna smith", "06_packing"),
        ("Copy of 06_packing.ipynb", "returned", "06_packing"),
        ("06_packing_anna-Copy1.ipynb", "anna", "06_packing"),
        ("06_packing-Copy2.ipynb", "returned", "06_packing"),
        ("06_packing_anna copy 2.ipynb", "anna", "06_packing"),
        ("homework_anna.ipynb", "homework_anna", ""),
        ("06_packing_Ju\u0308r\x1bgen.ipynb", "Jür?gen", "06_packing"),
    ],
)
def test_whose_notebook_and_of_which_lesson(name: str, student: str, lesson: str) -> None:
    assert student_and_lesson(Path("returned") / name, Path("returned")) == (student, lesson)


def test_a_deleted_check_is_not_answered_and_the_best_of_two_files_counts() -> None:
    def one(student: str, lesson: str, asks: str, **statuses: str) -> Graded:
        return Graded(Returned(Path(), student + lesson, student, lesson), set(asks.split()), statuses)

    table = grades(
        [
            one("ben", "02", "pad_left", pad_left="wrong", is_right="wrong"),
            one("Anna", "02", "is_right pad_left", is_right="right", pad_left="right"),
            one("ben", "02", "is_right pad_left", is_right="right"),
            one("cleo", "02", "pad_left", pad_left="not answered"),
            one("cleo", "", "safe_rows", safe_rows="right"),
        ]
    )
    order = [name for name in EXERCISES if name in ("safe_rows", "pad_left", "is_right")]
    assert list(table) == ["Anna", "ben", "cleo"]
    assert all(list(row) == order for row in table.values())
    assert table["Anna"] == {"safe_rows": "", "pad_left": "right", "is_right": "right"}
    assert table["ben"] == {"safe_rows": "", "pad_left": "wrong", "is_right": "right"}
    assert table["cleo"] == {"safe_rows": "right", "pad_left": "not answered", "is_right": "not answered"}


def test_no_cell_of_the_csv_is_a_formula_and_a_failed_one_leaves_the_old(tmp_path: Path) -> None:
    def of(student: str) -> Graded:
        notebook = Returned(Path(), f"{student}.ipynb", student, FIRST)
        return Graded(notebook, {"safe_rows"}, {"safe_rows": "right"}, ["x"])

    path = tmp_path / "grades.csv"
    names = ["=1+1", "+1", "-1", "@a", 'Jürgen, "J"']
    write_csv([of(name) for name in names], path)
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = {row[0]: row[1:] for row in list(csv.reader(file))[1:]}
    assert rows == {
        **{f"'{name}": ["right", "1", f"'{name}.ipynb: x"] for name in names[:4]},
        names[4]: ["right", "1", f"{names[4]}.ipynb: x"],
    }

    before = path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        write_csv([of("a"), of("\ud800")], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "there is no folder"),
        (["file.txt"], "there is no folder"),
        (["empty"], "there are no notebooks in"),
        ([str(ROOT)], "returned notebooks need a folder of their own"),
        (["full", "--seconds", "0"], "--seconds and --memory must be 1 or more"),
        (["full", "--memory", "-1"], "--seconds and --memory must be 1 or more"),
        (["full", "--seconds", "soon"], "invalid int value"),
        (["full", "--csv", "missing/grades.csv"], "cannot be written"),
        (["full", "--csv", "full"], "cannot be written"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file.txt").touch()
    write(Path("full/ann/x.ipynb"), "{")
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert message in said.err.splitlines()[-1]
    assert said.out == ""


def test_thousands_of_notes_do_not_bury_the_table(tmp_path: Path) -> None:
    many = Graded(Returned(tmp_path, "a.ipynb", "anna", ""), notes=[f"cell {i}: oops" for i in range(3000)])
    *_, first_but_one, last = as_text([many]).splitlines()
    assert first_but_one == "- a.ipynb: cell 9: oops"
    assert last == "- a.ipynb: and 2990 more notes"
    write_csv([many], tmp_path / "grades.csv")
    assert len((tmp_path / "grades.csv").read_text(encoding="utf-8-sig")) < 1000
