"""The audit itself: read each batch, ask the model about the first, and tell what was found."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args

import torch
from transformers import PreTrainedTokenizerBase

from batchaudit import behaviour, contents
from batchaudit.batch import read
from batchaudit.facts import Facts, Purpose
from batchaudit.report import FAULTS, Finding, Report, draw
from batchaudit.sources import Refused, as_called, first_batches, is_trainer, splits_its_model, tokenizer_of
from batchaudit.turns import Template
from tinylib import show

ABOUT_ROWS = {  # not about some of their tokens
    "mask.hides_row", "labels.shape", "labels.shifted_twice", "labels.never_shifted", "labels.nothing_in_row",
    "labels.nothing_in_batch", "generation.other_pad",
}  # fmt: skip

if TYPE_CHECKING:
    from transformers import Trainer


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

    Nothing is changed: not the batch, not the model's weights, gradients and mode, not the random states of
    Python, numpy, torch and the loader. (A data set that can be read only once loses what is read.) The
    model is asked about the first batch only, in at most six forward passes (seven with a Trainer whose loss
    keeps no logits), and only about as many rows as fit into 1 GB of logits.

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
        batches: How many batches of a data loader to look at, at least one.

    Returns:
        A `Report`: print it, show it in a notebook, or call its ``raise_for_findings()``.

    Raises:
        ValueError: It is not a batch (the message names what is wrong with it), or there is none.
    """
    if purpose not in get_args(Purpose):
        raise ValueError(f"purpose must be 'train' or 'generate', not {purpose!r}.")
    if batches < 1:
        raise ValueError(f"batches must be at least 1, not {batches}.")
    trainer = batch if is_trainer(batch) else None
    with behaviour.undisturbed(trainer.model if trainer else model):
        if trainer is not None:
            tokenizer, model = tokenizer or tokenizer_of(trainer), model or trainer.model
        several = list(first_batches(batch, batches))
        if not several:
            raise ValueError("The data loader gives no batch.")
        report = Report([])
        template, why_none = _template(tokenizer)
        vocabulary = _vocabulary(model, tokenizer)
        probe, by_loss = None, None
        for number, one in enumerate(several):
            facts = Facts(read(one), tokenizer, template, vocabulary, purpose)
            hits = list(contents.faults(facts))
            found = {hit[0] for hit in hits}
            _note_what_data_cannot_tell(report, facts, why_none)
            if number == 0 and not facts.out_of_vocabulary.any():
                seen, probe, value = _asked(report, facts, found, model, trainer)
                hits += seen
                if facts.labels is not None and "labels.out_of_vocabulary" not in found:
                    by_loss = _shift_of_the_loss(report, facts, probe, value if loss is None else loss)
            if by_loss is not None and facts.offset is not None:
                hits += _wrong_shifts(facts, by_loss, probe if number == 0 else None)
            _add(report, number, facts, hits)
    if len(several) > 1 and model is not None:
        report.not_checked["what the model sees in other batches"] = "it was run on batch 0 only"
    return report


def _add(report: Report, number: int, facts: Facts, hits: list[contents.Hit]) -> None:
    """Make findings of what one batch shows."""
    batch = facts.batch
    report.batches.append((facts.rows, facts.seq))
    shown = {"input_ids": facts.ids}
    if batch.mask is not None:
        shown["attention_mask"] = batch.mask.long()
    if batch.position_ids is not None:
        shown["position_ids"] = batch.position_ids
    if facts.labels is not None:
        shown["labels"] = facts.labels
    known = {finding.code for finding in report.findings}
    for code, where, detail in sorted(hits, key=lambda hit: list(FAULTS).index(hit[0])):
        if code in known or not where.any():  # the same fault in a later batch is told once
            continue
        flags = where.numpy()
        places = {row: flags[row].nonzero()[0].tolist() for row in flags.any(axis=1).nonzero()[0].tolist()}
        told = [text[0].upper() + text[1:] for text in (_which_tokens(facts, code, places), detail) if text]
        detail = ". ".join(told)
        grid = draw(shown, places, facts.tokenizer)
        report.findings.append(Finding(code, places, grid, detail, number, **FAULTS[code]))


def _which_tokens(facts: Facts, code: str, places: dict[int, list[int]]) -> str:
    """Count the tokens of a fault, and name those of the first row."""
    if code in ABOUT_ROWS:
        return ""
    row, columns = next(iter(places.items()))
    shift = int(facts.offset[row]) if code.startswith("labels.") and facts.offset is not None else 0
    tokens = [
        show.token_string(facts.tokenizer, int(facts.tokens[row, column + shift])) for column in columns[:6]
    ]
    more = " …" if len(columns) > len(tokens) else ""
    text = f"{sum(map(len, places.values()))} tokens; in row {row}: {' '.join(tokens)}{more}"
    return text + (f" (each named by the label {shift} column before it)" if shift == 1 else "")


