"""Check a reader's answer: right, or which known mistake it is and what to look at again.

An answer is a function. It is run on the card's own example and on random cases, and compared with a
naive loop. When it differs, it is compared with the mistakes that readers make, each a function too.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

Row = list[int]
CASES = 40


def check(exercise: str, answer: Callable[..., Any]) -> None:
    """Run a reader's function and say in one line whether it is right.

    Args:
        exercise: The card's name, such as ``"pad_left"``.
        answer: The reader's function.

    Raises:
        ValueError: There is no exercise of that name.
    """
    if exercise not in EXERCISES:
        raise ValueError(f"No exercise {exercise!r}; there are {', '.join(sorted(EXERCISES))}.")
    right, make_case, mistakes = EXERCISES[exercise]
    generator = random.Random(0)
    cases = [make_case(generator) for _ in range(CASES)]
    given = []
    for case in cases:
        try:
            given.append(_plain(answer(*case)))
        except Exception as error:  # the reader's own code: whatever it raises is told
            print(f"✗ On {_call(exercise, case)} your code raised {type(error).__name__}: {error}")
            return
    if all(result in (None, ...) for result in given):
        print("Not answered yet.")
        return
    expected = [_plain(right(*case)) for case in cases]
    if given == expected:
        print(f"✓ Right, on {len(cases)} cases.")
        return
    for mistake, hint in mistakes:
        if given == [_plain(mistake(*case)) for case in cases]:
            print(f"✗ Not yet: {hint}")
            return
    i = next(i for i in range(len(cases)) if given[i] != expected[i])
    print(f"✗ Not yet: {_call(exercise, cases[i])} should be {expected[i]}, yours gives {given[i]}")


def _plain(value: Any) -> Any:
    """Turn tensors, tuples and dict-like batches into lists and dicts that compare by value."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def _call(exercise: str, case: Sequence[Any]) -> str:
    return f"{exercise}({', '.join(map(repr, case))})"


def _rows(generator: random.Random) -> list[Row]:
    lengths = [generator.randint(1, 5) for _ in range(generator.randint(2, 4))]
    lengths[0], lengths[-1] = 2, 5  # never all equal: there is something to pad
    # Id 2 is the pad in these cases, and it also occurs inside rows, as EOS does in a conversation.
    return [[generator.choice([2, 5, 6, 7, 8]) for _ in range(length)] for length in lengths]


def _lengths(generator: random.Random) -> list[int]:
    lengths = [generator.randint(1, 9) for _ in range(generator.randint(3, 6))]
    return lengths + [max(lengths)] * generator.randint(0, 1)  # at times two are the longest


def _safe_rows(lengths: list[int]) -> list[int]:
    safe = []
    for i, length in enumerate(lengths):
        if all(length >= other for other in lengths):
            safe.append(i)
    return safe


def _pads_per_row(rows: list[Row]) -> list[int]:
    longest = 0
    for row in rows:
        longest = max(longest, len(row))
    return [longest - len(row) for row in rows]


def _pad_left(rows: list[Row], pad_id: int) -> tuple[list[Row], list[Row]]:
    input_ids, mask = [], []
    for row, count in zip(rows, _pads_per_row(rows)):
        input_ids.append([pad_id] * count + row)
        mask.append([0] * count + [1] * len(row))
    return input_ids, mask


def _pad_right(rows: list[Row], pad_id: int) -> tuple[list[Row], list[Row]]:
    input_ids, mask = _pad_left(rows, pad_id)
    counts = _pads_per_row(rows)
    return [r[n:] + r[:n] for r, n in zip(input_ids, counts)], [m[n:] + m[:n] for m, n in zip(mask, counts)]


def _with_mask(make_mask: Callable[[Row, Row, int], Row]) -> Callable[..., tuple[list[Row], list[Row]]]:
    def mistake(rows: list[Row], pad_id: int) -> tuple[list[Row], list[Row]]:
        input_ids, mask = _pad_left(rows, pad_id)
        return input_ids, [make_mask(r, m, pad_id) for r, m in zip(input_ids, mask)]

    return mistake


