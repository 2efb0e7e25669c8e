"""The cards of lessons 03 to 05: labels, who shifts them, and the end of a turn."""

import itertools
import random
from collections.abc import Callable

from classroom.exercises.card import Card, Case, Mistake, Row, Rows, random_cases
from classroom.exercises.padding_cards import draw_rows, pads_per_row

Turns = list[tuple[Row, Row]]
Batch = dict[str, Rows]
EOS = 2
"""The end of turn on these cards, and where something is padded, the pad too."""
TURN = ([5, 6], [7, EOS])
"""A pair of what is read and what is said, for cases in which turns are alike."""

# The row of the card "read the grid": position 4 writes the header of the answer, 8 is its end, 9 a pad.
IDS = [1, 10, 11, EOS, 12, 21, 22, 23, EOS, EOS]
LABELS = [-100] * 5 + IDS[5:9] + [-100]


def _changed(changes: dict[int, int]) -> Row:
    return [changes.get(i, label) for i, label in enumerate(LABELS)]


def _targets(ids: Row, prompt_length: int) -> Row:
    said = []
    for i in range(len(ids)):
        following = i + 1
        learned = prompt_length <= following < len(ids)
        said.append(ids[following] if learned else -100)
    return said


def _one_answer(generator: random.Random) -> Case:
    # The end of turn occurs within the prompt, and within the answer, as well.
    ids = [generator.choice([EOS, 5, 6, 7, 8, 9]) for _ in range(generator.randint(4, 7))] + [EOS]
    return ids, generator.randint(1, len(ids) - 2)


def _loss_shifts(continued: Row, data_shifts: bool) -> bool:
    return continued[0] - 5 - int(data_shifts) == 1


def _counted(generator: random.Random) -> list[Case]:
    starts = [(step, data_shifts) for data_shifts in (True, False) for step in (data_shifts, data_shifts + 1)]
    return [([5 + step * n for n in (1, 2, 3)], data_shifts) for step, data_shifts in starts]


def _turns(generator: random.Random) -> Turns:
    # An answer ends with the end of turn, which occurs in what was read as well.
    def words(least: int) -> Row:
        return [generator.randint(5, 8) for _ in range(generator.randint(least, 3))]

    count = generator.randint(2, 4)
    return [([*words(1), EOS, *words(1)], [*words(1), EOS]) for _ in range(count)]


def _labels_of_turns(turns: Turns, learned: Callable[[Row, Row, int], Row]) -> Row:
    labels = []
    for i, (read, said) in enumerate(turns):
        labels += learned(read, said, i)
    return labels


def _turn_labels(turns: Turns) -> Row:
    return _labels_of_turns(turns, lambda read, said, i: [-100] * len(read) + said)


def _whole_turns(turns: Turns, limit: int) -> int:
    used = 0
    for i, (read, said) in enumerate(turns):
        used += len(read) + len(said)
        if used > limit:
            return i
    return len(turns)


def _whole_turns_skipping(turns: Turns, limit: int) -> int:
    used = kept = 0
    for read, said in turns:
        if used + len(read) + len(said) <= limit:
            used += len(read) + len(said)
            kept += 1
    return kept


def _whole_turns_by(lengths: list[int], limit: int) -> int:
    return sum(total <= limit for total in itertools.accumulate(lengths))


def _limited(generator: random.Random) -> Case:
    turns = _turns(generator)
    if generator.random() < 0.3 and len(turns) > 2:  # the second does not fit, the third would
        turns[1] = ([*turns[1][0], *[5] * 9], turns[1][1])
        return turns, sum(len(read) + len(said) for read, said in turns[:2]) - 1
    totals = list(itertools.accumulate(len(read) + len(said) for read, said in turns))
    return turns, generator.choice(totals) + generator.choice([-1, 0, 0, 1, 2])


def _micro_batches(generator: random.Random) -> Case:
    counts = [generator.randint(1, 30) for _ in range(generator.randint(2, 4))]
    counts[0] = max(counts) + 5  # never all equal
    return [generator.randint(1, 40) / 8 for _ in counts], counts


