"""The audit itself: read each batch, ask the model about the first, and tell what was found."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args

import torch
from transformers import PreTrainedTokenizerBase

from batchaudit import behaviour, checkpoint, contents
from batchaudit.batch import LEARNED_MASKS, Batch, read
from batchaudit.contents import Hit
from batchaudit.facts import Facts, Purpose
from batchaudit.report import FAULTS, Finding, Report, table_of, texts_of
from batchaudit.sources import (
    Refused,
    as_called,
    check_arguments,
    first_batches,
    is_trainer,
    rectangles,
    splits_its_model,
    tokenizer_of,
)  # fmt: skip
from batchaudit.turns import read_template
from tinylib import show
from tinylib.labels import IGNORE_INDEX

ABOUT_ROWS = {  # not about some of their tokens
    "mask.hides_row", "labels.shape", "labels.shifted_twice", "labels.never_shifted", "labels.nothing_in_row",
    "labels.nothing_in_batch", "model.nan",
}  # fmt: skip
ABOUT_MODEL = {"generation.other_pad", "generation.other_end", "embeddings.untrained"}  # nothing to show
# What goes with a batch and tells no samples apart.
OTHER_INPUTS = {
    "input_ids", "attention_mask", "position_ids", "labels", "token_type_ids",
    "special_tokens_mask", *LEARNED_MASKS,
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
    batches: int | None = None,
) -> Report:
    """Look for silent bugs in a batch, in the batches of a data loader, or in a Trainer.

    Nothing is changed: not the batch, not the model's weights, gradients and mode, not the random states of
    Python, numpy, torch and the loader. (A data set that can be read only once loses what is read.) The
    model is asked about the first batch only, in at most seven forward passes (eight with a Trainer whose
    loss keeps no logits), and only about as many rows as fit into 1 GB of logits.

    Args:
        batch: What ``model(**batch)`` or ``model.generate(**batch)`` is called with: a mapping with
            ``input_ids`` of shape ``(rows, seq)`` and whatever goes with it, as tensors on any device, numpy
            arrays or lists. A collator is audited by a batch that it makes. Or a data loader, a list of
            batches, or a Trainer, which brings its model, tokenizer and loss along. A batch of preferences
            (``chosen_input_ids``, ``rejected_input_ids``) is looked at as two.
        tokenizer: Without it nothing is known of pads, turns and ends.
        model: Any causal model, or a function that is called as ``model(**batch)`` and returns logits.
            Without it nothing is known of what is seen, nor of the loss.
        purpose: ``"train"``, or ``"generate"`` for a batch of prompts.
        loss: What is trained on, if not the model's own loss: a function of ``(logits, labels)``.
        batches: How many batches to look at, at least one. By default all of a list, and of a loader or a
            Trainer the first four.

    Returns:
        A `Report`: print it, show it in a notebook, or call its ``raise_for_findings()``.

    Raises:
        ValueError: It is not a batch (the message names what is wrong with it), or there is none; tokenizer
            or model are something else.
    """
    if purpose not in get_args(Purpose):
        raise ValueError(f"purpose must be 'train' or 'generate', not {purpose!r}.")
    if batches is not None and batches < 1:
        raise ValueError(f"batches must be at least 1, not {batches}.")
    if not isinstance(tokenizer, PreTrainedTokenizerBase):  # a processor of text and images has one
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    check_arguments(tokenizer, model)
    trainer = batch if is_trainer(batch) else None
    with behaviour.undisturbed(trainer.model if trainer else model):
        if trainer is not None:
            tokenizer, model = tokenizer or tokenizer_of(trainer), model or trainer.model
            check_arguments(tokenizer, model)
        several = [one for taken in first_batches(batch, batches) for one in rectangles(taken)]
        if not several:
            raise ValueError("The data loader gives no batch.")
        return _Audit(tokenizer, model, purpose, loss, trainer).of(several)


class _Audit:
    """What one audit knows: its means, and what was found so far."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        model: behaviour.Model | None,
        purpose: Purpose,
        loss: behaviour.Loss | None,
        trainer: "Trainer | None",
    ) -> None:
        self.tokenizer, self.model, self.purpose = tokenizer, model, purpose
        self.loss, self.trainer = loss, trainer
        self.template, self.why_no_template = read_template(tokenizer)
        self.vocabulary = _vocabulary(model, tokenizer)
        self.report = Report([])
        self.ignored: int | None = None  # what this loss leaves out in place of -100
        self.by_loss: int | None = None
        self.keeps_apart: bool | None = None  # whether the model keeps unmarked samples apart, if asked

    def of(self, several: list[Any]) -> Report:
        """Audit these batches; the model and the loss are asked about the first."""
        for number, one in enumerate(several):
            try:
                batch = self._with_the_mask_beside(self._with_its_own_ignored_label(read(one, self.purpose)))
            except ValueError as error:
                raise ValueError(f"Batch {number}: {error}" if len(several) > 1 else str(error)) from error
            facts = Facts(batch, self.tokenizer, self.template, self.vocabulary, self.purpose)
            hits = list(contents.faults(facts))
            found = {hit.code for hit in hits}
            self._note_what_data_cannot_tell(facts)
            probe = None
            if number == 0 and not facts.out_of_vocabulary.any():
                probe, value, seen = self._ask(facts, found)
                hits += seen
                if facts.labels is not None and "labels.out_of_vocabulary" not in found:
                    self.by_loss = self._shift_of_the_loss(facts, probe, value)
            elif self.model is not None and not facts.out_of_vocabulary.any():
                hits += contents.unmasked(facts)
            hits = list(self._put_to_the_model(facts, probe, hits))
            if self.by_loss is not None and facts.offset is not None:
                hits += self._wrong_shifts(facts, probe)
            self._add(number, facts, hits)
        self.report.checked = list(dict.fromkeys(self.report.checked))
        if len(several) > 1:
            self.report.checked.append(f"all {len(several)} batches by their data")
            if self.model is not None:
                self.report.not_checked["what the model sees in other batches"] = "it was run on batch 0 only"
        return self.report

    def _with_its_own_ignored_label(self, batch: Batch) -> Batch:
        """Read labels as the loss does, if it leaves out another number than -100: that is for it to say.

        Where no label is negative it may be a token's, as the pad's: of that only a given loss is asked.
        """
        if batch.labels is None or self.purpose != "train":
            return batch
        if self.ignored is None:
            strange = batch.labels[(batch.labels < 0) & (batch.labels != IGNORE_INDEX)].unique().tolist()
            if self.loss is not None and int(batch.labels.min()) >= 0:
                strange = [int(batch.labels.mode().values.mode().values)]
            if len(strange) != 1:
                return batch
            if self.loss is not None:
                ignores = behaviour.ignores(strange[0], self.loss)
            else:
                ignores = self.trainer is None and behaviour.model_ignores(self.model, batch, strange[0])
            if not ignores:
                return batch
            self.ignored = index = strange[0]
            self.report.checked.append(f"that the loss leaves out labels that are {index}")
            if (given := self.loss) is not None:
                self.loss = lambda logits, labels: given(
                    logits, labels.masked_fill(labels == IGNORE_INDEX, index)
                )
        return replace(batch, labels=batch.labels.masked_fill(batch.labels == self.ignored, IGNORE_INDEX))

    def _with_the_mask_beside(self, batch: Batch) -> Batch:
        """Read labels as left out where a mask beside them says so, unless a model's own loss is trained on.

        Not where the mask shows a token that has no label: then it lies beside something else, as the logits.
        """
        own = self.model is not None and self.loss is None  # a given loss gets no mask: it cannot tell
        if own or batch.labels is None or batch.labels_of or self.purpose != "train":
            return batch
        for name in LEARNED_MASKS:
            mask = batch.inputs.get(name)
            if not isinstance(mask, torch.Tensor) or mask.shape != batch.labels.shape:
                continue
            shown, given = mask.cpu() != 0, batch.labels != IGNORE_INDEX
            hidden = given & ~shown
            if hidden.any() and not (shown & ~given).any():
                self.report.not_checked[f"whether the loss leaves out what {name} hides"] = (
                    "there are labels for it, and no model's own loss to ask; here it counts as left out"
                )
                labels = batch.labels.masked_fill(hidden, IGNORE_INDEX)
                return replace(batch, labels=labels, labels_of=name)
        return batch

    def _ask(
        self, facts: Facts, found: set[str]
    ) -> tuple[behaviour.Probe | None, torch.Tensor | None, list[Hit]]:
        """Ask the model; return the means to ask it more, the loss of a Trainer, and what it shows."""
        report, model = self.report, self.model
        seen = "what the model sees (padding, neighbours, later tokens)"
        hits, probe, value = [], None, None
        if model is None:
            report.not_checked[seen] = "there is no model"
            hits = list(contents.unmasked(facts))
        elif self.trainer is not None and splits_its_model(self.trainer):
            report.not_checked[seen] = (
                "its parts lie in several processes; audit a batch with the whole model"
            )
        else:
            rows = behaviour.choose_rows(facts)
            call = facts.batch.part(rows)
            if facts.labels is None or "labels.out_of_vocabulary" in found:
                call.pop("labels", None)
            try:
                if self.trainer is not None and "labels" in call:
                    call, value = as_called(self.trainer, call, has_labels=not facts.batch.labels_of)
                probe = behaviour.Probe(facts, model, rows, call)
                hits = list(behaviour.faults(probe, found))
            except Refused as error:
                report.not_checked[seen] = str(error)
            else:
                report.checked += probe.checked
                report.not_checked |= probe.not_checked
                if len(rows) < facts.rows:
                    report.not_checked["what the model sees in all rows"] = (
                        f"it was run on {len(rows)} of them"
                    )
        return probe, value, hits + list(self._of_the_checkpoint(facts))

    def _of_the_checkpoint(self, facts: Facts) -> Iterator[Hit]:
        """Compare what belongs to the model with the tokenizer and its chat template."""
        if facts.purpose == "generate":
            config = getattr(self.model, "generation_config", None)
            for code, detail in checkpoint.generation(config, self.tokenizer, self.template):
                yield Hit(code, facts.real, detail)
            return
        answers = [turn for turns in facts.turns for turn in turns if turn.role == "assistant"]
        if not any(turn.end for turn in answers):  # they do not end as the template says
            config = getattr(self.model, "generation_config", None)
            if detail := checkpoint.other_end(config, self.tokenizer, facts.learned_ends):
                yield Hit("generation.other_end", facts.real, detail)
            elif config is None and facts.learned_ends - facts.ends:
                self.report.not_checked["whether generate() stops where these answers end"] = (
                    "there is no model whose generation config says"
                )
        if any(facts.turns):
            weight, frozen, padding_idx = checkpoint.embeddings_in(self.model)
            detail, variant = checkpoint.untrained(weight, self.template, frozen, padding_idx)
            if detail:
                yield Hit("embeddings.untrained", facts.real, detail, variant=variant)

    def _put_to_the_model(
        self, facts: Facts, probe: behaviour.Probe | None, hits: list[Hit]
    ) -> Iterator[Hit]:
        """Pass on what the data show, unless the model refutes it: it may keep samples apart otherwise."""
        code, unknown = "packing.positions_run_on", "whether samples in one row see each other"
        for hit in hits:
            if hit.code != code or not (hit.where & facts.unmarked_starts).any():
                yield hit
                continue
            if probe is not None and not probe.nan.any():
                moved, most = behaviour.neighbours(probe, facts.unmarked_starts[probe.rows])
                self.report.checked.append("that packed samples do not see each other")
                self.keeps_apart = not moved.any()
                hit = hit._replace(
                    detail=f"changing one sample moved the next one's logits by up to {most:.2g}"
                )
            others = [name for name in facts.batch.inputs if _may_tell_samples_apart(name, facts)]
            if self.keeps_apart is None and others:
                self.report.not_checked[unknown] = (
                    f"there is {', '.join(others)}, and no model to ask what it does"
                )
            elif not self.keeps_apart:
                yield hit

    def _shift_of_the_loss(
        self, facts: Facts, probe: behaviour.Probe | None, value: torch.Tensor | None
    ) -> int | None:
        """Return by how much the loss shifts; None, with the reason in the report, if it cannot be told."""
        name, loss = "who shifts the labels", value if self.loss is None else self.loss
        if facts.offset is None:
            if facts.learned.any():
                self.report.not_checked[name] = "the labels fit several offsets, or none"
            return None
        if probe is None and loss is None:
            told = "the data do" if int(facts.offset[0]) else "the data do not"
            self.report.not_checked[name] = f"{told}; there is no model and no loss to ask"
            return None
        try:
            labels = facts.labels if probe is None else facts.labels[probe.rows]
            by_loss = behaviour.shift_of_the_loss(probe, labels, loss)
        except ValueError as error:
            self.report.not_checked[name] = str(error)
            return None
        self.report.checked.append(name)
        return by_loss

    def _wrong_shifts(self, facts: Facts, probe: behaviour.Probe | None) -> Iterator[Hit]:
        """Add the offset of the data and that of the loss; together they must be 1. Say which is to blame."""
        by_loss, total = self.by_loss, facts.offset + self.by_loss
        given = "the loss that was given" if self.loss is not None else "the model's own loss"
        whose = "the Trainer's loss" if self.trainer is not None and self.loss is None else given
        for code, wrong in [("labels.shifted_twice", total > 1), ("labels.never_shifted", total < 1)]:
            for sum_ in total[wrong].unique().tolist():
                by_data = sum_ - by_loss
                detail = f"the data shift by {by_data}, {whose} by {by_loss}: that makes {sum_}, not 1"
                variant = "data" if by_data in (2, -1) else "loss" if by_loss == 2 else ""
                if variant == "loss" and whose == "the model's own loss":
                    variant = "model"
                values = {}
                if probe is not None and not probe.nan.any():
                    values = behaviour.losses_at_offsets(probe, (sum_, 1))
                if len(values) == 2:
                    detail += f". Before training the loss on these labels is {values[sum_]:.1f}"
                    detail += f"; on labels shifted once it is {values[1]:.1f}"
                where = (total == sum_)[:, None] & facts.label_places(facts.learned)
                yield Hit(code, where, detail, variant=variant)

    def _note_what_data_cannot_tell(self, facts: Facts) -> None:
        """Say what is known of this batch, what is not, and why."""
        report = self.report
        if facts.out_of_vocabulary.any():
            report.not_checked["everything else"] = "ids outside the vocabulary stand for nothing"
            return
        checked = (
            ["ids"] + ["mask"] * (facts.batch.mask is not None) + ["padding"] * (facts.tokenizer is not None)
        )
        checked += ["labels"] * (facts.labels is not None)
        if facts.tokenizer is None:
            report.not_checked["padding that no mask hides, ends of text, BOS"] = "there is no tokenizer"
        if facts.purpose == "train" and facts.batch.inputs.get("labels") is None:
            report.not_checked["labels"] = "the batch has none"
        turns = "turns, answers and their ends"
        unread = [row for row, reading in enumerate(facts.readings) if reading.unread]
        unread += [row for row, found in enumerate(facts.turns) if not found]
        if not any(facts.turns):
            why = (
                "no row has a turn as the chat template writes it" if facts.template else self.why_no_template
            )
            report.not_checked[turns] = why
            if facts.tokenizer is not None and facts.labels is not None:
                report.not_checked["where a prompt stops and its answer begins"] = "no turn tells"
        else:
            checked.append(turns)
            report.not_checked["words that spell out a whole turn"] = "in token ids they look like a real one"
            if unread:
                report.not_checked[f"{turns} in all rows"] = (
                    "some are not written as the chat template does it"
                )
        if facts.may_be_of_predictions:
            report.not_checked["where learning starts and ends"] = (
                "loss_mask is one token early at each answer: right for a trainer that lays it beside the "
                "logits, wrong for one that lays it beside the tokens, or shifts it"
            )
        if facts.joined:
            report.not_checked["whether a row holds several samples, which must not see each other"] = (
                "without a known template they look like turns of one"
            )
        if facts.purpose == "train":
            report.not_checked["prompts for generation"] = "audit a batch of them with purpose='generate'"
        report.checked += checked

    def _add(self, number: int, facts: Facts, hits: list[Hit]) -> None:
        """Make findings of what one batch shows; the same fault in a later batch is told once."""
        batch, report = facts.batch, self.report
        report.batches.append((facts.rows, facts.seq))
        shown = {"input_ids": facts.ids}
        if batch.mask is not None:
            shown["attention_mask"] = batch.mask.long()
        if batch.position_ids is not None:
            shown["position_ids"] = batch.position_ids
        if facts.labels is not None:
            shown["labels"] = facts.labels
        known = {finding.code: finding for finding in report.findings}
        for hit in sorted(hits, key=lambda hit: list(FAULTS).index(hit.code)):
            if not hit.where.any():
                continue
            if hit.code in known:
                known[hit.code].later_batches.append(number)
                continue
            flags = hit.where.numpy()
            rows = flags.any(axis=1).nonzero()[0].tolist()
            places = {row: flags[row].nonzero()[0].tolist() for row in rows}
            told = [_which_tokens(facts, hit.code, places), hit.detail]
            table = {} if hit.code in ABOUT_MODEL else table_of(shown, places, facts.tokenizer)
            detail = ". ".join(text[0].upper() + text[1:] for text in told if text)
            report.findings.append(
                Finding(
                    hit.code, places, table, detail, number, hit.severity,
                    **texts_of(hit.code, hit.variant),
                )
            )  # fmt: skip


