"""Fine-tune a chat model: conversations in, a trained model and its losses out.

The training is ``transformers.Trainer``'s, with its arguments. What goes in is made here: labels that
supervise answers and their ends, batches in which no sample sees another. ``python -m tinylib.train --help``.
"""

import argparse
import inspect
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from tinylib import models
from tinylib.collate import PackedCollator, PaddedCollator
from tinylib.data import load_chats
from tinylib.labels import TooLong, training_example
from tinylib.packing import PackedTrainer, attending_by_sample
from tinylib.quiet import progress_bars

DEFAULTS = {
    "per_device_train_batch_size": 8,
    "learning_rate": 2e-4,
    "num_train_epochs": 1,
    "weight_decay": 0.0,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "ddp_find_unused_parameters": False,
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
        chats: A data set of ``datasets``, or any rows that `tinylib.chat.as_messages` reads.
        folder: Where the trained model, its tokenizer and the losses (``trainer_state.json``) go, and
            checkpoints if ``save_strategy`` asks for any; default: nothing is written.
        resume: Go on from the last whole checkpoint in ``folder``; from the start if there is none.
        max_length: The most tokens of a chat; default: the model's context. Later turns that do not fit are
            dropped, chats of which not even the first answer fits are left out, and it is said.
        collator: What makes a batch of examples. Default: `tinylib.collate.PackedCollator`, which changes the
            speed, not the losses; `PaddedCollator` for a model that cannot leave out logits.
        arguments: Of ``transformers.TrainingArguments``, over `DEFAULTS`.

    Returns:
        Each step's loss, the mean over its supervised tokens; or the means of ``logging_steps`` of these.

    Raises:
        ValueError: A chat is unusable (with its number), none is left, no parameter is to be trained, one is
            in 16 bits, or there is no folder to resume from.
    """
    _check_trainable(model)
    if resume and folder is None:
        raise ValueError("To resume, give the folder that the interrupted training wrote to.")
    examples = prepare(tokenizer, chats, max_length or model.config.max_position_embeddings)
    with tempfile.TemporaryDirectory() as nowhere:  # the Trainer wants a folder even if it saves nothing
        on_cpu = model.device.type == "cpu"
        chosen = {"output_dir": str(folder or nowhere), "disable_tqdm": True, "use_cpu": on_cpu}
        settings = TrainingArguments(**chosen, **{**DEFAULTS, **arguments})
        if settings.n_gpu > 1:  # several take several processes; DataParallel would cut the one row up
            settings._n_gpu = 1
        trainer = _trainer(model, tokenizer.pad_token_id, examples, settings, collator)
        with progress_bars(False), attending_by_sample(model):
            trainer.train(resume_from_checkpoint=last_checkpoint(folder) if resume else None)
            if folder is not None:
                trainer.save_model()
                trainer.save_state()
                if trainer.is_world_process_zero():
                    tokenizer.save_pretrained(folder)
    model.eval()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _trainer(
    model: PreTrainedModel, pad_id: int, examples: Dataset, settings: TrainingArguments, collator: Any
) -> Trainer:
    """Make the Trainer: one that scores labels only, where the model can."""
    kept = dict(model.named_parameters())
    if tied := [name for name, _ in model.named_parameters(remove_duplicate=False) if name not in kept]:
        # No checkpoint holds them, since they are the embedding's: else the Trainer warns on resuming.
        model._keys_to_ignore_on_save = tied
    fast = supports_logits_to_keep(model)
    trainer = (PackedTrainer if fast else Trainer)(
        model,
        settings,
        data_collator=collator or (PackedCollator if fast else PaddedCollator)(pad_id),
        train_dataset=examples,
        callbacks=[_ProgressBar()],
    )
    trainer.remove_callback(PrinterCallback)
    again = -len(examples) % (settings.train_batch_size * settings.world_size)
    if settings.world_size > 1 and again and trainer.is_world_process_zero():
        print(f"The last step of an epoch repeats {again} chats, so that every process has as many.")
    return trainer


def prepare(
    tokenizer: PreTrainedTokenizerBase, chats: Iterable[Mapping[str, Any]], max_length: int | None = None
) -> Dataset:
    """Turn chats into examples with ``input_ids`` and ``labels``; say which do not fit (see `fine_tune`)."""
    examples, too_long, shortened = [], [], []
    for i, chat in enumerate(tqdm(chats, desc="preparing", unit="chat", leave=False, delay=2)):
        try:
            example = training_example(tokenizer, chat, max_length)
        except TooLong:
            too_long.append(i)
        except ValueError as error:
            raise ValueError(f"Chat {i}: {error}") from error
        else:
            if example.pop("dropped"):
                shortened.append(i)
            examples.append(example)
    for which, what in [(too_long, "left out: their first answer does not fit"), (shortened, "shortened")]:
        if which:
            numbers = ", ".join(map(str, which[:10])) + (", …" if len(which) > 10 else "")
            print(f"{len(which)} chats {what} (max_length={max_length}; numbers {numbers})")
    if not examples:
        raise ValueError("There is no chat to train on: the data set is empty, or no chat fits max_length.")
    return Dataset.from_list(examples)


def train_last_layers(model: PreTrainedModel, count: int) -> None:
    """Let only the last layers of a Llama-type model be trained; a ValueError if it has not as many."""
    layers = model.model.layers
    if not 1 <= count <= len(layers):
        raise ValueError(f"count must be 1 to {len(layers)}, the number of the model's layers, not {count}.")
    model.requires_grad_(False)
    layers[-count:].requires_grad_(True)


def add_adapters(model: PreTrainedModel, rank: int) -> torch.nn.Module:
    """Put LoRA adapters beside every linear layer but the output layer; they alone are trained.

    The model may be in 16 bits: its own weights stay as they are, the adapters, of scale 2, are in float32.
    Without the package peft it is a RuntimeError.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise RuntimeError("Adapters need the package peft: python -m pip install peft") from error
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():  # peft asks transformers 5 for something by its old name
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, settings)


