"""Labels, and the losses of both conventions: the labels are moved by one in the data or in the loss.

At position i a causal model predicts token i + 1; so exactly one of the two has to move them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from tinylib.chat import AssistantTurn, chat_turns, turns_within
from tinylib.messages import Prompt

IGNORE_INDEX = -100
"""A label that no loss counts: the default of PyTorch's cross-entropy and of transformers."""


class TooLong(ValueError):
    """Not even the first answer of a chat fits into ``max_length``."""


def label_turns(turns: Sequence[AssistantTurn]) -> tuple[list[int], list[int]]:
    """Join turns to ``input_ids`` and unshifted ``labels``: what the model is to say, its ends of turn too.

    >>> label_turns([([5, 6], [7, 2]), ([5], [8, 2])])
    ([5, 6, 7, 2, 5, 8, 2], [-100, -100, 7, 2, -100, 8, 2])
    """
    input_ids, labels = [], []
    for prompt, response in turns:
        input_ids += prompt + response
        labels += [IGNORE_INDEX] * len(prompt) + response
    return input_ids, labels


def training_example(
    tokenizer: PreTrainedTokenizerBase, chat: Prompt | Mapping[str, Any], max_length: int | None = None
) -> dict[str, Any]:
    """Make one example to train on of one chat: messages, or a row (see `tinylib.messages.as_messages`).

    Turns are dropped from the end until the rest fits into ``max_length`` tokens; none is cut, so that every
    answer keeps its end of turn. Returns ``input_ids``, ``labels`` and ``dropped``, the number of turns that
    did not fit; it is `TooLong` if not even the first does. Other errors are `tinylib.chat.chat_turns`'s.
    """
    if max_length is None:
        turns, dropped = chat_turns(tokenizer, chat), 0
    else:
        turns, dropped = turns_within(tokenizer, chat, max_length)
    if not turns:
        raise TooLong(
            f"The first answer ends beyond max_length={max_length}: cut there, it would never show how to "
            "stop. Raise max_length, or leave the chat out."
        )
    input_ids, labels = label_turns(turns)
    return {"input_ids": input_ids, "labels": labels, "dropped": dropped}


def shift(labels: torch.Tensor) -> torch.Tensor:
    """Move labels one place to the left, so that a loss that does not shift finds the next token.

    The shape, ``(..., seq)``, stays; the last position has no next token and is ignored.

    >>> shift(torch.tensor([-100, 7, 8, 2])).tolist()
    [7, 8, 2, -100]
    """
    return torch.nn.functional.pad(labels[..., 1:], (0, 1), value=IGNORE_INDEX)


def plain_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each position's logits with the label **at that position**: no shift.

    As in nanoGPT, or in TinyLlama's pre-training: the data have been shifted. ``logits`` are of shape
    ``(batch, seq, vocab)``, ``labels`` int64 ``(batch, seq)``; `IGNORE_INDEX` is not counted. Returns the
    mean over all supervised tokens of the batch, in nats; a ValueError if the shapes do not belong together,
    or nothing is supervised (the mean would be NaN).
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, logits {tuple(logits.shape)}: all but the last number "
            "of the logits' must agree."
        )
    if (labels == IGNORE_INDEX).all():
        raise ValueError("Every label is IGNORE_INDEX: there is nothing to learn, the loss would be NaN.")
    return cross_entropy(logits.flatten(0, -2).float(), labels.flatten(), ignore_index=IGNORE_INDEX)


def shifting_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each position's logits with the label of the **next** position.

    As ``LlamaForCausalLM(labels=...)`` does it (transformers, ``loss/loss_utils.py``). Arguments, result and
    errors are those of `plain_loss`.
    """
    return plain_loss(logits[:, :-1], labels[:, 1:])
