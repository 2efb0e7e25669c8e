"""One call that finds the silent bugs of this course in anyone's batch, collator, data loader or Trainer.

>>> from tinylib.audit import audit
>>> batch = {"input_ids": [[5, 6, 7, 2]], "labels": [[-100, -100, -100, -100]]}
>>> audit(batch).codes
['labels.nothing_in_batch']

What the numbers of a batch show is found in them; the rest by asking the model, or the loss, what it does
when one thing is changed. `tinylib.audit.report.FAULTS` lists all that it knows.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, get_args

import torch
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback

from tinylib.audit import behaviour, data
from tinylib.audit.batch import Batch, read
from tinylib.audit.facts import Facts, Purpose
from tinylib.audit.report import FAULTS, Finding, Report, draw, token_string
from tinylib.labels import IGNORE_INDEX

ABOUT_ROWS = {  # not about some of their tokens
    "mask.hides_row", "labels.shape", "labels.shifted_twice", "labels.never_shifted", "labels.nothing_in_row",
    "labels.nothing_in_batch", "generation.other_pad",
}  # fmt: skip

__all__ = ["FAULTS", "AuditCallback", "Finding", "Report", "audit"]


def audit(
    batch: Any,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    model: behaviour.Model | None = None,
    purpose: Purpose = "train",
    loss: behaviour.Loss | None = None,
    batches: int = 4,
) -> Report:
    """Look for silent bugs in a batch, in the first batches of a data loader, or in a Trainer.

    Nothing is changed: not the batch, not the model's weights, gradients and mode, not any random state.
    The model is asked about the first batch only, in at most six forward passes, and only about as many
    rows as fit into 1 GB of logits.

    Args:
        batch: What ``model(**batch)`` or ``model.generate(**batch)`` is called with: a mapping with
            ``input_ids`` of shape ``(rows, seq)`` and whatever goes with it, as tensors on any device, numpy
            arrays or lists. A collator is audited by a batch that it makes. Or a data loader, a list of
            batches, or a Trainer, which brings its model, tokenizer and loss along.
        tokenizer: Without it nothing is known of pads, turns and ends.
        model: Any causal model, or a function that is called as ``model(**batch)`` and returns logits.
            Without it nothing is known of what is seen, nor of the loss.
        purpose: ``"train"``, or ``"generate"`` for a batch of prompts.
        loss: What is trained on, if not the model's own loss: a function of ``(logits, labels)``.
        batches: How many batches of a data loader to look at.

    Returns:
        A `Report`: print it, show it in a notebook, or call its ``raise_for_findings()``.

    Raises:
        ValueError: It is not a batch; the message names what is wrong with it.
    """
    if purpose not in get_args(Purpose):
        raise ValueError(f"purpose must be 'train' or 'generate', not {purpose!r}.")
    trainer = batch if isinstance(batch, Trainer) else None
    with behaviour.undisturbed(trainer.model if trainer else model):
        if trainer is not None:
            tokenizer = tokenizer or _text_tokenizer(trainer.processing_class)
            model = model or trainer.model
        several = list(_batches(batch, batches))
        if not several:
            raise ValueError("The data loader gives no batch.")
        report = Report([])
        for number, one in enumerate(several):
            _audit_one(report, number, read(one), tokenizer, model, purpose, loss, trainer)
    if len(several) > 1 and model is not None:
        report.not_checked["what the model sees in other batches"] = "it was run on batch 0 only"
    return report


class AuditCallback(TrainerCallback):
    """Audit the first batches of a Trainer before its first step, and print what was found.

    ``trainer.add_callback(AuditCallback(trainer))``, with any Trainer of transformers or TRL.

    Args:
        trainer: The Trainer whose callback it is.
        stop: Raise a ValueError if anything is found, so that no time is spent on such a training.
        batches: How many batches to look at.
    """

    def __init__(self, trainer: Trainer, *, stop: bool = False, batches: int = 4) -> None:
        self.trainer, self.stop, self.batches = trainer, stop, batches

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Audit; called by the Trainer."""
        report = audit(self.trainer, batches=self.batches)
        if self.stop:
            report.raise_for_findings()
        if state.is_world_process_zero:
            print(report)


