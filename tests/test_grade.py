"""Grading ten returned notebooks gives the right table, whatever is in them."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from tinylib.exercises import EXERCISES, grade

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"
README = (ROOT / "README.md").read_text(encoding="utf-8")
LESSON = {"safe_rows": "01_garbled_output", "pad_left": "02_fix_with_masks", "is_right": "02_fix_with_masks"}
FORGED = [
    {"output_type": "stream", "name": "stdout", "text": ["✓ Right, on the example and 40 fresh cases."]}
]

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
IS_RIGHT = """
def is_right(task, side, mask):
    if mask == "from ids":
        return False
    return task == "train" and (side == "right" or mask != "none") or (side == "left" and mask != "none")
"""
ONE_ROW_ONLY = """
def safe_rows(lengths):
    return [lengths.index(max(lengths))]
"""


def cell(name: str, answer: str) -> str:
    return f"from tinylib import exercises\n{answer}\nexercises.check({name!r}, {name})"


def returned(
    path: Path,
    answers: dict[str, str] | None = None,
    *,
    lesson: str = "01_garbled_output",
    before: str = "",
    cards: Collection[str] = LESSON,
) -> Path:
    """Write a lesson's notebook as a student returns it, with some answers, and perhaps a cell before them.

    Of the lesson's cards it keeps those asked for: most tests here ask three exercises only.
    """
    notebook = json.loads((NOTEBOOKS / f"{lesson}.ipynb").read_text(encoding="utf-8"))
    kept = []
    for old in notebook["cells"]:
        source = "".join(old["source"])
        if "exercises.check(" in source:
            names = [name for name in cards if f'exercises.check("{name}"' in source]
            if not names:
                continue
            if answers and names[0] in answers:
                old |= {"source": cell(names[0], answers[names[0]]).splitlines(keepends=True)}
                old |= {"outputs": FORGED}
        kept.append(old)
    if before:
        code = {"cell_type": "code", "metadata": {}, "execution_count": 1, "outputs": [], "source": before}
        kept.insert(2, code)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook | {"cells": kept}), encoding="utf-8")
    return path


def graded(folder: Path, answer: str, *, seconds: int = 30, memory: int = 2000) -> tuple[str, list[str]]:
    """Grade one notebook whose cell of `safe_rows` has this answer; return its status and the notes."""
    path = returned(folder / "ann" / "01_garbled_output.ipynb", {"safe_rows": answer})
    one = grade.grade(path, folder, seconds, memory)
    assert one.asks == {"safe_rows"}
    return one.statuses.get("safe_rows", "not answered"), one.notes


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["grade", *map(str, arguments)])
    grade.main()


COPIES = """
import glob, json, os, pathlib, shutil

def steal(way):
    try:
        for found in way():
            for part in json.loads(found)["cells"]:
                if "def pad_left" in "".join(part["source"]):
                    exec("".join(part["source"]).split("exercises.check")[0], globals())
    except OSError:
        pass

def linked():
    os.symlink(PATH, "mine.ipynb")
    return [open("mine.ipynb").read()]

def copied():
    return [open(shutil.copyfile(PATH, "copy.ipynb")).read()]

PATH = {path!r}
steal(lambda: [open(PATH).read()])
steal(lambda: [open(os.path.relpath(PATH)).read()])
steal(lambda: [pathlib.Path(PATH).read_text()])
steal(lambda: [open(name).read() for name in glob.glob(os.path.dirname(PATH) + "/*")])
steal(linked)
steal(copied)
"""


def test_ten_notebooks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, second = tmp_path / "returned", "02_fix_with_masks"
    returned(folder / "Anna" / "01_garbled_output.ipynb", {"safe_rows": SAFE_ROWS})
    anna = returned(
        folder / "Anna" / f"{second} (1).ipynb", {"pad_left": PAD_LEFT, "is_right": IS_RIGHT}, lesson=second
    )
    returned(folder / f"{second}_ben.ipynb", lesson=second)
    forged = """
