"""From examples to one batch to train on."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tinylib.labels import IGNORE_INDEX
from tinylib.padding import Side, pad


class PaddedCollator:
    """Pad examples to the longest: ids with a pad, labels with `IGNORE_INDEX`, and the mask to match.

    What is padding follows from the lengths, never from the ids, so that an end of turn stays visible
    and supervised where the pad token is the EOS token. A `data_collator` for ``transformers.Trainer``
    and a `collate_fn` for PyTorch's ``DataLoader``.

    >>> collate = PaddedCollator(pad_id=2)
    >>> long = {"input_ids": [5, 7, 2], "labels": [-100, 7, 2]}
    >>> short = {"input_ids": [5, 2], "labels": [-100, 2]}
    >>> batch = collate([long, short])
    >>> batch["labels"].tolist(), batch["attention_mask"].tolist()
    ([[-100, 7, 2], [-100, 2, -100]], [[1, 1, 1], [1, 1, 0]])
    """

    def __init__(self, pad_id: int, side: Side = "right") -> None:
        self.pad_id, self.side = pad_id, side

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make one batch.

        Args:
            examples: Each with ``input_ids`` and ``labels``, lists of the same length.

        Returns:
            ``input_ids``, ``attention_mask`` and ``labels``, int64 of shape ``(batch, seq)``.

        Raises:
            ValueError: No example, one whose labels are not as many as its ids, or one in which nothing
                is supervised; the message gives its number.
        """
        for i, example in enumerate(examples):
            ids, labels = len(example["input_ids"]), len(example["labels"])
            if ids != labels:
                raise ValueError(f"Row {i} has {ids} input_ids and {labels} labels; give one for each.")
            if all(label == IGNORE_INDEX for label in example["labels"]):
                raise ValueError(
                    f"Row {i} has no supervised token: all of its labels are {IGNORE_INDEX}. A batch of such "
                    "rows has the loss NaN. Was its answer cut off? Leave the row out."
                )
        batch = pad([example["input_ids"] for example in examples], self.pad_id, self.side)
        labels = pad([example["labels"] for example in examples], IGNORE_INDEX, self.side)
        return batch | {"labels": labels["input_ids"]}
