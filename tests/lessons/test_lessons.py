"""The lessons keep their form; what nbval checks is that their outputs are true."""

import ast
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import execute
import pytest
from lessons import EVERY, LESSONS, NOTEBOOKS, QUIZ, ROOT, cells, printed, read, shown

import tinylib
from tinylib import show

IDS = [path.stem for path in LESSONS]
of_every_notebook = pytest.mark.parametrize("path", EVERY, ids=[path.stem for path in EVERY])
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Outputs that nbval does not compare: the lesson, the first line of the cell, and the reason.
IGNORED = {
    ("00_start_here", "from classroom import environment"): "versions, memory and device of the machine",
    ("06_packing", "for name in measured:"): "times",
}
# Functions that a lesson builds in front of the reader and that tinylib then provides.
BUILT_IN_A_LESSON = {
    ("01_garbled_output", "common_prefix_length"),
    ("01_garbled_output", "total_variation"),
    ("02_fix_with_masks", "pad"),
    ("02_fix_with_masks", "position_ids"),
    ("03_label_misalignment", "plain_loss"),
    ("03_label_misalignment", "shift"),
    ("03_label_misalignment", "shifting_loss"),
    ("04_fine_tune_correctly", "label_turns"),
    ("06_packing", "best_fit_decreasing"),
}


def test_the_lessons_are_numbered_without_gaps() -> None:
    assert [int(name[:2]) for name in IDS] == list(range(len(IDS)))


@of_every_notebook
def test_a_lesson_was_executed_once_from_top_to_bottom_without_error(path: Path) -> None:
    code = cells(path, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", cell.source


@pytest.mark.parametrize("path", LESSONS, ids=IDS)
def test_a_lesson_has_the_chapters_of_its_form(path: Path) -> None:
    first, *rest = [cell.source for cell in cells(path, "markdown")]
    number = path.stem[:2]
    assert re.match(rf"# {number} · \w", first)
    assert re.search(r"^\*\d+ minutes · before this: .+\*$", first, flags=re.MULTILINE)
    goals = first.split("**What you will be able to do**")[1]
    assert len(re.findall(r"^\d\. ", goals, flags=re.MULTILINE)) == 3
    text = "\n".join(rest)
    chapters = ["## Exercise", "## Recap", "**Misconceptions met**", "**Sources:**", "our guess"]
    if number != "00":
        chapters += ["## Symptom", "## Fix" if number == "02" else "## Diagnosis"]
    for chapter in chapters:
        assert chapter in text, f"{path.stem} has no {chapter!r}"
    assert any("assert " in cell.source for cell in cells(path, "code"))


OPTIONS = r"((?:- \*\*[a-e]\)\*\* .+\n)+)"
QUESTION = re.compile(rf"{OPTIONS}\n<details><summary>Reasons</summary>\n\n{OPTIONS}")


@of_every_notebook
def test_every_option_of_a_question_has_its_reason(path: Path) -> None:
    text = "\n\n".join(cell.source for cell in cells(path, "markdown"))
    asked = QUESTION.findall(text)
    guesses = len(re.findall(r"## Your guess\n|\*\*Your guess:\*\*", text))
    assert len(asked) == text.count("<summary>Reasons<") >= guesses
    assert guesses or path == QUIZ
    for offered, folded in asked:
        reasons = re.findall(r"\*\*(.)\)\*\* ([✓✗]) \S", folded)
        assert [letter for letter, _ in reasons] == re.findall(r"\*\*(.)\)\*\*", offered)
        assert [mark for _, mark in reasons].count("✓") == 1


@of_every_notebook
def test_a_notebook_file_is_clean(path: Path) -> None:
    before, notebook = read(path), read(path)
    execute.clean(notebook)
    assert notebook == before
    assert path.stat().st_size < 1_000_000
    for cell in [cell for cell in notebook.cells if cell.id != "install"]:
        assert len(cell.source.splitlines()) <= 20 or cell.cell_type == "markdown", cell.source
        assert not re.search(r"/(home|root|Users|tmp)/|[A-Z]:\\\\", str(cell)), "a path of one machine"


@of_every_notebook
def test_nothing_is_cut_at_the_right_edge(path: Path) -> None:
    """A page, JupyterLab and paper show 80 columns of code and of text; a Chinese character takes two.

    Of the first cell, which is folded away, and of a picture's alt text nobody sees the lines.
    """
    code = [cell for cell in cells(path, "code") if cell.id != "install"]
    lines = [line for cell in code for line in [*cell.source.splitlines(), *shown(cell).splitlines()]]
    assert [line for line in lines if show._width(line) > 80] == []


def test_ignored_outputs_are_listed_with_a_reason() -> None:
    code = [(path.stem, cell) for path in LESSONS for cell in cells(path, "code")]
    assert not [cell.source for _, cell in code if "NBVAL" in cell.source], "use the tag nbval-ignore-output"
    ignored = {
        (lesson, cell.source.splitlines()[0])
        for lesson, cell in code
        if "nbval-ignore-output" in cell.metadata.get("tags", [])
    }
    assert ignored == set(IGNORED)


def tinylib_functions() -> dict[str, str]:
    functions = {}
    for module in pkgutil.iter_modules(tinylib.__path__):
        loaded = importlib.import_module(f"tinylib.{module.name}")
        for name, function in inspect.getmembers(loaded, inspect.isfunction):
            if function.__module__ == loaded.__name__:
                functions[name] = inspect.getsource(function)
    return functions


def bare(code: str) -> str:
    """Reduce a function to what it does: no docstring, no annotations."""
    (function,) = ast.parse(code).body
    assert isinstance(function, ast.FunctionDef)
    if isinstance(function.body[0], ast.Expr) and isinstance(function.body[0].value, ast.Constant):
        function.body = function.body[1:]
    function.returns = None
    for argument in [*function.args.args, *function.args.kwonlyargs]:
        argument.annotation = None
    return ast.unparse(function)


def test_what_a_lesson_builds_is_what_tinylib_has() -> None:
    library, found = tinylib_functions(), set()
    for path in LESSONS:
        for cell in cells(path, "code"):
            if cell.id == "install":
                continue
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.FunctionDef) and node.name in library:
                    found.add((path.stem, node.name))
                    assert bare(ast.unparse(node)) == bare(library[node.name]), node.name
    assert found == BUILT_IN_A_LESSON