def _may_tell_samples_apart(name: str, facts: Facts) -> bool:
    """Tell if something in a batch may say which token belongs to which sample."""
    value = facts.batch.inputs[name]
    named = any(word in str(name).lower() for word in ("seq", "sample", "segment", "doc", "cu_"))
    shaped = isinstance(value, torch.Tensor) and value.shape == facts.ids.shape
    return name not in OTHER_INPUTS and (named or shaped or _are_lengths(value, facts))


def _are_lengths(value: Any, facts: Facts) -> bool:
    """Tell if numbers are the lengths of the samples, or the places where they end; a list has some a row."""
    values = value if isinstance(value, list | tuple) else [value]
    try:
        numbers = [number for one in values for number in torch.as_tensor(one).flatten().tolist()]
    except (TypeError, ValueError, RuntimeError):  # texts, or nothing that is a number
        return False
    tokens = {facts.ids.numel(), int(facts.real.sum())}
    return len(numbers) > 1 and (sum(numbers) in tokens or numbers[-1] in {*tokens, facts.seq})


def _which_tokens(facts: Facts, code: str, places: dict[int, list[int]]) -> str:
    """Count the tokens of a fault, and name those of the first row."""
    if code in ABOUT_ROWS | ABOUT_MODEL:
        return ""
    row, columns = next(iter(places.items()))
    shift = int(facts.shift[row]) if code.startswith("labels.") else 0
    tokens = [
        show.token_string(facts.tokenizer, int(facts.tokens[row, column + shift])) for column in columns[:6]
    ]
    more = " …" if len(columns) > len(tokens) else ""
    text = f"{sum(map(len, places.values()))} tokens; in row {row}: {' '.join(tokens)}{more}"
    return text + (" (the label one column to the left names each)" if shift == 1 else "")


def _vocabulary(model: Any, tokenizer: PreTrainedTokenizerBase | None) -> int | None:
    """Return how many ids there are: by the model, else by the tokenizer."""
    weight, *_ = checkpoint.embeddings_in(model)
    if weight is not None:
        return len(weight)
    return _ids_of(tokenizer, len(tokenizer)) if tokenizer is not None else None


@lru_cache(maxsize=16)  # it takes 20 ms of some; ``size`` tells when a token is added
def _ids_of(tokenizer: PreTrainedTokenizerBase, size: int) -> int:
    return max(tokenizer.get_vocab().values()) + 1
