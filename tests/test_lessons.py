"""The lessons keep their form; what nbval checks is that their outputs are true."""

import ast
import base64
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tinylib

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
IDS = [path.stem for path in NOTEBOOKS]

# Outputs that nbval does not compare: the lesson, the first line of the cell, and the reason.
IGNORED = {
    ("00_start_here", "from tinylib import environment"): "versions, memory and device of the machine",
    ("06_packing", "for name in measured:"): "times, and bytes kept that differ between versions",
}
# Functions that a lesson builds in front of the reader and that tinylib then provides.
BUILT_IN_A_LESSON = {
    ("01_garbled_output", "tokens_in_common"),
    ("01_garbled_output", "total_variation"),
    ("02_fix_with_masks", "pad"),
    ("02_fix_with_masks", "position_ids"),
    ("03_label_misalignment", "plain_loss"),
    ("03_label_misalignment", "shift"),
    ("03_label_misalignment", "shifting_loss"),
    ("04_fine_tune_correctly", "label_turns"),
    ("06_packing", "best_fit"),
}


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_the_lessons_are_numbered_without_gaps() -> None:
    assert [int(name[:2]) for name in IDS] == list(range(9))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_a_lesson_was_executed_once_from_top_to_bottom_without_error(path: Path) -> None:
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell["outputs"]:
            assert output["output_type"] != "error", source(cell)
            assert output.get("name") != "stderr", source(cell)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_a_lesson_has_the_chapters_of_its_form(path: Path) -> None:
    first, *rest = [source(cell) for cell in cells(path, "markdown")]
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
    assert any("assert " in source(cell) for cell in cells(path, "code"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_a_notebook_file_is_clean(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook["cells"]:
        assert set(cell["metadata"]) <= {"tags"} or cell["id"] == "install"
        assert len(source(cell).splitlines()) <= 20 or cell["cell_type"] == "markdown", source(cell)
    assert path.stat().st_size < 1_000_000
    assert not re.search(r"/(home|root|Users|tmp)/|[A-Z]:\\\\", path.read_text(encoding="utf-8"))


def test_ignored_outputs_are_listed_with_a_reason_and_few() -> None:
    ignored, total = set(), 0
    for path in NOTEBOOKS:
        for cell in cells(path, "code"):
            total += 1
            assert "NBVAL" not in source(cell), "use the cell tag nbval-ignore-output"
            tags = cell["metadata"].get("tags", [])
            assert set(tags) <= {"nbval-ignore-output", "readme-figure"} or cell["id"] == "install"
            if "nbval-ignore-output" in tags:
                ignored.add((path.stem, source(cell).splitlines()[0]))
    assert ignored == set(IGNORED)
    assert len(ignored) <= 0.05 * total


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_every_figure_has_alt_text(path: Path) -> None:
    for cell in cells(path, "code"):
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}):
                alt = "".join(output["data"]["text/plain"])
                assert len(alt) > 60, "a figure without alt text"
                assert not alt.startswith("<"), alt


def test_pages_keep_solutions_folded_and_figures_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "notebooks")
    course = importlib.import_module("course")
    for path in NOTEBOOKS:
        notebook = course.nbformat.read(path, as_version=4)
        title, aim = course.title_and_aim(notebook)
        for output in [output for cell in notebook.cells for output in cell.get("outputs", [])]:
            if output.output_type == "display_data":
                output.data[course.LIVE] = {"model_id": "as a kernel leaves it"}
        page = course.to_html(notebook, title)
        assert "as a kernel leaves it" not in page
        assert "step/s]" not in page, "the text of a progress bar"
        assert ("A still picture." in page) == (path.stem == "02_fix_with_masks")
        assert title.startswith(f"{path.stem[:2]} · ")
        assert "](" not in aim
        assert not re.search(r"</summary>\s*</details>", page), "a hint or a solution lies open"
        assert "<details>" in page
        assert page.index('<a href="index.html">') < page.index("<h1")
        assert not re.search(r"""(src|import)\W{0,2}["']https?:""", page), "the page needs the network"
        assert page.count("<img") == page.count('alt="')
        assert "execute_result" not in page


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
    for path in NOTEBOOKS:
        for cell in cells(path, "code"):
            for node in ast.parse(source(cell)).body:
                if isinstance(node, ast.FunctionDef) and node.name in library:
                    found.add((path.stem, node.name))
                    assert bare(ast.unparse(node)) == bare(library[node.name]), node.name
    assert found == BUILT_IN_A_LESSON