def test_the_readmes_figure_and_report_are_the_lessons() -> None:
    assert execute.readme_figure() == execute.README_FIGURE.read_bytes()
    assert f"]({execute.README_FIGURE.relative_to(ROOT).as_posix()})" in README
    text = "\n".join(printed(cell) for cell in cells(LESSONS[7], "code"))
    report = re.search(r"Audit of .*?More +lesson 03, Label misalignment", text, flags=re.DOTALL)[0]
    assert report in README


# Each lesson in a namespace of its own, and all in one process, which imports what they need once.
RUN_LESSONS = """
import json, sys
for path in sys.argv[1:]:
    names = {"__name__": "__main__"}
    with open(path, encoding="utf-8") as file:
        cells = json.load(file)["cells"]
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code" and cell["id"] != "install":
            exec(compile("".join(cell["source"]), f"{path}, cell {number}", "exec"), names)
    print("ran", path)
"""


def test_the_lessons_run_on_another_model(tinyllama_folder: Path) -> None:
    """TinyLlama's shape, random weights: the words differ, and everything asserted still holds.

    But for lesson 08, which trains a small model of its own.
    """
    lessons = [path.name for path in LESSONS if path.stem != "08_scale_up"]
    result = subprocess.run(
        [sys.executable, "-c", RUN_LESSONS, *lessons],
        cwd=NOTEBOOKS,
        env={
            **os.environ,
            "TINYLIB_MODEL": str(tinyllama_folder),
            "TINYLIB_DEVICE": "cpu",
            "MPLBACKEND": "Agg",
        },
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert result.returncode == 0, result.stderr[-5000:]
    assert re.findall(r"^ran (.+)$", result.stdout, flags=re.MULTILINE) == lessons
