"""The cards of lessons 06 to 08: packing, the audit, several processes and their memory."""

import itertools
import random
from collections.abc import Callable

from classroom.exercises.card import Card, Case, Mistake, Row, Rows, random_cases


def _sample_lengths(generator: random.Random) -> Case:
    return ([2, *(generator.randint(1, 4) for _ in range(generator.randint(1, 3))), 3],)


def _mask(lengths: Row, sees: Callable[[int, int, Row], bool]) -> Rows:
    sample = [number for number, length in enumerate(lengths) for _ in range(length)]
    return [[int(sees(i, j, sample)) for j in range(len(sample))] for i in range(len(sample))]


def _pack_row(samples: Rows, *, first: int, restart: bool, learned: Callable[[Row], Row]) -> dict[str, Row]:
    row = {"input_ids": [], "position_ids": [], "labels": []}
    for ids in samples:
        start = first if restart else first + len(row["input_ids"])
        row["input_ids"] += ids
        row["position_ids"] += range(start, start + len(ids))
        row["labels"] += learned(ids)
    return row


def _packed_by(learned: Callable[[Row], Row], first: int = 0, restart: bool = True) -> Callable[..., dict]:
    return lambda samples: _pack_row(samples, first=first, restart=restart, learned=learned)


def _not_the_first(ids: Row) -> Row:
    return [-100, *ids[1:]]


def _samples(generator: random.Random) -> Case:
    # The id of the end occurs within a sample, too.
    return (
        [
            [generator.choice([2, 5, 6, 7, 8, 9]) for _ in range(generator.randint(1, 4))] + [2]
            for _ in range(generator.randint(2, 4))
        ],
    )


def _packed_by_the_ends(samples: Rows) -> dict[str, Row]:
    """Begin anew after each 2, wherever it stands."""
    pieces = [[]]
    for token in itertools.chain(*samples):
        pieces[-1].append(token)
        if token == 2:
            pieces.append([])
    return _packed_by(_not_the_first)(pieces[:-1])


def _packed_but_for_the_start(samples: Rows) -> dict[str, Row]:
    row = _packed_by(_not_the_first)(samples)
    return row | {"labels": [samples[0][0], *row["labels"][1:]]}


def _rows_that_moved(before: Rows, after: Rows, real: Rows) -> Row:
    moved = []
    for i in range(len(real)):
        for j in range(len(real[i])):
            if real[i][j] == 1 and before[i][j] != after[i][j] and i not in moved:
                moved.append(i)
    return moved


def _measured(generator: random.Random) -> Case:
    """Draw rows in which all pads move, and of the real tokens none, one, or two whose sum stays."""
    before, after, real = [], [], []
    for _ in range(generator.randint(4, 6)):
        pads = generator.randint(0, 2)
        mask = [0] * pads + [1] * (5 - pads)
        row = [generator.randint(10, 90) for _ in mask]
        moved = [number + generator.randint(1, 5) * (not kept) for number, kept in zip(row, mask)]
        one, other = generator.sample(range(pads, 5), 2)
        how = generator.choice(["not", "not", "one", "two", "change places"])
        if how == "change places":
            moved[one], moved[other] = row[other], row[one]
        elif how != "not":
            by = generator.choice([-3, 3])
            moved[one] += by
            moved[other] -= by * (how == "two")
        turned = generator.choice([1, -1])  # the pads on the left, or on the right
        for rows, values in ((before, row), (after, moved), (real, mask)):
            rows.append(values[::turned])
    return before, after, real


def _boundary(labels: Row, start: int, end: int) -> str:
    for i in range(start):
        if labels[i] != -100:
            return "starts early"
    if labels[start] == -100:
        return "starts late"
    return "no end" if labels[end] == -100 else "right"


def _bounded(generator: random.Random) -> list[Case]:
    # Of a prompt only its own end of turn is learned; an answer begins at 0; a turn ends with another id.
    cases = [([2, -100, -100, 7, 8, 2], 3, 5), ([7, 8, 2], 0, 2), ([-100, 7, 3], 1, 2)]
    for first_off, last_off, pads in itertools.product([-2, -1, 0, 1, 2], [-1, 0], [0, 1, 2]):
        if first_off and last_off:  # a row has at most one fault
            continue
        start, length = generator.randint(2, 4), generator.randint(3, 5)
        end = start + length - 1
        first, last = start + first_off, end + last_off
        labels = [generator.randint(5, 9) if first <= i <= last else -100 for i in range(end + 1 + pads)]
        labels[end] = generator.choice([2, 3]) if last == end else -100
        cases.append((labels, start, end))
    return cases


FAULTS = ["labels.end_of_turn", "labels.shifted_twice", "mask.missing", "labels.starts_late"]


