"""Chats to train on: those that come with the course (see ``README.md`` beside this file), or your own."""

import gzip
import io
import json
import warnings
from pathlib import Path
from typing import Any

import datasets
import pandas
from pyarrow import parquet

from tinylib.chat import as_messages

KINDS = (".jsonl", ".json", ".csv", ".parquet")
HERE = Path(__file__).parent


def load_chats(source: str = "requests", split: str = "train") -> datasets.Dataset:
    """Load chats, from the course, a local file or the hub.

    The source is ``"requests"`` (the course's own), the path of a JSONL, JSON, CSV or Parquet file (the first
    three perhaps ``.gz``), a hub id; a split, ``"train"`` or ``"test"``, have the first and the last. A file
    is read as a whole, its texts in UTF-8. Each row is a chat (see `tinylib.chat.as_messages`). It is a
    ValueError, with the line of a file, if it cannot be read, is empty, or its first row is no chat.
    """
    try:
        path = HERE / f"requests-{split}.jsonl" if source == "requests" else Path(source).expanduser()
        if source == "requests" and not path.is_file():
            raise ValueError(f"'requests' has the splits 'train' and 'test', not {split!r}.")
        kind = Path(path.name.lower().removesuffix(".gz")).suffix
        local = kind in KINDS or path.is_file()
        chats = _read(path, kind) if local else datasets.load_dataset(source, split=split)
        if not len(chats):
            raise ValueError("there is no row in it.")
        as_messages(chats[0], must_speak="")
    except Exception as error:  # datasets raises many kinds; the last cause says most
        said = error if isinstance(error, ValueError) else error.__cause__ or error
        raise ValueError(f"The chats of {source!r} could not be read: {said}") from error
    return chats


def _read(path: Path, kind: str) -> datasets.Dataset:
    if kind == ".parquet":
        return datasets.Dataset(parquet.read_table(path))
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix.lower() == ".gz" else data
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} is not in UTF-8: {error}") from error
    if kind == ".csv":  # what looks like a number, or like nothing, is an answer too
        options = {"dtype": str, "keep_default_na": False, "sep": max(",;\t", key=text.split("\n")[0].count)}
        with warnings.catch_warnings():  # without an index, and so, no column moves into another's place
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            table = pandas.read_csv(io.StringIO(text), index_col=False, **options)
        return datasets.Dataset.from_pandas(table)
    rows: list[Any] = []
    for number, line in [(1, text)] if text.lstrip().startswith("[") else enumerate(text.split("\n"), 1):
        try:
            row = json.loads(line, parse_int=_int) if line.strip() else []
            if "\\ud" in line.lower():  # half of a surrogate pair is no text
                json.dumps(row, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            line = number + getattr(error, "lineno", 1) - 1
            raise ValueError(f"line {line} is no JSON in UTF-8: {error}") from error
        rows += row if isinstance(row, list) else [row]
    # As JSON of our own: datasets gives each row every call's arguments, rounds floats to ten digits, and
    # reads text that looks like JSON ("5") as JSON where a column has other types too.
    rows = [row if isinstance(row, dict) else {"messages": row} for row in rows]
    features = datasets.Features({name: datasets.Json() for row in rows for name in row})
    columns = {name: [json.dumps(row[name]) if name in row else None for row in rows] for name in features}
    return datasets.Dataset.from_dict(columns, features)


def _int(digits: str) -> int:
    if not -(2**63) <= (number := int(digits)) < 2**64:
        raise ValueError(f"the number {digits:.30} is too large")
    return number
