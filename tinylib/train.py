"""Fine-tune a chat model: conversations in, a trained model and its losses out.

The training is ``transformers.Trainer``'s. What goes in is made here: labels that supervise answers and their
ends, batches in which no sample sees another. ``python -m tinylib.train --help``.
"""

import argparse
import inspect
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from datasets.arrow_writer import ArrowWriter
from pyarrow import BufferOutputStream
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback
from transformers.utils import logging

from tinylib import models, runs
from tinylib.collate import PackedCollator
from tinylib.data import load_chats
from tinylib.labels import TooLong, training_example
from tinylib.packing import PackedTrainer, attending_by_sample
from tinylib.quiet import errors_in_one_line, progress_bars

DEFAULTS = {
    "per_device_train_batch_size": 8,
    "learning_rate": 2e-4,
    "num_train_epochs": 1,
    "weight_decay": 0.0,
    "logging_steps": 1,
    "logging_nan_inf_filter": False,  # it writes 0.0 for a loss that is NaN
    "save_strategy": "no",
    "report_to": "none",
    "ddp_find_unused_parameters": False,
}


def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Any,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    eval_chats: Any = None,
    max_length: int | None = None,
    collator: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]] | None = None,
    **arguments: Any,
) -> list[float]:
    """Train a model, in place, to give the assistant's answers of these chats.

    Args:
        model, tokenizer: The model in float32 where it is trained (on a GPU add ``bf16=True`` for speed).
        chats: A data set of ``datasets``, a DataFrame, or any rows that `tinylib.chat.as_messages` reads.
        folder: Where the trained model, its tokenizer, the losses (``trainer_state.json``), their origin
            (``training.json``) and checkpoints, if ``save_strategy`` asks for any, go; default: nowhere.
        resume: Go on from the last whole checkpoint in ``folder``, which must be the same run's: same data,
            model, trained parts and settings. From the start if there is none.
        overwrite: Begin anew in ``folder``, whatever is there; another run's checkpoints are removed.
        eval_chats: Held-out chats: their loss and share of exact answers, as `PackedTrainer` measures them
            after each epoch or as ``eval_strategy`` says, are in the bar and in ``trainer_state.json``.
        max_length: The most tokens of a chat; default: the model's context. Later turns that do not fit are
            dropped, chats of which not even the first answer fits are left out, and it is said.
        collator: What makes a batch of examples. Default: `tinylib.collate.PackedCollator`, which changes the
            speed, not the losses.
        arguments: Of ``transformers.TrainingArguments``, over `DEFAULTS`.

    Returns:
        Each step's loss, the mean over its supervised tokens; or the means of ``logging_steps`` of these.

    Raises:
        ValueError: A chat is unusable (with its number), none is left, no parameter is to be trained, one is
            in 16 bits, a setting makes no sense, or ``folder`` is not for this run (`tinylib.runs`).
        FloatingPointError: The training has diverged. The weights are those before the step, and not saved.
    """
    if not (isinstance(model, torch.nn.Module) and isinstance(tokenizer, PreTrainedTokenizerBase)):
        raise ValueError(f"Give a model and its tokenizer, not {type(model)} and {type(tokenizer)}.")
    trained = _check_trainable(model)
    arguments = DEFAULTS | {"eval_strategy": "no" if eval_chats is None else "epoch"} | arguments
    _check_settings(arguments | {"max_length": max_length})
    if len(tokenizer) > (known := model.get_input_embeddings().num_embeddings):
        raise ValueError(f"The tokenizer has {len(tokenizer)} tokens, the model {known}: it is another's.")
    if resume and overwrite:
        raise ValueError("resume goes on with what overwrite removes: ask for one of them.")
    if (resume and folder is None) or (folder is not None and not str(folder).strip()):
        raise ValueError("Give a folder to write to; to resume, that of the interrupted training.")
    max_length = max_length or model.config.max_position_embeddings
    with ExitStack() as stack:
        # The Trainer wants a folder even if it saves nothing.
        output = Path(folder or stack.enter_context(tempfile.TemporaryDirectory())).expanduser()
        on_cpu = model.device.type == "cpu"
        if on_cpu and arguments.get("fp16"):
            raise ValueError("On a CPU there is no training in float16: leave out fp16, or try bf16=True.")
        settings = TrainingArguments(str(output), disable_tqdm=True, use_cpu=on_cpu, **arguments)
        if settings.n_gpu > 1:  # several take several processes; DataParallel would cut the one row up
            settings._n_gpu = 1
        writes = folder is not None and settings.process_index == 0
        if writes:
            # The model and, if there are any, a checkpoint with both averages of AdamW.
            size = whole = trained if hasattr(model, "peft_config") else model.get_memory_footprint()
            size += (whole + 2 * trained) * (settings.save_strategy != "no")
            stack.enter_context(runs.claimed(output, model, size, resume, overwrite))
        output.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".", dir=output, ignore_cleanup_errors=True)
        scratch = Path(stack.enter_context(scratch))
        data = {"train_dataset": prepare(tokenizer, chats, max_length, scratch)}
        if eval_chats is not None:
            data["eval_dataset"] = prepare(tokenizer, eval_chats, max_length, scratch, "held-out chat")
        trainer = _trainer(model, tokenizer.pad_token_id, settings, collator, **data)
        stack.callback(lambda: trainer.pop_callback(_Watch).bar.close())
        if writes:
            more = {"max_length": max_length, "processes": settings.world_size}
            runs.begin(output, model, data["train_dataset"], arguments | more, resume)
        checkpoint = runs.last_checkpoint(output) if resume else None
        with progress_bars(False), attending_by_sample(model):
            trainer.train(resume_from_checkpoint=checkpoint)
            if writes:
                with models.put_when_whole(output) as part:
                    trainer.save_model(str(part))
                    trainer.state.save_to_json(str(part / "trainer_state.json"))
                    tokenizer.save_pretrained(part)
    model.eval()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _trainer(
    model: PreTrainedModel,
    pad_id: int,
    settings: TrainingArguments,
    collator: Any,
    **examples: Dataset | None,
) -> Trainer:
    """Make the Trainer; unless a collator is given, it packs."""
    kept = dict(model.named_parameters())
    if tied := [name for name, _ in model.named_parameters(remove_duplicate=False) if name not in kept]:
        # No checkpoint holds them, since they are the embedding's: else the Trainer warns on resuming.
        model._keys_to_ignore_on_save = tied
    collator = collator or PackedCollator(pad_id)
    trainer = PackedTrainer(model, settings, data_collator=collator, callbacks=[_Watch()], **examples)
    trainer.remove_callback(PrinterCallback)
    again = -len(trainer.train_dataset) % (settings.train_batch_size * settings.world_size)
    if settings.world_size > 1 and again and trainer.is_world_process_zero():
        print(f"The last step of an epoch repeats {again} chats, so that every process has as many.")
    return trainer


