"""The faults that only a model shows: change something, and see what moves.

Nothing here looks at how a model or a loss is written. Each check is a forward pass on the batch with one
thing changed, in eval mode and without gradients.
"""

import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, one_hot

from tinylib import show
from tinylib.audit.data import Spot
from tinylib.audit.facts import Facts
from tinylib.labels import IGNORE_INDEX, OFFSETS, loss_offset

Model = Callable[..., Any]
"""A model, or any function that is called with the batch and returns logits."""
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A loss of logits ``(rows, seq, vocabulary)`` and labels ``(rows, seq)``."""

MOST_LOGITS = 1_000_000_000  # bytes of one pass: more rows than these are not asked about
MOVED = 1e-3  # of the logits' spread; what hidden tokens do is 0, in every precision
NOT_INPUTS = ("labels", "logits_to_keep", "num_items_in_batch", "shift_labels", "fused_lm_head")


@contextmanager
def undisturbed(model: Any = None) -> Iterator[None]:
    """Run something in eval mode and without gradients; leave modes and random states as they were."""
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    modes = [module.training for module in modules]
    states = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            for module in modules:
                module.training = False
            yield
    finally:
        for module, mode in zip(modules, modes):
            module.training = mode
        random.setstate(states[0])
        np.random.set_state(states[1])


class Probe:
    """A model and some rows of a batch, asked again and again with something changed.

    Args:
        facts: Of the batch.
        model: In the mode it is used in.
        rows: The rows to ask about.
        call: What the model is really called with, if that is not the batch: a Trainer adds to it.
    """

    def __init__(self, facts: Facts, model: Model, rows: list[int], call: dict[str, Any]) -> None:
        self.facts, self.model, self.rows = facts, model, rows
        self.device = getattr(model, "device", None) or _device(model)
        self.inputs = {name: value for name, value in call.items() if name not in NOT_INPUTS}
        self.labels = call.get("labels") if facts.labels is not None else None
        self.real = facts.real[rows]
        self.loss = None
        output = self._output(**({} if self.labels is None else {"labels": self.labels}))
        if isinstance(output, torch.Tensor):
            logits = output
        else:
            logits, self.loss = getattr(output, "logits", None), getattr(output, "loss", None)
        if logits is None or logits.shape[:2] != self.real.shape:
            logits = self._logits()  # a fused loss keeps no logits
        self.logits = logits
        self.spread = float(logits[self.real.to(logits.device)].float().std())

    def _output(self, **changes: Any) -> Any:
        inputs = {**self.inputs, **changes}
        if self.device is not None:
            inputs = {k: v.to(self.device) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
        return self.model(**inputs)

    def _logits(self, **changes: Any) -> torch.Tensor:
        output = self._output(**changes)
        return output if isinstance(output, torch.Tensor) else output.logits

    def moved(self, changed: torch.Tensor, asked: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Replace some tokens; return where the logits of others moved, and the largest difference.

        Args:
            changed: The tokens to replace, bool of shape ``(rows, seq)``.
            asked: The tokens whose logits must not move.
        """
        ids = self.inputs["input_ids"].cpu()
        size = self.logits.shape[-1]
        other = (ids + size // 2 + 1) % size
        logits = self._logits(input_ids=torch.where(changed, other, ids))
        far = torch.stack([(a - b).float().abs().amax(dim=-1) for a, b in zip(logits, self.logits)]).cpu()
        far = far.nan_to_num(0.0).masked_fill(~asked, 0.0)
        return self.everywhere(far > MOVED * self.spread), float(far.max())

    def same(self, logits: torch.Tensor, reference: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """Compare two passes that compute the same in another way, where rounding may differ.

        Returns:
            Whether they agree, on average over the vocabulary; bool of shape ``(rows, seq)``.
        """
        far = torch.stack([(a - b).float().abs().mean(dim=-1) for a, b in zip(logits, reference)]).cpu()
        coarse = logits.dtype in (torch.float16, torch.bfloat16)
        return (far.nan_to_num(0.0) <= (0.1 if coarse else MOVED) * self.spread) | ~asked

    def everywhere(self, where: torch.Tensor) -> torch.Tensor:
        """Write what holds for the rows that were asked about into all rows of the batch."""
        full = torch.zeros_like(self.facts.real)
        full[self.rows] = where
        return full


def choose_rows(facts: Facts, vocabulary: int) -> list[int]:
    """Choose the rows to ask a model about: all, or of many those with most samples and most padding."""
    most = max(1, MOST_LOGITS // (4 * facts.seq * vocabulary))
    if facts.rows <= most:
        return list(range(facts.rows))
    interest = facts.pads.sum(dim=1) + facts.starts.sum(dim=1) * facts.seq
    return sorted(interest.argsort(descending=True, stable=True)[:most].tolist())


def faults(probe: Probe, found: set[str]) -> Iterator[Spot]:
    """Find what the model sees and should not.

    Args:
        probe: The model and the rows.
        found: Codes of faults that the data have shown; what follows from them is not told again.
    """
    facts = probe.facts
    real, pads = probe.real, facts.pads[probe.rows]
    before_text = pads & (real.cumsum(dim=1) == 0) & real.any(dim=1, keepdim=True)
    hidden = facts.batch.mask is not None or facts.batch.blocks is not None
    leak = False  # then the same cause also lets tokens look ahead
    if before_text.any() and facts.purpose == "generate":
        yield from _generated(probe, before_text, found)
    elif before_text.any():
        moved, most = probe.moved(before_text, real)
        if not moved.any():
            yield from _positions(probe, "positions.count_pads", before_text.any(dim=1, keepdim=True))
        elif "mask.shows_pads" not in found:
            code = "mask.ignored" if hidden else "mask.missing"
            leak = hidden
            yield code, probe.everywhere(before_text) & moved.any(dim=1, keepdim=True), _by(most)
    samples = facts.starts[probe.rows].cumsum(dim=1)
    if facts.starts.any() and "packing.positions_run_on" not in found:
        several = facts.starts[probe.rows].any(dim=1, keepdim=True)
        odd = samples % 2 == 1
        moved, most = probe.moved(real & ~odd & several, real & odd)
        leak |= bool(moved.any())
        yield "packing.samples_see_each_other", moved, _by(most)
        if facts.batch.blocks is not None and not leak:
            yield from _positions(probe, "packing.positions_run_on", several)
    if not leak:
        last = real & (real.flip(1).cumsum(dim=1).flip(1) == 1)
        moved, most = probe.moved(last, real & ~last)
        yield "model.sees_later_tokens", moved, _by(most)


def _by(most: float) -> str:
    return f"changing what must not be seen moved logits by up to {most:.2g}"


def _proper_positions(probe: Probe) -> torch.Tensor:
    """Count each sample's real tokens from 0."""
    starts = probe.facts.starts[probe.rows]
    count = probe.real.long().cumsum(dim=1)
    before = torch.where(starts, count - 1, 0).cummax(dim=1).values
    return (count - 1 - before).clamp(min=0)


def _positions(probe: Probe, code: str, rows: torch.Tensor) -> Iterator[Spot]:
    """Ask whether the model would answer otherwise with positions that count real tokens only."""
    given, proper = probe.inputs.get("position_ids"), _proper_positions(probe)
    if given is not None and torch.equal(given.cpu()[probe.real], proper[probe.real]):
        return
    logits = probe._logits(position_ids=proper)
    differs = ~probe.same(logits, probe.logits, probe.real & rows)
    yield code, probe.everywhere(differs), "with positions that count real tokens only, the logits differ"


def _generated(probe: Probe, before_text: torch.Tensor, found: set[str]) -> Iterator[Spot]:
    """Compare generate()'s first logits with those under a mask and positions made from the lengths."""
    if found & {"mask.shows_pads", "mask.hides_tokens", "mask.hides_row"}:
        return
    logits = probe.logits
    if hasattr(probe.model, "generate"):
        logits = generated_logits(probe.model, probe.inputs, probe.device)
    proper = {"attention_mask": probe.real.long(), "position_ids": _proper_positions(probe)}
    proper = {
        name: proper[name] for name in proper if name != "position_ids" or _takes_positions(probe.model)
    }
    right = probe._logits(**proper)[:, -1:]
    rows = before_text.any(dim=1, keepdim=True)
    differs = ~probe.same(logits[:, -1:], right, rows)
    mask = probe.facts.batch.mask
    given = probe.inputs.get("position_ids") is not None
    code = "mask.missing" if mask is None else "positions.count_pads" if given else "mask.ignored"
    detail = "generate() scores the first new token otherwise than with the mask"
    yield code, probe.everywhere(before_text & differs), detail


def generated_logits(model: Any, inputs: dict[str, Any], device: Any) -> torch.Tensor:
    """Return what generate() makes of a prompt's last column, of shape ``(rows, 1, vocabulary)``."""
    inputs = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
    with show.library_warnings():
        output = model.generate(
            **inputs, max_new_tokens=1, do_sample=False, num_beams=1,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    return output.logits[0][:, None]


def shift_of_the_loss(probe: Probe | None, labels: torch.Tensor, loss: Loss | float | None) -> int:
    """Tell which label the loss compares with the logits of position i: label i + shift.

    Args:
        probe: The model and the rows; None if there is only a loss.
        labels: Of these rows.
        loss: A function, which gets logits that favour one offset after the other; or what a Trainer
            computed; None for the model's own.

    Raises:
        ValueError: It cannot be told; the message says why.
    """
    if callable(loss):
        return _favoured(labels, loss)
    value = probe.loss if loss is None else loss
    if value is None:
        raise ValueError("the model computes no loss; pass yours, audit(..., loss=function)")
    try:
        return loss_offset(value, probe.logits, labels.to(probe.logits.device))
    except ValueError as error:
        raise ValueError(
            f"the loss {float(value):.3f} is no plain mean of cross-entropies, or all offsets cost the same"
        ) from error


def _favoured(labels: torch.Tensor, loss: Loss) -> int:
    """Find the offset at which certainty costs least."""
    kinds = labels[labels != IGNORE_INDEX].unique()
    named = torch.searchsorted(kinds, labels.clamp(min=int(kinds.min()), max=int(kinds.max())))
    own = torch.where(labels == IGNORE_INDEX, IGNORE_INDEX, named)
    values = {}
    for offset in OFFSETS:
        favoured = own.roll(-offset, dims=1)
        logits = 20.0 * one_hot(favoured.clamp(min=0), max(2, len(kinds))).float()
        logits = logits * (favoured != IGNORE_INDEX)[..., None]
        values[offset] = float(loss(logits, own))
    best, second = sorted(values.values())[:2]
    if not best < second:
        raise ValueError("the labels are too much alike to tell")
    return min(values, key=values.__getitem__)


def aligned_losses(probe: Probe) -> dict[int, float]:
    """Return the model's loss, before any training, on each offset of the tokens that are learned."""
    tokens, learned = probe.facts.tokens[probe.rows], probe.facts.learned[probe.rows]
    values = {}
    for offset in OFFSETS:
        there = torch.arange(probe.real.shape[1]) + offset
        inside = (there >= 0) & (there < tokens.shape[1])
        there = there.clamp(0, tokens.shape[1] - 1)
        wanted = learned[:, there] & inside & probe.real & (tokens[:, there] < probe.logits.shape[-1])
        if wanted.any():
            logits = probe.logits[wanted.to(probe.logits.device)].float().cpu()
            values[offset] = float(cross_entropy(logits, tokens[:, there][wanted]))
    return values


def _takes_positions(model: Any) -> bool:
    forward = getattr(model, "forward", model)
    names = inspect.signature(forward).parameters.values()
    return any(p.name == "position_ids" or p.kind is p.VAR_KEYWORD for p in names)


def _device(model: Any) -> torch.device | None:
    if isinstance(model, torch.nn.Module):
        for parameter in model.parameters():
            return parameter.device
    return None