def _is_right(task: str, side: str, mask: str) -> bool:
    right = [
        ("generate", "left", "from lengths"),
        ("train", "left", "from lengths"),
        ("train", "right", "from lengths"),
        ("train", "right", "none"),
    ]
    return (task, side, mask) in right


def _call_to_review(generator: random.Random) -> tuple[str, str, str]:
    return (
        generator.choice(["generate", "train"]),
        generator.choice(["left", "right"]),
        generator.choice(["none", "from lengths", "from ids"]),
    )


def _targets(ids: Row, prompt_length: int) -> Row:
    said = []
    for i in range(len(ids)):
        following = i + 1
        learned = prompt_length <= following < len(ids)
        said.append(ids[following] if learned else -100)
    return said


def _counted(generator: random.Random) -> tuple[Row, bool]:
    data_shifts = generator.random() < 0.5
    step = int(data_shifts) + generator.randint(0, 1)
    return [5 + step * n for n in (1, 2, 3)], data_shifts


def _turns(generator: random.Random) -> list[tuple[Row, Row]]:
    # An answer ends with 2, the end of turn, which occurs in what was read as well.
    def words(least: int) -> Row:
        return [generator.randint(5, 8) for _ in range(generator.randint(least, 3))]

    return [([*words(1), 2, *words(1)], [*words(1), 2]) for _ in range(generator.randint(2, 3))]


def _labels_of_turns(turns: list[tuple[Row, Row]], learned: Callable[[Row, Row, int], Row]) -> Row:
    labels = []
    for i, (read, said) in enumerate(turns):
        labels += learned(read, said, i)
    return labels


def _turn_labels(turns: list[tuple[Row, Row]]) -> Row:
    return _labels_of_turns(turns, lambda read, said, i: [-100] * len(read) + said)


def _micro_batches(generator: random.Random) -> tuple[list[float], list[int]]:
    counts = [generator.randint(1, 30) for _ in range(generator.randint(2, 4))]
    counts[0] = max(counts) + 5  # never all equal
    return [generator.randint(1, 40) / 8 for _ in counts], counts


def _step_loss(losses: list[float], counts: list[int]) -> float:
    total = 0.0
    for loss, count in zip(losses, counts):
        total += loss * count
    return total / sum(counts)


def _sample_lengths(generator: random.Random) -> list[int]:
    return [2, *(generator.randint(1, 4) for _ in range(generator.randint(1, 3))), 3]


def _packing_mask(lengths: list[int], sees: Callable[[int, int, list[int]], bool]) -> list[Row]:
    sample = [number for number, length in enumerate(lengths) for _ in range(length)]
    return [[int(sees(i, j, sample)) for j in range(len(sample))] for i in range(len(sample))]


def _labels_by_length(rows: list[Row]) -> list[Row]:
    return [row + [-100] * count for row, count in zip(rows, _pads_per_row(rows))]


def _step_settings(chats: int, processes: int, fitting: int) -> tuple[int, int]:
    share = chats // processes
    batch_size = max(size for size in range(1, fitting + 1) if share % size == 0)
    return batch_size, share // batch_size


def _machines(generator: random.Random) -> tuple[int, int, int]:
    processes, share = generator.choice([2, 4, 8]), generator.choice([6, 8, 12, 16])
    return processes * share, processes, generator.choice([4, 5, 7])


def _training_bytes(parameters: int, trained: int, bytes_a_weight: int) -> int:
    return parameters * bytes_a_weight + trained * (4 + 4 + 4 + 4)


def _sizes(generator: random.Random) -> tuple[int, int, int]:
    return generator.randint(500, 999), generator.randint(10, 99), generator.choice([1, 2, 4])


def _rows_that_moved(before: list[Row], after: list[Row], real: list[Row]) -> list[int]:
    moved = []
    for i in range(len(real)):
        for j in range(len(real[i])):
            if real[i][j] == 1 and before[i][j] != after[i][j] and i not in moved:
                moved.append(i)
    return moved