def prepare(
    tokenizer: PreTrainedTokenizerBase,
    chats: Any,
    max_length: int | None = None,
    folder: Path | None = None,
    name: str = "chat",
) -> Dataset:
    """Turn chats into examples with ``input_ids`` and ``labels``; say which do not fit (see `fine_tune`)."""
    # With a folder they lie in a file: memory does not grow with the data.
    if isinstance(chats, str | DatasetDict) or not isinstance(chats, Iterable):
        raise ValueError(f"Chats are a data set (one split of it) or a list of chats, not {chats!r:.80}.")
    if hasattr(chats, "iloc"):  # pandas fills with NaN what a row has not
        filled = chats.astype(object).where(chats.notna(), None)
        chats = filled.to_dict("records") if hasattr(chats, "columns") else filled.tolist()
    if not isinstance(chats, Dataset):
        chats = [chats] if isinstance(chats, Mapping) else list(chats)
    logging.warning_once.cache_clear()  # what these chats have and is not used is told again
    file = str(folder / f"{name}s.arrow") if folder else None
    writer = ArrowWriter(path=file, stream=None if file else BufferOutputStream())
    too_long, shortened = [], []
    for i, chat in enumerate(tqdm(chats, desc="preparing", unit="chat", leave=False, delay=2)):
        try:
            example = training_example(tokenizer, chat, max_length)
        except TooLong:
            too_long.append(i)
        except ValueError as error:
            raise ValueError(f"{name.capitalize()} {i}: {error}") from error
        else:
            if example.pop("dropped"):
                shortened.append(i)
            writer.write(example)
    for which, what in [(too_long, "left out: their first answer does not fit"), (shortened, "shortened")]:
        if which:
            numbers = ", ".join(map(str, which[:10])) + (", …" if len(which) > 10 else "")
            print(f"{len(which)} {name}s {what} (max_length={max_length}; numbers {numbers})")
    if len(too_long) == len(chats):
        raise ValueError(f"There is no {name} to train on: the data set is empty, or none fits max_length.")
    writer.finalize(close_stream=file is not None)
    return Dataset.from_file(file) if file else Dataset.from_buffer(writer.stream.getvalue())


