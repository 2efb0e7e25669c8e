"""Check a reader's answer: right, or which known mistake it is and which hint to open.

An answer is a function, or a value where a card asks for one. A function is run on the card's own example
and on fresh random cases, and compared with a naive loop. When it differs, it is compared with the mistakes
that readers make. The cards stand in the lessons; what the checker knows about them, in the modules beside.
"""

import contextlib
import copy
import ctypes
import io
import math
import random
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from tinylib.exercises import label_cards, padding_cards, pipeline_cards
from tinylib.exercises.card import Card, Case, Mistake

EXERCISES: dict[str, Card] = padding_cards.CARDS | label_cards.CARDS | pipeline_cards.CARDS
SECONDS = 2.0
"""How long an answer may take for one case."""
_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc


@dataclass(frozen=True)
class Verdict:
    """What the checker says of an answer, in one line."""

    status: Literal["right", "wrong", "not answered"]
    text: str


def _stub() -> None: ...


class _TooLong(BaseException):  # no Exception, which the reader's own code might catch
    pass


def check(exercise: str, answer: Any) -> None:
    """Say in one line whether a reader's answer is right (see `verdict`)."""
    print(verdict(exercise, answer).text)


def verdict(exercise: str, answer: Any) -> Verdict:
    """Run a reader's answer on the card's example and on fresh random cases, and judge it.

    Args:
        exercise: The card's name, such as ``"pad_left"``.
        answer: The reader's function, or the value where the card asks for one.

    Returns:
        The verdict. Whatever the reader's code does is told in it: errors, and loops without an end.

    Raises:
        ValueError: There is no exercise of that name.
    """
    if exercise not in EXERCISES:
        raise ValueError(f"No exercise {exercise!r}; there are {', '.join(sorted(EXERCISES))}.")
    card = EXERCISES[exercise]
    if answer is None or answer is ...:
        return Verdict("not answered", "Not answered yet.")
    if not card.example:
        return _judge_value(card, answer)
    if not callable(answer):
        return _wrong(f"give the function itself: exercises.check({exercise!r}, {exercise})")
    return _judge_function(exercise, card, answer)


def _judge_value(card: Card, answer: Any) -> Verdict:
    try:
        given = _plain(answer)
    except RecursionError:
        return _wrong("your list contains itself.")
    if isinstance(given, set):  # letters, in either case
        given = {item.upper() if isinstance(item, str) else item for item in given}
    if _same(given, card.answer):
        return Verdict("right", "✓ Right.")
    for mistake in card.mistakes:
        if _same(given, mistake.answer):
            return _known(mistake)
    if type(given) is not type(card.answer):
        return _wrong(f"the answer is a {type(card.answer).__name__}, yours is {_short(answer)}")
    if isinstance(given, set):
        odd = given - card.answer
        return _wrong(f"{min(map(repr, odd))} does not belong to it." if odd else "something is missing.")
    if len(given) != len(card.answer):
        return _wrong(f"the list should have {len(card.answer)} entries, yours has {len(given)}.")
    for mistake in card.mistakes:  # beside another
        mistaken = zip(given, mistake.answer, card.answer)
        if all(_same(mine, wrong) for mine, wrong, right in mistaken if wrong != right):
            return _known(mistake)
    i = next(i for i in range(len(given)) if not _same(given[i], card.answer[i]))
    return _wrong(f"the first wrong entry is at index {i}: {_short(given[i])}.")


def _judge_function(exercise: str, card: Card, answer: Any) -> Verdict:
    cases = [card.example, *card.cases(random.Random())]
    given = []
    if "torch" in getattr(getattr(answer, "__code__", None), "co_names", ()):
        import torch  # noqa: F401  (this takes seconds, and stopped halfway it cannot be imported again)
    try:
        for case in cases:
            # The reader's own prints are worth reading once, for the example.
            with contextlib.redirect_stdout(io.StringIO() if given else sys.stdout):
                given.append(_within(SECONDS, lambda: _plain(answer(*copy.deepcopy(case)))))  # noqa: B023
    except _TooLong:
        seconds = f"{SECONDS:.0f} seconds"
        return Verdict("wrong", f"✗ On {_call(exercise, case)} your code did not end within {seconds}.")
    except (Exception, SystemExit) as error:  # the reader's code may raise anything
        told = textwrap.shorten(traceback.format_exception_only(error)[-1], 200, placeholder=" …")
        return Verdict("wrong", f"✗ On {_call(exercise, case)} your code raised {told}")
    if all(result is None or result is ... for result in given):
        code = getattr(answer, "__code__", None)
        if given[0] is ... or (code and code.co_code == _stub.__code__.co_code):
            return Verdict("not answered", "Not answered yet.")
        return _wrong("your function returns nothing. Does it end with `return …`?")
    if card.given and _same(given, _results(card.given, cases)):
        return Verdict("not answered", "Not answered yet: it gives what the script as it was gives.")
    expected = _results(card.answer, cases)
    if _same(given, expected):
        return Verdict("right", f"✓ Right, on the example and {len(cases) - 1} fresh cases.")
    for mistake in card.mistakes:
        if _same(given, _results(mistake.answer, cases)):
            return _known(mistake)
    wrong = [i for i in range(len(cases)) if not _same(given[i], expected[i])]
    i = min(wrong, key=lambda i: (i > 0, len(repr(cases[i]))))  # the example, else the shortest
    call = _call(exercise, cases[i])
    if type(given[i]) is type(expected[i]) and all(_same(result, given[i]) for result in given):
        return _wrong(f"your answer is always {_short(given[i])}. But {call} is {_short(expected[i])}.")
    first = "the example is right, but " if i else ""
    return _wrong(first + _difference(call, given[i], expected[i]))