def last_checkpoint(folder: str | Path) -> str | None:
    """Return the newest checkpoint in ``folder`` that was written whole, if there is one.

    The Trainer writes ``trainer_state.json`` last: a checkpoint without a readable one is half-written.
    """
    whole = {}
    for path in Path(folder).glob("checkpoint-*/trainer_state.json"):
        with suppress(ValueError, KeyError):
            whole[json.loads(path.read_text(encoding="utf-8"))["global_step"]] = str(path.parent)
    return whole[max(whole)] if whole else None


def _check_trainable(model: PreTrainedModel) -> None:
    """Raise a ValueError if no parameter is to be trained, or one in 16 bits."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trained:
        raise ValueError("No parameter of the model is to be trained: each has requires_grad=False.")
    for name, parameter in trained:
        if parameter.dtype in (torch.float16, torch.bfloat16):
            kind = str(parameter.dtype).removeprefix("torch.")
            raise ValueError(
                f"{name} is in {kind}, too coarse for the small steps of training. Load the model with "
                "dtype=torch.float32; for speed on a GPU add bf16=True here."
            )


def supports_logits_to_keep(model: PreTrainedModel) -> bool:
    """Tell if a model can leave out logits, and if its loss is cross-entropy and nothing else."""
    plain = getattr(model, "get_base_model", lambda: model)()  # of a model with LoRA
    return (
        "logits_to_keep" in inspect.signature(plain.forward).parameters
        and plain.loss_type == "ForCausalLM"
        and not getattr(plain.config, "output_router_logits", False)
    )


class _ProgressBar(TrainerCallback):
    """One bar for the whole training, with the loss of the last step."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        steps = {"total": state.max_steps, "initial": state.global_step, "unit": "step"}
        self.bar = tqdm(**steps, desc="training", disable=not state.is_world_process_zero)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in (logs or {}):
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()


def main() -> None:
    """Fine-tune a chat model on chats of your own, and save it as a folder that transformers loads."""
    several = "Several processes: torchrun --nproc-per-node 2 -m tinylib.train ..., or accelerate launch."
    parser = argparse.ArgumentParser("python -m tinylib.train", description=main.__doc__, epilog=several)
    add = parser.add_argument
    add("--data", required=True, metavar="CHATS", help="a JSONL, CSV or Parquet file, hub id or 'requests'")
    add("--output", required=True, metavar="FOLDER", help="where the trained model and checkpoints go")
    add("--model", help="smollm2, tinyllama, a folder or a hub id (default: TINYLIB_MODEL, else smollm2)")
    add("--epochs", type=float, default=1, metavar="N", help="how often to go through the chats (default: 1)")
    add("--batch-size", type=int, default=8, metavar="N", help="chats in a batch of a process (default: 8)")
    add("--accumulate", type=int, default=1, metavar="N", help="batches in an optimizer step (default: 1)")
    add("--learning-rate", type=float, default=2e-4, metavar="X", help="at first; falls to 0 (default: 2e-4)")
    add("--max-length", type=int, metavar="N", help="most tokens of a chat (default: the model's context)")
    add("--save-steps", type=int, metavar="N", help="write a checkpoint every N steps (default: none)")
    add("--resume", action="store_true", help="go on from the last whole checkpoint in FOLDER")
    add("--seed", type=int, default=42, metavar="N", help="of the chats' order (default: 42)")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--last-layers", type=int, metavar="N", help="train the last N layers only")
    part.add_argument("--lora", type=int, metavar="RANK", help="train adapters of this rank (needs peft)")
    try:
        _train_as_told(parser.parse_args())
    except (ValueError, RuntimeError) as error:
        sys.exit(str(error))


def _train_as_told(args: argparse.Namespace) -> None:
    half = models.best_dtype(torch.device(models.best_device()))
    chats = load_chats(args.data)
    # Weights that are trained stay in float32; those under adapters may be in 16 bits.
    model, tokenizer = models.load(args.model, dtype=half if args.lora else torch.float32)
    if args.last_layers:
        train_last_layers(model, args.last_layers)
    if args.lora:
        model = add_adapters(model, args.lora)
    settings = {
        **{name: getattr(args, name) for name in ("learning_rate", "seed", "resume", "max_length")},
        "num_train_epochs": args.epochs,
        "per_device_train_batch_size": args.batch_size,
        "gradient_accumulation_steps": args.accumulate,
        "bf16": half == torch.bfloat16,
        "fp16": half == torch.float16,
    }
    if args.save_steps:
        settings |= {"save_strategy": "steps", "save_steps": args.save_steps}
    losses = fine_tune(model, tokenizer, chats, args.output, **settings)
    if int(os.environ.get("RANK", 0)) == 0:  # one process speaks for all
        if args.lora:
            models.save(model.merge_and_unload(), tokenizer, Path(args.output) / "merged")
        print(f"{len(losses)} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}; saved in {args.output}")


if __name__ == "__main__":
    main()