def train_last_layers(model: PreTrainedModel, count: int) -> None:
    """Let only the last layers of a Llama-type model be trained; a ValueError if it has not as many."""
    layers = model.model.layers
    if not 1 <= count <= len(layers):
        raise ValueError(f"count must be 1 to {len(layers)}, the number of the model's layers, not {count}.")
    model.requires_grad_(False)
    layers[-count:].requires_grad_(True)


def add_adapters(model: PreTrainedModel, rank: int) -> torch.nn.Module:
    """Put LoRA adapters of scale 2 beside every linear layer but the output layer; they alone are trained.

    They are in float32, also beside weights in 16 bits.
    """
    if rank < 1:
        raise ValueError(f"The rank of adapters (--lora) must be at least 1, not {rank}.")
    from peft import LoraConfig, get_peft_model  # costs a second, and few need it

    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():  # peft asks transformers 5 for something by its old name
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, settings)


def _check_trainable(model: PreTrainedModel) -> int:
    """Count the bytes of what is to be trained; a ValueError if there is nothing, or something in 16 bits."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError("No parameter of the model is to be trained: each has requires_grad=False.")
    for name, parameter in trained.items():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            raise ValueError(
                f"{name} is in {str(parameter.dtype)[6:]}, too coarse for the small steps of training. Load "
                "the model with dtype=torch.float32; for speed on a GPU add bf16=True here."
            )
    plain = getattr(model, "get_base_model", lambda: model)()  # of a model with LoRA
    fits = (
        "logits_to_keep" in inspect.signature(plain.forward).parameters and plain.loss_type == "ForCausalLM"
    )
    if not fits or getattr(plain.config, "output_router_logits", False):
        raise ValueError("The model's loss is not plain cross-entropy, or it cannot leave out logits.")
    return sum(parameter.nbytes for parameter in trained.values())


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raise a ValueError for a number that is text or makes no sense: 0, one below, infinity, NaN."""
    usual = {field.name: field.default for field in fields(TrainingArguments)} | {
        "max_length": 1,
        "eval_steps": 1,
    }
    for name, value in settings.items():
        if isinstance(value, str) and isinstance(usual.get(name), int | float):
            raise ValueError(f"{name} must be a number, not {value!r}.")
    sizes = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
    whole = (*sizes, "max_length")
    for name in (*whole, "save_steps", "logging_steps", "eval_steps", "learning_rate", "num_train_epochs"):
        value = settings.get(name)
        if value is not None and not (0 < value < float("inf") and not (name in whole and value % 1)):
            raise ValueError(f"{name} must be a {'whole ' * (name in whole)}number above 0, not {value!r}.")