def test_the_readmes_figure_is_the_lessons() -> None:
    figures = [
        output["data"]["image/png"]
        for path in NOTEBOOKS
        for cell in cells(path, "code")
        if "readme-figure" in cell["metadata"].get("tags", [])
        for output in cell["outputs"]
    ]
    assert len(figures) == 1
    assert base64.b64decode(figures[0]) == (ROOT / "notebooks" / "readme-figure.png").read_bytes()
    assert "](notebooks/readme-figure.png)" in (ROOT / "README.md").read_text(encoding="utf-8")


def answers_in(path: Path, first_label: str, second_label: str) -> list[tuple[str, str]]:
    """Read pairs of answers out of the first output that shows both ways of asking."""
    for cell in cells(path, "code"):
        text = "".join("".join(output.get("text", "")) for output in cell["outputs"])
        pairs = re.findall(rf" +{first_label} │ (.+)\n +{second_label} │ (.+)", text)
        if pairs:
            return pairs
    raise AssertionError(f"no answers {first_label!r}, {second_label!r} in {path.stem}")


def test_the_stored_outputs_show_real_gibberish_and_its_cure() -> None:
    """The shipped model: at least three good answers are garbled without the mask, all restored with it."""
    garbled = answers_in(NOTEBOOKS[1], "alone", "in a batch")
    cured = answers_in(NOTEBOOKS[2], "no mask", "with the mask")
    changed = [alone for alone, batch in garbled if alone != batch]
    assert len(changed) >= 3
    assert "The capital of France is Paris." in changed
    assert len(cured) >= 3
    for (alone, _), (unmasked, masked) in zip(garbled, cured):
        assert masked == alone != unmasked
    counts = re.findall(r"(\d+) of +(\d+) tokens in common", printed(NOTEBOOKS[2]))
    assert len(counts) == len(garbled)
    assert all(common == length for common, length in counts)


def printed(path: Path) -> str:
    return "\n".join("".join(o.get("text", "")) for cell in cells(path, "code") for o in cell["outputs"])


def test_the_stored_outputs_show_four_combinations() -> None:
    """Lesson 03: two right trainings that agree, one that skips, one that repeats, and equal last losses."""
    text = printed(NOTEBOOKS[3])
    counted = re.findall(
        r"│ loss 4.2 to ([\d.]+) │ 3, 4, 5 → \[(.*?)\] │ steps of \{(\d)\}, 40 prompts", text
    )
    assert [(new, step) for _, new, step in counted] == [
        ("6, 7, 8, 9", "1"), ("6, 7, 8, 9", "1"), ("7, 9, 11, 13", "2"), ("5, 5, 5, 5", "0")
    ]  # fmt: skip
    assert len({loss for loss, _, _ in counted}) == 1
    first = [float(loss) for loss in re.findall(r"first loss +([\d.]+)", text)]
    assert max(first[:2]) < 4 < 10 < min(first[2:])


def test_the_stored_outputs_show_a_model_that_has_learned_its_job() -> None:
    """Lesson 04: none right before, at least nine of ten after, and what each mistake does."""
    text = printed(NOTEBOOKS[4])
    assert "exactly right before training: 0%" in text
    assert re.search(r"^exactly right: (90 % or more|all)$", text, flags=re.MULTILINE)
    table = {line.split("  ")[0]: line for line in text.splitlines()}
    assert len(re.findall("90 % or more|all", table["right"])) == 2
    assert table["shifted twice"].split("  ")[-1] != table["right"].split("  ")[-1]


