"""The cards of lessons 00 to 02: padding, its mask, its side."""

import itertools
import math
import random
from collections.abc import Callable

from classroom.exercises.card import Card, Case, Mistake, Row, Rows, random_cases


def draw_rows(generator: random.Random) -> Rows:
    """Draw rows of ids that are never all equally long, and in which each pad id is a real token too."""
    longest = generator.randint(3, 6)
    lengths = [2, longest, *(generator.randint(1, longest) for _ in range(generator.randint(0, 2)))]
    generator.shuffle(lengths)  # the longest row may stand anywhere
    return [[generator.choice([0, 2, 5, 6, 7, 8]) for _ in range(length)] for length in lengths]


def pads_per_row(rows: Rows) -> Row:
    """Count, for each row, what is missing to the longest."""
    longest = 0
    for row in rows:
        longest = max(longest, len(row))
    return [longest - len(row) for row in rows]


def _safe_rows(lengths: Row) -> Row:
    safe = []
    for i, length in enumerate(lengths):
        if all(length >= other for other in lengths):
            safe.append(i)
    return safe


def _lengths(generator: random.Random) -> Case:
    lengths = [generator.randint(1, 9) for _ in range(generator.randint(3, 6))]
    longest = max(lengths)
    return ([*lengths, *[longest] * generator.randint(0, 1), *[longest - 1] * generator.randint(0, 1)],)


def _pad_left(rows: Rows, pad_id: int) -> tuple[Rows, Rows]:
    input_ids, mask = [], []
    for row, count in zip(rows, pads_per_row(rows)):
        input_ids.append([pad_id] * count + row)
        mask.append([0] * count + [1] * len(row))
    return input_ids, mask


def _pad_right(rows: Rows, pad_id: int) -> tuple[Rows, Rows]:
    input_ids, mask = _pad_left(rows, pad_id)
    counts = pads_per_row(rows)
    return [r[n:] + r[:n] for r, n in zip(input_ids, counts)], [m[n:] + m[:n] for m, n in zip(mask, counts)]


def _with_mask(make_mask: Callable[[Row, Row, int], Row]) -> Callable[..., tuple[Rows, Rows]]:
    def mistake(rows: Rows, pad_id: int) -> tuple[Rows, Rows]:
        input_ids, mask = _pad_left(rows, pad_id)
        return input_ids, [make_mask(r, m, pad_id) for r, m in zip(input_ids, mask)]

    return mistake


def _with_one_mask(row: int) -> Callable[..., tuple[Rows, Rows]]:
    def mistake(rows: Rows, pad_id: int) -> tuple[Rows, Rows]:
        input_ids, mask = _pad_left(rows, pad_id)
        return input_ids, [mask[row]] * len(rows)

    return mistake


def _masked_softmax(scores: list[float], mask: Row) -> list[float]:
    total = 0.0
    for score, allowed in zip(scores, mask):
        if allowed:
            total += math.exp(score)
    return [math.exp(score) / total if allowed else 0.0 for score, allowed in zip(scores, mask)]


def _scores(generator: random.Random) -> Case:
    mask = [generator.randint(0, 1) for _ in range(generator.randint(3, 6))]
    real, hidden = generator.sample(range(len(mask)), 2)
    mask[real], mask[hidden] = 1, 0
    return [generator.randint(-6, 8) / 4 for _ in mask], mask


def _last_real_column(mask: Rows) -> Row:
    last = []
    for row in mask:
        for column in range(len(row)):
            if row[column] == 1:
                found = column
        last.append(found)
    return last


def _masks(generator: random.Random) -> Case:
    width = generator.randint(5, 7)
    pads = [[generator.randint(0, 2), generator.randint(0, 2)] for _ in range(generator.randint(0, 2))]
    pads = [[2, 0], [0, 1], [1, 2], *pads]  # on the left, on the right, on both sides
    return ([[0] * left + [1] * (width - left - right) + [0] * right for left, right in pads],)


def _is_right(task: str, side: str, mask: str) -> bool:
    right = [
        ("generate", "left", "from lengths"),
        ("train", "left", "from lengths"),
        ("train", "right", "from lengths"),
        ("train", "right", "none"),
    ]
    return (task, side, mask) in right


