"""The folder of a training: it knows whose it is, and nothing in it is lost or left half-written."""

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.fingerprint import Hasher
from filelock import FileLock, Timeout
from safetensors import safe_open
from transformers import PreTrainedModel

RUN = "training.json"  # what a run is made of
CHANGES_NOTHING = ("logging", "save", "report", "dataloader", "eval", "per_device_eval", "disable", "ddp")
ANEW = "overwrite=True (--overwrite) begins anew in it"


@contextmanager
def claimed(folder: Path, model: PreTrainedModel, size: int, resume: bool, overwrite: bool) -> Iterator[None]:
    """Hold a folder for one training, which is to write ``size`` bytes there; a ValueError if it may not."""
    source, own = Path(model.name_or_path).resolve(), folder.resolve()
    if source == own or (source.parent == own and source.name.startswith("checkpoint-")):
        raise ValueError(f"The model comes from {folder}, and would be overwritten: give another folder.")
    if folder.is_file():
        raise ValueError(f"{folder} is a file: give a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            found = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {RUN}
            going_on = resume and bool(_checkpoints(folder))
            holds = "a finished training, and no checkpoint" if resume else "a training: --resume goes on"
            if _made_of(folder) is None:
                holds, going_on = f"something else ({min(found, default='')})", False
            if found and not going_on and not overwrite:
                raise ValueError(f"{folder} holds {holds}. Give another folder; {ANEW}.")
            if (free := shutil.disk_usage(folder).free) < size:
                needed = f"{size / 1e9:.1f} GB, for the model and a checkpoint; {free / 1e9:.1f} GB are free"
                raise ValueError(f"The disk of {folder} is too full: the training needs {needed}.")
            yield
    except Timeout as error:
        raise ValueError(f"Another training is writing to {folder}: wait for it, or give another.") from error
    except BaseException as error:  # a full disk, Ctrl-C
        if not isinstance(error, ValueError):
            newest = max(folder.rglob("*"), key=lambda path: path.stat().st_mtime, default=folder)
            found = last_checkpoint(folder) or "the beginning, since there is no checkpoint"
            error.add_note(f"{newest} was written last. With --resume it goes on from {found}.")
        raise


def begin(
    folder: Path, model: PreTrainedModel, rows: Dataset, settings: Mapping[str, Any], resume: bool
) -> None:
    """Write down what a run is made of. To resume, compare it first: a ValueError says what differs."""
    chats, weights = Hasher(), dict(model.named_parameters())
    for table in rows.with_format("arrow").iter(1000):
        for batch in table.combine_chunks().to_batches():
            chats.update(batch.serialize().to_pybytes())
    # Of each weight a few numbers, since another model differs in all. Adapters begin at random.
    some = {name: w.detach().flatten()[:: w.numel() // 64 + 1].tolist() for name, w in weights.items()}
    run = {"model": model.name_or_path, "rows": len(rows), "chats": chats.hexdigest()}
    run["weights"] = Hasher.hash([values for name, values in some.items() if "lora_" not in name])
    run["trained"] = Hasher.hash([(name, *w.shape) for name, w in weights.items() if w.requires_grad])
    run |= {name: value for name, value in settings.items() if not name.startswith(CHANGES_NOTHING)}
    run = json.loads(json.dumps(run, default=str))
    if resume and (old := _made_of(folder)):
        # The model's name is a path, which can be written in several ways: its weights are compared.
        differ = [name for name in old | run if old.get(name) != run.get(name) and name != "model"]
        if differ:
            said = "; ".join(f"{name}: {old.get(name)}, now {run.get(name)}" for name in differ)
            raise ValueError(f"{folder} is another run's ({said}), and cannot be resumed; {ANEW}.")
    for checkpoint in [] if resume else _checkpoints(folder):
        (Path.unlink if checkpoint.is_symlink() else shutil.rmtree)(checkpoint)
    (folder / RUN).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")


def _made_of(folder: Path) -> dict[str, Any] | None:
    """Read what the run in ``folder`` is made of; a ValueError if a file of that name says something else."""
    if not (folder / RUN).is_file():
        return None
    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
        return {"weights": run["weights"], **run}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / RUN} is damaged, or no training's ({error!r:.80}): move it.") from error


def _checkpoints(folder: str | Path) -> list[Path]:
    """List the checkpoints in ``folder``, the newest first."""
    found = [path for path in Path(folder).glob("checkpoint-*") if path.name[11:].isdecimal()]
    return sorted(filter(Path.is_dir, found), key=lambda path: -int(path.name[11:]))


def last_checkpoint(folder: str | Path) -> str | None:
    """Return the newest checkpoint in ``folder`` that is whole, if there is one; say which are not."""
    for path in _checkpoints(folder):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))  # is written last
            for file in list(path.glob("*.safetensors")) or [path / "model.safetensors"]:
                with safe_open(file, "pt"):  # opens if no byte is missing
                    pass
            for file in (path / "optimizer.pt", path / "scheduler.pt"):
                with zipfile.ZipFile(file) as archive:  # with checksums
                    if archive.testzip():
                        raise ValueError(f"{file.name} is damaged")
            return str(path)
        except Exception as error:  # each library raises its own
            print(f"{path} is passed over, since it is not whole: {error!r:.120}")
    return None
