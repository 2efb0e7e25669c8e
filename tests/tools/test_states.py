"""The slider's states are what the shipped model does, and the moving picture is made of them."""

import random

import hero
import pytest
import states
from transformers import PreTrainedModel, PreTrainedTokenizerBase

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]
STORED = states.stored()
SAMPLE = random.Random(20).sample(list(states.settings()), 3)


def assert_same(ours: dict[str, object], stored: dict[str, object]) -> None:
    """Compare two states: words exactly, numbers to the last digit that is stored."""
    assert ours["answer"] == stored["answer"]
    assert [token for token, _ in ours["next"]] == [token for token, _ in stored["next"]]
    assert [share for _, share in ours["next"]] == pytest.approx([p for _, p in stored["next"]], abs=0.11)
    assert ours["attention"] == pytest.approx(stored["attention"], abs=1)
    assert ours["on_pads"] == pytest.approx(stored["on_pads"], abs=0.11)


def test_every_setting_has_its_state_once() -> None:
    assert list(STORED) == list(states.settings())
    assert len(states.STATES.read_text(encoding="utf-8").splitlines()) == len(STORED) == 6 * (2 + 2 * 64)


@pytest.mark.parametrize("setting", SAMPLE, ids=str)
def test_a_state_is_what_the_model_does(shipped: Loaded, setting: tuple[str, int, bool, str]) -> None:
    assert_same(states.state(*shipped, *setting), STORED[setting])


@pytest.mark.parametrize(("side", "pads", "known"), [("left", 64, 0), ("right", 9, 1)])
def test_behind_a_mask_the_number_of_pads_changes_nothing(
    shipped: Loaded, side: str, pads: int, known: int
) -> None:
    """So the page shows the state of no pads, on the right of one, and gives those hidden no weight."""
    stored = STORED[states.PROMPTS[0], known, True, side]
    ours = states.state(*shipped, states.PROMPTS[0], pads, True, side)
    hidden = [0] * (pads - known)
    attention = [*hidden, *stored["attention"]] if side == "left" else [*stored["attention"], *hidden]
    assert_same(ours, stored | {"attention": attention})


def test_the_moving_picture_is_made_of_the_states() -> None:
    assert hero.HERO.read_text(encoding="utf-8") == hero.picture()
    assert len(hero.picture()) < 300_000