def pad_left(rows, pad_id): return rows, rows
def check(*arguments): print("✓ Right, on the example and 40 fresh cases.")
exercises.check = exercises.verdict = check
exercises.EXERCISES.clear()
"""
    returned(
        folder / f"cleo-{second}.ipynb", {"pad_left": forged, "is_right": "del exercises"}, lesson=second
    )
    with_magics = f"%timeit 1 + 1\n!ls\n%matplotlib inline\n{PAD_LEFT}".replace("max(", "longest(")
    returned(
        folder / f"{second}_dora.ipynb",
        {"pad_left": with_magics, "is_right": IS_RIGHT},
        lesson=second,
        before="%pip install x\nNONE = 0\ndef longest(numbers):\n    return max(numbers, default=NONE)\n",
    )
    (folder / "01_garbled_output_emil.ipynb").write_text("{broken", encoding="utf-8")
    returned(
        folder / f"{second}_finn.ipynb",
        {"pad_left": "def pad_left(rows, pad_id:", "is_right": IS_RIGHT},
        lesson=second,
    )
    returned(folder / "01_garbled_output_gina.ipynb", {"safe_rows": f"{SAFE_ROWS}\nwhile True: pass"})
    copies = COPIES.replace("{path!r}", repr(str(anna)))
    returned(
        folder / f"{second}_hugo.ipynb",
        {
            "pad_left": f"{copies}\nassert 'pad_left' in globals()",
            "is_right": "def is_right(*_): return True",
        },
        lesson=second,
    )
    returned(folder / "01_garbled_output_ida.ipynb", {"safe_rows": ONE_ROW_ONLY})
    returned(folder / ".ipynb_checkpoints" / "01_garbled_output_jo.ipynb", {"safe_rows": SAFE_ROWS})

    run(monkeypatch, folder, "--seconds", 15, "--csv", tmp_path / "grades.csv")

    progress, table, sums = capsys.readouterr().out.split("\n\n")
    assert len(progress.splitlines()) == 10
    assert table.splitlines() == [
        "      ┌ safe_rows",
        "      │ ┌ pad_left",
        "      │ │ ┌ is_right",
        "      │ │ │ ┌ sum",
        "Anna  ✓ ✓ ✓ 3",
        "ben     – – 0",
        "cleo    ✗ – 0",
        "dora    ✓ ✓ 2",
        "emil  –     0",
        "finn    – ✓ 1",
        "gina  –     0",
        "hugo    – ✗ 0",
        "ida   ✗     0",
    ]
    notes = dict(line.removeprefix("- ").split(".ipynb: ", 1) for line in sums.splitlines()[1:])
    first = "01_garbled_output"
    assert [*notes] == [
        f"cleo-{second}",
        f"{first}_emil",
        f"{second}_finn",
        f"{first}_gina",
        f"{second}_hugo",
    ]
    assert notes["01_garbled_output_emil"] == "the file is damaged: it is not JSON"
    assert notes["01_garbled_output_gina"] == "it ran longer than 15 seconds and was stopped"
    assert "SyntaxError" in notes[f"{second}_finn"]
    assert "- 02_fix_with_masks_hugo.ipynb: reading the returned notebooks was refused" in sums.splitlines()

    with (tmp_path / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    no = "not answered"
    assert [row[:-1] for row in rows] == [
        ["student", "safe_rows", "pad_left", "is_right", "sum"],
        ["Anna", "right", "right", "right", "3"],
        ["ben", "", no, no, "0"],
        ["cleo", "", "wrong", no, "0"],
        ["dora", "", "right", "right", "2"],
        ["emil", no, "", "", "0"],
        ["finn", "", no, "right", "1"],
        ["gina", no, "", "", "0"],
        ["hugo", "", no, "wrong", "0"],
        ["ida", "wrong", "", "", "0"],
    ]
    assert rows[0][-1] == "notes"
    assert rows[5][-1] == "01_garbled_output_emil.ipynb: the file is damaged: it is not JSON"
    assert rows[1][-1] == rows[2][-1] == ""
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["grades.csv"]


def test_the_table_in_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, fifth = "01_garbled_output", "05_pad_is_not_eos"
    right = {
        "safe_rows": SAFE_ROWS,
        "garbled_calls": 'garbled_calls = {"A", "D", "F"}',
        "pad_labels": """
def pad_labels(rows):
    width = max(len(row) for row in rows)
    return [row + [-100] * (width - len(row)) for row in rows]
