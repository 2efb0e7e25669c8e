"""The folder of a training: it knows whose it is, and nothing finished in it is lost or half-written."""

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.fingerprint import Hasher
from filelock import FileLock, Timeout
from safetensors import safe_open
from transformers import PreTrainedModel, TrainingArguments

RUN = "training.json"  # what a run is made of, and whether it has ended
LOSSES = "trainer_state.json"
MERGED = "merged"  # the folder of a model with its adapters merged into it
EXAMPLES = ".examples-"  # and a process's number: what it trains on
MODEL_FILES = (  # beside those of another they would be loaded, too: adapters on the weights of another run
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json",
    "adapter_config.json", "tokenizer*.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.*", "merges.txt", "chat_template.jinja", "additional_chat_templates/*",
    f"{MERGED}/*",
)  # fmt: skip
ANEW = "overwrite=True (--overwrite) begins anew in it"
CHANGES_NOTHING = (
    "logging", "save", "report", "eval", "per_device_eval", "disable", "ddp",
    "dataloader_num_workers", "dataloader_pin", "dataloader_persistent", "dataloader_prefetch",
)  # fmt: skip


@contextmanager
def claimed(folder: Path, model: PreTrainedModel, size: int, resume: bool, overwrite: bool) -> Iterator[None]:
    """Hold a folder for one training, which is to write ``size`` bytes there; a ValueError if it may not.

    What ends the training from outside, such as a full disk or Ctrl-C, gets a note on how to go on.
    """
    source, own = Path(model.name_or_path).resolve(), folder.resolve()
    if source == own or (source.parent == own and source.name.startswith(("checkpoint-", MERGED))):
        raise ValueError(f"The model comes from {folder}, and would be overwritten: give another folder.")
    if folder.is_file():
        raise ValueError(f"{folder} is a file: give a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for written in {path for name in (RUN, LOSSES, *MODEL_FILES) for path in folder.glob(name)}:
        if written.is_dir() and written.parent == folder:
            raise ValueError(f"{written} is a folder, and a file of this name is to be written: move it.")
    try:
        with _lock(folder):
            _refuse_anothers(folder, resume, overwrite)
            for left in folder.glob(f"{EXAMPLES}[0-9]*"):  # by each process of a training that was killed
                shutil.rmtree(left, ignore_errors=True)
            if (free := shutil.disk_usage(folder).free) < size:
                needed = f"needs {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
                raise ValueError(f"The disk of {folder} is too full: what the training writes {needed}.")
            yield
    except Timeout as error:
        raise ValueError(f"Another training is writing to {folder}: wait for it, or give another.") from error
    except BaseException as error:
        # A setting that made no sense, or a training that diverged, would do so again.
        if not isinstance(error, ValueError | FloatingPointError):
            with suppress(OSError, ValueError):
                if (_made_of(folder) or {}).get("finished"):  # this one in its last moment, or an earlier
                    error.add_note(f"{folder} holds a finished training, whole.")
                else:
                    newest = max(folder.rglob("*"), key=lambda path: path.stat().st_mtime, default=folder)
                    found = last_checkpoint(folder) or "the beginning, since there is no checkpoint"
                    error.add_note(f"{newest} was written last. With --resume it goes on from {found}.")
        raise


@contextmanager
def merging(folder: Path) -> Iterator[Path]:
    """Hold a folder while its adapters are merged into the model, and tell where that goes.

    What ends it gets a note: the training is over, and its adapters are whole.
    """
    try:
        with _lock(folder):
            yield folder / MERGED
    except BaseException as error:
        merge = f"AutoPeftModelForCausalLM.from_pretrained({str(folder)!r}).merge_and_unload()"
        error.add_note(f"The adapters in {folder} are whole, but not merged: {merge} of peft does it.")
        raise


def _lock(folder: Path) -> FileLock:
    """Make what holds a folder, or raises a Timeout if another has it."""
    return FileLock(folder / ".lock", timeout=0)


def _refuse_anothers(folder: Path, resume: bool, overwrite: bool) -> None:
    """Raise a ValueError if ``folder`` holds something that may not be written over."""
    found = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {RUN}
    run = _made_of(folder)  # where no training wrote it, it is not overwritten either
    if not found or overwrite:
        return
    goes_on = run is not None and (bool(_checkpoints(folder)) or not run.get("finished", True))
    if run is None:
        holds = f"something else ({min(found)})"
    elif resume and goes_on:
        return
    elif resume:
        holds = "a finished training, and no checkpoint"
    else:
        holds = "a training" + (": --resume goes on" if goes_on else "")
    raise ValueError(f"{folder} holds {holds}. Give another folder; {ANEW}.")


def bytes_to_write(model: PreTrainedModel, checkpoints: bool) -> int:
    """Count the bytes of a saved model and, if there are any, of a checkpoint: with AdamW's two averages."""
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    saved = trained if hasattr(model, "peft_config") else model.get_memory_footprint()
    return saved + (saved + 2 * trained if checkpoints else 0)


def made_of(model: PreTrainedModel, rows: Dataset, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Tell what a run is made of: data, model, trained parts, and the settings that change its result."""
    data, weights = Hasher(), dict(model.named_parameters())
    for table in rows.with_format("arrow").iter(1000):
        for batch in table.combine_chunks().to_batches():
            data.update(batch.serialize().to_pybytes())
    # Of each weight a few numbers, since another model differs in all. Adapters begin at random.
    some = {name: w.detach().flatten()[:: w.numel() // 64 + 1].tolist() for name, w in weights.items()}
    run = {"model": model.name_or_path, "rows": len(rows), "chats": data.hexdigest()}
    run["weights"] = Hasher.hash([values for name, values in some.items() if "lora_" not in name])
    run["trained"] = Hasher.hash([(name, *w.shape) for name, w in weights.items() if w.requires_grad])
    run |= {name: value for name, value in settings.items() if not name.startswith(CHANGES_NOTHING)}
    return _as_json(run)


def check_same(folder: Path, run: Mapping[str, Any]) -> None:
    """Raise a ValueError that says what differs, if ``folder`` holds a run that is made of something else."""
    if (old := _made_of(folder)) is None:
        return
    usual = _as_json({field.name: field.default for field in fields(TrainingArguments)})
    was, now = usual | old, usual | run
    # The model's name is a path, which can be written in several ways: its weights are compared.
    names = [name for name in old | run if name not in ("model", "finished")]
    differ = [name for name in names if was.get(name) != now.get(name)]
    if differ:
        said = "; ".join(f"{name}: {was.get(name)}, now {now.get(name)}" for name in differ)
        raise ValueError(f"{folder} is another run's ({said}), and cannot be resumed; {ANEW}.")


def write_made_of(folder: Path, run: Mapping[str, Any], finished: bool) -> None:
    """Write down what the run in ``folder`` is made of, and whether it has ended: else no model is its."""
    (folder / RUN).write_text(json.dumps({**run, "finished": finished}, indent=2) + "\n", encoding="utf-8")


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints in ``folder``; of one that is a link, the link."""
    for checkpoint in _checkpoints(folder):
        (Path.unlink if checkpoint.is_symlink() else shutil.rmtree)(checkpoint)


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as they are read again."""
    return json.loads(json.dumps(values, default=str))


def _made_of(folder: Path) -> dict[str, Any] | None:
    """Read what the run in ``folder`` is made of; a ValueError if a file of that name says something else."""
    if not (folder / RUN).is_file():
        return None
    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / RUN} is damaged ({error}): move it.") from error
    if not isinstance(run, dict) or "weights" not in run:
        raise ValueError(f"{folder / RUN} is no training's: move it.")
    return run


def _checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints in ``folder``, the newest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name[11:].isdecimal()]
    return sorted(filter(Path.is_dir, found), key=lambda path: -int(path.name[11:]))


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint in ``folder`` that is whole, if there is one; say which are not."""
    for path in _checkpoints(folder):
        try:
            json.loads((path / LOSSES).read_text(encoding="utf-8"))  # is written last
            for file in list(path.glob("*.safetensors")) or [path / "model.safetensors"]:
                with safe_open(file, "pt"):  # opens if no byte is missing
                    pass
            for file in (path / "optimizer.pt", path / "scheduler.pt", *path.glob("rng_state*.pth")):
                with zipfile.ZipFile(file) as archive:  # with checksums
                    if archive.testzip():
                        raise ValueError(f"{file.name} is damaged")
            return str(path)
        except Exception as error:  # each library raises its own
            print(f"{path} is passed over, since it is not whole: {error!r:.120}")
    return None