def _reviews(generator: random.Random) -> list[Case]:
    reviews = itertools.product(
        ["generate", "train"], ["left", "right"], ["none", "from lengths", "from ids"]
    )
    return sorted(reviews, key=lambda review: generator.random())


CARDS = {
    "pads_per_row": Card(
        pads_per_row,
        (
            Mistake(
                lambda rows: [len(row) for row in rows],
                "these are the lengths of the rows.",
                "I get the lengths",
            ),
            Mistake(
                lambda rows: [len(row) - max(map(len, rows)) for row in rows],
                "the sign is the wrong way round.",
                "I get the lengths",
            ),
            Mistake(
                lambda rows: sum(pads_per_row(rows)),
                "that is the total, one number for all rows.",
                "I get one number only",
            ),
            Mistake(
                lambda rows: [len(rows[-1]) - len(row) for row in rows],
                "the longest row is not always the last one.",
                "I do not know where to start",
            ),
        ),
        example=([[5, 6], [7, 8, 9, 5, 6]],),
        cases=random_cases(lambda generator: (draw_rows(generator),), ([[5, 2]],), ([[5], [2]],)),
    ),
    "safe_rows": Card(
        _safe_rows,
        (
            Mistake(
                lambda lengths: max(range(len(lengths)), key=lengths.__getitem__),
                "give a list, even of one row.",
                "it fails when two rows are the longest",
            ),
            Mistake(
                lambda lengths: [lengths.index(max(lengths))],
                "that is the first of the longest rows; there can be more.",
                "it fails when two rows are the longest",
            ),
            Mistake(
                lambda lengths: [i for i, length in enumerate(lengths) if length != max(lengths)],
                "these are the rows that go wrong.",
                "which row was right above, and why?",
            ),
            Mistake(
                lambda lengths: [i for i, length in enumerate(lengths) if length >= max(lengths) - 1],
                "you trust rows with one pad.",
                "is one pad so bad?",
            ),
        ),
        example=([4, 8, 9, 9],),
        cases=random_cases(_lengths, ([5],), ([7, 7, 7],)),
    ),
    "garbled_calls": Card(
        {"A", "D", "F"},
        (
            Mistake(
                {"B", "C", "E"}, "these are the calls that are right.", "what do all the wrong ones lack?"
            ),
            Mistake(
                {"A", "F"},
                "naming the pad hides nothing: it is EOS, and of EOS `generate` makes no mask.",
                "D names the pad: does that not help?",
            ),
            Mistake(
                {"A", "D"},
                "it is not only generate that reads what it is given.",
                "F does not generate at all",
            ),
            Mistake({"A"}, "two more calls go wrong in the same way.", "what do all the wrong ones lack?"),
            Mistake(
                {"A", "D", "E", "F"},
                "a call without a mask is right as long as there is nothing to hide.",
                "E has no mask either",
            ),
        ),
    ),
    "pad_left": Card(
        _pad_left,
        (
            Mistake(
                _pad_right,
                "your pads are on the right. Generation goes on after the last column.",
                "it says that my pads are on the right",
            ),
            Mistake(
                _with_mask(lambda row, mask, pad_id: [1] * len(row)),
                "your mask is all ones: the pads are not hidden.",
                "it says that my mask is all ones, or inverted",
            ),
            Mistake(
                _with_mask(lambda row, mask, pad_id: [1 - m for m in mask]),
                "your mask is inverted.",
                "it says that my mask is all ones, or inverted",
            ),
            Mistake(
                _with_mask(lambda row, mask, pad_id: [int(token != pad_id) for token in row]),
                "your mask looks at the ids, so it hides real tokens that happen to be the pad id.",
                "it says that my mask looks at the ids",
            ),
            Mistake(
                _with_mask(
                    lambda row, mask, pad_id: [
                        int(any(token != pad_id for token in row[: i + 1])) for i in range(len(row))
                    ]
                ),
                "your mask takes a real token at the beginning of a row for a pad: it has the pad's id.",
                "it says that my mask looks at the ids",
            ),
            Mistake(
                _with_one_mask(0),
                "your mask is right for the first row, and every row gets the same one.",
                "it says that every row gets the same mask",
            ),
            Mistake(
                _with_one_mask(-1),
                "your mask is right for the last row, and every row gets the same one.",
                "it says that every row gets the same mask",
            ),
        ),
        example=([[5, 2], [7, 8, 9, 5]], 2),
        cases=random_cases(
            lambda generator: (draw_rows(generator), generator.choice([2, 5, 7])),
            ([[5, 2]], 2),
            ([[5], [2]], 2),
        ),
    ),
    "masked_softmax": Card(
        _masked_softmax,
        (
            Mistake(
                lambda scores, mask: _masked_softmax(scores, [1] * len(mask)),
                "your mask has no effect: the pads get a share.",
                "my pads still get a weight",
            ),
            Mistake(
                lambda scores, mask: _masked_softmax([s * m for s, m in zip(scores, mask)], [1] * len(mask)),
                "a score of 0 is no zero weight: exp(0) is 1.",
                "my pads still get a weight",
            ),
            Mistake(
                lambda scores, mask: [w * m for w, m in zip(_masked_softmax(scores, [1] * len(mask)), mask)],
                "the pads are out, but they have taken their share with them.",
                "my weights do not add up to 1",
            ),
            Mistake(
                lambda scores, mask: _masked_softmax(scores, [1 - m for m in mask]),
                "you hide what is real, and keep the pads.",
                "I hide the wrong ones",
            ),
            Mistake(
                lambda scores, mask: [math.exp(s) * m for s, m in zip(scores, mask)],
                "these are exp(score); divide each by their sum.",
                "my weights do not add up to 1",
            ),
        ),
        example=([2.0, 1.0, 1.0], [0, 1, 1]),
        cases=random_cases(_scores, ([1.0, 2.0], [1, 0])),
    ),
    "last_real_column": Card(
        _last_real_column,
        (
            Mistake(
                lambda mask: [len(row) - 1 for row in mask],
                "that is the last column: a pad, wherever the pads are on the right.",
                "it fails for pads on the right",
            ),
            Mistake(
                lambda mask: [sum(row) - 1 for row in mask],
                "you count the real tokens. With pads on the left they do not begin at 0.",
                "it fails for pads on the left",
            ),
            Mistake(
                lambda mask: [sum(row) for row in mask],
                "that is how many are real, not where the last one is.",
                "it fails for pads on the left",
            ),
            Mistake(
                lambda mask: [len(row) - 1 if row[-1] else sum(row) - 1 for row in mask],
                "right for pads on one side. With pads on both, the text does not begin at column 0.",
                "it fails for pads on the left",
            ),
            Mistake(
                lambda mask: [row.index(1) for row in mask],
                "that is the first real token.",
                "I find the first one, or I am one off",
            ),
            Mistake(
                lambda mask: [n + 1 for n in _last_real_column(mask)],
                "one too far: columns count from 0.",
                "I find the first one, or I am one off",
            ),
        ),
        example=([[1, 1, 1, 0], [0, 0, 1, 1]],),
        cases=random_cases(_masks, ([[1]],), ([[1, 0, 0], [1, 1, 1]],)),
    ),
    "is_right": Card(
        _is_right,
        (
            Mistake(
                lambda task, side, mask: side == "left" and mask == "from lengths",
                "that is right for generation. Training allows more.",
                "I do not know about training",
            ),
            Mistake(
                lambda task, side, mask: mask == "from lengths" and (task == "train" or side == "left"),
                "one more is right: in training the causal mask hides pads on the right by itself.",
                "I do not know about training",
            ),
            Mistake(
                lambda task, side, mask: (
                    mask == "from lengths" and side == {"generate": "left", "train": "right"}[task]
                ),
                "with its mask, training may pad on the left too.",
                "I do not know about training",
            ),
            Mistake(
                lambda task, side, mask: _is_right(task, side, mask.replace("ids", "lengths")),
                "a mask from ids hides real ends of turns here, since pad = EOS.",
                "is a mask from ids so bad?",
            ),
            Mistake(
                lambda task, side, mask: mask == "from lengths",
                "the side matters for generation, even with a good mask; and one training needs no mask.",
                "does the side matter?",
            ),
        ),
        example=("generate", "left", "from lengths"),
        cases=_reviews,
    ),
}