""",
    }
    returned(tmp_path / "anna" / f"{first}.ipynb", right, cards=EXERCISES)
    returned(tmp_path / "anna" / f"{fifth}.ipynb", right, lesson=fifth, cards=EXERCISES)
    returned(tmp_path / "ben" / f"{first}.ipynb", {"safe_rows": ONE_ROW_ONLY}, cards=EXERCISES)
    returned(tmp_path / "ben" / f"{fifth}.ipynb", lesson=fifth, cards=EXERCISES)
    (tmp_path / f"{first}_emil.ipynb").write_text("{")
    run(monkeypatch, tmp_path)
    printed = capsys.readouterr().out.split("\n\n", 1)[1].strip("\n")
    assert f"```text\n{printed}\n```" in README


@pytest.mark.parametrize("lesson", grade.LESSONS)
def test_a_lesson_returned_untouched_is_not_answered(lesson: str, tmp_path: Path) -> None:
    path = tmp_path / f"{lesson}_ann.ipynb"
    path.write_bytes((NOTEBOOKS / f"{lesson}.ipynb").read_bytes())
    one = grade.grade(path, tmp_path)
    assert one.asks
    assert one.statuses == dict.fromkeys(one.asks, "not answered")
    assert one.notes == []


def test_every_lesson_is_known_by_its_name() -> None:
    assert list(grade.LESSONS) == sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


REFUSED = {
    "network": ("import socket; socket.create_connection(('127.0.0.1', 9))", "using the network"),
    "name": ("import socket; socket.getaddrinfo('localhost', 80)", "using the network"),
    "datagram": (
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 9))",
        "using",
    ),
    "url": (
        "import urllib.request\n    try: urllib.request.urlopen('http://127.0.0.1:9')\n"
        "    except urllib.error.URLError as error: raise error.reason",
        "using the network",
    ),
    "shell": ("import os; os.system('echo > FILE')", "reaching other programs"),
    "subprocess": (
        "import subprocess, sys; subprocess.run([sys.executable, '-V'])",
        "reaching other programs",
    ),
    "multiprocessing": (
        "import multiprocessing; multiprocessing.get_context('spawn').Process().start()",
        "reaching other programs",
    ),
    "kill": ("import os; os.kill(os.getppid(), 0)", "reaching other programs"),
    "ctypes": ("import ctypes; ctypes.CDLL(None)", "reaching other programs"),
    "handle": ("import os; os.pidfd_open(os.getppid())", "reaching other programs"),
    "priority": ("import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 0)", "reaching other programs"),
    "pipe": ("import os; os.mkfifo('FILE')", "writing outside of its own folder"),
    "write": ("open('FILE', 'w')", "writing outside of its own folder"),
    "append": ("open('../FILE.txt', 'a')", "writing outside of its own folder"),
    "through a link": ("import os; os.symlink('FILE', 'x'); open('x', 'w')", "writing outside"),
    "remove": ("import os; os.remove('KEPT')", "writing outside of its own folder"),
    "rename": ("import os; os.rename('KEPT', 'x')", "writing outside of its own folder"),
    "tree": (
        "import os, shutil; shutil.rmtree(os.path.dirname('KEPT'))",
        "writing outside of its own folder",
    ),
    "folder": ("import os; os.mkdir('FILE')", "writing outside of its own folder"),
    "mode": ("import os; os.chmod('KEPT', 0)", "writing outside of its own folder"),
    "hard link": ("import os; os.link('KEPT', 'x')", "writing outside of its own folder"),
    "database": ("import sqlite3; sqlite3.connect('FILE')", "writing outside of its own folder"),
    "list": ("import os; os.listdir('RETURNED')", "reading the returned notebooks"),
    "list own": ("import os; os.listdir('RETURNED/ann')", "reading the returned notebooks"),
    "enter": ("import os; os.chdir('RETURNED')", "reading the returned notebooks"),
    "folder's number": ("import os; os.open(os.path.dirname('RETURNED'), os.O_RDONLY)", "opening a folder"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="some of these do not exist on Windows")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_told_even_if_the_notebook_catches_it(name: str, tmp_path: Path) -> None:
    """The answer is right only where the attempt has raised PermissionError."""
    code, note = REFUSED[name]
    kept, file = tmp_path / "kept" / "it.txt", tmp_path / "new"
    kept.parent.mkdir()
    kept.write_text("it")
    for word, path in {"KEPT": kept, "FILE": file, "RETURNED": tmp_path / "returned"}.items():
        code = code.replace(word, str(path))
    caught = f"try:\n    {code}\nexcept PermissionError:\n    from operator import eq\n{SAFE_ROWS}"
    caught += "    eq\n"  # a name that is there only after a refusal
    status, notes = graded(tmp_path / "returned", caught)
    assert status == "right", notes
    assert len(notes) == 1
    assert notes[0].startswith(note)
    assert notes[0].endswith("was refused")
    assert kept.read_text() == "it"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "returned"]


def test_what_an_answer_may_need_is_allowed(tmp_path: Path) -> None:
    code = """
