"""Ask the shipped model all that the slider of the pages can be set to: ``make states``.

Six prompts, 0 to 64 pads, with and without the mask, on either side. Each state is one line of
``book/states.jsonl``, written as soon as it is there: stopped, it goes on where it was. The pages show that
file, and ask no model. Some 25 minutes on one core.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lessons import ROOT

if TYPE_CHECKING:  # torch is imported where the model is asked: the book only reads what is stored
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STATES = ROOT / "book" / "states.jsonl"
PROMPTS = [
    "What is the capital of France?",
    "What is the plural of mouse?",
    "How many days are there in a week?",
    "Which animal says meow?",
    "Name three fruits.",
    "What is the capital of Japan?",
]
MOST_PADS = 64
SETTING = ("prompt", "pads", "mask", "side")
"""What tells one state from another."""


def settings() -> Iterator[tuple[str, int, bool, str]]:
    """Yield each setting that can give a state of its own.

    Without pads there is nothing to hide and no side. With the mask on the left, the pads change nothing (the
    model counts distances only); with the mask on the right the first one does, since the answer goes on
    after it, and the others do not.
    """
    for prompt in PROMPTS:
        yield prompt, 0, True, "left"
        yield prompt, 1, True, "right"
        for pads in range(1, MOST_PADS + 1):
            yield prompt, pads, False, "left"
            yield prompt, pads, False, "right"


def state(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, pads: int, mask: bool, side: str
) -> dict[str, Any]:
    """Return what the model does at a setting, in numbers as a page shows them.

    Returns:
        The setting, and ``answer``; ``next``, the five most probable next tokens with their probabilities in
        percent; ``attention``, a number of thousandths for each token of the row; ``on_pads``, the share of
        the pads in percent; and, without pads, ``tokens``, the row's own.
    """
    from classroom.playground import look
    from tinylib.show import token_strings

    seen = look(model, tokenizer, prompt, pads, mask, side)
    top = seen.logits.softmax(dim=-1).topk(5)
    found = {
        "prompt": prompt,
        "pads": pads,
        "mask": mask,
        "side": side,
        "answer": seen.answer,
        "next": [
            [token, round(100 * share, 1)]
            for token, share in zip(token_strings(tokenizer, top.indices), top.values.tolist())
        ],
        "attention": [round(1000 * weight) for weight in seen.attention],
        "on_pads": round(100 * sum(w for w, pad in zip(seen.attention, seen.is_pad) if pad), 1),
    }
    return found if pads else found | {"tokens": token_strings(tokenizer, seen.inputs["input_ids"][0])}


def stored() -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return the states that are there, by their settings."""
    lines = STATES.read_text(encoding="utf-8").splitlines() if STATES.is_file() else []
    states = map(json.loads, lines)
    return {tuple(each[name] for name in SETTING): each for each in states}


def main() -> None:
    """Compute what is missing."""
    import torch
    from tqdm import tqdm

    from tinylib import models

    model, tokenizer = models.load("smollm2", dtype=torch.float32)
    there = stored()
    with STATES.open("a", encoding="utf-8", newline="\n") as file:
        for setting in tqdm([each for each in settings() if each not in there], unit="state"):
            file.write(json.dumps(state(model, tokenizer, *setting), ensure_ascii=False) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