def _difference(call: str, given: Any, expected: Any) -> str:
    """Say what differs first, down to the list in which it stands."""
    if isinstance(given, dict) and isinstance(expected, dict):
        if given.keys() != expected.keys():
            return f"the keys should be {_short(list(expected))}, yours are {_short(list(given))}"
        parts = list(expected)
    elif isinstance(given, list) and isinstance(expected, list) and len(given) == len(expected):
        parts = [i for i in range(len(expected)) if isinstance(expected[i], list)]
    else:
        parts = []
    for part in parts:
        if not _same(given[part], expected[part]):
            return _difference(f"{call}[{part!r}]", given[part], expected[part])
    return f"{call} should be {_short(expected)}, yours gives {_short(given)}"


def _wrong(text: str) -> Verdict:
    return Verdict("wrong", f"✗ Not yet: {text}")


def _known(mistake: Mistake) -> Verdict:
    return _wrong(f"{mistake.says} Open the hint “{mistake.hint}”.")


def _results(function: Any, cases: list[Case]) -> list[Any]:
    return [_plain(function(*copy.deepcopy(case))) for case in cases]


def _within(seconds: float, function: Callable[[], Any]) -> Any:
    """Call a function, and raise `_TooLong` in it after ``seconds``, between two steps of Python."""
    over, here = threading.Event(), ctypes.c_ulong(threading.get_ident())

    def watch() -> None:
        wait = seconds
        while not over.wait(wait):
            _raise_in(here, ctypes.py_object(_TooLong))
            wait = 0.05  # once more: the reader's code may have caught it

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        return function()
    finally:
        ended = False
        while not ended:
            try:  # it may be raised in whatever is called here
                over.set()
                watcher.join()
                ended = True
            except _TooLong:
                pass
        _raise_in(here, None)  # what is raised, but has not arrived, is taken back


class _Other(str):
    """Stands for what answers are not made of; it is shown without quotes."""

    __repr__ = str.__str__


def _plain(value: Any) -> Any:
    """Turn tensors, arrays, tuples and dict-like batches into lists and dicts that compare by value."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if value is None or value is ... or isinstance(value, bool | int | float | str | set):
        return value
    if isinstance(value, Collection) and not isinstance(value, bytes):
        return [_plain(item) for item in value]
    if isinstance(value, Real):  # a fraction
        return float(value)
    advice = ": make it a list with list(…)" if isinstance(value, Iterator) else ""
    return _Other(f"<{type(value).__name__}{advice}>")


def _same(given: Any, expected: Any) -> bool:
    """Compare two plain values; floats may differ by what float32 rounds."""
    if isinstance(given, list) and isinstance(expected, list):
        return len(given) == len(expected) and all(map(_same, given, expected))
    if isinstance(given, dict) and isinstance(expected, dict):
        return given.keys() == expected.keys() and all(_same(given[key], expected[key]) for key in given)
    if isinstance(given, float) and isinstance(expected, int | float):
        return math.isclose(given, expected, rel_tol=1e-5, abs_tol=1e-6)
    return type(given) in (type(expected), bool, int) and given == expected


def _short(value: Any) -> str:
    try:
        return textwrap.shorten(repr(value), 120, placeholder=" …")
    except Exception:  # a number of thousands of digits, a list in itself
        return f"a {type(value).__name__} that cannot be shown"


def _call(exercise: str, case: Case) -> str:
    return f"{exercise}({', '.join(map(_short, case))})"
