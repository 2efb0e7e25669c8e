"""Chats to train on: those that come with the course (see ``README.md`` beside this file), or your own."""

from pathlib import Path

import datasets

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
    try:
        if path.suffix in BUILDERS:
            if not path.is_file():
                raise ValueError(f"There is no file {path}.")
            chats = _read(path)
        else:
            chats = datasets.load_dataset(source, split=split)
    except Exception as error:  # datasets raises many kinds; the last cause says most
        raise ValueError(f"The chats of {source!r} could not be read: {error.__cause__ or error}") from error
    if not ({"messages"} <= set(chats.column_names) or {"prompt", "completion"} <= set(chats.column_names)):
        raise ValueError(
            f"{source!r} has the columns {', '.join(chats.column_names)}. Chats need 'messages', or 'prompt' "
            "and 'completion': rename yours with chats.rename_column(old, new)."
        )
    return chats


def _read(path: Path) -> datasets.Dataset:
    hide = datasets.is_progress_bar_enabled() and path.stat().st_size < 10_000_000
    if hide:  # a small file is read before a bar could be seen
        datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(BUILDERS[path.suffix], data_files=str(path), split="train")
    finally:
        if hide:
            datasets.enable_progress_bars()