def _measured(generator: random.Random) -> tuple[list[Row], list[Row], list[Row]]:
    pads = [0, 2, *(generator.randint(1, 2) for _ in range(generator.randint(2, 4)))]
    real = [[0] * count + [1] * (5 - count) for count in pads]
    before = [[generator.randint(10, 90) for _ in range(5)] for _ in pads]
    after = [[n + generator.randint(1, 5) * (not r) for n, r in zip(*both)] for both in zip(before, real)]
    for row in after[1:]:  # some rows move: in one place, or in two by opposite amounts
        by = generator.choice([0, 0, 3])
        row[-1] += by
        row[-2] -= by * generator.randint(0, 1)
    after[-1] = [*before[-1][:3], before[-1][3] + 1, before[-1][4] - 1]
    return before, after, real


def _boundary(labels: Row, start: int, end: int) -> str:
    for i in range(start):
        if labels[i] != -100:
            return "starts early"
    if labels[start] == -100:
        return "starts late"
    return "no end" if labels[end] == -100 else "right"


def _bounded(generator: random.Random) -> tuple[Row, int, int]:
    start, answer = generator.randint(2, 4), generator.randint(3, 5)
    end = start + answer - 1
    first, last = start + generator.choice([-1, 0, 0, 1]), end
    if first == start:
        last -= generator.randint(0, 1)
    pads = generator.randint(0, 2)
    return (
        [generator.randint(5, 9) if first <= i <= last else -100 for i in range(end + 1 + pads)],
        start,
        end,
    )


