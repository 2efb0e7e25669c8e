"""Fine-tune a chat model: conversations in, a trained model and its losses out.

The training is ``transformers.Trainer``'s. This room checks what it is given, puts the other rooms together,
and saves.
"""

import difflib
import inspect
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from chattune import runs
from chattune.attention import attending_by_sample, keeps_samples_apart
from chattune.examples import prepare
from chattune.trainable import check_trainable
from chattune.trainer import PackedTrainer
from chattune.watch import Watch
from tinylib.collate import PackedCollator, PaddedCollator
from tinylib.models import put_when_whole
from tinylib.quiet import progress_bars

Collator = Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]

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
NOT_TO_CHOOSE = ("output_dir", "disable_tqdm", "use_cpu")  # they follow from folder and model
WHOLE = (
    "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "max_length",
)  # fmt: skip
POSITIVE = (*WHOLE, "save_steps", "logging_steps", "eval_steps", "learning_rate", "num_train_epochs")


def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Any,
    folder: str | os.PathLike | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    eval_chats: Any = None,
    max_length: int | None = None,
    collator: Collator | None = None,
    **arguments: Any,
) -> list[float]:
    """Train a model, in place, to give the assistant's answers of these chats.

    Args:
        model, tokenizer: The model in float32 where it is trained (on a GPU add ``bf16=True`` for speed).
        chats: A data set of ``datasets``, a DataFrame, or any rows that `tinylib.messages.as_messages` reads.
        folder: Where the trained model, its tokenizer, the losses (``trainer_state.json``), their origin
            (``training.json``) and checkpoints, if ``save_strategy`` asks for any, go; default: nowhere.
        resume: Go on from the last whole checkpoint in ``folder``, which must be the same run's: same data,
            model, trained parts, settings and number of processes (its collator is not compared). From the
            start if there is none.
        overwrite: Begin anew in ``folder``, whatever is there: another run's checkpoints are removed at once,
            its model when the new one is whole.
        eval_chats: Held-out chats: their loss and share of exact answers, as `PackedTrainer` measures them
            after each epoch or as ``eval_strategy`` says, are in the bar and in ``trainer_state.json``.
        max_length: The most tokens of a chat; default, and most: the model's context. Later turns that do not
            fit are dropped, chats of which not even the first answer fits are left out, and it is said.
        collator: What makes a batch of examples. Default: `tinylib.collate.PackedCollator`, which changes the
            speed, not the losses; for a model that would let packed chats see each other, `PaddedCollator`.
        arguments: Of ``transformers.TrainingArguments``, over `DEFAULTS`.

    Returns:
        Each step's loss, the mean over its supervised tokens; or the means of ``logging_steps`` of these.

    Raises:
        ValueError: A chat is unusable (with its number), none is left, no parameter is to be trained, one is
            in 16 bits, a setting makes no sense, or ``folder`` is not for this run (`chattune.runs`).
        FloatingPointError: The training has diverged: it ends, and is not saved.
    """
    arguments = DEFAULTS | {"eval_strategy": "no" if eval_chats is None else "epoch"} | arguments
    _check_model(model, tokenizer)
    check_trainable(model)
    _check_settings(arguments | {"max_length": max_length})
    _check_where(folder, resume, overwrite)
    if collator is not None and (not callable(collator) or isinstance(collator, type)):
        raise ValueError(f"The collator is called with a list of examples; {collator!r:.80} cannot be.")
    on_cpu = model.device.type == "cpu"
    if on_cpu and arguments.get("fp16"):
        raise ValueError("On a CPU there is no training in float16: leave out fp16, or try bf16=True.")
    context = getattr(model.config, "max_position_embeddings", None)
    if max_length and context and max_length > context:
        raise ValueError(f"max_length is {max_length}, but the model's context ends at {context}.")
    max_length = max_length or context
    collator = _collator_for(model, tokenizer, collator)
    with ExitStack() as stack:
        # The Trainer wants a folder even if it saves nothing.
        output = Path(folder or stack.enter_context(tempfile.TemporaryDirectory())).expanduser()
        settings = TrainingArguments(str(output), disable_tqdm=True, use_cpu=on_cpu, **arguments)
        if settings.n_gpu > 1:  # several take several processes; DataParallel would cut the one row up
            settings._n_gpu = 1
        writes = folder is not None and settings.process_index == 0
        if writes:
            size = runs.bytes_to_write(model, checkpoints=settings.save_strategy != "no")
            stack.enter_context(runs.claimed(output, model, size, resume, overwrite))
        # Before the folder is known to be this run's, its other processes must not touch another's there.
        settings.distributed_state.wait_for_everyone()
        scratch = output / f"{runs.EXAMPLES}{settings.process_index}"
        scratch.mkdir(parents=True, exist_ok=True)
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        data = {"train_dataset": prepare(tokenizer, chats, max_length, scratch)}
        count, batch = len(data["train_dataset"]), settings.train_batch_size * settings.world_size
        if settings.dataloader_drop_last and count < batch:
            raise ValueError(f"dataloader_drop_last leaves out all {count} chats: {batch} make a batch.")
        if eval_chats is not None:
            data["eval_dataset"] = prepare(tokenizer, eval_chats, max_length, scratch, "held-out chat")
        watch = Watch()
        stack.callback(lambda: watch.bar.close())
        trainer = PackedTrainer(model, settings, data_collator=collator, callbacks=[watch], **data)
        trainer.remove_callback(PrinterCallback)
        _tell_what_is_repeated(trainer)
        if writes:
            also = {"max_length": max_length, "processes": settings.world_size}
            run = runs.made_of(model, data["train_dataset"], arguments | also)
            if resume:
                runs.check_same(output, run)
            else:
                runs.remove_checkpoints(output)
            runs.write_made_of(output, run, finished=False)
        checkpoint = runs.last_checkpoint(output) if resume else None
        with progress_bars(False), attending_by_sample(model), _tied_weights_saved_once(model):
            trainer.train(resume_from_checkpoint=checkpoint)
            if writes:
                with put_when_whole(output, instead_of=runs.MODEL_FILES) as part:
                    trainer.save_model(str(part))
                    (part / "README.md").unlink(missing_ok=True)  # peft's form, which nobody has filled in
                    trainer.state.save_to_json(str(part / runs.LOSSES))
                    tokenizer.save_pretrained(part)
                    runs.write_made_of(part, run, finished=True)
    model.eval()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _collator_for(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, given: Collator | None
) -> Collator:
    """Return what is given; else what packs, where the model keeps the samples of a row apart, or pads."""
    if given is None and tokenizer.pad_token_id is None:
        raise ValueError("The tokenizer has no pad token: set one (EOS will do), or give a collator.")
    packs = given is None or isinstance(given, PackedCollator)
    if not packs or keeps_samples_apart(model):
        return PackedCollator(tokenizer.pad_token_id) if given is None else given
    if given is not None:
        raise ValueError("The model lets packed chats see each other: give no collator, and it pads.")
    print("The model would let packed chats see each other: they are padded, which is slower.")
    return PaddedCollator(tokenizer.pad_token_id)