def _step_loss(losses: list[float], counts: Row) -> float:
    total = 0.0
    for loss, count in zip(losses, counts):
        total += loss * count
    return total / sum(counts)


def _labels_by_length(rows: Rows) -> Rows:
    return [row + [-100] * count for row, count in zip(rows, pads_per_row(rows))]


def _collate(rows: list[tuple[Row, Row]], pad_id: int, *, mask: str, labels: str) -> Batch:
    counts = pads_per_row([ids for ids, _ in rows])
    batch = {"input_ids": [], "attention_mask": [], "labels": []}
    for (ids, given), count in zip(rows, counts):
        padded = ids + [pad_id] * count
        masks = {
            "lengths": [1] * len(ids) + [0] * count,
            "ids": [int(token != pad_id) for token in padded],
            "ones": [1] * len(padded),
        }
        learned = {
            "given": given + [-100] * count,
            "all": ids + [-100] * count,
            "ids": [-100 if token == pad_id else token for token in padded],
            "from ids": [-100 if label == pad_id else label for label in given] + [-100] * count,
            "pads": given + [pad_id] * count,
            "everything": padded,
        }
        batch["input_ids"].append(padded)
        batch["attention_mask"].append(masks[mask])
        batch["labels"].append(learned[labels])
    return batch


def _collated_by(mask: str, labels: str) -> Callable[..., Batch]:
    return lambda rows, pad_id: _collate(rows, pad_id, mask=mask, labels=labels)


def _examples(generator: random.Random) -> Case:
    # Chats of one turn and of several; after the last answer of some, something more was read.
    rows = []
    for count in generator.sample([1, 1, 2, 3], 3):
        turns = _turns(generator)[:count]
        after = [5, EOS] * generator.randint(0, 1)
        ids = [token for read, said in turns for token in read + said]
        rows.append((ids + after, _turn_labels(turns) + [-100] * len(after)))
    rows.append(([5, EOS, 6, 7, 8, 7, EOS], [-100] * 4 + [8, 7, EOS]))
    pad_id = generator.choice([EOS, 3])  # it is the end of turn, whatever its number
    return [tuple([pad_id if t == EOS else t for t in part] for part in row) for row in rows], pad_id