import numpy, os, tempfile, textwrap
with tempfile.TemporaryDirectory() as folder, open(os.path.join(folder, "x"), "w") as file:
    file.write("x")
with open(os.devnull, "w") as nowhere:
    print("x", file=nowhere)
os.mkdir("deep"); os.rename("deep", "deeper"); os.listdir("."); os.listdir(); open(textwrap.__file__).read()
def safe_rows(lengths):
    return torch.tensor(lengths).eq(max(lengths)).nonzero().flatten().numpy().astype(numpy.int64)
"""
    assert graded(tmp_path, code) == ("right", [])


def test_what_transformers_imports_late_is_allowed(tmp_path: Path) -> None:
    assert graded(tmp_path, f"from transformers import AutoTokenizer\n{SAFE_ROWS}") == ("right", [])


@pytest.mark.parametrize(
    ("code", "status", "note"),
    [
        (f"{SAFE_ROWS}\nimport sys; sys.exit()", "not answered", "SystemExit"),
        (
            f"{SAFE_ROWS}\nexercises.check('safe_rows', safe_rows)\nimport sys; sys.exit()",
            "right",
            "SystemExit",
        ),
        (f"{SAFE_ROWS}\nimport os; os._exit(0)", "not answered", "Python ended before the notebook's end"),
        ("print('✓ Right')\n1 / 0", "not answered", "ZeroDivisionError: division by zero"),
        ("safe_row = 3", "not answered", "NameError: name 'safe_rows' is not defined"),
        ("name = input()", "not answered", "EOFError"),
        ("import no_such_module", "not answered", "No module named 'no_such_module'"),
    ],
)
def test_what_ends_a_cell_is_told(code: str, status: str, note: str, tmp_path: Path) -> None:
    found, notes = graded(tmp_path, code)
    assert found == status
    assert len(notes) == 1
    assert note in notes[0]


def test_verdicts_before_the_time_is_up_are_kept(tmp_path: Path) -> None:
    first = f"{SAFE_ROWS}\nexercises.check('safe_rows', safe_rows)\nwhile True: print('x' * 10_000)"
    assert graded(tmp_path, first, seconds=15) == ("right", ["it ran longer than 15 seconds and was stopped"])


def test_what_is_printed_and_read_goes_nowhere(tmp_path: Path) -> None:
    code = "import os, stat\nassert all(stat.S_ISCHR(os.fstat(number).st_mode) for number in range(3))"
    assert graded(tmp_path, f"{code}\n{SAFE_ROWS}") == ("right", [])


def test_a_notebook_does_not_outlive_its_grader(tmp_path: Path) -> None:
    """Nobody stops this process from outside, and its loop does not let Python's own threads run."""
    path = returned(tmp_path / "01_garbled_output_ann.ipynb", {"safe_rows": f"{SAFE_ROWS}\n10 ** 10 ** 10"})
    command = [sys.executable, "-m", "tinylib.exercises.grade_one", str(tmp_path), "-8"]
    environment = {**os.environ, "PYTHONPATH": str(NOTEBOOKS.parent)}
    ended = subprocess.run(
        command, input=b"\n" + path.read_bytes(), env=environment, capture_output=True, timeout=20
    )
    assert ended.returncode == 1
    assert b"asks" in ended.stdout
    assert b"done" not in ended.stdout


def test_a_loop_in_an_answer_is_only_wrong(tmp_path: Path) -> None:
    assert graded(tmp_path, "def safe_rows(lengths):\n    while True:\n        pass") == ("wrong", [])


def test_too_much_memory_is_told(tmp_path: Path) -> None:
    hog = (
        "import time\nkept = []\nfor i in range(40):\n    kept.append(b'x' * 50_000_000)\n    time.sleep(0.1)"
    )
    assert graded(tmp_path, f"{hog}\n{SAFE_ROWS}", memory=400) == (
        "not answered",
        ["it took more than 400 MB of memory and was stopped"],
    )


