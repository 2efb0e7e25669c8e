"""The faults that only a model shows: change something, and see what moves.

Nothing here looks at how a model or a loss is written. Each check is a forward pass on the batch with one
thing changed, in eval mode and without gradients.
"""

import inspect
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, one_hot
from transformers import GenerationConfig, GenerationMixin

from batchaudit.batch import Batch
from batchaudit.contents import Hit
from batchaudit.facts import Facts
from batchaudit.offsets import OFFSETS, loss_offset
from batchaudit.sources import refusals
from tinylib.labels import IGNORE_INDEX
from tinylib.padding import position_ids
from tinylib.quiet import library_warnings

Model = Callable[..., Any]
"""A model, or any function that is called with the batch and returns logits."""
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A loss of logits ``(rows, seq, vocabulary)`` and labels ``(rows, seq)``."""

MOST_LOGITS = 1_000_000_000  # bytes of one pass: more rows than these are not asked about
# As shares of the logits' spread. What a hidden token does is 0, unless it changes how others are rounded.
LEAK, LEAK_IN_16_BITS, ROUNDING_OF_16_BITS = 1e-3, 0.05, 0.1
KINDS = 64  # of labels that a loss is asked about
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

    Attributes:
        logits: Of the batch as it is, of shape ``(rows, seq, vocabulary)``.
        nan: Where one of them is NaN; bool of shape ``(rows, seq)``.
        loss: What the model computed, or None.
        checked: What it was asked.
        not_checked: What it could not be asked, and why.

    Raises:
        Refused: Now or later: the model cannot be called so.
        ValueError: It gives no logits for each token.
    """

    def __init__(self, facts: Facts, model: Model, rows: list[int], call: dict[str, Any]) -> None:
        self.facts, self.model, self.rows = facts, model, rows
        # A function does not say where its model is: then the batch is there.
        self.device = _device(model) or call["input_ids"].device
        self.inputs = {name: value for name, value in call.items() if name not in NOT_INPUTS}
        self.options = {}  # of generate() alone, given along with the prompts
        if facts.purpose == "generate" and hasattr(model, "generate"):
            names = [name for name in self.inputs if name in _options_of_generate()]
            self.options = {name: self.inputs.pop(name) for name in names}
        self.real = facts.real[rows]
        self.checked: list[str] = []
        self.not_checked: dict[str, str] = {}
        labels = call.get("labels") if facts.labels is not None else None
        output = self._output(**({} if labels is None else {"labels": labels}))
        self.loss = getattr(output, "loss", None)
        kept = isinstance(output, torch.Tensor) or getattr(output, "logits", None) is not None
        self.logits = self.logits_of(output if kept else self._output())  # a fused loss keeps none
        self._check_shape()
        self.nan = self.logits.isnan().any(dim=-1).cpu()
        finite = self.logits[self.real.to(self.logits.device)].float()
        self.spread = float(finite[finite.isfinite()].std()) if not self.nan.any() else float("nan")

    def _check_shape(self) -> None:
        """Refuse what gives no logits for each token."""
        expected = tuple(self.real.shape)
        if self.logits.dim() != 3 or tuple(self.logits.shape[:2]) != expected:
            raise ValueError(
                f"The model gives logits of shape {tuple(self.logits.shape)} for {expected} tokens: a causal "
                "language model gives (rows, tokens, vocabulary). Is it a classifier, or without its head?"
            )

    def _output(self, **changes: Any) -> Any:
        inputs = self._on_device({**self.inputs, **changes})
        _seed()  # a function may hide a model in training mode: the same dropout each time
        with refusals():
            return self.model(**inputs)

    def _on_device(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {k: v.to(self.device) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}

    def generated(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Let generate() write two tokens after the prompts.

        Returns:
            The logits that it chose them by, of shape ``(rows, 2, vocabulary)``, and the first token,
            ``(rows, 1)``.
        """
        options = self.options | {
            "max_new_tokens": 2, "min_new_tokens": 2, "do_sample": False, "num_beams": 1, "streamer": None,
            "num_return_sequences": 1, "return_dict_in_generate": True, "output_logits": True,
        }  # fmt: skip
        with refusals(), library_warnings():
            output = self.model.generate(**self._on_device(self.inputs | options))
        return torch.stack(output.logits, dim=1), output.sequences[:, -2:-1]

    def logits_of(self, output: Any) -> torch.Tensor:
        """Return the logits of the batch's own columns; prompt tuning puts others before them."""
        logits = output if isinstance(output, torch.Tensor) else getattr(output, "logits", None)
        if logits is None:
            raise ValueError(
                f"The model gives no logits, but a {type(output).__name__}. Give it with its head."
            )
        return logits[:, -self.real.shape[1] :] if logits.dim() == 3 else logits

    def with_changes(self, **changes: Any) -> torch.Tensor:
        """Return the logits of another call."""
        return self.logits_of(self._output(**changes))

    def takes(self, name: str) -> bool:
        """Tell if the model can be called with an argument of this name."""
        forward = getattr(self.model, "forward", self.model)
        parameters = inspect.signature(forward).parameters.values()
        return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)

    def moved(self, changed: torch.Tensor, asked: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Replace some tokens; return where the logits of others moved, and the largest difference.

        Args:
            changed: The tokens to replace, bool of shape ``(rows, seq)``.
            asked: The tokens whose logits must not move.
        """
        ids = self.inputs["input_ids"].cpu()
        size = self.logits.shape[-1]
        other = (ids + size // 2 + 1) % size
        logits = self.with_changes(input_ids=torch.where(changed, other, ids))
        far = torch.stack([(a - b).float().abs().amax(dim=-1) for a, b in zip(logits, self.logits)]).cpu()
        far = far.nan_to_num(0.0).masked_fill(~asked, 0.0)
        least = LEAK_IN_16_BITS if is_half_precision(self.logits) else LEAK
        return self.everywhere(far > least * self.spread), float(far.max())

    def same(self, logits: torch.Tensor, reference: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """Compare two passes that compute the same in another way, where rounding may differ.

        Returns:
            Whether they agree, on average over the vocabulary; bool of shape ``(rows, seq)``.
        """
        far = torch.stack([(a - b).float().abs().mean(dim=-1) for a, b in zip(logits, reference)]).cpu()
        most = ROUNDING_OF_16_BITS if is_half_precision(reference) else LEAK
        return (far.nan_to_num(0.0) <= most * self.spread) | ~asked

    def everywhere(self, where: torch.Tensor) -> torch.Tensor:
        """Write what holds for the rows that were asked about into all rows of the batch."""
        full = torch.zeros_like(self.facts.real)
        full[self.rows] = where
        return full


def choose_rows(facts: Facts) -> list[int]:
    """Choose the rows to ask a model about: all, or those with labels, with most samples, most padding."""
    most = max(1, MOST_LOGITS // (4 * facts.seq * (facts.vocabulary or 50_000)))
    if facts.rows <= most:
        return list(range(facts.rows))
    interest = facts.pads.sum(dim=1) + facts.starts.sum(dim=1) * facts.seq
    interest += facts.learned.any(dim=1) * facts.seq**2
    return sorted(interest.argsort(descending=True, stable=True)[:most].tolist())


def faults(probe: Probe, found: set[str]) -> Iterator[Hit]:
    """Find what the model sees and should not.

    Args:
        probe: The model and the rows.
        found: Codes of faults that the data have shown; what follows from them is not told again.
    """
    if probe.nan.any():
        yield _nan(probe)
        probe.not_checked["what the model sees"] = "its logits are NaN, from which nothing follows"
        return
    facts = probe.facts
    real, before_text = probe.real, facts.pads_before_text[probe.rows]
    hidden = facts.batch.mask is not None or facts.batch.mask_4d is not None
    counted = torch.zeros(len(real), 1, dtype=torch.bool)  # rows whose positions may be wrong
    leak = False  # then the same cause also lets tokens look ahead
    if before_text.any() and facts.purpose == "generate":
        yield from _generated(probe, before_text, found)
    elif before_text.any():
        moved, most = probe.moved(before_text, real)
        probe.checked.append("that the model sees no padding")
        counted |= before_text.any(dim=1, keepdim=True) & ~moved.any()
        if moved.any() and "mask.shows_pads" not in found:
            code = "mask.ignored" if hidden else "mask.missing"
            leak = hidden
            where = probe.everywhere(before_text) & moved.any(dim=1, keepdim=True)
            variant = "dropped" if hidden and probe.inputs.get("attention_mask") is None else ""
            yield Hit(code, where, _by(most), variant=variant)
    starts = facts.starts[probe.rows]
    if starts.any():
        moved, most = neighbours(probe, starts)
        leak |= bool(moved.any())
        yield Hit("packing.samples_see_each_other", moved, _by(most))
        several = starts.any(dim=1, keepdim=True)
        counted |= several & (facts.batch.mask_4d is not None) & ~moved.any()
    yield from _positions(probe, counted)
    if not leak:
        last = real & (real.flip(1).cumsum(dim=1).flip(1) == 1)
        moved, most = probe.moved(last, real & ~last)
        probe.checked.append("that it sees no later token")
        yield Hit("model.sees_later_tokens", moved, _by(most))


def neighbours(probe: Probe, starts: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Replace every other sample; return which tokens of the rest moved, and the largest difference.

    Args:
        probe: The model and the rows.
        starts: Where another sample begins in these rows; bool of shape ``(rows, seq)``.
    """
    odd = starts.cumsum(dim=1) % 2 == 1
    several = starts.any(dim=1, keepdim=True)
    probe.checked.append("that packed samples do not see each other")
    return probe.moved(probe.real & ~odd & several, probe.real & odd)


def _nan(probe: Probe) -> Hit:
    """Say where logits are NaN."""
    nan, pads = probe.nan, ~probe.real
    padded = pads.any(dim=1)
    if (nan & probe.real).all() or nan.all():
        place = "everywhere"
    elif not (nan & probe.real).any():
        place = "at pads only"
    elif not nan.any(dim=1)[~padded].any() and padded.any() and not padded.all():
        place = "in padded rows only"
    else:
        place = "in some places"
    return Hit("model.nan", probe.everywhere(nan), f"{place}: {int(nan.sum())} of {nan.numel()} positions")


def _by(most: float) -> str:
    return f"changing what must not be seen moved logits by up to {most:.2g}"


def _proper_positions(probe: Probe) -> torch.Tensor:
    """Count each sample's real tokens from 0."""
    positions = position_ids(probe.real)
    return positions - torch.where(probe.facts.starts[probe.rows], positions, 0).cummax(dim=1).values


def _positions(probe: Probe, rows: torch.Tensor) -> Iterator[Hit]:
    """Ask whether the model would answer otherwise with positions that count real tokens only."""
    if not rows.any():
        return
    given, proper = probe.inputs.get("position_ids"), _proper_positions(probe)
    if given is not None and torch.equal(given.cpu().expand_as(proper)[probe.real], proper[probe.real]):
        return
    if not probe.takes("position_ids"):
        probe.not_checked["whether positions count the padding"] = "the model takes no position_ids"
        return
    differs = ~probe.same(probe.with_changes(position_ids=proper), probe.logits, probe.real & rows)
    packed = probe.facts.starts[probe.rows].any(dim=1, keepdim=True)
    detail = "with positions that count real tokens only, the logits differ"
    yield Hit("positions.count_pads", probe.everywhere(differs & ~packed), detail)
    yield Hit("packing.positions_run_on", probe.everywhere(differs & packed), detail)


def _generated(probe: Probe, before_text: torch.Tensor, found: set[str]) -> Iterator[Hit]:
    """Compare generate()'s first logits with those under a mask and positions made from the lengths."""
    if found & {"mask.shows_pads", "mask.hides_tokens", "mask.hides_row"}:
        return
    if not probe.takes("attention_mask"):
        probe.not_checked["whether padding is seen"] = "the model takes no attention_mask"
        return
    rows = before_text.any(dim=1, keepdim=True)
    proper = {"attention_mask": probe.real.long(), "position_ids": _proper_positions(probe)}
    proper = {name: value for name, value in proper.items() if probe.takes(name)}
    if hasattr(probe.model, "generate"):
        logits, first = probe.generated()
        longer = {
            name: torch.cat([value, value[:, -1:] + (name == "position_ids")], dim=1)
            for name, value in proper.items()
        }
        ids = torch.cat([probe.inputs["input_ids"].cpu(), first.cpu()], dim=1)
        if (types := probe.inputs.get("token_type_ids")) is not None:  # of a new token that of the last
            longer["token_type_ids"] = torch.cat([types, types[:, -1:]], dim=1)
        right = probe.with_changes(input_ids=ids, **longer)[:, -2:]
    else:
        logits, right = probe.logits[:, -1:], probe.with_changes(**proper)[:, -1:]
    if right.isnan().any() or logits.isnan().any():
        probe.not_checked["whether padding is seen"] = "logits are NaN"
        return
    probe.checked.append("that the model sees no padding")
    differs = ~probe.same(logits, right, rows)
    given = probe.inputs.get("position_ids") is not None
    mask = probe.facts.batch.mask
    code = "mask.missing" if mask is None else "positions.count_pads" if given else "mask.ignored"
    detail = "with mask and positions from the lengths, the first new token is scored otherwise"
    yield Hit(code, probe.everywhere(before_text & differs[:, :1]), detail)
    if differs.shape[1] == 2 and not differs[:, 0].any():
        probe.checked.append("that the second new token is scored as in one pass")
        detail = "a forward pass on all of the row scores the second new token otherwise than generate()"
        yield Hit("generation.later_tokens", probe.everywhere(before_text & differs[:, 1:]), detail)


def shift_of_the_loss(probe: Probe | None, labels: torch.Tensor, loss: Loss | torch.Tensor | None) -> int:
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
    if probe.nan.any():
        raise ValueError("the model's logits are NaN")
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
    """Find the offset at which certainty costs least; a few rows and kinds of labels suffice."""
    most = (labels != IGNORE_INDEX).sum(dim=1).argsort(descending=True, stable=True)[:4]
    own = labels[most].remainder(KINDS).masked_fill(labels[most] == IGNORE_INDEX, IGNORE_INDEX)
    values = {}
    for offset in OFFSETS:
        favoured = own.roll(-offset, dims=1)
        logits = 20.0 * one_hot(favoured.clamp(min=0), KINDS) * (favoured != IGNORE_INDEX)[..., None]
        try:
            values[offset] = float(loss(logits, own))
        except Exception as error:  # somebody's own function
            raise ValueError(f"the loss raised {type(error).__name__}: {error!s:.200}") from error
    best, second = sorted(values.values())[:2]
    if not math.isfinite(best):
        raise ValueError(f"the loss is {best}")
    if not best < second:
        raise ValueError("the labels are too much alike to tell")
    return min(values, key=values.__getitem__)


def ignores(index: int, loss: Loss) -> bool:
    """Tell if a loss leaves out labels of this index: then it is a mean over the others, at some offset.

    The index may be a token's: some losses leave out the pad.
    """
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(2, 16, KINDS, generator=generator)
    labels = torch.randint(0, KINDS, (2, 16), generator=generator)
    labels = torch.where(labels == index, (index + 1) % KINDS, labels)
    left_out = torch.arange(16) % 3 == 1
    try:
        value = loss(logits, labels.masked_fill(left_out, index))
        loss_offset(value, logits, labels.masked_fill(left_out, IGNORE_INDEX))
    except Exception:  # of somebody's own function, or ours: it counts them
        return False
    return True


def model_ignores(model: Model | None, batch: Batch, index: int) -> bool:
    """Tell the same of a model's own loss, which is computed once more for it.

    Not on a GPU, where a label out of range is an assertion that ends the process.
    """
    if model is None or (_device(model) or torch.device("cpu")).type != "cpu":
        return False
    try:
        output = model(**batch.inputs)
        loss_offset(output.loss, output.logits, batch.labels.masked_fill(batch.labels == index, IGNORE_INDEX))
    except Exception:  # of somebody's own model, or ours
        return False
    return True


def losses_at_offsets(probe: Probe, offsets: Sequence[int]) -> dict[int, float]:
    """Return the model's loss, before any training, on the learned tokens at each offset from the logits."""
    tokens, learned = probe.facts.tokens[probe.rows], probe.facts.learned[probe.rows]
    values = {}
    for offset in offsets:
        there = torch.arange(probe.real.shape[1]) + offset
        inside = (there >= 0) & (there < tokens.shape[1])
        there = there.clamp(0, tokens.shape[1] - 1)
        wanted = learned[:, there] & inside & probe.real & (tokens[:, there] < probe.logits.shape[-1])
        if wanted.any():
            logits = probe.logits[wanted.to(probe.logits.device)].float().cpu()
            values[offset] = float(cross_entropy(logits, tokens[:, there][wanted]))
    return values


def is_half_precision(logits: torch.Tensor) -> bool:
    """Tell if numbers were computed in 16 bits, whatever type they have now."""
    logits = logits[..., :256]
    return any(
        torch.equal(logits, logits.to(kind).to(logits.dtype)) for kind in (torch.bfloat16, torch.float16)
    )


@cache
def _options_of_generate() -> set[str]:
    """Return the names of what generate() takes besides the model's inputs."""
    return {*vars(GenerationConfig()), *inspect.signature(GenerationMixin.generate).parameters} - {"inputs"}


def _seed() -> None:
    """Begin the random numbers anew, on devices that are in use.

    ``torch.manual_seed`` would also leave a seed to CUDA for when it begins, after the audit.
    """
    torch.default_generator.manual_seed(0)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(0)


def _device(model: Any) -> torch.device | None:
    parameters = model.parameters() if isinstance(model, torch.nn.Module) else iter(())
    return next((parameter.device for parameter in parameters), None)
