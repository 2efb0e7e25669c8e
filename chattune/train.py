"""Fine-tune a chat model: conversations in, a trained model and its losses out.

The training is ``transformers.Trainer``'s. What goes in is made here: labels that supervise answers and their
ends, batches in which no sample sees another.
"""

import difflib
import inspect
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from chattune import runs
from chattune.attention import attending_by_sample
from chattune.examples import prepare
from chattune.trainable import check_trainable
from chattune.trainer import PackedTrainer
from chattune.watch import Watch
from tinylib import models
from tinylib.collate import PackedCollator
from tinylib.quiet import progress_bars

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
GIVEN = ("output_dir", "disable_tqdm", "use_cpu")  # by fine_tune, from its other arguments


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
            in 16 bits, a setting makes no sense, or ``folder`` is not for this run (`chattune.runs`).
        FloatingPointError: The training has diverged. The weights are those before the step, and not saved.
    """
    arguments = DEFAULTS | {"eval_strategy": "no" if eval_chats is None else "epoch"} | arguments
    _check_model(model, tokenizer)
    trained = check_trainable(model)
    _check_settings(arguments | {"max_length": max_length})
    if not (collator is None or callable(collator)):
        raise ValueError(f"The collator is called with a list of examples; {collator!r:.80} cannot be.")
    if resume and overwrite:
        raise ValueError("resume goes on with what overwrite removes: ask for one of them.")
    if not isinstance(folder, str | os.PathLike | None):
        raise ValueError(f"The folder is a path, not {folder!r:.80}.")
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
        stack.callback(lambda: trainer.pop_callback(Watch).bar.close())
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
    trainer = PackedTrainer(model, settings, data_collator=collator, callbacks=[Watch()], **examples)
    trainer.remove_callback(PrinterCallback)
    again = -len(trainer.train_dataset) % (settings.train_batch_size * settings.world_size)
    if settings.world_size > 1 and again and trainer.is_world_process_zero():
        print(f"The last step of an epoch repeats {again} chats, so that every process has as many.")
    return trainer


def _check_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise a ValueError for what is no model with its tokenizer, or has a loss that we would not give."""
    if not (isinstance(model, torch.nn.Module) and isinstance(tokenizer, PreTrainedTokenizerBase)):
        raise ValueError(f"Give a model and its tokenizer, not {type(model)} and {type(tokenizer)}.")
    if len(tokenizer) > (known := model.get_input_embeddings().num_embeddings):
        raise ValueError(f"The tokenizer has {len(tokenizer)} tokens, the model {known}: it is another's.")
    plain = getattr(model, "get_base_model", lambda: model)()  # of a model with LoRA
    can_skip = "logits_to_keep" in inspect.signature(plain.forward).parameters
    usual = plain.loss_type == "ForCausalLM" and not getattr(plain.config, "output_router_logits", False)
    if not (can_skip and usual):
        raise ValueError("The model's loss is not plain cross-entropy, or it cannot leave out logits.")


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raise a ValueError for an unknown name, or a number that is text or makes no sense: 0, -1, inf, NaN."""
    known = {field.name: field.default for field in fields(TrainingArguments)}
    known |= dict.fromkeys(("max_length", "eval_steps"), 1)
    known = {name: default for name, default in known.items() if name not in GIVEN}
    for name, value in settings.items():
        if name not in known:
            like = "".join(f" Is it {near!r}?" for near in difflib.get_close_matches(name, known, 1))
            raise ValueError(f"fine_tune takes no setting {name!r}.{like}")
        if isinstance(value, str) and isinstance(known[name], int | float):
            raise ValueError(f"{name} must be a number, not {value!r}.")
    sizes = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
    whole = (*sizes, "max_length")
    for name in (*whole, "save_steps", "logging_steps", "eval_steps", "learning_rate", "num_train_epochs"):
        value = settings.get(name)
        if value is not None and not (0 < value < float("inf") and not (name in whole and value % 1)):
            raise ValueError(f"{name} must be a {'whole ' * (name in whole)}number above 0, not {value!r}.")
