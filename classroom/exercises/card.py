"""What the checker knows about a card: the right answer as a naive loop, and what readers get wrong."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = list[int]
Rows = list[Row]
Case = tuple[Any, ...]
"""The arguments of one call."""


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that readers give.

    Args:
        answer: Makes the mistake: a function like the reader's, or on a card without arguments a value.
        says: What is wrong with it, in a sentence.
        hint: The title of the folded hint on the card that helps.
    """

    answer: Any
    says: str
    hint: str


@dataclass(frozen=True)
class Card:
    """One exercise.

    Args:
        answer: The right answer as a naive loop; on a card without arguments the value itself.
        mistakes: What readers get wrong.
        example: The arguments of the card's own example; empty if the answer is a value, not a function.
        cases: Makes fresh cases: on them each mistake differs from the right answer and from the others.
        starter: The faulty function that the card begins with, if there is one.
    """

    answer: Any
    mistakes: tuple[Mistake, ...]
    example: Case = ()
    cases: Callable[[random.Random], list[Case]] | None = None
    starter: Callable[..., Any] | None = None


def random_cases(
    draw: Callable[[random.Random], Case], *edge_cases: Case
) -> Callable[[random.Random], list[Case]]:
    """Make forty cases: those at the edge, which luck must not leave out, and the others drawn."""
    return lambda generator: [*edge_cases, *(draw(generator) for _ in range(40 - len(edge_cases)))]