class _Watch(TrainerCallback):
    """One bar for the whole training, with the loss of the last step, and its end where that diverges."""

    def __init__(self) -> None:
        self.bar, self.shown = tqdm(disable=True), {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        steps = {"total": state.max_steps, "initial": state.global_step, "unit": "step"}
        self.bar = tqdm(**steps, desc="training", disable=not state.is_world_process_zero)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        # Before the step: the weights stay as they were. A loss that is not finite is in every gradient.
        # Those of float16 are scaled and may overflow: their step is then left out.
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if not args.fp16 and not torch.nn.utils.get_total_norm(gradients).isfinite():
            self._end("the loss or a gradient", state.global_step + 1, args, state)

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)
        control.should_log |= state.global_step == state.max_steps  # also what fills no logging_steps
        last = control.should_save or state.global_step == state.max_steps
        if last and (name := models.not_finite(model)):  # before it is saved
            self._end(name, state.global_step, args, state)

    on_epoch_end = on_step_end  # what is saved then

    def _end(self, what: str, step: int, args: Any, state: Any) -> None:
        losses = [log["loss"] for log in state.log_history if "loss" in log]
        raise FloatingPointError(
            f"The training has diverged: in step {step} {what} is no finite number any more. The last losses "
            f"were {losses[-3:]}. Try a learning rate below {args.learning_rate:g}, float32 if it ran in 16 "
            "bits, and look for rows without a label."
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        new = {name: logs[name] for name in ("loss", "eval_loss", "eval_exact") if name in logs}
        self.shown |= {name: f"{value:.3f}" for name, value in new.items()}
        self.bar.set_postfix(self.shown)


def main() -> None:
    """Fine-tune a chat model on chats of your own, and save it as a folder that transformers loads."""
    several = "Several processes: torchrun --nproc-per-node 2 -m tinylib.train ..., or accelerate launch."
    parser = argparse.ArgumentParser("python -m tinylib.train", description=main.__doc__, epilog=several)
    add = parser.add_argument
    add(
        "--data",
        required=True,
        metavar="CHATS",
        help="a JSONL, JSON, CSV or Parquet file, hub id or 'requests'",
    )
    add("--eval-data", metavar="CHATS", help="held-out chats, measured after each epoch (default: none)")
    add("--output", required=True, metavar="FOLDER", help="where the trained model and checkpoints go")
    add("--model", help="smollm2, tinyllama, a folder or a hub id (default: TINYLIB_MODEL, else smollm2)")
    whole, real = {"type": int, "metavar": "N"}, {"type": float, "metavar": "X"}
    times, batch, parts = "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"
    add("--epochs", **real, dest=times, help="how often to go through the chats (default: 1)")
    add("--batch-size", **whole, dest=batch, help="chats in a batch of a process (default: 8)")
    add("--accumulate", **whole, dest=parts, help="batches in an optimizer step (default: 1)")
    add("--learning-rate", **real, help="at first; falls to 0 (default: 2e-4)")
    add("--max-length", **whole, help="most tokens of a chat (default: the model's context)")
    add("--save-steps", **whole, help="write a checkpoint every N steps (default: none)")
    add("--seed", **whole, help="of the chats' order (default: 42)")
    either, part = parser.add_mutually_exclusive_group(), parser.add_mutually_exclusive_group()
    either.add_argument("--resume", action="store_true", help="go on from FOLDER's last whole checkpoint")
    either.add_argument("--overwrite", action="store_true", help="begin anew in FOLDER, whatever is there")
    part.add_argument("--last-layers", **whole, help="train the last N layers only")
    part.add_argument("--lora", **whole, help="train adapters of rank N (needs peft)")
    args = parser.parse_args()
    own = ("data", "eval_data", "output", "model", "last_layers", "lora")
    settings = {k: v for k, v in vars(args).items() if v is not None and k not in own}
    with errors_in_one_line():
        output = Path(args.output).expanduser()
        for data in filter(None, (args.data, args.eval_data)):
            path = Path(data).expanduser()
            if args.overwrite and path.exists() and output.resolve() in path.resolve().parents:
                raise ValueError(f"{data} lies in {output}, and --overwrite might remove it: move it.")
        half = models.best_dtype(torch.device(models.best_device()))
        chats = load_chats(args.data)
        if args.eval_data is not None:
            settings["eval_chats"] = load_chats(args.eval_data, "test")
        # Weights that are trained stay in float32; those under adapters may be in 16 bits.
        model, tokenizer = models.load(args.model, dtype=torch.float32 if args.lora is None else half)
        if args.last_layers is not None:
            train_last_layers(model, args.last_layers)
        if args.lora is not None:
            model = add_adapters(model, args.lora)
        settings |= {"bf16": half == torch.bfloat16, "fp16": half == torch.float16}
        settings["save_strategy"] = "no" if args.save_steps is None else "steps"
        losses = fine_tune(model, tokenizer, chats, args.output, **settings)
        if int(os.environ.get("RANK", 0)) == 0:  # one process speaks for all
            if args.lora is not None:
                models.save(model.merge_and_unload(), tokenizer, output / "merged")
            print(f"{len(losses)} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}; saved in {args.output}")


if __name__ == "__main__":
    main()