def test_a_notebook_cannot_write_verdicts_itself(tmp_path: Path) -> None:
    forged = """
import json, os
for number in range(30):
    try: os.write(number, json.dumps({"exercise": "safe_rows", "status": "right"}).encode() + b"\\n")
    except OSError: pass
def safe_rows(lengths): ...
"""
    assert graded(tmp_path, forged)[0] == "not answered"


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
        ("x = 1\nx = int('2')", f"x\n{SAFE_ROWS}", "not answered", "name 'x' is not defined"),
        ("x = 1\nfor y in [x]: x += 1", f"x\n{SAFE_ROWS}", "not answered", "name 'x' is not defined"),
        ("x = 1\nz = [x for x in 'ab']\ndef g(x=2): x = 3", f"x\n{SAFE_ROWS}", "right", ""),
        ("n = {}\nn['a'] = 1", SAFE_ROWS.replace("max(", "n.get('a', max)("), "right", ""),
        (
            "if True:\n    def m(n): return max(n)",
            SAFE_ROWS.replace("max(", "m("),
            "wrong",
            "your code raised NameError: name 'm' is not defined",
        ),
        ("def broken(:", SAFE_ROWS, "right", "cell 3: SyntaxError"),
        ("%%bash\nexit 1", SAFE_ROWS, "right", ""),
        ("%%time\ndef m(n):\n    return max(n)", SAFE_ROWS.replace("max(", "m("), "right", ""),
    ],
)
def test_what_is_taken_from_the_cells_before(
    before: str, answer: str, status: str, note: str, tmp_path: Path
) -> None:
    answer = answer if "def safe_rows" in answer else f"{answer}\ndef safe_rows(n): ..."
    path = returned(tmp_path / "01_garbled_output_ann.ipynb", {"safe_rows": answer}, before=before)
    one = grade.grade(path, tmp_path)
    assert one.statuses.get("safe_rows", "not answered") == status
    assert len(one.notes) == bool(note)
    assert note in "".join(one.notes)


@pytest.mark.parametrize(
    "code",
    [
        "%%time\n{0}\nexercises.check('safe_rows', safe_rows)",
        "{0}\n%time exercises.check('safe_rows', safe_rows)",
        "{0}\nexercises.check(exercise='safe_rows', answer=safe_rows)",
        "from tinylib.exercises import check\n{0}\ncheck('safe_rows', safe_rows)",
        "{0}\nfor name in ['safe_rows']: exercises.check(name, globals()[name])",
        "check = exercises.check\n{0}\ncheck('safe_rows', safe_rows)\ncheck('safe_rows', None)",
    ],
)
def test_ways_to_call_check(code: str, tmp_path: Path) -> None:
    path = returned(tmp_path / "01_garbled_output_ann.ipynb", before="from tinylib import exercises")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [part for part in notebook["cells"] if "exercises.check(" not in "".join(part["source"])]
    cells.append({"cell_type": "code", "source": code.format(SAFE_ROWS)})
    path.write_text(json.dumps(notebook | {"cells": cells}), encoding="utf-8")
    one = grade.grade(path, tmp_path)
    assert (one.statuses, one.notes) == ({"safe_rows": "right"}, [])


def test_a_check_of_something_else_is_left_out(tmp_path: Path) -> None:
    own = f"def check(given, right): assert given == right\n{SAFE_ROWS}\ncheck(safe_rows([1]), [0])"
    assert graded(tmp_path, own) == ("right", ["a check of something else was left out"])


def test_what_an_exercises_cell_defines_is_not_undone(tmp_path: Path) -> None:
    """Its own definition of a helper, which an earlier cell had defined otherwise, holds in later cells."""
    path = returned(tmp_path / "01_garbled_output_ann.ipynb", before="def best(n): return min(n)")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    first = "from tinylib import exercises\ndef best(n): return max(n)\nexercises.check('is_right', None)"
    answer = cell("safe_rows", SAFE_ROWS.replace("max(", "best("))
    notebook["cells"] += [{"cell_type": "code", "source": source} for source in (first, answer)]
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert grade.grade(path, tmp_path).statuses["safe_rows"] == "right"


