"""What can be audited besides a batch: data loaders and Trainers, which make batches and call the model."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import partial
from inspect import getclosurevars, isfunction
from itertools import islice
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from tinylib.labels import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import Trainer


FEW = 4
"""Batches of a loader that are looked at, unless told otherwise."""


class Refused(Exception):
    """A model, or a Trainer's loss, could not be called with a batch."""


@contextmanager
def refusals() -> Iterator[None]:
    """Tell errors of other people's code from our own: they are no reason to lose what was found."""
    try:
        yield
    except Exception as error:
        raise Refused(f"called with this batch, it raised {type(error).__name__}: {error!s:.200}") from error


def is_trainer(source: Any) -> bool:
    """Tell if it is a Trainer of transformers, without importing that class and all that comes with it."""
    module = sys.modules.get("transformers.trainer")  # where there is a Trainer, this has been imported
    return module is not None and isinstance(source, module.Trainer)


def first_batches(source: Any, count: int | None) -> Iterator[Any]:
    """Take the first batches of whatever it is, and leave its random generators as they were.

    Args:
        source: A batch, a list of them, a loader or a Trainer.
        count: How many; None for all of a list, and the first four of anything else.

    Raises:
        ValueError: It can be iterated once only.
    """
    count = count or (len(source) if isinstance(source, list) else FEW)
    if is_trainer(source):
        kept = list(source.accelerator._dataloaders)
        loader = source.get_train_dataloader()
        source.accelerator._dataloaders[:] = kept  # it keeps each that it has prepared, with its workers
        source = loader
    if isinstance(source, Mapping | str | tuple | torch.Tensor) or not isinstance(source, Iterable):
        yield source
        return
    if isinstance(source, Iterator):
        raise ValueError(
            "An iterator would lose its first batches to the audit: give the data loader itself, or a list."
        )
    # accelerate's loader keeps count of those in use; the one beneath it gives the same batches
    source = getattr(source, "base_dataloader", source)
    if isinstance(source, DataLoader):  # workers that persist are kept there, and how far they are
        source = copy(source)
        source._iterator = None
    of_batches = getattr(source, "batch_sampler", None)
    holders = [source, getattr(source, "sampler", None), of_batches, getattr(of_batches, "sampler", None)]
    generators = [g for g in (getattr(holder, "generator", None) for holder in holders) if g is not None]
    states = [generator.get_state() for generator in generators]
    try:
        yield from islice(iter(source), count)
    finally:
        for generator, state in zip(generators, states):
            generator.set_state(state)


def rectangles(batch: Any) -> Iterator[Any]:
    """Take the batches out of one of preferences (as for DPO): what was chosen, and what was rejected."""
    if not isinstance(batch, Mapping) or "chosen_input_ids" not in batch or "input_ids" in batch:
        yield batch
        return
    for side in ("chosen_", "rejected_", "reject_"):
        if f"{side}input_ids" in batch:
            yield {name.removeprefix(side): value for name, value in batch.items() if name.startswith(side)}


def check_arguments(tokenizer: Any, model: Any) -> None:
    """Refuse a tokenizer, or a model, that is none.

    Raises:
        ValueError: It says what was given, and what to do.
    """
    for name, value, loader in (
        ("tokenizer", tokenizer, "AutoTokenizer"),
        ("model", model, "AutoModelForCausalLM"),
    ):
        if isinstance(value, str):
            raise ValueError(f"{name} is the text {value!r}: load it, {loader}.from_pretrained({value!r}).")
    if tokenizer is not None and not isinstance(tokenizer, PreTrainedTokenizerBase):
        model_too = isinstance(tokenizer, torch.nn.Module)
        hint = "model and tokenizer are swapped" if model_too else "give one of transformers, or leave it out"
        raise ValueError(f"tokenizer is a {type(tokenizer).__name__}: {hint}.")
    if model is not None and (isinstance(model, PreTrainedTokenizerBase) or not callable(model)):
        raise ValueError(f"model is a {type(model).__name__}; give a causal model, or a function of a batch.")
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False) is True:
        raise ValueError(
            f"{type(model).__name__} is an encoder with a decoder: its labels are no tokens of its input. "
            "The audit is about causal language models."
        )
    if (
        "ForSequenceClassification" in type(model).__name__
        or "ForTokenClassification" in type(model).__name__
    ):
        raise ValueError(
            f"{type(model).__name__} is a classifier; the audit is about causal language models."
        )


def tokenizer_of(trainer: "Trainer") -> PreTrainedTokenizerBase | None:
    """Return a Trainer's tokenizer, also out of a processor of text and images, else its collator's.

    A collator that is a function names it, or was given it by `functools.partial`; of several, none is right.
    """
    for holder in (trainer.processing_class, trainer.data_collator):
        found = getattr(holder, "tokenizer", holder)
        if isinstance(found, PreTrainedTokenizerBase):
            return found
    collator, held = trainer.data_collator, []
    while isinstance(collator, partial):
        held += [*collator.args, *collator.keywords.values()]
        collator = collator.func
    if isfunction(collator):
        names = getclosurevars(collator)
        held += [*names.nonlocals.values(), *names.globals.values()]
    found = {id(one): one for one in held if isinstance(one, PreTrainedTokenizerBase)}
    return next(iter(found.values())) if len(found) == 1 else None


def splits_its_model(trainer: "Trainer") -> bool:
    """Tell if the processes of a training hold a part of the model each, and must call it equally often."""
    return trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled


def as_called(
    trainer: "Trainer", batch: dict[str, Any], has_labels: bool = True
) -> tuple[dict[str, Any], torch.Tensor]:
    """Let a Trainer compute its loss of a batch; return what it called the model with, and the loss.

    Args:
        batch: With ``labels``; it stays as it is.
        has_labels: Whether the Trainer's own batch has them too; else they were made of a mask of what is
            learned, as for DPO, whose loss passes labels of its own.

    Raises:
        Refused: The Trainer could not.
    """
    calls: list[dict[str, Any]] = []
    counted = (batch["labels"][:, 1:] != IGNORE_INDEX).sum()
    if trainer.args.average_tokens_across_devices:  # it takes the count to be that of all processes
        counted = counted * max(1, trainer.accelerator.num_processes)
    metrics = getattr(trainer, "_metrics", {})  # of TRL, where an audit is no evaluation
    kept = {mode: {name: list(values) for name, values in of.items()} for mode, of in metrics.items()}
    handle = trainer.model.register_forward_pre_hook(
        lambda _, __, call: calls.append(dict(call)), with_kwargs=True
    )
    try:
        # Some log from within; an audit is no step of the training.
        with refusals(), patch.object(trainer, "log"), trainer.compute_loss_context_manager():
            own = {name: value for name, value in batch.items() if has_labels or name != "labels"}
            inputs = trainer._prepare_inputs(own)
            loss = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=counted)
    finally:
        handle.remove()
        for mode, of in metrics.items():
            of.clear()
            of.update(kept[mode])
    return {**(calls[0] if calls else batch), "labels": batch["labels"]}, loss
