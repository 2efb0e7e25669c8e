"""The quiz: ten questions over all lessons, in a notebook that checks itself and needs no model.

Questions, options and reasons stand in ``notebooks/quiz.ipynb`` and nowhere else; here they are read.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from classroom.exercises.shown import box, sources

QUESTION = re.compile(r"^## (\d+) · ")
REASON = re.compile(r"^- \*\*([a-z])\)\*\* ([✓✗]) (.+)$", re.MULTILINE)
LESSON = re.compile(r"\blesson (\d\d)\b")

_answers: dict[int, bool] = {}
"""Which questions were answered in this kernel, and whether the last answer is right."""


@dataclass(frozen=True)
class Question:
    """A question: its right letter, the reason for or against each, and the lesson that has shown it."""

    right: str
    reasons: dict[str, str]
    lesson: str


@cache
def questions() -> dict[int, Question]:
    """Read the questions by their numbers; none where the notebook is not found or damaged."""
    found = {}
    for text in sources("quiz"):
        if number := QUESTION.match(text):
            reasons = REASON.findall(text)
            right = "".join(letter for letter, mark, _ in reasons if mark == "✓")
            by_letter = {letter: reason for letter, _, reason in reasons}
            lesson = LESSON.search(text)
            found[int(number[1])] = Question(right, by_letter, lesson[1] if lesson else "")
    return found


def answer(number: int, letter: Any) -> None:
    """Show whether a letter is right, and why or why not.

    Args:
        number: The question's.
        letter: ``"a"`` to ``"d"``; ``...`` is not answered yet.

    Raises:
        ValueError: There is no such question.
    """
    known = questions()
    if known and number not in known:
        raise ValueError(f"There is no question {number}; there are 1 to {len(known)}.")
    if letter is None or letter is ...:
        _show("not answered", "Not answered yet.")
        return
    if not known:
        _show("not answered", "The quiz's notebook was not found. Unfold the reasons under the question.")
        return
    question = known[number]
    chosen = letter.strip(" ()").lower() if isinstance(letter, str) else ""
    if chosen not in question.reasons:
        _show("not answered", f"Answer with one letter: {', '.join(question.reasons)}.")
        return
    _answers[number] = chosen == question.right
    said = "✓ Right." if _answers[number] else "✗ Not this one."
    _show("right" if _answers[number] else "wrong", f"{said} {question.reasons[chosen]}")


def score() -> None:
    """Show how many questions are right so far, and which lessons to read again."""
    known = questions()
    right = sum(_answers.values())
    again = sorted({known[number].lesson for number, is_right in _answers.items() if not is_right})
    text = f"{right} of {len(known)} right, {len(known) - len(_answers)} not answered."
    if again:
        text += f" Read again: lesson {', '.join(again)}."
    _show("right" if known and right == len(known) else "not answered", text)


def _show(status: str, text: str) -> None:
    from IPython.display import display

    display(box(status, text, text, ""))
