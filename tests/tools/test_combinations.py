"""What lesson 03's page shows of the four combinations: what it has stored, and what training gives."""

from typing import Any

import combinations
import pytest
from lessons import cells, printed

from chattune import train_last_layers

STORED = combinations.stored()
OUTPUTS = {cell.id: printed(cell) for cell in cells(combinations.LESSON, "code")}
FIRST = dict(zip((1, 2, 0), OUTPUTS["expected-loss"].split("our chats │")[1].split()))
"""The real model's first losses on the lesson's chats, by the two offsets' sum: aligned, twice, never."""


def line(cell: str, name: str) -> str:
    """The line that a cell has printed for a combination."""
    (found,) = [line for line in OUTPUTS[cell].splitlines() if line.strip().startswith(f"{name} │")]
    return found


@pytest.mark.parametrize("name", STORED["combinations"])
def test_it_is_what_the_lesson_shows(name: str) -> None:
    each = STORED["combinations"][name]
    counting, real = each["counting"], each["real"]
    assert f"{counting['losses'][0]:.1f} to {counting['losses'][-1]:.2f}" in line("cell-20", name)
    assert f"│ {counting['says']}" in line("cell-20", name)
    assert line("cell-35", name).endswith(real["says"].rstrip())
    assert STORED["asked"] in OUTPUTS["cell-35"]
    assert f"{real['losses'][0]:.1f}" == FIRST[each["data"] + each["loss"]]
    assert (len(counting["losses"]), len(real["losses"])) == (60, 12)


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """The lesson's names after the cells that trainings need, but for those that train the real model."""
    names: dict[str, Any] = {}
    combinations.run([*combinations.COUNTING, *combinations.REAL[:-1]], names)
    train_last_layers(names["model"], 4)
    return names


def test_each_is_stored_with_its_own_offsets(trained: dict[str, Any]) -> None:
    names = trained["COMBINATIONS"]
    assert list(names) == list(STORED["combinations"])
    for name, each in STORED["combinations"].items():
        assert each["data"] == name.startswith("shifted")
        assert each["loss"] == name.endswith("shifting loss")
    first = trained["first"] - 2
    assert trained["tokens"][first : first + 7] == STORED["tokens"]


def test_counting_trained_again_comes_to_the_same(trained: dict[str, Any]) -> None:
    name = "shifted, shifting loss"
    counted, stored = combinations.count(trained, name), STORED["combinations"][name]["counting"]
    assert counted["says"] == stored["says"]
    assert counted["losses"] == pytest.approx(stored["losses"], rel=0.1, abs=0.02)


def test_the_real_model_trained_again_begins_the_same(trained: dict[str, Any]) -> None:
    name = "as they are, plain loss"
    combination, batches = trained["COMBINATIONS"][name], trained["batches"][:2]
    losses = trained["train"](trained["model"], batches, *combination, 1e-3)
    assert losses == pytest.approx(STORED["combinations"][name]["real"]["losses"][:2], rel=0.02)
