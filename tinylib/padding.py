"""From rows of different lengths to one rectangle, with a mask that tells what is real.

A *row* is a plain list of token ids. What is padding follows from the lengths alone, since an id cannot tell:
where pad is EOS, the same id is padding in one place and a real end of turn in another.
"""

from collections.abc import Sequence
from typing import Literal

import torch

Side = Literal["left", "right"]


def pad(rows: Sequence[Sequence[int]], pad_id: int, side: Side = "left") -> dict[str, torch.Tensor]:
    """Pad rows of token ids to the length of the longest, and say which columns are real.

    Any id of the vocabulary will do as ``pad_id``, EOS too: it is hidden. Pads go to the left for generation,
    since the next token is predicted after the last column; to the right, usually, for training. Returns
    ``input_ids`` and ``attention_mask`` (1 = real, 0 = padding), int64 of shape ``(batch, seq)``. No row, an
    empty row or an unknown side is a ValueError.

    >>> pad([[5, 6, 7], [8]], pad_id=2)["attention_mask"].tolist()
    [[1, 1, 1], [0, 0, 1]]
    """
    check_rows(rows)
    if side not in ("left", "right"):
        raise ValueError(f"side must be 'left' or 'right', not {side!r}.")
    width = max(len(row) for row in rows)
    input_ids, attention_mask = [], []
    for row in rows:
        pads = [pad_id] * (width - len(row))
        real, hidden = [1] * len(row), [0] * len(pads)
        input_ids.append([*pads, *row] if side == "left" else [*row, *pads])
        attention_mask.append(hidden + real if side == "left" else real + hidden)
    return {"input_ids": torch.tensor(input_ids), "attention_mask": torch.tensor(attention_mask)}


def position_ids(attention_mask: torch.Tensor) -> torch.Tensor:
    """Count positions from each row's first real token, so that pads do not push it along.

    For real tokens (1 in the mask) the same as in transformers' ``generate`` (``generation/utils.py``). A
    plain ``forward`` counts the pads, which matters to models with absolute positions, such as GPT-2. int64
    of the mask's shape, ``(batch, seq)``; 0 at pads on the left, where it means nothing.

    >>> position_ids(torch.tensor([[0, 0, 1, 1, 1]])).tolist()
    [[0, 0, 0, 1, 2]]
    """
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def check_rows(rows: Sequence[Sequence[int]]) -> None:
    """Raise a ValueError if there is no row, or an empty one, with its number."""
    if len(rows) == 0:
        raise ValueError("The batch has no rows: give at least one list of token ids.")
    for i, row in enumerate(rows):
        if len(row) == 0:
            raise ValueError(f"Row {i} is empty: a row needs at least one token id.")
