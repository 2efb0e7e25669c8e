"""Check a reader's answer: right, or which known mistake it is and which hint helps.

An answer is a function, or a value where a card asks for one. A function is run on the card's own example
and on fresh random cases, and compared with a naive loop. When it differs, it is compared with the mistakes
that readers make. The cards stand in the lessons; what the checker knows about them, in the modules beside.
"""

import contextlib
import copy
import io
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from classroom.exercises import label_cards, padding_cards, pipeline_cards
from classroom.exercises.card import Card, Case, Mistake
from classroom.exercises.clock import TooLong, call_within
from classroom.exercises.shown import box, hint, printed_cards
from classroom.exercises.values import plain, same, short, told

EXERCISES: dict[str, Card] = padding_cards.CARDS | label_cards.CARDS | pipeline_cards.CARDS
SECONDS = 2.0
"""How long an answer may take for one case."""


@dataclass(frozen=True)
class Verdict:
    """What the checker says of an answer, in one line, and the known mistake that it is."""

    status: Literal["right", "wrong", "not answered"]
    text: str
    mistake: Mistake | None = None


_right: set[str] = set()
"""The exercises that are right in this kernel."""


def _stub() -> None: ...


def check(exercise: str, answer: Any) -> None:
    """Show whether a reader's answer is right (see `verdict`): in a notebook a box, else one line.

    Below a known mistake its hint is unfolded. Where the lessons' texts cannot be found, the line names it.
    """
    # Here, since it costs time, and the grader starts many processes and shows nothing.
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.display import display

    found = verdict(exercise, answer)
    card = printed_cards().get(exercise)
    said, progress, unfolded = found.text, "", ""
    if card and found.mistake:
        unfolded = card.hints.get(found.mistake.hint, "")
        said = f"✗ Not yet: {found.mistake.says}" if unfolded else said
    if found.status != "not answered":
        (_right.add if found.status == "right" else _right.discard)(exercise)
        progress = _progress(card.lesson) if card else ""
    display(box(found.status, found.text, said, progress))
    if unfolded and InteractiveShell.initialized():
        display(hint(found.mistake.hint, unfolded))


def _progress(lesson: str) -> str:
    """Say how many of a lesson's exercises are right in this kernel."""
    names = {name for name, card in printed_cards().items() if card.lesson == lesson}
    return f"Right in this lesson: {len(names & _right)} of {len(names)}."


def verdict(exercise: str, answer: Any) -> Verdict:
    """Run a reader's answer on the card's example and on fresh random cases, and judge it.

    Args:
        exercise: The card's name, such as ``"pad_left"``.
        answer: The reader's function, or the value where the card asks for one.

    Returns:
        The verdict. Whatever the reader's code raises is told in it, and so is, where
        `clock.call_within` can stop it, a loop without an end.

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
        given = plain(answer)
    except Exception:  # a list in itself, a class of arrays
        return _wrong(f"your answer cannot be compared: {short(answer)}")
    if isinstance(given, set):  # letters, in either case
        given = {item.upper() if isinstance(item, str) else item for item in given}
    if same(given, card.answer):
        return Verdict("right", "✓ Right.")
    for mistake in card.mistakes:
        if same(given, mistake.answer):
            return _known(mistake)
    if type(given) is not type(card.answer):
        return _wrong(f"the answer is a {type(card.answer).__name__}, yours is {short(answer)}")
    if isinstance(given, set):
        odd = given - card.answer
        return _wrong(f"{min(map(short, odd))} does not belong to it." if odd else "something is missing.")
    if len(given) != len(card.answer):
        return _wrong(f"the list should have {len(card.answer)} entries, yours has {len(given)}.")
    for mistake in card.mistakes:  # beside another
        mistaken = zip(given, mistake.answer, card.answer)
        if all(same(mine, wrong) for mine, wrong, right in mistaken if wrong != right):
            return _known(mistake)
    i = next(i for i in range(len(given)) if not same(given[i], card.answer[i]))
    return _wrong(f"the first wrong entry is at index {i}: {short(given[i])}.")


def _judge_function(exercise: str, card: Card, answer: Callable[..., Any]) -> Verdict:
    cases = [card.example, *card.cases(random.Random())]
    given: list[Any] = []
    try:
        for case in cases:
            # The reader's own prints are worth reading once, for the example.
            with contextlib.redirect_stdout(io.StringIO() if given else sys.stdout):
                given.append(call_within(SECONDS, lambda: plain(answer(*copy.deepcopy(case)))))  # noqa: B023
    except TooLong:
        seconds = f"{SECONDS:.0f} seconds"
        return Verdict("wrong", f"✗ On {_call(exercise, case)} your code did not end within {seconds}.")
    except KeyboardInterrupt:  # the reader's own
        raise
    except BaseException as error:  # the reader's code may raise anything
        return Verdict("wrong", f"✗ On {_call(exercise, case)} your code raised {told(error, 200)}")
    if all(result is None or result is ... for result in given):
        code = getattr(answer, "__code__", None)
        if given[0] is ... or (code and code.co_code == _stub.__code__.co_code):
            return Verdict("not answered", "Not answered yet.")
        return _wrong("your function returns nothing. Does it end with `return …`?")
    if card.starter and same(given, _results(card.starter, cases)):
        return Verdict("not answered", "Not answered yet: it gives what the script as it was gives.")
    expected = _results(card.answer, cases)
    if same(given, expected):
        return Verdict("right", f"✓ Right, on the example and {len(cases) - 1} fresh cases.")
    for mistake in card.mistakes:
        if same(given, _results(mistake.answer, cases)):
            return _known(mistake)
    wrong = [i for i in range(len(cases)) if not same(given[i], expected[i])]
    i = min(wrong, key=lambda i: (i > 0, len(repr(cases[i]))))  # the example, else the shortest
    call = _call(exercise, cases[i])
    if type(given[i]) is type(expected[i]) and all(same(result, given[i]) for result in given):
        return _wrong(f"your answer is always {short(given[i])}. But {call} is {short(expected[i])}.")
    first = "the example is right, but " if i else ""
    return _wrong(first + _difference(call, given[i], expected[i]))


def _difference(call: str, given: Any, expected: Any) -> str:
    """Say what differs first, down to the list in which it stands."""
    if isinstance(given, dict) and isinstance(expected, dict):
        if given.keys() != expected.keys():
            return f"the keys should be {short(list(expected))}, yours are {short(list(given))}"
        parts = list(expected)
    elif isinstance(given, list) and isinstance(expected, list) and len(given) == len(expected):
        parts = [i for i in range(len(expected)) if isinstance(expected[i], list)]
    else:
        parts = []
    for part in parts:
        if not same(given[part], expected[part]):
            return _difference(f"{call}[{part!r}]", given[part], expected[part])
    return f"{call} should be {short(expected)}, yours gives {short(given)}"


def _results(function: Callable[..., Any], cases: list[Case]) -> list[Any]:
    return [plain(function(*case)) for case in cases]


def _wrong(text: str) -> Verdict:
    return Verdict("wrong", f"✗ Not yet: {text}")


def _known(mistake: Mistake) -> Verdict:
    return Verdict("wrong", f"✗ Not yet: {mistake.says} Open the hint “{mistake.hint}”.", mistake)


def _call(exercise: str, case: Case) -> str:
    return f"{exercise}({', '.join(map(short, case))})"
