"""Labels, the two conventions of a loss, and two probes that tell who shifts.

At position i a causal model predicts token i + 1. So somebody has to move the labels by one: the
data or the loss, and exactly one of them. `data_offset` plus `loss_offset` must be 1.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from tinylib.chat import Turn, chat_turns, messages_of

IGNORE_INDEX = -100
"""A label that no loss counts: the default of PyTorch's cross-entropy and of transformers."""


OFFSETS = (-1, 0, 1, 2)  # that the probes look for


class TooLong(ValueError):
    """Not even the first answer of a chat fits into ``max_length``."""


def label_turns(turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
    """Join turns, and label what the model is to say, its ends of turn included, and nothing else.

    Args:
        turns: Of `tinylib.chat.chat_turns`: what is read, and what is then said.

    Returns:
        ``input_ids`` and ``labels``, of the same length and not shifted: for a loss that shifts.

    >>> label_turns([([5, 6], [7, 2]), ([5], [8, 2])])
    ([5, 6, 7, 2, 5, 8, 2], [-100, -100, 7, 2, -100, 8, 2])
    """
    input_ids, labels = [], []
    for prompt, response in turns:
        input_ids += prompt + response
        labels += [IGNORE_INDEX] * len(prompt) + response
    return input_ids, labels


def training_example(
    tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], max_length: int | None = None
) -> dict[str, Any]:
    """Make one example to train on of one row of a data set.

    Args:
        row: See `tinylib.chat.messages_of`.
        max_length: The most tokens. Turns are dropped from the end until the rest fits; none is cut,
            so that every answer keeps its end of turn.

    Returns:
        ``input_ids``, ``labels`` and ``dropped``, the number of the assistant's turns that did not fit.

    Raises:
        ValueError: The row is no conversation (see `tinylib.chat.chat_turns`).
        TooLong: A ValueError too; not even the first answer fits.
    """
    turns = chat_turns(tokenizer, messages_of(row))
    ends = list(accumulate(len(prompt) + len(response) for prompt, response in turns))
    kept = sum(max_length is None or end <= max_length for end in ends)
    if kept == 0:
        raise TooLong(
            f"The first answer ends at token {ends[0]}, beyond max_length={max_length}: "
            "cut there, it would never show how to stop. Raise max_length, or leave the chat out."
        )
    input_ids, labels = label_turns(turns[:kept])
    return {"input_ids": input_ids, "labels": labels, "dropped": len(turns) - kept}


def shift(labels: torch.Tensor) -> torch.Tensor:
    """Move labels one place to the left, so that a loss that does not shift finds the next token.

    Args:
        labels: Of shape ``(..., seq)``.

    Returns:
        The same, but ``labels[..., i + 1]`` at position i; the last has none and is ignored.

    >>> shift(torch.tensor([-100, 7, 8, 2])).tolist()
    [7, 8, 2, -100]
    """
    return torch.nn.functional.pad(labels[..., 1:], (0, 1), value=IGNORE_INDEX)


def plain_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each position's logits with the label **at that position**: no shift.

    As in nanoGPT, or in TinyLlama's pre-training: the data have been shifted.

    Args:
        logits: Of shape ``(batch, seq, vocab)``.
        labels: int64 of shape ``(batch, seq)``; `IGNORE_INDEX` is not counted.

    Returns:
        The mean over all supervised tokens of the batch, in nats.

    Raises:
        ValueError: The shapes do not belong together, or nothing is supervised (the mean would be NaN).
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, logits {tuple(logits.shape)}: all but the last "
            "number of the logits' must agree."
        )
    if (labels == IGNORE_INDEX).all():
        raise ValueError("Every label is IGNORE_INDEX: there is nothing to learn, the loss would be NaN.")
    return cross_entropy(logits.flatten(0, -2).float(), labels.flatten(), ignore_index=IGNORE_INDEX)


def shifting_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each position's logits with the label of the **next** position.

    As ``LlamaForCausalLM(labels=...)`` does it (transformers, ``loss/loss_utils.py``). Arguments,
    result and errors are those of `plain_loss`.
    """
    return plain_loss(logits[:, :-1], labels[:, 1:])


def loss_offset(loss: torch.Tensor | float, logits: torch.Tensor, labels: torch.Tensor) -> int:
    """Tell by its value which label a loss has compared with the logits of position i.

    Use it on a batch of your own: ``loss_offset(output.loss, output.logits, batch["labels"])``.

    Args:
        loss: What came out, a mean over the supervised tokens.
        logits: Of shape ``(batch, seq, vocab)``, as they went in.
        labels: Of shape ``(batch, seq)``, as they went in.

    Returns:
        0 if it was label i (a plain loss), 1 if it was label i + 1 (a loss that shifts); -1 or 2 are
        looked for as well.

    Raises:
        ValueError: No offset, or more than one, gives this loss.
    """
    seq, values = labels.shape[1], {}
    for offset in OFFSETS:
        here, there = _pairs(seq, offset)
        if (labels[:, there] != IGNORE_INDEX).any():
            values[offset] = plain_loss(logits[:, here], labels[:, there]).item()
    loss = float(torch.as_tensor(loss).detach())
    far = {offset: abs(value - loss) for offset, value in values.items()}
    best, *others = sorted(far, key=far.__getitem__)
    if far[best] > 1e-3 * max(1.0, loss) or any(far[other] < 10 * max(far[best], 1e-5) for other in others):
        listed = ", ".join(f"{offset}: {value:.4f}" for offset, value in values.items())
        raise ValueError(
            f"The loss {loss:.4f} is that of no offset, or of several ({listed}). The probe knows a mean "
            "cross-entropy over the supervised tokens, without weights or smoothing, and needs logits that "
            "tell the offsets apart."
        )
    return best


def _pairs(seq: int, offset: int) -> tuple[slice, slice]:
    """Return the positions i for which i + offset is in the row too, and those positions i + offset."""
    first, last = max(0, -offset), seq - max(0, offset)
    return slice(first, last), slice(first + offset, last + offset)


def data_offset(input_ids: torch.Tensor, labels: torch.Tensor) -> int:
    """Tell which token the labels hold at position i: token i (0), token i + 1 (1), ...

    Args:
        input_ids: Of shape ``(batch, seq)``.
        labels: Of the same shape.

    Returns:
        0 if the data do not shift, 1 if they do; -1 and 2 are looked for as well.

    Raises:
        ValueError: No offset fits all supervised labels, or more than one does.
    """
    seq, found = labels.shape[1], []
    supervised = labels != IGNORE_INDEX
    for offset in OFFSETS:
        here, there = _pairs(seq, offset)
        inside = supervised[:, here]
        # The last label of shifted data has no token in the batch; all others must agree.
        if inside.any() and (labels[:, here] == input_ids[:, there])[inside].all():
            found.append(offset)
    if len(found) != 1:
        raise ValueError(
            f"{len(found)} of the offsets -1, 0, 1, 2 fit the labels ({found}). The labels must be tokens of "
            "the same rows, and differ enough from one another to tell the offsets apart."
        )
    return found[0]