def _named(changes: dict[int, str]) -> list[str]:
    return [changes.get(i, code) for i, code in enumerate(FAULTS)]


def _step_settings(chats: int, processes: int, fitting: int) -> tuple[int, int]:
    share = chats // processes
    batch_size = max(size for size in range(1, fitting + 1) if share % size == 0)
    return batch_size, share // batch_size


def _machines(generator: random.Random) -> Case:
    processes, share = generator.choice([1, 2, 4, 8]), generator.choice([6, 7, 8, 11, 12, 16])
    return processes * share, processes, generator.choice([3, 4, 5])


def _training_bytes(parameters: int, trained: int, bytes_a_weight: int) -> int:
    return parameters * bytes_a_weight + trained * (4 + 4 + 4 + 4)


CARDS = {
    "packing_mask": Card(
        lambda lengths: _mask(lengths, lambda i, j, of: j <= i and of[i] == of[j]),
        (
            Mistake(
                lambda lengths: _mask(lengths, lambda i, j, of: j <= i),
                "that is one causal mask: a sample sees its neighbour.",
                "it says that a sample sees its neighbour",
            ),
            Mistake(
                lambda lengths: _mask(lengths, lambda i, j, of: of[i] == of[j]),
                "within a sample, a position sees the future.",
                "it says that a position sees the future, or not itself",
            ),
            Mistake(
                lambda lengths: _mask(lengths, lambda i, j, of: j < i and of[i] == of[j]),
                "a position may look at itself too.",
                "it says that a position sees the future, or not itself",
            ),
            Mistake(
                lambda lengths: _mask(lengths, lambda i, j, of: i <= j and of[i] == of[j]),
                "rows and columns are swapped.",
                "which is i, and which is j?",
            ),
        ),
        example=([1, 2],),
        cases=random_cases(_sample_lengths),
    ),
    "pack_row": Card(
        _packed_by(_not_the_first),
        (
            Mistake(
                _packed_by(list),
                "the positions are mended. Look at the labels where two samples meet.",
                "who predicts the first token of a sample?",
            ),
            Mistake(
                _packed_by(_not_the_first, restart=False),
                "the labels are mended. Look at the positions.",
                "how would transformers know where a sample begins?",
            ),
            Mistake(
                _packed_by(_not_the_first, first=1),
                "positions begin at 0.",
                "how would transformers know where a sample begins?",
            ),
            Mistake(
                _packed_by_the_ends,
                "you look for the id 2, which occurs within a sample as well.",
                "how would transformers know where a sample begins?",
            ),
            Mistake(
                _packed_but_for_the_start,
                "right where two samples meet; set the row's very first label to -100, too.",
                "who predicts the first token of a sample?",
            ),
            Mistake(
                _packed_by(lambda ids: [*ids[:-1], -100]),
                "you ignore the last token of each sample, its end.",
                "who predicts the first token of a sample?",
            ),
            Mistake(
                _packed_by(lambda ids: [*ids[1:], -100]),
                "you have shifted; the loss will do it again.",
                "it says that I have shifted",
            ),
        ),
        example=([[5, 6, 2], [7, 2]],),
        cases=random_cases(_samples),
        starter=_packed_by(list, restart=False),
    ),
    "rows_that_moved": Card(
        _rows_that_moved,
        (
            Mistake(
                lambda before, after, real: [i for i in range(len(real)) if before[i] != after[i]],
                "you count the pads too.",
                "what happens at the pads does not count",
            ),
            Mistake(
                lambda before, after, real: _rows_that_moved(
                    before, after, [[1 - r for r in m] for m in real]
                ),
                "these are the rows in which a pad moved.",
                "what happens at the pads does not count",
            ),
            Mistake(
                lambda before, after, real: [
                    i
                    for i, m in enumerate(real)
                    if sum(b * r for b, r in zip(before[i], m)) != sum(a * r for a, r in zip(after[i], m))
                ],
                "a change that cancels out is a change.",
                "a sum can hide a change",
            ),
            Mistake(
                lambda before, after, real: [
                    i for i in range(len(real)) if i not in _rows_that_moved(before, after, real)
                ],
                "these are the rows in which nothing moved.",
                "it names the wrong rows",
            ),
            Mistake(
                lambda before, after, real: [
                    i for i, m in enumerate(real) for r, b, a in zip(m, before[i], after[i]) if r and b != a
                ],
                "a row is named once, however many of its tokens moved.",
                "it names the wrong rows",
            ),
        ),
        example=([[1, 2], [3, 4]], [[9, 2], [3, 5]], [[0, 1], [1, 1]]),
        # Two rows alike, of which one moves.
        cases=random_cases(_measured, ([[1, 2], [1, 2]], [[1, 2], [1, 3]], [[1, 1], [1, 1]])),
    ),
    "boundary": Card(
        _boundary,
        (
            Mistake(
                lambda labels, start, end: {"starts early": "starts late", "starts late": "starts early"}.get(
                    _boundary(labels, start, end), _boundary(labels, start, end)
                ),
                "early and late are the other way round.",
                "early and late are mixed up",
            ),
            Mistake(
                lambda labels, start, end: _boundary([-100] * start + labels[start:], start, end),
                "a label before start is learned as well.",
                "early and late are mixed up",
            ),
            Mistake(
                lambda labels, start, end: _boundary(labels, start, end).replace("no end", "right"),
                "one of these models would never stop.",
                "the end has its own label",
            ),
            Mistake(
                lambda labels, start, end: _boundary(labels, start, -1),
                "a row may go on after its end of turn, with pads.",
                "the end has its own label",
            ),
        ),
        example=([-100, -100, 7, 2], 2, 3),
        cases=_bounded,
    ),
    "name_the_fault": Card(
        FAULTS,
        (
            Mistake(
                _named({1: "labels.never_shifted"}),
                "B: the loss shifts once, and these labels have been shifted already.",
                "B: where is the first label?",
            ),
            Mistake(
                _named({1: "labels.starts_early"}),
                "B: no token of the prompt is a label; 7, 8 and 2 are all there, each one place to the left.",
                "B: where is the first label?",
            ),
            Mistake(
                _named({0: "labels.end_cut_off"}),
                "A: the end of turn is there, among the ids. It is only not learned.",
                "A and D: which token has no label?",
            ),
            Mistake(
                _named({2: "mask.shows_pads"}),
                "C: there is no mask that could show anything.",
                "C: is something wrong with the labels?",
            ),
            Mistake(
                _named({3: "labels.starts_early"}),
                "D: the first label belongs to the second token of the answer.",
                "A and D: which token has no label?",
            ),
            Mistake(
                _named({0: FAULTS[3], 3: FAULTS[0]}),
                "A and D are mixed up.",
                "A and D: which token has no label?",
            ),
        ),
    ),
    "step_settings": Card(
        _step_settings,
        (
            Mistake(
                lambda chats, processes, fitting: _step_settings(chats, 1, fitting),
                "a step would have too many chats: each process does its share.",
                "a step would have too many chats",
            ),
            Mistake(
                lambda chats, processes, fitting: (
                    _step_settings(chats, processes, fitting)[0],
                    chats // _step_settings(chats, processes, fitting)[0],
                ),
                "each process accumulates its own share only, not the whole step.",
                "a step would have too many chats",
            ),
            Mistake(
                lambda chats, processes, fitting: (fitting, chats // processes // fitting),
                "a step would not have exactly as many chats.",
                "a step would not have exactly as many chats",
            ),
            Mistake(
                lambda chats, processes, fitting: (fitting, -(-chats // processes // fitting)),
                "a step would have more chats than before.",
                "a step would not have exactly as many chats",
            ),
            Mistake(
                lambda chats, processes, fitting: (1, chats // processes),
                "the step is the same, but one chat at a time is slow.",
                "how large may the batch be?",
            ),
        ),
        example=(32, 2, 6),
        cases=random_cases(_machines),
    ),
    "training_bytes": Card(
        _training_bytes,
        (
            Mistake(
                lambda parameters, trained, width: (parameters + trained) * 16,
                "that is a training of all weights.",
                "frozen weights need less",
            ),
            Mistake(
                lambda parameters, trained, width: parameters * (width + 12) + trained * 16,
                "frozen weights need no gradient and no averages.",
                "frozen weights need less",
            ),
            Mistake(
                lambda parameters, trained, width: parameters * width + trained * 4,
                "that has the adapters' weights only.",
                "trained weights need more",
            ),
            Mistake(
                lambda parameters, trained, width: parameters * width + trained * 8,
                "that is weights and gradients; AdamW keeps two numbers more for each trained weight.",
                "trained weights need more",
            ),
            Mistake(
                lambda parameters, trained, width: parameters * width + trained * 12,
                "three of the four: a trained weight, its gradient, and two averages.",
                "trained weights need more",
            ),
            Mistake(
                lambda parameters, trained, width: parameters * width + trained * (width + 12),
                "the adapters' own weights are in float32, too.",
                "in how many bytes is an adapter kept?",
            ),
            Mistake(
                lambda parameters, trained, width: parameters * width + trained * 4 * width,
                "the adapters are in float32, whatever the frozen weights are in.",
                "in how many bytes is an adapter kept?",
            ),
        ),
        example=(1000, 10, 2),
        cases=random_cases(
            lambda generator: (
                generator.randint(500, 999),
                generator.randint(10, 99),
                generator.choice([1, 2, 4]),
            )
        ),
    ),
}