def _audit_one(
    report: Report,
    number: int,
    batch: Batch,
    tokenizer: PreTrainedTokenizerBase | None,
    model: behaviour.Model | None,
    purpose: Purpose,
    loss: behaviour.Loss | None,
    trainer: Trainer | None,
) -> None:
    """Add to the report what one batch shows; the model is asked about the first."""
    facts = Facts(batch, tokenizer, _vocabulary(model, tokenizer), purpose)
    report.batches.append((facts.rows, facts.seq))
    spots: list[data.Spot] = []
    if purpose == "train" and batch.labels_do_not_fit:
        given = batch.inputs["labels"]
        detail = f"labels {tuple(given.shape)}, input_ids {tuple(facts.ids.shape)}"
        spots.append(("labels.shape", facts.real, detail))
    wrong_ids = bool(facts.out_of_vocabulary.any())
    if wrong_ids:
        spots += [spot for spot in data._vocabulary(facts) if spot[1].any()]
        report.not_checked["everything else"] = "ids outside the vocabulary stand for nothing"
    else:
        spots += data.faults(facts)
        _note_what_data_cannot_tell(report, facts, model)
        if number == 0:
            spots += _asked(report, facts, {spot[0] for spot in spots}, model, loss, trainer)
    shown = {"input_ids": facts.ids}
    if batch.mask is not None:
        shown["attention_mask"] = batch.mask.long()
    if batch.position_ids is not None:
        shown["position_ids"] = batch.position_ids
    if facts.labels is not None:
        shown["labels"] = facts.labels
    known = {finding.code for finding in report.findings}
    for code, where, detail in sorted(spots, key=lambda spot: list(FAULTS).index(spot[0])):
        if code in known or not where.any():  # the same fault in a later batch is told once
            continue
        flags = where.numpy()
        places = {row: flags[row].nonzero()[0].tolist() for row in flags.any(axis=1).nonzero()[0].tolist()}
        told = [text[0].upper() + text[1:] for text in (_which_tokens(facts, code, places), detail) if text]
        detail = ". ".join(told)
        report.findings.append(Finding(code, places, draw(shown, places, tokenizer), detail, number))


def _which_tokens(facts: Facts, code: str, places: dict[int, list[int]]) -> str:
    """Count the tokens of a fault, and name those of the first row."""
    if code in ABOUT_ROWS:
        return ""
    row, columns = next(iter(places.items()))
    shift = int(facts.offset[row]) if code.startswith("labels.") and facts.offset is not None else 0
    tokens = [token_string(facts.tokenizer, int(facts.tokens[row, column + shift])) for column in columns[:6]]
    more = " …" if len(columns) > len(tokens) else ""
    text = f"{sum(map(len, places.values()))} tokens; in row {row}: {' '.join(tokens)}{more}"
    return text + (f" (each named by the label {shift} column before it)" if shift == 1 else "")


def _asked(
    report: Report,
    facts: Facts,
    found: set[str],
    model: behaviour.Model | None,
    loss: behaviour.Loss | None,
    trainer: Trainer | None,
) -> Iterator[data.Spot]:
    """Find what the model and the loss show."""
    if model is None:
        report.not_checked["what the model sees (padding, neighbours, later tokens)"] = "there is no model"
    rows = list(range(facts.rows))
    probe = None
    if model is not None:
        rows = behaviour.choose_rows(facts, _vocabulary(model, None) or 50_000)
        call = facts.batch.part(rows)
        if facts.labels is None or "labels.out_of_vocabulary" in found:
            call.pop("labels", None)
        value = None
        if trainer is not None:
            call, value = _as_the_trainer_calls(trainer, call)
        probe = behaviour.Probe(facts, model, rows, call)
        loss = value if loss is None else loss
        if len(rows) < facts.rows:
            report.not_checked["what the model sees in all rows"] = f"it was run on {len(rows)} of them"
        report.checked.append("that the model sees no padding, neighbour or later token")
        yield from behaviour.faults(probe, found)
        pad, own = _generation_pad(model), facts.special("pad")
        if facts.purpose == "generate" and pad is not None and own is not None and pad != own:
            detail = f"it pads with id {pad}, the tokenizer with {own}"
            yield "generation.other_pad", facts.real, detail
    if facts.labels is not None and "labels.out_of_vocabulary" not in found:
        yield from _who_shifts(report, facts, rows, probe, loss)


