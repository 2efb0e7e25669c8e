"""The playground shows what the model does: its own answer, its own attention, and does not touch it."""

import html
import operator
import re
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from classroom import figures, playground
from tinylib import show
from tinylib.chat import prompt_rows
from tinylib.padding import pad

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]
PROMPT = "What do $5 and $6 make?"


@pytest.mark.parametrize(
    ("pads", "mask", "side"),
    [
        (0, True, "left"),
        (3, True, "left"),
        (3, False, "right"),
        (40, False, "left"),
        (40, True, "right"),
    ],
)
def test_the_scene_is_what_the_model_does(
    tinyllama: Loaded, pads: int, mask: bool, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = tinyllama
    before = model.config._attn_implementation
    drawn, changed = [], []

    def change(other: PreTrainedModel, implementation: str) -> None:
        changed.append(other)
        really_change(other, implementation)

    really_change = type(model).set_attn_implementation
    monkeypatch.setattr(type(model), "set_attn_implementation", change)
    monkeypatch.setattr(figures, "Picture", lambda figure, alt: drawn.append((figure, alt)))
    scene = playground.scene(model, tokenizer, PROMPT, pads, mask, side)
    # Not for a moment is the reader's model another: a cell may run beside. The copy takes no memory.
    (copied,) = changed
    assert copied is not model
    assert model.config._attn_implementation == before
    assert all(map(operator.is_, copied.parameters(), model.parameters()))

    row = prompt_rows(tokenizer, [PROMPT])[0]
    batch = pad([row, [0] * (len(row) + pads)], tokenizer.eos_token_id, side)
    inputs = {name: tensor[:1] for name, tensor in batch.items() if mask or name == "input_ids"}
    for name, given in {"answer": inputs, "answer without pads": {"input_ids": torch.tensor([row])}}.items():
        output = model.generate(**given, max_new_tokens=20, do_sample=False)
        new = tokenizer.decode(output[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
        assert scene.said[name] == (new.replace("\n", " ").strip() or "(nothing)")
    assert scene.said["prompt"] == PROMPT
    for name, said in scene.said.items():  # wrapped; a random model may say any white space
        lines = re.search(rf"^{name} +(│ .+(?:\n +│ .+)*)$", scene.text, re.MULTILINE)[1]
        assert "".join(lines.replace("│", "").split()) == "".join(said.replace("│", "").split())
        assert f">{html.escape(said)}</td>" in scene.page
    assert max(map(len, scene.text.split("\n"))) <= 80
    assert scene.grid in scene.text
    assert ("attention_mask │" in scene.grid) == mask
    assert scene.grid._repr_html_().count("<td") == (len(row) + pads) * (2 if mask else 1)

    ((figure, alt),) = drawn
    (axes,) = figure.axes
    bars = [bar.get_height() for bar in axes.patches]
    assert len(bars) == len(row) + pads  # one for each token, and none for several
    assert sum(bars) == pytest.approx(1, abs=1e-4)
    of_pads = slice(0, pads) if side == "left" else slice(len(row), None)
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert len({colours[i] for i in range(len(bars))[of_pads]}) == min(pads, 1)
    assert len(set(colours)) == 1 + min(pads, 1)
    on_pads = sum(bars[of_pads])
    assert f"spends {on_pads:.0%} of its attention on the pads" in alt
    if mask and side == "left":
        assert on_pads == 0
    if not mask and pads:
        assert on_pads > 0


def made_up(words: str) -> playground.Scene:
    grid = show.TokenGrid("grid")
    grid.blocks = []
    return playground.Scene(words, {"prompt": words}, grid, Mock(png=b"", alt=words))


@pytest.fixture
def widgets(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    shown: list[Any] = []
    monkeypatch.setattr(playground, "_display", lambda widget, still: shown.append(widget))
    return shown


def wait_for(says: Callable[[], bool]) -> None:
    for _ in range(3000):
        if says():
            return
        time.sleep(0.01)
    pytest.fail("it was never shown")


def test_the_newest_move_wins_and_those_before_it_are_skipped(
    widgets: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, answered = threading.Event(), threading.Event(), []

    def scene(*_: object, prompt: str, pads: int, **__: object) -> playground.Scene:
        answered.append(pads)
        if len(answered) == 2:
            begun.set()
            assert go_on.wait(60)
        return made_up(f"{pads} pads, {prompt}")

    monkeypatch.setattr(playground, "scene", scene)
    playground.playground(Mock(), Mock(), "Hello")
    box, figure = widgets
    prompt, slider, _, _, words = box.children
    slider.value = 6
    assert begun.wait(60)
    for pads in (7, 8, 9):  # while 6 is answered; each call comes back at once
        slider.value = pads
    go_on.set()
    wait_for(lambda: "9 pads, Hello" in words.value and 'alt="9 pads, Hello"' in figure.value)
    assert answered == [5, 6, 9]

    prompt.value = "  "
    wait_for(lambda: words.value == "<p>Type a prompt.</p>" and not figure.value)
    prompt.value = "Again"
    wait_for(lambda: "9 pads, Again" in words.value)
    assert answered == [5, 6, 9, 9]


def test_after_an_error_the_next_move_is_answered(
    widgets: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def scene(*_: object, prompt: str, pads: int, **__: object) -> playground.Scene:
        if pads == 6:
            raise RuntimeError("no <memory>")
        return made_up(f"{pads} pads")

    monkeypatch.setattr(playground, "scene", scene)
    playground.playground(Mock(), Mock(), "Hello")
    slider, words = widgets[0].children[1], widgets[0].children[-1]
    slider.value = 6
    wait_for(lambda: words.value == "<p>RuntimeError: no &lt;memory&gt;</p>")
    slider.value = 7
    wait_for(lambda: "7 pads" in words.value)