@contextmanager
def _tied_weights_saved_once(model: PreTrainedModel) -> Iterator[None]:
    """Tell the Trainer that checkpoints hold the embedding's weights once: else it warns on resuming."""
    kept, before = dict(model.named_parameters()), getattr(model, "_keys_to_ignore_on_save", None)
    tied = [name for name, _ in model.named_parameters(remove_duplicate=False) if name not in kept]
    model._keys_to_ignore_on_save = tied or before
    try:
        yield
    finally:
        model._keys_to_ignore_on_save = before


def _tell_what_is_repeated(trainer: PackedTrainer) -> None:
    """Say it where several processes cannot share the chats out evenly."""
    processes = trainer.args.world_size
    again = -len(trainer.train_dataset) % (trainer.args.train_batch_size * processes)
    if processes > 1 and again and not trainer.args.dataloader_drop_last and trainer.is_world_process_zero():
        print(f"The last step of an epoch repeats {again} chats, so that every process has as many.")


def _check_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise a ValueError for what is no model with its tokenizer, or has a loss that we would not give."""
    is_model = isinstance(model, torch.nn.Module) and hasattr(model, "get_input_embeddings")
    if not (is_model and isinstance(tokenizer, PreTrainedTokenizerBase)):
        raise ValueError(f"Give a model and its tokenizer, not {type(model)} and {type(tokenizer)}.")
    if len(tokenizer) > (known := model.get_input_embeddings().num_embeddings):
        raise ValueError(f"The tokenizer has {len(tokenizer)} tokens, the model {known}: it is another's.")
    plain = getattr(model, "get_base_model", lambda: model)()  # of a model with LoRA
    usual = plain.loss_type == "ForCausalLM" and not getattr(plain.config, "output_router_logits", False)
    why = "" if usual else "has a loss that is not plain cross-entropy"
    if "logits_to_keep" not in inspect.signature(plain.forward).parameters:
        why = "cannot leave out logits: its forward takes no logits_to_keep"
    if why:
        raise ValueError(f"{type(plain).__name__} {why}. Train it with transformers' Trainer.")


def _check_where(folder: Any, resume: bool, overwrite: bool) -> None:
    """Raise a ValueError for what is no path, and for what cannot be resumed or overwritten."""
    if not isinstance(folder, str | os.PathLike | None):
        raise ValueError(f"The folder is a path, not {folder!r:.80}.")
    if (resume and folder is None) or (folder is not None and not str(folder).strip()):
        raise ValueError("Give a folder to write to; to resume, that of the interrupted training.")
    if resume and overwrite:
        raise ValueError("resume goes on with what overwrite removes: ask for one of them.")


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raise a ValueError for an unknown name, text in place of a number, or a size that makes no sense."""
    known = {field.name: field.default for field in fields(TrainingArguments)} | {"max_length": None}
    for name, value in settings.items():
        if name not in known or name in NOT_TO_CHOOSE:
            like = "".join(f" Is it {near!r}?" for near in difflib.get_close_matches(name, known, 1))
            raise ValueError(f"fine_tune takes no setting {name!r}.{'' if name in known else like}")
        if isinstance(value, str) and (name in POSITIVE or isinstance(known[name], int | float)):
            raise ValueError(f"{name} must be a number, not {value!r}.")
        if isinstance(value, float) and math.isnan(value) and name not in POSITIVE:
            raise ValueError(f"{name} must be a number, not nan.")
    if (steps := settings.get("max_steps", -1)) != -1 and not (steps > 0 and steps % 1 == 0):
        raise ValueError(f"max_steps must be a whole number above 0, or -1 for none, not {steps!r}.")
    for name in POSITIVE:
        value = settings.get(name)
        if value is not None and not (0 < value < float("inf") and not (name in WHOLE and value % 1)):
            raise ValueError(f"{name} must be a {'whole ' * (name in WHOLE)}number above 0, not {value!r}.")