CARDS = {
    "read_the_grid": Card(
        LABELS,
        (
            Mistake([*LABELS[1:], -100], "you have shifted; the loss will do it again.", "who shifts here?"),
            Mistake(
                [*IDS[:9], -100], "you supervise the prompt as well.", "where do the model's words begin?"
            ),
            Mistake(
                IDS,
                "you supervise everything, the prompt and even the pad.",
                "where do the model's words begin?",
            ),
            Mistake(
                _changed({8: -100, 9: EOS}),
                "you supervise the pad, and not the end of the answer.",
                "there are three EOS, which of them counts?",
            ),
            Mistake(
                _changed({4: 12}),
                "`bot:` is given to the model; it opens the answer, the model does not say it.",
                "where do the model's words begin?",
            ),
            Mistake(
                _changed({5: -100}),
                "the first token of the answer is missing.",
                "where do the model's words begin?",
            ),
            Mistake(
                _changed({8: -100}),
                "a model with these labels never learns to stop.",
                "there are three EOS, which of them counts?",
            ),
            Mistake(
                _changed({9: EOS}), "you supervise the pad.", "there are three EOS, which of them counts?"
            ),
            Mistake(
                _changed({3: EOS}),
                "the user's end of turn is not the model's to say.",
                "there are three EOS, which of them counts?",
            ),
        ),
    ),
    "targets": Card(
        _targets,
        (
            Mistake(
                lambda ids, n: [-100] * n + ids[n:],
                "these are labels for a loss that shifts: position i holds token i itself.",
                "it says that I have shifted twice, or not at all",
            ),
            Mistake(
                lambda ids, n: [*_targets(ids, n)[1:], -100],
                "you have shifted twice.",
                "it says that I have shifted twice, or not at all",
            ),
            Mistake(
                lambda ids, n: [*ids[1:], -100],
                "you supervise the prompt as well.",
                "it says that I supervise the prompt",
            ),
            Mistake(
                lambda ids, n: [-100] * n + [*ids[n + 1 :], -100],
                "the first token of the answer is not learned.",
                "my first answer token is missing",
            ),
            Mistake(
                lambda ids, n: [*_targets(ids, n)[:-2], -100, -100],
                "the end of turn is not learned.",
                "the end is missing",
            ),
        ),
        example=([11, 12, 21, 22, EOS], 2),
        cases=random_cases(_one_answer),
    ),
    "loss_shifts": Card(
        _loss_shifts,
        (
            Mistake(
                lambda continued, data_shifts: not _loss_shifts(continued, data_shifts),
                "the other way round: the two offsets add up to the step.",
                "I do not know where to start",
            ),
            Mistake(
                lambda continued, data_shifts: not data_shifts,
                "that would be so if all were well. Look at the numbers too.",
                "must not one of them shift?",
            ),
            Mistake(
                lambda continued, data_shifts: continued[0] - 5 == 1,
                "that says whether the training was right, not what the loss does.",
                "I know whether it was right. And now?",
            ),
        ),
        example=([7, 9, 11], True),
        cases=_counted,
    ),
    "turn_labels": Card(
        _turn_labels,
        (
            Mistake(
                lambda turns: _labels_of_turns(turns, lambda read, said, i: read + said),
                "you supervise the prompts as well.",
                "it says that I supervise what was read",
            ),
            Mistake(
                lambda turns: _labels_of_turns(
                    turns,
                    lambda read, said, i: (
                        [-100] * len(read) + (said if i == len(turns) - 1 else [-100] * len(said))
                    ),
                ),
                "only the last answer is learned; the earlier ones are the model's words too.",
                "it says that only the last answer is learned",
            ),
            Mistake(
                lambda turns: _labels_of_turns(
                    turns, lambda read, said, i: [-100] * len(read) + said[:-1] + [-100]
                ),
                "the ends of turn are not learned: this model would never stop.",
                "which ends of turn are learned?",
            ),
            Mistake(
                lambda turns: _labels_of_turns(
                    turns, lambda read, said, i: [t if t == EOS else -100 for t in read] + said
                ),
                "the user's ends of turn are not the model's to say.",
                "which ends of turn are learned?",
            ),
            Mistake(
                lambda turns: [*_turn_labels(turns)[1:], -100],
                "you have shifted; transformers' loss will do it again.",
                "it says that I have shifted",
            ),
        ),
        example=([([5, 6], [7, EOS]), ([5], [8, EOS])],),
        cases=random_cases(lambda generator: (_turns(generator),)),
    ),
    "step_loss": Card(
        _step_loss,
        (
            Mistake(
                lambda losses, counts: sum(losses) / len(losses),
                "that is the mean of the means: a short micro-batch counts as much as a long one.",
                "it says mean of the means",
            ),
            Mistake(
                lambda losses, counts: sum(loss * n for loss, n in zip(losses, counts)),
                "that is the sum over all tokens.",
                "my loss is far too large, or far too small",
            ),
            Mistake(
                lambda losses, counts: sum(losses) / sum(counts),
                "you add up means as if they were sums.",
                "my loss is far too large, or far too small",
            ),
        ),
        example=([1.0, 2.0], [30, 10]),
        cases=random_cases(_micro_batches, ([0.5, 0.5, 1.0], [30, 10, 10])),
    ),
    "whole_turns": Card(
        _whole_turns,
        (
            Mistake(
                lambda turns, limit: _whole_turns_by([len(r) + len(s) for r, s in turns], limit - 1),
                "a turn that fits exactly does fit.",
                "I am one off",
            ),
            Mistake(
                lambda turns, limit: min(
                    len(turns), _whole_turns_by([len(r) + len(s) for r, s in turns], limit) + 1
                ),
                "the last one that you count is cut, and with it its end of turn.",
                "I am one off",
            ),
            Mistake(
                lambda turns, limit: _whole_turns_by([len(said) for _, said in turns], limit),
                "what was read takes room as well.",
                "I keep too many turns",
            ),
            Mistake(
                _whole_turns_skipping,
                "you skip a turn and keep a later one, which was said in answer to what is missing now.",
                "I keep too many turns",
            ),
            Mistake(
                lambda turns, limit: sum(len(read) + len(said) <= limit for read, said in turns),
                "each of these fits alone, not all of them together.",
                "I keep too many turns",
            ),
        ),
        example=([([5, 6], [7, EOS]), ([5], [8, EOS])], 6),
        cases=random_cases(_limited, ([TURN] * 2, 3), ([TURN] * 3, 9)),
    ),
    "pad_labels": Card(
        _labels_by_length,
        (
            Mistake(
                lambda rows: [[-100 if t == EOS else t for t in row] for row in _labels_by_length(rows)],
                "you look at the ids, so real ends of turn are ignored too.",
                "it says that I look at the ids",
            ),
            Mistake(
                lambda rows: [row + [EOS] * n for row, n in zip(rows, pads_per_row(rows))],
                "the pads are supervised: the model would learn to say pads.",
                "it says that the pads are supervised",
            ),
            Mistake(
                lambda rows: [[-100] * n + row for row, n in zip(rows, pads_per_row(rows))],
                "your pads are on the left; the ids of this card have them on the right.",
                "it says that my pads are on the left",
            ),
            Mistake(
                lambda rows: [row[:-1] + [-100] * (n + 1) for row, n in zip(rows, pads_per_row(rows))],
                "the last token of each answer is lost: it is the one that says stop.",
                "my last label is lost",
            ),
        ),
        example=([[7, EOS], [5, 6, 7, EOS]],),
        # Labels with a prompt, and two rows alike.
        cases=random_cases(
            lambda generator: (draw_rows(generator),),
            ([[-100, 7, EOS], [-100, 7, EOS], [-100, 5, 6, 7, EOS]],),
        ),
    ),
    "collate": Card(
        _collated_by("lengths", "given"),
        (
            Mistake(
                _collated_by("lengths", "ids"),
                "the mask is mended. Look at the labels.",
                "I have found one bug, is there another?",
            ),
            Mistake(
                _collated_by("ids", "given"),
                "the labels are mended. Look at the mask.",
                "I have found one bug, is there another?",
            ),
            Mistake(
                _collated_by("lengths", "all"),
                "now the prompt is supervised: the labels that came with the row are not used.",
                "it says that the prompt is supervised",
            ),
            Mistake(
                _collated_by("lengths", "everything"),
                "now all is supervised, even the prompt and the pads: use the labels that came with the row.",
                "it says that the prompt is supervised",
            ),
            Mistake(
                _collated_by("lengths", "from ids"),
                "the labels still look for the pad id, and find real ends of turn.",
                "where does the end of turn get lost?",
            ),
            Mistake(
                _collated_by("lengths", "pads"),
                "the pads are supervised.",
                "it says that pads are shown, or supervised",
            ),
            Mistake(
                _collated_by("ones", "given"),
                "the mask shows the pads.",
                "it says that pads are shown, or supervised",
            ),
            Mistake(
                _collated_by("ones", "pads"),
                "the mask shows the pads, and they are supervised.",
                "it says that pads are shown, or supervised",
            ),
            Mistake(
                _collated_by("ids", "all"),
                "the ends of turn are learned now, but so is the prompt. The mask still looks at the ids.",
                "it says that the prompt is supervised",
            ),
            Mistake(
                _collated_by("ids", "from ids"),
                "both still look for the pad id.",
                "I have found one bug, is there another?",
            ),
        ),
        example=([([5, EOS, 6, 7, EOS], [-100, -100, -100, 7, EOS]), ([5, 8, EOS], [-100, 8, EOS])], EOS),
        cases=random_cases(_examples),
        starter=_collated_by("ids", "ids"),
    ),
}