def _asked(
    report: Report, facts: Facts, found: set[str], model: behaviour.Model | None, trainer: "Trainer | None"
) -> tuple[list[contents.Hit], behaviour.Probe | None, torch.Tensor | None]:
    """Ask the model; return what it shows, the means to ask it more, and the loss of a Trainer."""
    seen = "what the model sees (padding, neighbours, later tokens)"
    hits, probe, value = [], None, None
    if model is None:
        report.not_checked[seen] = "there is no model"
        hits = list(contents.unmasked(facts))
    elif trainer is not None and splits_its_model(trainer):
        report.not_checked[seen] = "its parts lie in several processes; audit a batch with the whole model"
    else:
        rows = behaviour.choose_rows(facts)
        call = facts.batch.part(rows)
        if facts.labels is None or "labels.out_of_vocabulary" in found:
            call.pop("labels", None)
        try:
            if trainer is not None and "labels" in call:
                call, value = as_called(trainer, call)
            probe = behaviour.Probe(facts, model, rows, call)
            hits = list(behaviour.faults(probe, found))
        except Refused as error:
            report.not_checked[seen] = str(error)
        else:
            report.checked.append("that the model sees no padding, neighbour or later token")
            report.not_checked |= probe.not_checked
            if len(rows) < facts.rows:
                report.not_checked["what the model sees in all rows"] = f"it was run on {len(rows)} of them"
    pad, own = _generation_pad(model), facts.special("pad")
    if facts.purpose == "generate" and pad is not None and own is not None and pad != own:
        hits.append(("generation.other_pad", facts.real, f"it pads with id {pad}, the tokenizer with {own}"))
    return hits, probe, value


def _shift_of_the_loss(
    report: Report,
    facts: Facts,
    probe: behaviour.Probe | None,
    loss: behaviour.Loss | torch.Tensor | None,
) -> int | None:
    """Return by how much the loss shifts; None, with the reason in the report, if it cannot be told."""
    name = "who shifts the labels"
    if facts.offset is None:
        if facts.learned.any():
            report.not_checked[name] = "the labels fit several offsets, or none"
        return None
    if probe is None and loss is None:
        told = "the data do" if int(facts.offset[0]) else "the data do not"
        report.not_checked[name] = f"{told}; there is no model and no loss to ask"
        return None
    try:
        labels = facts.labels if probe is None else facts.labels[probe.rows]
        by_loss = behaviour.shift_of_the_loss(probe, labels, loss)
    except ValueError as error:
        report.not_checked[name] = str(error)
        return None
    report.checked.append(name)
    return by_loss


def _wrong_shifts(facts: Facts, by_loss: int, probe: behaviour.Probe | None) -> Iterator[contents.Hit]:
    """Add the offset of the data and that of the loss; together they must be 1."""
    total = facts.offset + by_loss
    for code, wrong in [("labels.shifted_twice", total > 1), ("labels.never_shifted", total < 1)]:
        for sum_ in total[wrong].unique().tolist():
            detail = f"the data shift by {sum_ - by_loss}, the loss by {by_loss}: that makes {sum_}, not 1"
            values = behaviour.losses_at_offsets(probe, (sum_, 1)) if probe is not None else {}
            if len(values) == 2:
                detail += f". Before training the loss on these labels is {values[sum_]:.1f}"
                detail += f"; on labels shifted once it is {values[1]:.1f}"
            yield code, (total == sum_)[:, None] & facts.label_places(facts.learned), detail


def _note_what_data_cannot_tell(report: Report, facts: Facts, why_no_template: str) -> None:
    """Say what is not known of this batch, and why."""
    if facts.out_of_vocabulary.any():
        report.not_checked["everything else"] = "ids outside the vocabulary stand for nothing"
        return
    report.checked = report.checked or ["ids, mask and padding"]
    if facts.tokenizer is None:
        report.not_checked["padding that no mask hides, ends of text, BOS"] = "there is no tokenizer"
    if facts.purpose == "train" and facts.batch.inputs.get("labels") is None:
        report.not_checked["labels"] = "the batch has none"
    turns = "turns, answers and their ends"
    if not any(facts.turns):
        reason = "no row has a turn as the chat template writes it" if facts.template else why_no_template
        report.not_checked[turns] = reason
    else:
        report.checked = list(dict.fromkeys([*report.checked, turns]))
        report.not_checked["words that spell out a whole turn"] = "in token ids they look like a real one"
    if facts.purpose == "train":
        report.not_checked["prompts for generation"] = "audit a batch of them with purpose='generate'"


def _template(tokenizer: PreTrainedTokenizerBase | None) -> tuple[Template | None, str]:
    """Read the marks of a chat template; without one, say why."""
    if tokenizer is None:
        return None, "there is no tokenizer"
    try:
        return Template(tokenizer), ""
    except ValueError as error:
        return None, str(error)


def _vocabulary(model: Any, tokenizer: PreTrainedTokenizerBase | None) -> int | None:
    """Return how many ids there are: by the model, else by the tokenizer."""
    try:
        return model.get_input_embeddings().weight.shape[0]
    except (AttributeError, NotImplementedError):  # no model, or none of transformers
        return max(tokenizer.get_vocab().values()) + 1 if tokenizer is not None else None


def _generation_pad(model: Any) -> int | None:
    return getattr(getattr(model, "generation_config", None), "pad_token_id", None)
