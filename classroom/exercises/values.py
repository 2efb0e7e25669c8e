"""What answers give, as plain lists, dicts and numbers: compared by value, and shown in a line."""

import math
import textwrap
import traceback
from collections.abc import Collection, Iterator, Mapping
from numbers import Real
from typing import Any


class _Other(str):
    """Stands for what answers are not made of; it is shown without quotes."""

    __repr__ = str.__str__


def plain(value: Any) -> Any:
    """Turn tensors, arrays, tuples and dict-like batches into lists and dicts that compare by value."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if value is None or value is ... or isinstance(value, bool | int | float | str | set):
        return value
    if isinstance(value, Collection) and not isinstance(value, bytes):
        return [plain(item) for item in value]
    if isinstance(value, Real):  # a fraction
        return float(value)
    advice = ": make it a list with list(…)" if isinstance(value, Iterator) else ""
    return _Other(f"<{type(value).__name__}{advice}>")


def same(given: Any, expected: Any) -> bool:
    """Compare two plain values; floats may differ by what float32 rounds."""
    if isinstance(given, list) and isinstance(expected, list):
        return len(given) == len(expected) and all(map(same, given, expected))
    if isinstance(given, dict) and isinstance(expected, dict):
        return given.keys() == expected.keys() and all(same(given[key], expected[key]) for key in given)
    if isinstance(given, float) and isinstance(expected, int | float):
        return math.isclose(given, expected, rel_tol=1e-5, abs_tol=1e-6)
    return type(given) in (type(expected), bool, int) and given == expected


def short(value: Any) -> str:
    """Show a value in at most 120 characters."""
    try:
        return textwrap.shorten(repr(value), 120, placeholder=" …")
    except Exception:  # a number of thousands of digits, a list in itself
        return f"a {type(value).__name__} that cannot be shown"


def told(error: BaseException, width: int) -> str:
    """Say in a line what was raised."""
    return textwrap.shorten(traceback.format_exception_only(error)[-1], width, placeholder=" …")
