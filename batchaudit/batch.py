"""Read anyone's batch: the tensors that a check needs, on the CPU, whatever they came as."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tinylib.labels import IGNORE_INDEX


@dataclass(frozen=True)
class Batch:
    """A batch as it is, and as tensors.

    Attributes:
        inputs: Everything that came, lists and arrays as tensors: what the model is called with.
        input_ids: int64 of shape ``(rows, seq)``.
        mask: bool of the same shape, True = visible; None if there is none, or one of four dimensions.
        mask_4d: bool of shape ``(rows, seq, seq)``, True where a query (second) may look at a key (third);
            None unless the mask has four dimensions.
        position_ids: int64 of shape ``(rows, seq)``, or None.
        labels: int64 of shape ``(rows, seq)``; None if there are none or their shape is another.
        labels_of: The name of the mask that they were made of, if they were.
    """

    inputs: dict[str, Any]
    input_ids: torch.Tensor
    mask: torch.Tensor | None
    mask_4d: torch.Tensor | None
    position_ids: torch.Tensor | None
    labels: torch.Tensor | None
    labels_of: str = ""

    @property
    def labels_do_not_fit(self) -> bool:
        """Whether there are labels, of another shape than the ids."""
        return self.inputs.get("labels") is not None and self.labels is None

    def part(self, rows: list[int]) -> dict[str, Any]:
        """Return these rows of everything that has as many as there are ids."""
        count = len(self.input_ids)
        return {
            name: value[rows] if isinstance(value, torch.Tensor) and value.shape[:1] == (count,) else value
            for name, value in self.inputs.items()
        }


LEARNED_MASKS = ("completion_mask", "assistant_masks", "loss_mask", "response_mask")
"""Names under which frameworks say what is learned, beside labels or in their place: 1 for such a token."""


def read(batch: Any, purpose: str = "train") -> Batch:
    """Read a batch: what ``model(**batch)`` would be called with.

    Args:
        batch: A mapping with ``input_ids`` and, if there are any, ``attention_mask`` (of two or four
            dimensions), ``position_ids`` and ``labels`` (or, in place of them, one of `LEARNED_MASKS`), as
            tensors on any device, numpy arrays or lists. Whatever else is in it is left alone.
        purpose: ``"train"``, or ``"generate"``: then no labels are looked for.

    Raises:
        ValueError: It is no such mapping, or one of its parts is not what it should be; the message names it.
    """
    if not isinstance(batch, Mapping):
        raise ValueError(_what_it_is(batch))
    if batch.get("input_ids") is None:
        names = ", ".join(map(str, batch)) or "nothing"
        if batch.get("inputs_embeds") is not None:
            raise ValueError(
                "The batch has inputs_embeds in place of input_ids: embeddings do not show which tokens they "
                "are. Audit the ids that they were made of, with the same mask, positions and labels."
            )
        inner = next((name for name, value in batch.items() if isinstance(value, Mapping)), None)
        hint = "If they go by another name, rename them." if inner is None else f"Give what is in {inner!r}."
        raise ValueError(f"The batch has no input_ids, only {names}. {hint}")
    inputs = {name: _tensor(name, value) for name, value in batch.items()}
    shape = tuple(inputs["input_ids"].shape)
    if len(shape) == 1:
        raise ValueError(
            f"input_ids have shape {shape}: this is one example, no batch of shape (rows, tokens). Give what "
            "the collator makes of several, collator([example, ...]), or a DataLoader; one row alone: [row]."
        )
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"input_ids have shape {shape}; a batch has (rows, tokens).")
    labels_of = ""
    if purpose == "train" and inputs.get("labels") is None:
        inputs |= _other_labels(inputs)
        labels_of = next((name for name in LEARNED_MASKS if inputs.get(name) is not None), "")
        labels_of = labels_of if inputs.get("labels") is not None else ""
    ids = _whole(inputs, "input_ids")
    labels = _whole(inputs, "labels")
    if labels is not None and labels.numel() == len(ids) and labels.shape != ids.shape:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, one for each row: they are those of a classifier. The "
            "audit is about causal language models, whose labels are tokens."
        )
    positions = _whole(inputs, "position_ids")
    if positions is not None:
        positions = positions.expand(ids.shape) if positions.shape == ids[:1].shape else positions
        _check_shape("position_ids", positions, ids)
    mask, mask_4d = _mask(inputs.get("attention_mask"), ids)
    fitting = labels if labels is not None and labels.shape == ids.shape else None
    return Batch(inputs, ids, mask, mask_4d, positions, fitting, labels_of)


def _what_it_is(batch: Any) -> str:
    """Say of what is no batch what to give instead."""
    takes = "audit() takes what model(**batch) is called with: a mapping that has input_ids"
    if isinstance(batch, tuple | list):
        return f"This is a {type(batch).__name__} of {len(batch)}. {takes}: {{'input_ids': x, 'labels': y}}."
    if (
        hasattr(batch, "__getitem__")
        and hasattr(batch, "__len__")
        and not isinstance(batch, torch.Tensor | str)
    ):
        return (
            f"This is a {type(batch).__name__}; of a data set give a DataLoader with its collator. {takes}."
        )
    return (
        f"{takes}; a data loader or a list of such batches; or a Trainer. This is a {type(batch).__name__}."
    )


def _other_labels(inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Make labels of a mask of what is learned; refuse labels under another name: nobody would see them."""
    for name in LEARNED_MASKS:
        if inputs.get(name) is not None:
            if name == "response_mask" and inputs[name].shape != inputs["input_ids"].shape:
                continue  # of the responses alone, as for PPO
            _check_shape(name, torch.as_tensor(inputs[name]), inputs["input_ids"])
            return {
                "labels": inputs["input_ids"].masked_fill(torch.as_tensor(inputs[name]) == 0, IGNORE_INDEX)
            }
    for name in inputs:
        if name == "y" or any(word in str(name).lower() for word in ("label", "target")):
            raise ValueError(f"The batch has no labels, but {name!r}: if they are the labels, rename them.")
    return {}


