"""Fine-tune a chat model: conversations in, a trained model and its losses out.

All of the training is ``transformers.Trainer``'s, so its arguments give a GPU's precision, gradient
accumulation, checkpoints and several processes. What is made here is what goes in: labels that supervise
the answers and their ends of turn, and batches with their mask.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from tinylib.collate import PaddedCollator
from tinylib.labels import TooLong, training_example
from tinylib.models import progress_bars

DEFAULTS = {
    "per_device_train_batch_size": 8,
    "learning_rate": 2e-4,
    "num_train_epochs": 1,
    "weight_decay": 0.0,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
}


def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Iterable[Mapping[str, Any]],
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    max_length: int | None = None,
    collator: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]] | None = None,
    **arguments: Any,
) -> list[float]:
    """Train a model, in place, to give the assistant's answers of these chats.

    Args:
        model: In float32 where it is trained (on a GPU add ``bf16=True`` for speed).
        tokenizer: Its tokenizer.
        chats: A data set of ``datasets``, or any rows that `tinylib.chat.messages_of` reads.
        folder: Where checkpoints go, if ``save_strategy`` asks for any.
        resume: Go on from the last whole checkpoint in ``folder``; from the start if there is none.
        max_length: The most tokens of a chat; default: the model's context. Later turns that do not fit
            are dropped, chats of which not even the first answer fits are left out, and it is said.
        collator: What makes a batch of examples; default: `tinylib.collate.PaddedCollator`.
        arguments: Of ``transformers.TrainingArguments``, over `DEFAULTS`.

    Returns:
        The loss of each optimizer step (of each ``logging_steps``), the mean over its supervised tokens.

    Raises:
        ValueError: A row is no chat (with its number), none is left, no parameter is to be trained or one
            is in 16 bits.
    """
    _check_trainable(model)
    _expect_tied_weights(model)
    if resume and folder is None:
        raise ValueError("To resume, give the folder that the interrupted training wrote to.")
    examples = prepare(tokenizer, chats, max_length or model.config.max_position_embeddings)
    with tempfile.TemporaryDirectory() as nowhere:  # the Trainer wants a folder even if it saves nothing
        trainer = Trainer(
            model,
            TrainingArguments(
                output_dir=str(folder or nowhere),
                disable_tqdm=True,
                use_cpu=model.device.type == "cpu",
                **{**DEFAULTS, **arguments},
            ),
            data_collator=collator or PaddedCollator(tokenizer.pad_token_id),
            train_dataset=examples,
            callbacks=[_ProgressBar()],
        )
        trainer.remove_callback(PrinterCallback)
        with progress_bars(False):  # of writing each checkpoint
            trainer.train(resume_from_checkpoint=last_checkpoint(folder) if resume else None)
    model.eval()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def prepare(
    tokenizer: PreTrainedTokenizerBase, chats: Iterable[Mapping[str, Any]], max_length: int | None = None
) -> Dataset:
    """Turn chats into examples with ``input_ids`` and ``labels``; say which chats were cut or left out.

    Raises:
        ValueError: A row is no chat (with its number), or no example is left.
    """
    examples, too_long, shortened = [], [], []
    for i, row in enumerate(tqdm(chats, desc="preparing", unit="chat", leave=False, delay=2)):
        try:
            example = training_example(tokenizer, row, max_length)
        except TooLong:
            too_long.append(i)
        except ValueError as error:
            raise ValueError(f"Row {i}: {error}") from error
        else:
            if example.pop("dropped"):
                shortened.append(i)
            examples.append(example)
    for rows, what in [(too_long, "left out: their first answer does not fit"), (shortened, "shortened")]:
        if rows:
            numbers = ", ".join(map(str, rows[:10])) + (", …" if len(rows) > 10 else "")
            print(f"{len(rows)} chats {what} (max_length={max_length}; rows {numbers})")
    if not examples:
        raise ValueError("There is no chat to train on: the data set is empty, or no chat fits max_length.")
    return Dataset.from_list(examples)


def train_last_layers(model: PreTrainedModel, count: int) -> None:
    """Let only the last layers be trained; all else keeps its weights, and needs no optimizer memory.

    Args:
        model: Of the Llama type, with its layers in ``model.model.layers``.
        count: How many of them.

    Raises:
        ValueError: There are not as many layers.
    """
    layers = model.model.layers
    if not 1 <= count <= len(layers):
        raise ValueError(
            f"The model has {len(layers)} layers; count must be 1 to {len(layers)}, not {count}."
        )
    model.requires_grad_(False)
    layers[-count:].requires_grad_(True)


def last_checkpoint(folder: str | Path) -> str | None:
    """Return the newest checkpoint in ``folder`` that was written whole, if there is one.

    The Trainer writes ``trainer_state.json`` last: a checkpoint without a readable one is half-written.
    """
    whole = {}
    for path in Path(folder).glob("checkpoint-*/trainer_state.json"):
        try:
            whole[json.loads(path.read_text(encoding="utf-8"))["global_step"]] = str(path.parent)
        except (ValueError, KeyError):
            continue
    return whole[max(whole)] if whole else None


def _check_trainable(model: PreTrainedModel) -> None:
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trained:
        raise ValueError("No parameter of the model is to be trained: each has requires_grad=False.")
    for name, parameter in trained:
        if parameter.dtype in (torch.float16, torch.bfloat16):
            raise ValueError(
                f"{name} is in {str(parameter.dtype).removeprefix('torch.')}, too coarse for the "
                "small steps of training. Load the model with dtype=torch.float32; for speed on a GPU "
                "add bf16=True here."
            )


def _expect_tied_weights(model: PreTrainedModel) -> None:
    """Let the Trainer know which weights no checkpoint holds, since they are the embedding's.

    Otherwise it warns, on resuming, that the output layer is missing.
    """
    kept = dict(model.named_parameters())
    tied = [name for name, _ in model.named_parameters(remove_duplicate=False) if name not in kept]
    if tied:
        model._keys_to_ignore_on_save = tied


class _ProgressBar(TrainerCallback):
    """One bar for the whole training, with the loss of the last step."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        hidden = not state.is_world_process_zero
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc="training", unit="step", disable=hidden
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in (logs or {}):
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()