EXERCISES: dict[str, tuple[Callable[..., Any], Callable[[random.Random], tuple], list]] = {
    "pads_per_row": (
        _pads_per_row,
        lambda generator: (_rows(generator),),
        [
            (
                lambda rows: [len(row) for row in rows],
                "these are the lengths. How much is missing to the longest?",
            ),
            (lambda rows: sum(_pads_per_row(rows)), "that is the total; give one number for each row."),
            (
                lambda rows: [len(row) - max(map(len, rows)) for row in rows],
                "the sign is the wrong way round.",
            ),
        ],
    ),
    "safe_rows": (
        _safe_rows,
        lambda generator: (_lengths(generator),),
        [
            (
                lambda lengths: max(range(len(lengths)), key=lengths.__getitem__),
                "give a list, even of one row.",
            ),
            (
                lambda lengths: [lengths.index(max(lengths))],
                "several rows can be the longest; each of them is safe.",
            ),
            (
                lambda lengths: [i for i, length in enumerate(lengths) if length != max(lengths)],
                "these are the ones that go wrong.",
            ),
        ],
    ),
    "pad_left": (
        _pad_left,
        lambda generator: (_rows(generator), 2),
        [
            (_pad_right, "your pads are on the right. Generation goes on after the last column."),
            (
                _with_mask(lambda row, mask, pad_id: [1] * len(row)),
                "your mask is all ones: the pads are not hidden.",
            ),
            (
                _with_mask(lambda row, mask, pad_id: [int(token != pad_id) for token in row]),
                "your mask looks at the ids, so it hides real tokens that happen to be the pad id. "
                "Use the lengths.",
            ),
            (
                _with_mask(lambda row, mask, pad_id: [1 - m for m in mask]),
                "your mask is inverted: 1 means real.",
            ),
        ],
    ),
    "is_right": (
        _is_right,
        _call_to_review,
        [
            (
                lambda task, side, mask: side == "left" and mask == "from lengths",
                "that is right for generation. Training allows more.",
            ),
            (
                lambda task, side, mask: mask == "from lengths" and (task == "train" or side == "left"),
                "one more is right: in training the causal mask hides pads on the right by itself.",
            ),
            (
                lambda task, side, mask: _is_right(task, side, mask.replace("ids", "lengths")),
                "a mask from ids hides real ends of turns here, since pad = EOS.",
            ),
            (
                lambda task, side, mask: mask == "from lengths",
                "with a mask from lengths the side still matters for generation, and one call needs no mask.",
            ),
        ],
    ),
    "targets": (
        _targets,
        lambda generator: ([generator.randint(5, 9) for _ in range(7)] + [2], generator.randint(2, 5)),
        [
            (
                lambda ids, n: [-100] * n + ids[n:],
                "these are labels for a loss that shifts: position i holds token i itself.",
            ),
            (lambda ids, n: [*ids[1:], -100], "you supervise the prompt as well."),
            (
                lambda ids, n: [-100] * n + [*ids[n + 1 :], -100],
                "nobody learns the first token of the answer; the last token of the prompt should say it.",
            ),
            (lambda ids, n: [*_targets(ids, n)[1:], -100], "you have shifted twice."),
            (lambda ids, n: [*_targets(ids, n)[:-2], -100, -100], "the end of turn is not learned."),
        ],
    ),
    "loss_shifts": (
        lambda continued, data_shifts: continued[0] - 5 - int(data_shifts) == 1,
        _counted,
        [
            (
                lambda continued, data_shifts: continued[0] - 5 - int(data_shifts) != 1,
                "the other way round: the two offsets add up to the step.",
            ),
            (
                lambda continued, data_shifts: not data_shifts,
                "that would be right if all were well. Look at the step.",
            ),
            (
                lambda continued, data_shifts: continued[0] - 5 == 1,
                "that says whether the training was right, not what the loss does.",
            ),
        ],
    ),
    "turn_labels": (
        _turn_labels,
        lambda generator: (_turns(generator),),
        [
            (
                lambda turns: _labels_of_turns(turns, lambda read, said, i: read + said),
                "you supervise the prompts as well.",
            ),
            (
                lambda turns: _labels_of_turns(
                    turns,
                    lambda read, said, i: (
                        [-100] * len(read) + (said if i == len(turns) - 1 else [-100] * len(said))
                    ),
                ),
                "only the last answer is learned; the earlier ones are the model's words too.",
            ),
            (
                lambda turns: _labels_of_turns(
                    turns, lambda read, said, i: [-100] * len(read) + said[:-1] + [-100]
                ),
                "the ends of turn are not learned: this model would never stop.",
            ),
            (
                lambda turns: _labels_of_turns(
                    turns, lambda read, said, i: [t if t == 2 else -100 for t in read] + said
                ),
                "the user's ends of turn are not the model's to say.",
            ),
            (
                lambda turns: [*_turn_labels(turns)[1:], -100],
                "you have shifted; transformers' loss will do it again.",
            ),
        ],
    ),
    "step_loss": (
        _step_loss,
        _micro_batches,
        [
            (
                lambda losses, counts: sum(losses) / len(losses),
                "that is the mean of the means: a short micro-batch counts as much as a long one.",
            ),
            (
                lambda losses, counts: sum(loss * n for loss, n in zip(losses, counts)),
                "that is the sum over all tokens; divide by how many there are.",
            ),
            (
                lambda losses, counts: sum(losses) / sum(counts),
                "weigh each loss with its number of tokens before you add them.",
            ),
        ],
    ),
    "pad_labels": (
        _labels_by_length,
        lambda generator: (_rows(generator),),
        [
            (
                lambda rows: [[-100 if t == 2 else t for t in row] for row in _labels_by_length(rows)],
                "you look at the ids, so real ends of turn are ignored too. Use the lengths.",
            ),
            (
                lambda rows: [row + [2] * n for row, n in zip(rows, _pads_per_row(rows))],
                "the pads are supervised: the model would learn to say pads.",
            ),
            (
                lambda rows: [[-100] * n + row for row, n in zip(rows, _pads_per_row(rows))],
                "your pads are on the left; the ids of this card have them on the right.",
            ),
            (
                lambda rows: [row[:-1] + [-100] * (n + 1) for row, n in zip(rows, _pads_per_row(rows))],
                "the last token of each answer is lost: it is the one that says stop.",
            ),
        ],
    ),
    "packing_mask": (
        lambda lengths: _packing_mask(lengths, lambda i, j, of: j <= i and of[i] == of[j]),
        lambda generator: (_sample_lengths(generator),),
        [
            (
                lambda lengths: _packing_mask(lengths, lambda i, j, of: j <= i),
                "that is one causal mask: a sample sees its neighbour. Open the first hint.",
            ),
            (
                lambda lengths: _packing_mask(lengths, lambda i, j, of: of[i] == of[j]),
                "within a sample, a position sees the future. Open the second hint.",
            ),
            (
                lambda lengths: _packing_mask(lengths, lambda i, j, of: j < i and of[i] == of[j]),
                "a position may look at itself too.",
            ),
            (
                lambda lengths: _packing_mask(
                    lengths, lambda i, j, sample: i <= j and sample[i] == sample[j]
                ),
                "rows and columns are swapped: row i tells where position i may look.",
            ),
        ],
    ),
    "step_settings": (
        _step_settings,
        _machines,
        [
            (
                lambda chats, processes, fitting: _step_settings(chats, 1, fitting),
                "a step would have too many chats: each process does its share. Open the first hint.",
            ),
            (
                lambda chats, processes, fitting: (fitting, chats // processes // fitting),
                "a step would not have exactly as many chats. Open the second hint.",
            ),
            (
                lambda chats, processes, fitting: (fitting, -(-chats // processes // fitting)),
                "a step would have more chats than before. Open the second hint.",
            ),
            (
                lambda chats, processes, fitting: (1, chats // processes),
                "the step is the same, but one chat at a time is slow: take as many as fit.",
            ),
        ],
    ),
    "training_bytes": (
        _training_bytes,
        _sizes,
        [
            (
                lambda parameters, trained, width: (parameters + trained) * 16,
                "that is a training of all weights. Open the first hint.",
            ),
            (
                lambda parameters, trained, width: parameters * (width + 12) + trained * 16,
                "frozen weights need no gradient and no averages. Open the first hint.",
            ),
            (
                lambda parameters, trained, width: parameters * width + trained * 4,
                "that has the adapters' weights only. Open the second hint.",
            ),
            (
                lambda parameters, trained, width: parameters * width + trained * 8,
                "that is weights and gradients; AdamW keeps two numbers more for each trained weight.",
            ),
            (
                lambda parameters, trained, width: parameters * width + trained * 12,
                "three of the four: a trained weight, its gradient, and two averages.",
            ),
            (
                lambda parameters, trained, width: parameters * width + trained * 4 * width,
                "the adapters are in float32, whatever the frozen weights are in.",
            ),
        ],
    ),
    "rows_that_moved": (
        _rows_that_moved,
        _measured,
        [
            (
                lambda before, after, real: [i for i in range(len(real)) if before[i] != after[i]],
                "you count the pads too: what happens there does not matter. Open the first hint.",
            ),
            (
                lambda before, after, real: _rows_that_moved(
                    before, after, [[1 - r for r in m] for m in real]
                ),
                "these are the rows in which a pad moved; real is 1 for a token of the text.",
            ),
            (
                lambda before, after, real: [
                    i
                    for i, m in enumerate(real)
                    if sum(b * r for b, r in zip(before[i], m)) != sum(a * r for a, r in zip(after[i], m))
                ],
                "a change that cancels out is a change. Open the second hint.",
            ),
            (
                lambda before, after, real: [
                    i for i in range(len(real)) if i not in _rows_that_moved(before, after, real)
                ],
                "these are the rows in which nothing moved.",
            ),
        ],
    ),
    "boundary": (
        _boundary,
        _bounded,
        [
            (
                lambda labels, start, end: (
                    "starts late"
                    if any(label != -100 for label in labels[:start])
                    else "starts early"
                    if labels[start] == -100
                    else _boundary(labels, start, end)
                ),
                "early and late are the other way round. Open the first hint.",
            ),
            (
                lambda labels, start, end: (
                    "right" if _boundary(labels, start, end) == "no end" else _boundary(labels, start, end)
                ),
                "one of these models would never stop. Open the second hint.",
            ),
            (
                lambda labels, start, end: _boundary(labels, start, -1),
                "a row may go on after its end of turn, with pads. Open the second hint.",
            ),
            (
                lambda labels, start, end: _boundary([-100] * start + labels[start:], start, end),
                "a label before start is learned as well. Open the first hint.",
            ),
        ],
    ),
}
