"""What ``make run`` and ``make notebooks`` do with a lesson; here one of two cells, without a model."""

import sys
from pathlib import Path

import execute
import nbformat
import pytest
from lessons import read

SLIDER = "import ipywidgets\nipywidgets.IntSlider(3)"


@pytest.fixture
def lesson(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in ("print(6 * 7)", SLIDER)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_a_run_leaves_a_copy_with_outputs_and_the_lesson_as_it_is(
    lesson: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = lesson.read_bytes()
    folder = lesson.parent / "build" / "lessons"
    execute.execute_into(folder, [lesson])
    printed, slider = [cell.outputs[0] for cell in read(folder / lesson.name).cells]
    assert printed.text == "42\n"
    assert slider.data == {"text/plain": "IntSlider(value=3)"}  # the widget itself would be dead
    assert lesson.read_bytes() == before
    name, seconds, unit = capsys.readouterr().out.split()
    assert (name, unit) == ("tiny", "s")
    assert seconds.isdigit()


def test_a_cell_that_fails_ends_the_run_with_its_error(lesson: Path) -> None:
    lesson.write_text(lesson.read_text(encoding="utf-8").replace("6 * 7", "6 / 0"), encoding="utf-8")
    with pytest.raises(SystemExit, match="division by zero"):
        execute.execute_into(lesson.parent, [lesson])


def test_the_command_takes_all_lessons_or_those_that_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[Path] = []
    monkeypatch.setattr(execute, "execute_into", lambda folder, paths: ran.extend(paths))

    def called(*arguments: str) -> list[Path]:
        ran.clear()
        monkeypatch.setattr(sys, "argv", ["execute.py", *arguments])
        execute.main()
        return list(ran)

    assert called("run") == list(execute.EVERY)  # make run
    assert [path.stem for path in called("run", "quiz")] == ["quiz"]
    with pytest.raises(SystemExit):
        called("run", "99")
    assert "there is no lesson 99" in capsys.readouterr().err
