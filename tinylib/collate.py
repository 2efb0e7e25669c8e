"""From examples to one batch to train on: padded, or packed."""

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tinylib.labels import IGNORE_INDEX
from tinylib.padding import Side, check_rows, pad

Example = Mapping[str, Any]
"""``input_ids`` and ``labels``, lists of the same length, not shifted."""


class PaddedCollator:
    """Pad examples to the longest: ids with a pad, labels with `IGNORE_INDEX`, and the mask to match.

    What is padding follows from the lengths, never from the ids, so that an end of turn stays visible and
    supervised where pad is EOS. For ``transformers.Trainer`` and for PyTorch's ``DataLoader``.

    >>> collate = PaddedCollator(pad_id=2)
    >>> long = {"input_ids": [5, 7, 2], "labels": [-100, 7, 2]}
    >>> short = {"input_ids": [5, 2], "labels": [-100, 2]}
    >>> batch = collate([long, short])
    >>> batch["labels"].tolist(), batch["attention_mask"].tolist()
    ([[-100, 7, 2], [-100, 2, -100]], [[1, 1, 1], [1, 1, 0]])
    """

    def __init__(self, pad_id: int, side: Side = "right") -> None:
        self.pad_id, self.side = pad_id, side

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Make ``input_ids``, ``attention_mask`` and ``labels``, int64 ``(batch, seq)``."""
        check_examples(examples)
        batch = pad([example["input_ids"] for example in examples], self.pad_id, self.side)
        labels = pad([example["labels"] for example in examples], IGNORE_INDEX, self.side)
        return batch | {"labels": labels["input_ids"]}


class PackedCollator:
    """Lay examples end to end, in as few rows as best fit finds, with positions that start anew for each.

    There is no attention mask on purpose: with ``use_cache=False`` (the Trainer of transformers 5 sets it,
    that of 4.57 does not) transformers reads the samples off the restarting ``position_ids`` and lets none
    see another. ``flash_attention_2`` does so in a single row only. The first label of each sample is
    ignored, since the token before it is another sample's. No example is cut or lost.

    >>> collate = PackedCollator(pad_id=2, max_length=5)
    >>> long = {"input_ids": [5, 7, 2], "labels": [-100, 7, 2]}
    >>> short = {"input_ids": [5, 2], "labels": [5, 2]}
    >>> batch = collate([short, long, short])
    >>> batch["input_ids"].tolist(), batch["position_ids"].tolist()
    ([[5, 2, 5, 7, 2], [5, 2, 2, 2, 2]], [[0, 1, 0, 1, 2], [0, 1, 0, 1, 2]])
    >>> batch["labels"].tolist()
    [[-100, 2, -100, 7, 2], [-100, 2, -100, -100, -100]]
    """

    def __init__(self, pad_id: int, max_length: int = 512) -> None:
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, not {max_length}.")
        self.pad_id, self.max_length = pad_id, max_length

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Make ``input_ids``, ``position_ids`` and ``labels``, int64 ``(rows, seq)``; see `check_examples`.

        ``seq`` is at most ``max_length``, or the length of a longer example. What is left of a row is filled
        with pads, as if they were one more sample.
        """
        check_examples(examples, first_label=1)
        lengths = [len(example["input_ids"]) for example in examples]
        # One that is longer makes all rows as long as itself: then they can as well be filled.
        rows = best_fit_decreasing(lengths, max(self.max_length, *lengths))
        filled = [sum(lengths[i] for i in row) for row in rows]
        columns: dict[str, list[list[int]]] = {"input_ids": [], "position_ids": [], "labels": []}
        for row, tokens in zip(rows, filled):
            rest = max(filled) - tokens
            pads = {"input_ids": [self.pad_id] * rest, "labels": [IGNORE_INDEX] * rest}
            samples = [examples[i] for i in row] + ([pads] if rest else [])
            columns["input_ids"].append([token for s in samples for token in s["input_ids"]])
            columns["position_ids"].append([i for s in samples for i in range(len(s["input_ids"]))])
            columns["labels"].append([t for s in samples for t in [IGNORE_INDEX, *s["labels"][1:]]])
        return {name: torch.tensor(values) for name, values in columns.items()}


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put things into bins: the longest first, each into the fullest bin that still has room.

    As in TRL's ``pack_dataset(strategy="bfd")``; but nothing is ever cut, so that what is longer than
    ``capacity`` gets a bin of its own. Lengths and capacity are in tokens; the bins have the things' numbers.

    >>> best_fit_decreasing([2, 3, 2, 9], capacity=5)
    [[0, 1], [2], [3]]
    """
    bins, room = [], []  # room: what is left in which bin, the fullest first
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = bisect_left(room, (lengths[i], 0))
        if place == len(room):  # it fits into none
            room.append((capacity, len(bins)))
            bins.append([])
        left, best = room.pop(place)
        bins[best].append(i)
        insort(room, (left - lengths[i], best))
    return sorted(sorted(bin_) for bin_ in bins)


def check_examples(examples: Sequence[Example], first_label: int = 0) -> None:
    """Raise a ValueError, with its number, for an example that is empty or has not as many labels as ids.

    Likewise if there is none, or one without a supervised label from position ``first_label`` on.
    """
    check_rows([example["input_ids"] for example in examples])
    for i, example in enumerate(examples):
        ids, labels = len(example["input_ids"]), len(example["labels"])
        if ids != labels:
            raise ValueError(f"Example {i} has {ids} input_ids and {labels} labels; give one for each.")
        if all(label == IGNORE_INDEX for label in example["labels"][first_label:]):
            raise ValueError(
                f"Example {i} has no supervised token: every label that counts is {IGNORE_INDEX}. A batch of "
                "such examples has the loss NaN. Was its answer cut off? Leave it out."
            )