def _who_shifts(
    report: Report,
    facts: Facts,
    rows: list[int],
    probe: behaviour.Probe | None,
    loss: behaviour.Loss | torch.Tensor | None,
) -> Iterator[data.Spot]:
    """Add the offset of the data and that of the loss; together they must be 1."""
    name = "who shifts the labels"
    if facts.offset is None:
        if facts.learned.any():
            report.not_checked[name] = "the labels fit several offsets, or none"
        return
    if probe is None and loss is None:
        told = "the data do" if int(facts.offset[0]) else "the data do not"
        report.not_checked[name] = f"{told}; there is no model and no loss to ask"
        return
    try:
        by_loss = behaviour.shift_of_the_loss(probe, facts.labels[rows], loss)
    except ValueError as error:
        report.not_checked[name] = str(error)
        return
    report.checked.append("who shifts the labels")
    total = facts.offset + by_loss
    values = behaviour.aligned_losses(probe) if probe is not None else {}
    for code, wrong in [("labels.shifted_twice", total > 1), ("labels.never_shifted", total < 1)]:
        for sum_ in total[wrong].unique().tolist():
            detail = f"the data shift by {sum_ - by_loss}, the loss by {by_loss}: that makes {sum_}, not 1"
            if sum_ in values and 1 in values:
                detail += f". Before training the loss on these labels is {values[sum_]:.1f}"
                detail += f"; on labels shifted once it is {values[1]:.1f}"
            these = (total == sum_)[:, None] & facts.label_places(facts.learned)
            yield code, these, detail


def _note_what_data_cannot_tell(report: Report, facts: Facts, model: Any) -> None:
    """Say what is not known of this batch, and why."""
    report.checked = report.checked or ["ids, mask and padding"]
    if facts.tokenizer is None:
        report.not_checked["padding that no mask hides, ends of text, BOS"] = "there is no tokenizer"
    if facts.purpose == "train" and facts.batch.inputs.get("labels") is None:
        report.not_checked["labels"] = "the batch has none"
    turns = "turns, answers and their ends"
    if not any(facts.turns):
        reason = (
            "no row has a turn as the chat template writes it" if facts.template else facts.why_no_template
        )
        report.not_checked[turns] = reason
    else:
        report.checked = list(dict.fromkeys([*report.checked, turns]))
        report.not_checked["words that spell out a whole turn"] = "in token ids they look like a real one"
    if facts.purpose == "train":
        report.not_checked["prompts for generation"] = "audit a batch of them with purpose='generate'"


def _batches(source: Any, count: int) -> Iterator[Any]:
    """Take the first batches of whatever it is, and leave its random generators as they were."""
    if isinstance(source, Trainer):
        loader = source.get_train_dataloader()
        # accelerate's loader keeps count of those in use; the one beneath it gives the same batches
        yield from islice(iter(getattr(loader, "base_dataloader", loader)), count)
        return
    if (
        isinstance(source, Mapping)
        or not isinstance(source, Iterable)
        or isinstance(source, str | torch.Tensor)
    ):
        yield source
        return
    if isinstance(source, Iterator):
        raise ValueError(
            "An iterator would lose its first batches to the audit: give the data loader itself, or a list."
        )
    holders = [source, getattr(source, "sampler", None)]
    generators = [g for g in (getattr(holder, "generator", None) for holder in holders) if g is not None]
    states = [generator.get_state() for generator in generators]
    try:
        yield from islice(iter(source), count)
    finally:
        for generator, state in zip(generators, states):
            generator.set_state(state)


@contextmanager
def _listening(model: torch.nn.Module, calls: list[dict[str, Any]]) -> Iterator[None]:
    """Keep what a model is called with."""
    handle = model.register_forward_pre_hook(lambda _, __, call: calls.append(dict(call)), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _as_the_trainer_calls(trainer: Trainer, batch: dict[str, Any]) -> tuple[dict[str, Any], torch.Tensor]:
    """Let a Trainer compute its loss of a batch; return what it called the model with, and the loss."""
    calls: list[dict[str, Any]] = []
    counted = (batch["labels"][:, 1:] != IGNORE_INDEX).sum() if "labels" in batch else None
    metrics = getattr(trainer, "_metrics", {})  # of TRL, where an audit is no evaluation
    kept = {mode: {name: list(values) for name, values in of.items()} for mode, of in metrics.items()}
    with _listening(trainer.model, calls), trainer.compute_loss_context_manager():
        inputs = trainer._prepare_inputs(dict(batch))
        value = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=counted)
    for mode, of in metrics.items():
        of.clear()
        of.update(kept[mode])
    return {**calls[0], "labels": batch.get("labels")}, value


def _text_tokenizer(processor: Any) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer, also out of a processor of text and images."""
    processor = getattr(processor, "tokenizer", processor)
    return processor if isinstance(processor, PreTrainedTokenizerBase) else None


def _vocabulary(model: Any, tokenizer: PreTrainedTokenizerBase | None) -> int | None:
    """Return how many ids there are: by the model, else by the tokenizer."""
    embedding = getattr(model, "get_input_embeddings", lambda: None)()
    if embedding is not None:
        return embedding.num_embeddings
    return len(tokenizer) if tokenizer is not None else None


def _generation_pad(model: Any) -> int | None:
    return getattr(getattr(model, "generation_config", None), "pad_token_id", None)