def test_the_stored_outputs_show_a_model_that_never_stops_and_its_cures() -> None:
    found = re.findall(r"stopped by themselves: (\d) of 6", printed(NOTEBOOKS[5]))
    assert found == ["0", "0", "6", "6"]


def test_the_stored_outputs_show_a_leak_and_which_ways_stop_it() -> None:
    """Lesson 06: neighbours lower the loss; which ways to pack are right, with sdpa and with eager."""
    text = printed(NOTEBOOKS[6])
    losses = [float(loss) for loss in re.findall(r"neighbours before it: loss ([\d.]+)", text)]
    assert losses[-1] < losses[0] / 2
    ways = dict(re.findall(r"^(\S.*?) +│ (\w+ +│ \w+)", text, flags=re.MULTILINE))
    assert ways["positions"].split(" │ ") == ["WRONG", "WRONG"]
    assert ways["positions, use_cache=False"].split(" │ ") == ["right", "right"]
    assert ways["positions, use_cache=False, mask of ones"].split(" │ ") == ["WRONG", "WRONG"]
    assert ways["positions, 4D mask of True and False"].split(" │ ") == ["right", "WRONG"]
    assert ways["positions, 4D mask of 0 and -inf"].split(" │ ") == ["right", "right"]


def test_the_stored_outputs_show_what_an_audit_finds() -> None:
    """Lesson 07: three wrong collators of four, libraries' parts; the README shows a report."""
    text = printed(NOTEBOOKS[7])
    found = dict(re.findall(r"^(\w|[\w ,']+[\w']) +│ ([a-z_.]+|no findings)$", text, flags=re.MULTILINE))
    assert [found[name] for name in "ABCD"] == [
        "mask.hides_tokens", "labels.end_of_turn", "labels.shifted_twice", "no findings"
    ]  # fmt: skip
    for right in ("DataCollatorForSeq2Seq", "prompt and completion", "packing"):
        assert re.search(rf"^ +{right} │ no findings$", text, flags=re.MULTILINE), right
    shown = re.search(r"Audit of .*?More +lesson 03, Label misalignment", text, flags=re.DOTALL)[0]
    assert shown in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_stored_outputs_show_one_training_however_started() -> None:
    """Lesson 08: right launches give the losses of one process; too large a step and own means do not."""
    text = printed(NOTEBOOKS[-1])
    losses = dict(re.findall(r"^ +(\w+) │ ([\d. ]+)$", text, flags=re.MULTILINE))
    assert losses["two_by_two"] == losses["accelerate"] == losses["killed"] == losses["alone"]
    assert len(losses["two"].split()) * 2 == len(losses["alone"].split()) == len(losses["own_mean"].split())
    assert losses["own_mean"] != losses["alone"]
    started = re.findall(r"count\.py\n +(process .*)", text)
    assert started == ["process 0 of 2, process 1 of 2", "process 0 of 2, process 1 of 2", "process 0 of 1"]


# Each lesson in a namespace of its own, and all in one process, which imports what they need once.
RUN_LESSONS = """
import json, sys
for path in sys.argv[1:]:
    names = {"__name__": "__main__"}
    with open(path, encoding="utf-8") as file:
        cells = json.load(file)["cells"]
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path}, cell {number}", "exec"), names)
    print("ran", path)
"""


def test_the_lessons_run_on_another_model(tinyllama_folder: Path) -> None:
    """TinyLlama's shape, random weights: the words differ, and everything asserted still holds.

    But for lesson 08, which trains a small model of its own.
    """
    lessons = [path.name for path in NOTEBOOKS[:8]]
    result = subprocess.run(
        [sys.executable, "-c", RUN_LESSONS, *lessons],
        cwd=ROOT / "notebooks",
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
