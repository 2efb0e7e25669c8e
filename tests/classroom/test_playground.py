"""The playground shows what the model does: its own answer, its own attention, and does not touch it."""

import operator
import threading
import time
from unittest.mock import Mock

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from classroom import playground
from tinylib import figures
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
    text, _ = playground.scene(model, tokenizer, PROMPT, pads, mask, side)
    # Not for a moment is the reader's model another: a cell may run beside. The copy takes no memory.
    (copied,) = changed
    assert copied is not model
    assert model.config._attn_implementation == before
    assert all(map(operator.is_, copied.parameters(), model.parameters()))

    row = prompt_rows(tokenizer, [PROMPT])[0]
    batch = pad([row, [0] * (len(row) + pads)], tokenizer.eos_token_id, side)
    inputs = {name: tensor[:1] for name, tensor in batch.items() if mask or name == "input_ids"}
    output = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    new = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert f"answer │ {new.replace(chr(10), ' ').strip() or '(nothing)'}\n" in text
    assert ("attention_mask │" in text) == mask

    ((figure, alt),) = drawn
    (axes,) = figure.axes
    assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(1, abs=1e-4)
    of_a_word = axes.patches[-1 if side == "left" else 0].get_facecolor()
    on_pads = sum(bar.get_height() for bar in axes.patches if bar.get_facecolor() != of_a_word)
    assert f"spends {on_pads:.0%} of its attention on the pads" in alt
    if mask and side == "left":
        assert on_pads == 0
    if not mask and pads:
        assert on_pads > 0


def test_changes_come_one_after_another_and_the_last_one_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    at_work, most = [], []

    def scene(*_: object, prompt: str, pads: int, **__: object) -> tuple[str, figures.Picture]:
        at_work.append(pads)
        most.append(len(at_work))
        time.sleep(0.05)
        at_work.pop()
        return f"{pads} pads, {prompt}", Mock(png=b"", alt=f"{pads} pads")

    shown = []
    monkeypatch.setattr(playground, "scene", scene)
    monkeypatch.setattr(playground, "_display", lambda widget, still: shown.append(widget))
    playground.playground(Mock(), Mock(), "Hello")
    box, figure = shown
    prompt, slider, _, _, words = box.children
    changes = [threading.Thread(target=setattr, args=(slider, "value", pads)) for pads in (6, 7, 8)]
    for change in changes:
        change.start()
    for change in changes:
        change.join()
    assert max(most) == 1
    assert f"{slider.value} pads, Hello" in words.value
    assert f'alt="{slider.value} pads"' in figure.value

    prompt.value = "  "
    assert words.value == "<pre>Type a prompt.</pre>"
    assert figure.value == ""
    prompt.value = "Again"
    assert f"{slider.value} pads, Again" in words.value
