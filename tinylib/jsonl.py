"""A file of JSON, read row by row; it needs nothing but Python."""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any


def kind_of(path: Path) -> str:
    """Read the kind of a file off its name, in lower case and without ``.gz``, as ``".jsonl"``."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def opened(path: Path) -> IO[bytes]:
    """Open a file for reading; of one whose name ends in ``.gz``, what is in it."""
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def decoded(data: bytes, line: int = 1) -> str:
    """Decode UTF-8 that begins on this line of a file; a ValueError tells on which line it is none."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line += data[: error.start].count(b"\n")
        raise ValueError(f"line {line} is not in UTF-8: {error}") from error


def _int(digits: str) -> int:
    if not -(2**63) <= (number := int(digits)) < 2**64:
        raise ValueError(f"the number {digits:.30} is too large")
    return number


_DECODER = json.JSONDecoder(parse_int=_int)
_HALF_A_PAIR = re.compile(rb"\\u[dD]")  # or a whole one


def json_rows(path: Path) -> Iterator[Any]:
    r"""Read the rows of a file in UTF-8, which may have a byte order mark, and may be ``.gz``.

    Each line is a row (JSON lines: one of them is in memory at a time), or the file is one JSON text over as
    many lines as it likes: a list of rows, or one row. All is as Python's ``json`` reads it.

    It is a ValueError, with the line, if something is no JSON or not in UTF-8, half of a surrogate pair, or a
    whole number of more than 64 bits; and if a ``.gz`` is no whole gzip file.

    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp(), "rows.jsonl")
    >>> path.write_text('{"n": 1}\n\n{"n": "1"}\n') and list(json_rows(path))
    [{'n': 1}, {'n': '1'}]
    """
    with opened(path) as file:
        try:
            values = _values(file)
            first = list(islice(values, 2))
            is_list = len(first) == 1 and isinstance(first[0], list)
            yield from first[0] if is_list else chain(first, values)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"this is no whole gzip file: {error}") from error


def _values(lines: Iterable[bytes]) -> Iterator[Any]:
    numbered = enumerate(lines, 1)
    single = False  # after a line that is a value of its own, the others are too
    for number, line in numbered:
        data = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if data.strip():
            try:
                value = _value(data.rstrip(), number)
            except _BreaksOffError:
                if single:
                    raise
                try:
                    value = _value(data + b"".join(line for _, line in numbered), number)
                except ValueError as error:
                    raise ValueError(f"{error} (read on from line {number}, which breaks off)") from error
            yield value
            single = True


class _BreaksOffError(ValueError):
    """The text ends before its value does."""


def _value(data: bytes, line: int) -> Any:
    """Read one JSON text, which begins on this line."""
    text = decoded(data, line)
    try:
        value = _DECODER.decode(text)
        if _HALF_A_PAIR.search(data):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        kind = _BreaksOffError if error.pos >= len(text.rstrip()) else ValueError
        where = f"line {line + error.lineno - 1} is no JSON in UTF-8"
        raise kind(f"{where}: {error.msg}, at character {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line {line} is no JSON in UTF-8: {error}") from error
