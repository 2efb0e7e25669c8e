"""Chats to train on: those that come with the course (see ``README.md`` beside this file), or your own."""

import codecs
import io
import json
import warnings
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow
from datasets.fingerprint import generate_random_fingerprint
from pyarrow import parquet

from tinylib.jsonl import decoded, json_rows, kind_of, opened
from tinylib.messages import as_messages

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
HERE = Path(__file__).parent


def load_chats(source: str = "requests", split: str = "train") -> datasets.Dataset:
    """Load chats, from the course, a local file or the hub.

    The source is ``"requests"`` (the course's own), the path of a JSONL, JSON, CSV, TSV or Parquet file (all
    but the last perhaps ``.gz``, their texts in UTF-8), or a hub id; a split, ``"train"`` or ``"test"``, have
    the first and the last. JSON lines are read line by line, the other kinds as a whole. Each row is a chat
    (see `tinylib.messages.as_messages`). It is a ValueError, with the line of a file, if it cannot be read,
    is empty, or its first row is no chat.
    """
    try:
        path = HERE / f"requests-{split}.jsonl" if source == "requests" else Path(source).expanduser()
        if not str(source).strip():
            raise ValueError("give the path of a file, the id of a data set on the hub, or 'requests'.")
        if source == "requests" and not path.is_file():
            raise ValueError(f"'requests' has the splits 'train' and 'test', not {split!r}.")
        local = kind_of(path) in KINDS or path.is_file()
        chats = _read(path) if local else datasets.load_dataset(source, split=split)
        if not len(chats):
            raise ValueError("there is no row in it.")
        as_messages(chats[0], must_speak="", tell=lambda _: None)  # whoever reads them all tells it
    except Exception as error:  # datasets raises many kinds; the last cause says most
        said = error if isinstance(error, ValueError) else error.__cause__ or error
        raise ValueError(f"The chats of {source!r} could not be read: {said}") from error
    return chats


def _read(path: Path) -> datasets.Dataset:
    if (kind := kind_of(path)) not in KINDS:
        raise ValueError(f"its name must end in {', '.join(KINDS)}, which says how it is read.")
    if kind == ".parquet":
        return datasets.Dataset(parquet.read_table(path))
    if kind in (".csv", ".tsv"):
        return _table(path)
    return _from_rows(json_rows(path))


class _Json(datasets.Json):
    """JSON that Python reads: datasets' reader gets the last digit of some floats wrong."""

    def decode_example(self, value: str | None, token_per_repo_id: Any = None) -> Any:
        return None if value is None else json.loads(value)


def _from_rows(rows: Iterable[Any]) -> datasets.Dataset:
    """Make a data set whose columns are JSON; as structs, each row would have every call's arguments."""
    rows, parts = iter(rows), []
    while some := list(islice(rows, 256)):
        some = [row if row and isinstance(row, dict) else {"messages": row} for row in some]
        columns = {}
        for name in dict.fromkeys(name for row in some for name in row):
            texts = [json.dumps(row[name], ensure_ascii=False) if name in row else None for row in some]
            stored = pyarrow.array(texts, pyarrow.string())
            columns[name] = pyarrow.ExtensionArray.from_storage(datasets.Json.pa_type, stored)
        parts.append(pyarrow.table(columns))
    table = pyarrow.concat_tables(parts, promote_options="default") if parts else pyarrow.table({})
    features = datasets.Features({name: _Json() for name in table.column_names})
    # A random name: datasets would pickle all rows to make one, which takes the memory twice.
    name = generate_random_fingerprint()
    return datasets.Dataset(table, datasets.DatasetInfo(features=features), fingerprint=name)


def _table(path: Path) -> datasets.Dataset:
    """Read a CSV or TSV file; what looks like a number, or like nothing, is an answer too."""
    with opened(path) as file:
        text = decoded(file.read().removeprefix(codecs.BOM_UTF8))
    options = {"dtype": str, "keep_default_na": False, "sep": max(",;\t", key=text.split("\n")[0].count)}
    with warnings.catch_warnings():  # without an index, and so, no column moves into another's place
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        table = pandas.read_csv(io.StringIO(text), index_col=False, **options)
    return datasets.Dataset.from_pandas(table)
