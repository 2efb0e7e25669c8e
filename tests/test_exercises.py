"""The checker says "right" to right answers, names known mistakes, and never breaks on a reader's code."""

import json
import re
from pathlib import Path

import pytest

from tinylib import exercises

LESSONS = sorted((Path(__file__).parent.parent / "notebooks").glob("[0-9][0-9]_*.ipynb"))
CELLS = [cell for path in LESSONS for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
CARDS = re.findall(r'exercises\.check\("(\w+)", ', "".join("".join(cell["source"]) for cell in CELLS))


def said(capsys: pytest.CaptureFixture[str], name: str, answer: object) -> str:
    exercises.check(name, answer)
    return capsys.readouterr().out.strip()


def printed_solution(name: str) -> object:
    """Return the function in the folded solution of the card, as a reader would paste it."""
    for cell in CELLS:
        for code in re.findall(r"```python\n(.*?)```", "".join(cell["source"]), flags=re.DOTALL):
            if f"def {name}(" in code:
                namespace: dict[str, object] = {}
                exec(code, namespace)
                return namespace[name]
    raise AssertionError(f"no card has a solution for {name}")


def test_every_exercise_has_a_card_and_every_card_an_exercise() -> None:
    assert sorted(CARDS) == sorted(exercises.EXERCISES)


@pytest.mark.parametrize("name", exercises.EXERCISES)
def test_the_cards_own_solution_is_right(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, name, printed_solution(name)) == "✓ Right, on 40 cases."


@pytest.mark.parametrize("name", exercises.EXERCISES)
def test_an_untouched_stub_is_not_an_error(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    def stub(*args: object) -> None: ...

    assert said(capsys, name, stub) == "Not answered yet."


@pytest.mark.parametrize(
    ("name", "mistake", "hint"),
    [(name, m, hint) for name, (_, _, mistakes) in exercises.EXERCISES.items() for m, hint in mistakes],
)
def test_each_known_mistake_is_named(
    name: str, mistake: object, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, name, mistake) == f"✗ Not yet: {hint}"


def test_an_unknown_mistake_shows_the_first_case_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "safe_rows", lambda lengths: [0])
    assert re.fullmatch(r"✗ Not yet: safe_rows\(\[.*\]\) should be \[.*\], yours gives \[0\]", text)


def test_an_answer_for_the_example_only_is_not_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "pads_per_row", lambda rows: [3, 0]).startswith("✗ Not yet")


def test_code_that_raises_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert "your code raised ZeroDivisionError: division by zero" in said(
        capsys, "is_right", lambda task, side, mask: 1 / 0
    )


def test_an_unknown_exercise_is_refused() -> None:
    with pytest.raises(
        ValueError, match="No exercise 'nothing'; there are boundary, is_right, loss_shifts, "
    ):
        exercises.check("nothing", print)
