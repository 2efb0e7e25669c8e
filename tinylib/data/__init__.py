"""Chats to train on: those that come with the course (see ``README.md`` beside this file), or your own."""

import gzip
import json
from pathlib import Path

import datasets
import pandas

BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
HERE = Path(__file__).parent


def load_chats(source: str = "requests", split: str = "train") -> datasets.Dataset:
    """Load chats, from the course, a local file or the hub.

    The source is ``"requests"`` (the course's own), the path of a JSONL, JSON, CSV or Parquet file, a hub id;
    a split, ``"train"`` or ``"test"``, have the first and the last. Each row is a chat (see
    `tinylib.chat.as_messages`). It is a ValueError if it cannot be read, or its columns are not a chat's.
    """
    path = Path(source).expanduser()
    if source == "requests":
        path = HERE / f"requests-{split}.jsonl"
        if not path.is_file():
            raise ValueError(f"'requests' has the splits 'train' and 'test', not {split!r}.")
    kind = BUILDERS.get(Path(path.name.lower().removesuffix(".gz")).suffix)
    try:
        if kind and not path.is_file():
            raise ValueError(f"There is no file {path}.")
        chats = _read(path, kind) if kind else datasets.load_dataset(source, split=split)
    except Exception as error:  # datasets raises many kinds; the last cause says most
        said = (path.is_file() and kind == "json" and _bad_line(path)) or error.__cause__ or error
        raise ValueError(f"The chats of {source!r} could not be read: {said}") from error
    if not ({"messages"} <= set(chats.column_names) or {"prompt", "completion"} <= set(chats.column_names)):
        raise ValueError(
            f"{source!r} has the columns {', '.join(chats.column_names)}. Chats need 'messages', or 'prompt' "
            "and 'completion': rename yours with chats.rename_column(old, new)."
        )
    return chats


def _read(path: Path, kind: str) -> datasets.Dataset:
    if kind == "csv":  # what looks like a number, or like nothing, is an answer too
        return datasets.Dataset.from_pandas(pandas.read_csv(path, dtype=str, keep_default_na=False))
    # Under its usual name, utf-8, datasets does not look if JSON is in it.
    options = {"data_files": str(path), "split": "train"} | ({"encoding": "utf_8"} if kind == "json" else {})
    hide = datasets.is_progress_bar_enabled() and path.stat().st_size < 10_000_000
    if hide:  # a small file is read before a bar could be seen
        datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(kind, **options)
    finally:
        if hide:
            datasets.enable_progress_bars()


def _bad_line(path: Path) -> str:
    """Say which line of a JSONL file cannot be read; empty if all can be."""
    seen = 0
    try:
        with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
            for seen, line in enumerate(file, 1):  # noqa: B007
                json.loads(line.decode("utf-8-sig") if line.strip() else "0")
    except (OSError, ValueError) as error:
        return f"line {seen} is no JSON in UTF-8: {error}"
    return "" if seen else "the file is empty"