def test_the_last_answer_counts(tmp_path: Path) -> None:
    first = f"{SAFE_ROWS}\nexercises.check('safe_rows', safe_rows)\n{ONE_ROW_ONLY}"
    assert graded(tmp_path, first) == ("wrong", [])


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("", "the file is empty"),
        ("[" * 100_000, "the file is damaged: it is not JSON"),
        ("[]", "it is not a notebook"),
        (
            '{"nbformat": 3, "worksheets": []}',
            "it has notebook format 3, not 4; Jupyter converts it when it saves",
        ),
        ('{"nbformat": 4}', "the notebook is damaged: it has no cells, or one without a source"),
        (
            '{"nbformat": 4, "cells": [1]}',
            "the notebook is damaged: it has no cells, or one without a source",
        ),
        ('{"nbformat": 4, "cells": []}', "it has no cell that calls exercises.check(…)"),
    ],
)
def test_broken_notebooks_are_noted(content: str, note: str, tmp_path: Path) -> None:
    path = tmp_path / "01_garbled_output_ann.ipynb"
    path.write_text(content, encoding="utf-8")
    one = grade.grade(path, tmp_path)
    assert one.statuses == {}
    assert len(one.notes) == 1
    assert one.notes[0].startswith(note)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    path = returned(tmp_path / "01_garbled_output_ann.ipynb", {"safe_rows": SAFE_ROWS})
    link = tmp_path / "01_garbled_output_ben.ipynb"
    link.symlink_to(path)
    one = grade.grade(link, tmp_path)
    assert (one.statuses, one.notes) == ({}, ["it is a link or a folder, not a file"])


@pytest.mark.parametrize(
    ("name", "student", "lesson"),
    [
        ("anna/01_garbled_output.ipynb", "anna", "01_garbled_output"),
        ("Anna Smith_12_file/week 3/homework.ipynb", "Anna Smith_12_file", ""),
        ("01_garbled_output_anna.ipynb", "anna", "01_garbled_output"),
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
    assert grade.student_and_lesson(Path("returned") / name, Path("returned")) == (student, lesson)


def test_a_deleted_check_is_not_answered_and_the_best_of_two_files_counts() -> None:
    def one(student: str, lesson: str, asks: str, **statuses: str) -> grade.Graded:
        return grade.Graded(Path(student + lesson), student, lesson, set(asks.split()), statuses)

    table = grade.grades(
        [
            one("ben", "02", "pad_left", pad_left="wrong", is_right="wrong"),
            one("Anna", "02", "is_right pad_left", is_right="right", pad_left="right"),
            one("ben", "02", "is_right pad_left", is_right="right"),
            one("cleo", "02", "pad_left", pad_left="not answered"),
            one("cleo", "", "safe_rows", safe_rows="right"),
        ]
    )
    order = [name for name in EXERCISES if name in LESSON]
    assert list(table) == ["Anna", "ben", "cleo"]
    assert all(list(row) == order for row in table.values())
    assert table["Anna"] == {"safe_rows": "", "pad_left": "right", "is_right": "right"}
    assert table["ben"] == {"safe_rows": "", "pad_left": "wrong", "is_right": "right"}
    assert table["cleo"] == {"safe_rows": "right", "pad_left": "not answered", "is_right": "not answered"}


def test_no_cell_of_the_csv_is_a_formula_and_a_failed_one_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "grades.csv"
    names = ["=1+1", "+1", "-1", "@a", 'Jürgen, "J"']
    table = {name: {"safe_rows": "right"} for name in names}
    grade.write_csv(table, {name: [f"{name}: x"] for name in names}, path)
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[0] for row in rows] == ["'=1+1", "'+1", "'-1", "'@a", 'Jürgen, "J"']
    assert [row[3][0] for row in rows] == ["'", "'", "'", "'", "J"]

    before = path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        grade.write_csv({"a": {}, "\ud800": {}}, {"a": [], "\ud800": []}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "there is no folder"),
        (["file.txt"], "there is no folder"),
        (["empty"], "there are no notebooks in"),
        ([str(NOTEBOOKS.parent)], "returned notebooks need a folder of their own"),
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
    for name in ("empty", "full/ann"):
        Path(name).mkdir(parents=True)
    Path("file.txt").touch()
    Path("full/ann/01_garbled_output.ipynb").write_text("{", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *arguments)
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert message in said.err.splitlines()[-1]
    assert said.out == ""