def _tensor(name: str, value: Any) -> Any:
    """Turn numbers in numpy arrays and lists into tensors; leave alone what is no part of a rectangle."""
    if isinstance(value, np.ndarray):
        return torch.tensor(value) if value.dtype.kind in "biuf" else value
    if name in ("input_ids", "attention_mask", "position_ids", "labels", *LEARNED_MASKS):
        if isinstance(value, list | tuple):
            try:
                return (
                    torch.stack(list(value))
                    if isinstance(next(iter(value), 0), torch.Tensor)
                    else torch.tensor(value)
                )
            except (ValueError, TypeError, RuntimeError) as error:
                raise ValueError(
                    f"{name} are lists of different lengths, or not of numbers ({error}). Audit the batch "
                    "after the collator has made a rectangle of it."
                ) from error
        if value is not None and not isinstance(value, torch.Tensor):
            raise ValueError(f"{name} is a {type(value).__name__}: give a tensor, a numpy array or lists.")
    return value


def _whole(inputs: Mapping[str, Any], name: str) -> torch.Tensor | None:
    """Return whole numbers as int64 on the CPU; refuse others by name."""
    tensor = inputs.get(name)
    if tensor is None:
        return None
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.dtype == torch.bool:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(f"{name} are {kind}, but must be whole numbers, such as int64.")
    return tensor.detach().cpu().long()


def _check_shape(name: str, tensor: torch.Tensor, ids: torch.Tensor) -> None:
    """Refuse what is no rectangle of the batch's own shape."""
    if tensor.shape != ids.shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, input_ids {tuple(ids.shape)}.")


def _mask(mask: torch.Tensor | None, ids: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Read a mask of two dimensions (not 0 = visible), or of four (True, or 0 to be added to scores)."""
    if mask is None:
        return None, None
    mask = mask.detach().cpu()
    if mask.dim() == 4:
        rows, seq = ids.shape
        if mask.shape[0] not in (1, rows) or mask.shape[2:] != (seq, seq):
            raise ValueError(
                f"attention_mask has shape {tuple(mask.shape)}; of four dimensions it must be "
                f"({rows}, 1, {seq}, {seq}) here: row, head, query, key."
            )
        visible = mask[:, 0] if mask.dtype == torch.bool else mask[:, 0] == 0
        return None, visible.expand(rows, seq, seq)
    _check_shape("attention_mask", mask, ids)
    return mask != 0, None
