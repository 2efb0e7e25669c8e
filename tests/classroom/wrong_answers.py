"""Wrong answers as readers write them: for each exercise the code, and the hint that the checker should name.

They are written apart from the checker's own list of mistakes, in other ways. A hint of `None` stands for a
mistake that no card foresees: the checker then shows the first case that goes wrong, or says what it sees.
"""


def collator(
    labels: str, attention_mask: str = "[1] * len(ids) + [0] * pads", input_ids: str = "ids + [pad_id] * pads"
) -> str:
    """Write a collator with a loop over the rows: what it appends to each of its three lists."""
    return f"""
        def collate(rows, pad_id):
            width = max(len(ids) for ids, _ in rows)
            batch = {{"input_ids": [], "attention_mask": [], "labels": []}}
            for ids, labels in rows:
                pads = width - len(ids)
                batch["input_ids"].append({input_ids})
                batch["attention_mask"].append({attention_mask})
                batch["labels"].append({labels})
            return batch
    """


WRONG: dict[str, list[tuple[str, str | None]]] = {
    "pads_per_row": [
        ("lambda rows: [5 - len(row) for row in rows]", None),
        (
            """
            def pads_per_row(rows):
                rows = [torch.tensor(row) for row in rows]
                padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
                return [sum(t == 0 for t in row) for row in padded.tolist()]
            """,
            None,
        ),
        ("lambda rows: list(map(len, rows))", "I get the lengths"),
        ("lambda rows: [len(r) - max(len(s) for s in rows) for r in rows]", "I get the lengths"),
        ("lambda rows: max(map(len, rows)) * len(rows) - sum(map(len, rows))", "I get one number only"),
        ("lambda rows: [len(rows[-1]) - len(r) for r in rows]", "I do not know where to start"),
        ("lambda rows: [3, 0]", None),
    ],
    "safe_rows": [
        (
            """
            def safe_rows(lengths):
                if len(set(lengths)) == 1:
                    return []
                return [i for i, n in enumerate(lengths) if n == max(lengths)]
            """,
            None,
        ),
        ("lambda lengths: lengths.index(max(lengths))", "it fails when two rows are the longest"),
        (
            "lambda lengths: [sorted(range(len(lengths)), key=lambda i: -lengths[i])[0]]",
            "it fails when two rows are the longest",
        ),
        (
            "lambda lengths: [i for i in range(len(lengths)) if lengths[i] < max(lengths)]",
            "which row was right above, and why?",
        ),
        (
            "lambda lengths: [i for i, n in enumerate(lengths) if max(lengths) - n < 2]",
            "is one pad so bad?",
        ),
        ("lambda lengths: [len(lengths) - 1]", None),
    ],
    "garbled_calls": [
        ("{'a', 'd'}", "F does not generate at all"),
        ("{'B', 'C', 'E'}", "what do all the wrong ones lack?"),
        ("{'A', 'F'}", "D names the pad: does that not help?"),
        ("{'D', 'A'}", "F does not generate at all"),
        ("set('ADEF')", "E has no mask either"),
        ("{'A'}", "what do all the wrong ones lack?"),
        ("{'A', 'B'}", None),
        ("'ADF'", None),
    ],
    "pad_left": [
        (
            """
            def pad_left(rows, pad_id):
                width = max(map(len, rows))
                ids = [[2] * (width - len(row)) + row for row in rows]
                return ids, [[0] * (width - len(row)) + [1] * len(row) for row in rows]
            """,
            None,
        ),
        (
            """
            def pad_left(rows, pad_id):
                width = max(map(len, rows))
                ids, masks = [], []
                for row in rows:
                    ids.append([pad_id] * (width - len(row)) + row)
                    real, mask = False, []
                    for token in ids[-1]:
                        real = real or token != pad_id
                        mask.append(int(real))
                    masks.append(mask)
                return ids, masks
            """,
            "it says that my mask looks at the ids",
        ),
        (
            """
            def pad_left(rows, pad_id):
                width, ids = max(map(len, rows)), []
                for row in rows:
                    ids.append([pad_id] * (width - len(row)) + row)
                    mask = [0] * (width - len(row)) + [1] * len(row)
                return ids, [mask for _ in rows]
            """,
            "it says that every row gets the same mask",
        ),
        (
            """
            def pad_left(rows, pad_id):
                width = max(map(len, rows))
                for i, row in enumerate(rows):
                    rows[i] = [pad_id] * (width - len(row)) + row
                return rows, [[0] * (width - len(row)) + [1] * len(row) for row in rows]
            """,
            "it says that my mask is all ones, or inverted",
        ),
        (
            """
            def pad_left(rows, pad_id):
                rows = [torch.tensor(row).flip(0) for row in rows]
                mask = [torch.ones_like(row) for row in rows]
                pad = torch.nn.utils.rnn.pad_sequence
                ids = pad(rows, batch_first=True, padding_value=pad_id)
                return ids.flip(1).squeeze(), pad(mask, batch_first=True).flip(1).squeeze()
            """,
            None,
        ),
        (
            """
            def pad_left(rows, pad_id):
                ids, mask = [], []
                for row in rows:
                    missing = max(map(len, rows)) - len(row)
                    ids.append(row + missing * [pad_id])
                    mask.append(len(row) * [1] + missing * [0])
                return ids, mask
            """,
            "it says that my pads are on the right",
        ),
        (
            """
            def pad_left(rows, pad_id):
                width = max(map(len, rows))
                ids = [[pad_id] * (width - len(row)) + row for row in rows]
                return ids, [[0 if token == pad_id else 1 for token in row] for row in ids]
            """,
            "it says that my mask looks at the ids",
        ),
        (
            """
            def pad_left(rows, pad_id):
                width = max(map(len, rows))
                ids = torch.tensor([[pad_id] * (width - len(row)) + row for row in rows])
                return ids, torch.ones_like(ids)
            """,
            "it says that my mask is all ones, or inverted",
        ),
        (
            """
            def pad_left(rows, pad_id):
                width = max(map(len, rows))
                ids, mask = [], []
                for row in rows:
                    ids.append([pad_id] * (width - len(row)) + row)
                    mask.append([1] * (width - len(row)) + [0] * len(row))
                return ids, mask
            """,
            "it says that my mask is all ones, or inverted",
        ),
        (
            """
            def pad_left(rows, pad_id):
                width = max(map(len, rows))
                ids = [[pad_id] * (width - len(row)) + row for row in rows]
                mask = [0] * (width - len(rows[0])) + [1] * len(rows[0])
                return ids, [mask for _ in rows]
            """,
            "it says that every row gets the same mask",
        ),
        ("lambda rows, pad_id: ([[2, 2, 5, 2], [7, 8, 9, 5]], [[0, 0, 1, 1], [1, 1, 1, 1]])", None),
        ("lambda rows, pad_id: rows", None),
        (
            """
            def pad_left(rows, pad_id):
                missing = [max(0, len(rows[-1]) - len(row)) for row in rows]
                ids = [[pad_id] * n + row for row, n in zip(rows, missing)]
                return ids, [[0] * n + [1] * len(row) for row, n in zip(rows, missing)]
            """,
            None,
        ),
    ],
    "masked_softmax": [
        (
            """
            def masked_softmax(scores, mask):
                scores = torch.tensor(scores)
                scores.masked_fill(torch.tensor(mask) == 0, float("-inf"))
                return scores.softmax(0)
            """,
            "my pads still get a weight",
        ),
        (
            """
            def masked_softmax(scores, mask):
                weights = torch.tensor(scores[1:]).exp() * torch.tensor(mask[1:])
                return [0.0, *(weights / weights.sum()).tolist()]
            """,
            None,
        ),
        (
            """
            def masked_softmax(scores, mask):
                weights = torch.tensor(scores).exp() * torch.tensor([*mask[:-1], 1])
                return weights / weights.sum()
            """,
            None,
        ),
        ("lambda scores, mask: torch.tensor(scores).softmax(-1)", "my pads still get a weight"),
        (
            "lambda scores, mask: (torch.tensor(scores) * torch.tensor(mask)).softmax(-1)",
            "my pads still get a weight",
        ),
        (
            "lambda scores, mask: torch.tensor(scores).softmax(-1) * torch.tensor(mask)",
            "my weights do not add up to 1",
        ),
        (
            "lambda scores, mask: torch.tensor(scores).exp() * torch.tensor(mask)",
            "my weights do not add up to 1",
        ),
        (
            "lambda scores, mask: torch.tensor(scores)"
            ".masked_fill(torch.tensor(mask) == 1, -1e9).softmax(-1)",
            "I hide the wrong ones",
        ),
    ],
    "last_real_column": [
        (
            """
            def last_real_column(mask):
                last = []
                for row in mask:
                    found = None
                    for column in range(len(row) - 1, 0, -1):
                        if row[column]:
                            found = column
                            break
                    last.append(found)
                return last
            """,
            None,
        ),
        (
            "lambda attention_mask: [len(attention_mask[0]) - 1] * len(attention_mask)",
            "it fails for pads on the right",
        ),
        (
            "lambda attention_mask: torch.tensor(attention_mask).sum(dim=1) - 1",
            "it fails for pads on the left",
        ),
        ("lambda attention_mask: [row.count(1) for row in attention_mask]", "it fails for pads on the left"),
        (
            "lambda attention_mask: [5 if row[5:] == [1] else sum(row) - 1 for row in attention_mask]",
            None,
        ),
        (
            """
            def last_real_column(attention_mask):
                left = [row[-1] == 1 for row in attention_mask]
                return [len(row) - 1 if l else row.count(1) - 1 for row, l in zip(attention_mask, left)]
            """,
            "it fails for pads on the left",
        ),
        (
            "lambda attention_mask: torch.tensor(attention_mask).argmax(dim=1)",
            "I find the first one, or I am one off",
        ),
        (
            "lambda attention_mask: [len(row) - row[::-1].index(1) for row in attention_mask]",
            "I find the first one, or I am one off",
        ),
        ("lambda attention_mask: [-1 for row in attention_mask]", None),
    ],
    "is_right": [
        ("lambda task, side, mask: (side, mask) == ('left', 'from lengths')", "I do not know about training"),
        (
            "lambda task, side, mask: mask == 'from lengths' and (task, side) != ('generate', 'right')",
            "I do not know about training",
        ),
        (
            """
            def is_right(task, side, mask):
                if mask == "none":
                    return task == "train" and side == "right"
                return task == "train" or side == "left"
            """,
            "is a mask from ids so bad?",
        ),
        ("lambda task, side, mask: mask == 'from lengths'", "does the side matter?"),
        (
            "lambda task, side, mask: (task, side, mask) in [('generate', 'left', 'from lengths'), "
            "('train', 'right', 'from lengths')]",
            "I do not know about training",
        ),
        ("lambda task, side, mask: True", None),
    ],
    "read_the_grid": [
        ("[-100] * 5 + [0] * 4 + [2]", "there are three EOS, which of them counts?"),
        ("[-100, -100, -100, -100, 21, 22, 23, 2, -100, -100]", "who shifts here?"),
        ("[1, 10, 11, 2, 12, 21, 22, 23, 2, -100]", "where do the model's words begin?"),
        ("[-100] * 4 + [12, 21, 22, 23, 2, -100]", "where do the model's words begin?"),
        ("[-100] * 6 + [22, 23, 2, -100]", "where do the model's words begin?"),
        (
            "torch.tensor([-100] * 5 + [21, 22, 23, -100, -100])",
            "there are three EOS, which of them counts?",
        ),
        ("[-100] * 5 + [21, 22, 23, 2, 2]", "there are three EOS, which of them counts?"),
        ("[-100] * 3 + [2, -100, 21, 22, 23, 2, -100]", "there are three EOS, which of them counts?"),
        ("[1, 10, 11, 2, 12, 21, 22, 23, 2, 2]", "where do the model's words begin?"),
        ("[-100] * 5 + [21, 22, 23, -100, 2]", "there are three EOS, which of them counts?"),
        ("[-100] * 10", "where do the model's words begin?"),
        ("[21, 22, 23, 2]", None),
        ("'21 22 23 2'", None),
    ],
    "targets": [
        (
            """
            def targets(ids, prompt_length):
                said = []
                for i, token in enumerate(ids):
                    said.append(-100 if i < prompt_length - 1 or token == 2 else ids[i + 1])
                return said
            """,
            None,
        ),
        (
            """
            def targets(ids, prompt_length):
                end = ids.index(2)
                return [ids[i + 1] if prompt_length - 1 <= i < end else -100 for i in range(len(ids))]
            """,
            None,
        ),
        (
            "lambda ids, prompt_length: [-100] * prompt_length + ids[prompt_length:]",
            "it says that I have shifted twice, or not at all",
        ),
        (
            "lambda ids, prompt_length: ([-100] * prompt_length + ids[prompt_length:])[2:] + [-100, -100]",
            "it says that I have shifted twice, or not at all",
        ),
        ("lambda ids, prompt_length: ids[1:] + [-100]", "it says that I supervise the prompt"),
        (
            """
            def targets(ids, prompt_length):
                said = ids[1:] + [-100]
                for i in range(prompt_length):
                    said[i] = -100
                return said
            """,
            "my first answer token is missing",
        ),
        (
            """
            def targets(ids, prompt_length):
                said = [-100] * len(ids)
                for i in range(prompt_length - 1, len(ids) - 2):
                    said[i] = ids[i + 1]
                return said
            """,
            "the end is missing",
        ),
    ],
    "loss_shifts": [
        (
            "lambda continued, data_shifts: continued[0] - 5 != 1 + data_shifts",
            "I do not know where to start",
        ),
        ("lambda continued, data_shifts: not data_shifts", "must not one of them shift?"),
        ("lambda continued, data_shifts: continued[0] == 6", "I know whether it was right. And now?"),
        ("lambda continued, data_shifts: True", None),
    ],
    "turn_labels": [
        (
            "lambda turns: [token for read, said in turns for token in read + said]",
            "it says that I supervise what was read",
        ),
        (
            """
            def turn_labels(turns):
                ids = [token for read, said in turns for token in read + said]
                last = len(turns[-1][1])
                return [-100] * (len(ids) - last) + ids[-last:]
            """,
            "it says that only the last answer is learned",
        ),
        (
            """
            def turn_labels(turns):
                labels = []
                for read, said in turns:
                    labels += [-100] * len(read) + [-100 if token == 2 else token for token in said]
                return labels
            """,
            "which ends of turn are learned?",
        ),
        (
            """
            def turn_labels(turns):
                labels = []
                for read, said in turns:
                    labels += [2 if token == 2 else -100 for token in read]
                    labels += said
                return labels
            """,
            "which ends of turn are learned?",
        ),
        (
            """
            def turn_labels(turns):
                labels = []
                for read, said in turns:
                    labels += len(read) * [-100] + said
                return labels[1:] + [-100]
            """,
            "it says that I have shifted",
        ),
    ],
    "whole_turns": [
        (
            """
            def whole_turns(turns, limit):
                while len(turns) > 1 and sum(len(r) + len(s) for r, s in turns) > limit:
                    turns.pop()
                return len(turns)
            """,
            None,
        ),
        (
            """
            def whole_turns(turns, limit):
                used = 0
                for turn in turns:
                    used += len(turn[0]) + len(turn[1])
                    if used > limit:
                        return turns.index(turn)
                return len(turns)
            """,
            None,
        ),
        (
            """
            def whole_turns(turns, limit):
                used = kept = 0
                for read, said in turns:
                    used += len(read + said)
                    if used >= limit:
                        break
                    kept += 1
                return kept
            """,
            "I am one off",
        ),
        (
            """
            def whole_turns(turns, limit):
                used = 0
                for kept, (read, said) in enumerate(turns, start=1):
                    used += len(read + said)
                    if used > limit:
                        break
                return kept
            """,
            "I am one off",
        ),
        (
            """
            def whole_turns(turns, limit):
                used = kept = 0
                for read, said in turns:
                    used += len(said)
                    kept += used <= limit
                return kept
            """,
            "I keep too many turns",
        ),
        (
            """
            def whole_turns(turns, limit):
                room = limit
                kept = []
                for read, said in turns:
                    if len(read + said) > room:
                        continue
                    room -= len(read + said)
                    kept.append((read, said))
                return len(kept)
            """,
            "I keep too many turns",
        ),
        (
            "lambda turns, limit: len([turn for turn in turns if len(turn[0] + turn[1]) <= limit])",
            "I keep too many turns",
        ),
    ],
    "step_loss": [
        (
            "lambda losses, counts: sum(x * n for x, n in dict(zip(losses, counts)).items()) / sum(counts)",
            None,
        ),
        (
            "lambda losses, counts: sum(losses[counts.index(n)] * n for n in counts) / sum(counts)",
            None,
        ),
        ("lambda losses, counts: torch.tensor(losses).mean()", "it says mean of the means"),
        ("lambda losses, counts: losses[0]", None),
        (
            "lambda losses, counts: sum(map(lambda loss, count: count * loss, losses, counts))",
            "my loss is far too large, or far too small",
        ),
        ("lambda losses, counts: sum(losses) / sum(counts)", "my loss is far too large, or far too small"),
        ("lambda losses, counts: max(losses)", None),
    ],
    "pad_labels": [
        (
            """
            def pad_labels(rows):
                width = max(map(len, rows))
                return list({tuple(row): row + [-100] * (width - len(row)) for row in rows}.values())
            """,
            None,
        ),
        (
            """
            def pad_labels(rows):
                width = max(map(len, rows))
                return [row + [-100] * (width - sum(label != -100 for label in row)) for row in rows]
            """,
            None,
        ),
        ("lambda rows: [row + [-100] * (len(rows[-1]) - len(row)) for row in rows]", None),
        (
            """
            def pad_labels(rows):
                width = max(map(len, rows))
                padded = [row + [2] * (width - len(row)) for row in rows]
                return [[-100 if label == 2 else label for label in row] for row in padded]
            """,
            "it says that I look at the ids",
        ),
        (
            """
            def pad_labels(rows):
                width = max(map(len, rows))
                return [row[:-1] + [-100] * (width - len(row) + 1) for row in rows]
            """,
            "my last label is lost",
        ),
        (
            "lambda rows: [row + [2] * (max(map(len, rows)) - len(row)) for row in rows]",
            "it says that the pads are supervised",
        ),
        (
            """
            def pad_labels(rows):
                width = max(map(len, rows))
                for row in rows:
                    while len(row) < width:
                        row.insert(0, -100)
                return rows
            """,
            "it says that my pads are on the left",
        ),
        ("lambda rows: [rows[0] + [-100] * (max(map(len, rows)) - len(rows[0]))] + rows[1:]", None),
    ],
    "collate": [
        (
            collator(
                "[-100 if label == pad_id else label for label in labels[:-1]] + labels[-1:] + [-100] * pads"
            ),
            None,
        ),
        (collator("[-100] * labels.count(-100) + ids[labels.count(-100):] + [-100] * pads"), None),
        (collator("labels + [-100] * pads", input_ids="ids + [2] * pads"), None),
        (collator("ids + [pad_id] * pads"), "it says that the prompt is supervised"),
        (
            collator("labels + [pad_id] * pads", attention_mask="[1] * width"),
            "it says that pads are shown, or supervised",
        ),
        (
            """
            def collate(rows, pad_id):
                width = max(len(ids) for ids, _ in rows)
                ids = [ids + [pad_id] * (width - len(ids)) for ids, _ in rows]
                mask = [[1] * len(row) + [0] * (width - len(row)) for row, _ in rows]
                labels = [[-100 if token == pad_id else token for token in row] for row in ids]
                return {"input_ids": ids, "attention_mask": mask, "labels": labels}
            """,
            "I have found one bug, is there another?",
        ),
        (
            """
            def collate(rows, pad_id):
                width = max(len(ids) for ids, _ in rows)
                ids = torch.tensor([ids + [pad_id] * (width - len(ids)) for ids, _ in rows])
                labels = torch.tensor([given + [-100] * (width - len(given)) for _, given in rows])
                return {"input_ids": ids, "attention_mask": (ids != pad_id).long(), "labels": labels}
            """,
            "I have found one bug, is there another?",
        ),
        (collator("ids + [-100] * pads"), "it says that the prompt is supervised"),
        (collator("labels + [pad_id] * pads"), "it says that pads are shown, or supervised"),
        (
            collator("[-100 if x == pad_id else x for x in labels + [pad_id] * pads]"),
            "where does the end of turn get lost?",
        ),
        (
            """
            def collate(rows, pad_id):
                width = max(len(ids) for ids, _ in rows)
                ids = torch.tensor([ids + [pad_id] * (width - len(ids)) for ids, _ in rows])
                labels = torch.tensor([given + [-100] * (width - len(given)) for _, given in rows])
                return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
            """,
            "it says that pads are shown, or supervised",
        ),
        (
            """
            def collate(rows, pad_id):
                width = max(len(ids) for ids, _ in rows)
                ids = [ids + [pad_id] * (width - len(ids)) for ids, _ in rows]
                mask = [[int(token != pad_id) for token in row] for row in ids]
                labels = [row + [-100] * (width - len(row)) for row, _ in rows]
                return {"input_ids": ids, "attention_mask": mask, "labels": labels}
            """,
            "it says that the prompt is supervised",
        ),
        (
            """
            def collate(rows, pad_id):
                width = max(len(ids) for ids, _ in rows)
                ids = torch.tensor([ids + [pad_id] * (width - len(ids)) for ids, _ in rows])
                labels = torch.tensor([given + [pad_id] * (width - len(given)) for _, given in rows])
                labels[labels == pad_id] = -100
                return {"input_ids": ids, "attention_mask": ids.ne(pad_id).long(), "labels": labels}
            """,
            "I have found one bug, is there another?",
        ),
        (
            """
            def collate(rows, pad_id):
                return [ids + [pad_id] for ids, _ in rows]
            """,
            None,
        ),
        (
            """
            def collate(rows, pad_id):
                width = max(len(ids) for ids, _ in rows)
                ids = [ids + [pad_id] * (width - len(ids)) for ids, _ in rows]
                mask = [[1] * len(row) + [0] * (width - len(row)) for row, _ in rows]
                return {"input_ids": ids, "attention_mask": mask, "labels": [[-100] * width for _ in rows]}
            """,
            None,
        ),
    ],
    "packing_mask": [
        (
            "lambda lengths: torch.ones(sum(lengths), sum(lengths)).tril().long()",
            "it says that a sample sees its neighbour",
        ),
        (
            "lambda lengths: torch.block_diag(*[torch.ones(n, n) for n in lengths]).long()",
            "it says that a position sees the future, or not itself",
        ),
        (
            "lambda lengths: torch.block_diag(*[torch.ones(n, n).tril(-1) for n in lengths]).long()",
            "it says that a position sees the future, or not itself",
        ),
        (
            "lambda lengths: torch.block_diag(*[torch.ones(n, n).triu() for n in lengths]).long()",
            "which is i, and which is j?",
        ),
        ("lambda lengths: [[1, 0, 0], [0, 1, 0], [0, 1, 1]]", None),
    ],
    "pack_row": [
        (
            """
            def pack_row(samples):
                ids = sum(samples, [])
                positions, labels, position = [], [], 0
                for token in ids:
                    positions.append(position)
                    labels.append(-100 if position == 0 else token)
                    position = 0 if token == 2 else position + 1
                return {"input_ids": ids, "position_ids": positions, "labels": labels}
            """,
            "how would transformers know where a sample begins?",
        ),
        (
            """
            def pack_row(samples):
                ids = sum(samples, [])
                positions = [i for s in samples for i in range(len(s))]
                return {"input_ids": ids, "position_ids": positions, "labels": ids}
            """,
            "who predicts the first token of a sample?",
        ),
        (
            """
            def pack_row(samples):
                ids = sum(samples, [])
                labels = sum([s[:-1] + [-100] for s in samples], [])
                positions = [i for s in samples for i in range(len(s))]
                return {"input_ids": ids, "position_ids": positions, "labels": labels}
            """,
            "who predicts the first token of a sample?",
        ),
        (
            """
            def pack_row(samples):
                ids = sum(samples, [])
                labels = sum([[-100] + s[1:] for s in samples], [])
                return {"input_ids": ids, "position_ids": list(range(len(ids))), "labels": labels}
            """,
            "how would transformers know where a sample begins?",
        ),
        (
            """
            def pack_row(samples):
                ids = sum(samples, [])
                labels = sum([[-100] + s[1:] for s in samples], [])
                positions = [i + 1 for s in samples for i in range(len(s))]
                return {"input_ids": ids, "position_ids": positions, "labels": labels}
            """,
            "how would transformers know where a sample begins?",
        ),
        (
            """
            def pack_row(samples):
                ids = sum(samples, [])
                labels = sum([s[1:] + [-100] for s in samples], [])
                positions = [i for s in samples for i in range(len(s))]
                return {"input_ids": ids, "position_ids": positions, "labels": labels}
            """,
            "it says that I have shifted",
        ),
        (
            """
            def pack_row(samples):
                row = {"input_ids": [], "position_ids": [], "labels": []}
                for ids in samples:
                    row["labels"] += [-100] + ids[1:] if row["labels"] else ids
                    row["input_ids"] += ids
                    row["position_ids"] += range(len(ids))
                return row
            """,
            "who predicts the first token of a sample?",
        ),
    ],
    "name_the_fault": [
        (
            "['labels.end_cut_off', 'labels.starts_early', 'mask.missing', 'labels.starts_late']",
            "B: where is the first label?",
        ),
        (
            "['labels.end_of_turn', 'labels.starts_early', 'mask.missing', 'labels.starts_late']",
            "B: where is the first label?",
        ),
        ("['labels.end_of_turn', 'labels.shifted_twice', 'mask.missing', 'labels.prompt']", None),
        (
            "['labels.end_of_turn', 'labels.never_shifted', 'mask.missing', 'labels.starts_late']",
            "B: where is the first label?",
        ),
        (
            "['labels.end_cut_off', 'labels.shifted_twice', 'mask.missing', 'labels.starts_late']",
            "A and D: which token has no label?",
        ),
        (
            "['labels.end_of_turn', 'labels.shifted_twice', 'mask.shows_pads', 'labels.starts_late']",
            "C: is something wrong with the labels?",
        ),
        (
            "['labels.end_of_turn', 'labels.shifted_twice', 'mask.missing', 'labels.starts_early']",
            "A and D: which token has no label?",
        ),
        (
            "('labels.starts_late', 'labels.shifted_twice', 'mask.missing', 'labels.end_of_turn')",
            "A and D: which token has no label?",
        ),
    ],
    "rows_that_moved": [
        ("lambda b, a, real: [i for i in range(len(b)) if b[i][-1] != a[i][-1]]", None),
        ("lambda b, a, real: [i for i in range(len(b)) if sorted(b[i]) != sorted(a[i])]", None),
        (
            """
            def rows_that_moved(before, after, real):
                rose = torch.tensor(after) > torch.tensor(before)
                return (rose & torch.tensor(real).bool()).any(1).nonzero()[:, 0]
            """,
            None,
        ),
        (
            "lambda b, a, real: [i for i, m in enumerate(real) if b[i][m.count(0) :] != a[i][m.count(0) :]]",
            None,
        ),
        (
            """
            def rows_that_moved(before, after, real):
                def kept(numbers, mask):
                    return sorted(n for n, r in zip(numbers, mask) if r)
                return [i for i, m in enumerate(real) if kept(before[i], m) != kept(after[i], m)]
            """,
            None,
        ),
        (
            """
            def rows_that_moved(before, after, real):
                moved = []
                for row, new, mask in zip(before, after, real):
                    if any(r and x != y for x, y, r in zip(row, new, mask)):
                        moved.append(before.index(row))
                return moved
            """,
            None,
        ),
        (
            "lambda before, after, real: [i for i, (b, a) in enumerate(zip(before, after)) if b != a]",
            "what happens at the pads does not count",
        ),
        (
            """
            def rows_that_moved(before, after, real):
                moved = (torch.tensor(before) != torch.tensor(after)) & (torch.tensor(real) == 0)
                return moved.any(dim=1).nonzero().flatten()
            """,
            "what happens at the pads does not count",
        ),
        (
            """
            def rows_that_moved(before, after, real):
                real = torch.tensor(real)
                moved = (torch.tensor(after) * real).sum(dim=1) - (torch.tensor(before) * real).sum(dim=1)
                return moved.nonzero().flatten()
            """,
            "a sum can hide a change",
        ),
        (
            """
            def rows_that_moved(before, after, real):
                moved = (torch.tensor(before) != torch.tensor(after)) & (torch.tensor(real) == 1)
                return (~moved.any(dim=1)).nonzero().flatten()
            """,
            "it names the wrong rows",
        ),
        (
            """
            def rows_that_moved(before, after, real):
                moved = (torch.tensor(before) != torch.tensor(after)) & (torch.tensor(real) == 1)
                return moved.nonzero()[:, 0]
            """,
            "it names the wrong rows",
        ),
        ("lambda before, after, real: [1]", None),
    ],
    "boundary": [
        (
            """
            def boundary(labels, start, end):
                first = next(i for i, label in enumerate(labels) if label != -100)
                found = {-1: "starts early", 1: "starts late"}.get(first - start)
                return found or ("right" if labels[end] != -100 else "no end")
            """,
            None,
        ),
        (
            """
            def boundary(labels, start, end):
                if labels[start - 1] != -100:
                    return "starts early"
                if labels[start] == -100:
                    return "starts late"
                return "right" if labels[end] != -100 else "no end"
            """,
            None,
        ),
        (
            """
            def boundary(labels, start, end):
                if any(label != -100 for label in labels[:start]):
                    return "starts early"
                if labels[start] == -100:
                    return "starts late"
                return "right" if labels[end] == 2 else "no end"
            """,
            None,
        ),
        (
            """
            def boundary(labels, start, end):
                if any(label != -100 for label in labels[:start]):
                    return "starts late"
                if labels[start] == -100:
                    return "starts early"
                return "no end" if labels[end] == -100 else "right"
            """,
            "early and late are mixed up",
        ),
        (
            """
            def boundary(labels, start, end):
                if labels[start] == -100:
                    return "starts late"
                return "no end" if labels[end] == -100 else "right"
            """,
            "early and late are mixed up",
        ),
        (
            """
            def boundary(labels, start, end):
                learned = [i for i, label in enumerate(labels) if label != -100]
                if learned[0] < start:
                    return "starts early"
                return "starts late" if learned[0] > start else "right"
            """,
            "the end has its own label",
        ),
        (
            """
            def boundary(labels, start, end):
                if any(label != -100 for label in labels[:start]):
                    return "starts early"
                if labels[start] == -100:
                    return "starts late"
                return "no end" if labels[-1] == -100 else "right"
            """,
            "the end has its own label",
        ),
        ("lambda labels, start, end: 'right'", None),
    ],
    "step_settings": [
        (
            """
            def step_settings(chats, processes, fitting):
                share = chats // processes
                for size in range(fitting, 1, -1):
                    if share % size == 0:
                        return size, share // size
            """,
            None,
        ),
        (
            "lambda chats, processes, fitting: (fitting, int(chats / processes / fitting))",
            "a step would not have exactly as many chats",
        ),
        (
            """
            def step_settings(chats, processes, fitting):
                batch_size = fitting
                while chats % batch_size:
                    batch_size -= 1
                return batch_size, chats // batch_size
            """,
            "a step would have too many chats",
        ),
        (
            "lambda chats, processes, fitting: (fitting, chats // (processes * fitting))",
            "a step would not have exactly as many chats",
        ),
        (
            """
            def step_settings(chats, processes, fitting):
                share, accumulate = chats // processes, 1
                while accumulate * fitting < share:
                    accumulate += 1
                return fitting, accumulate
            """,
            "a step would not have exactly as many chats",
        ),
        (
            """
            def step_settings(chats, processes, fitting):
                batch_size = fitting
                while chats // processes % batch_size:
                    batch_size -= 1
                return batch_size, chats // batch_size
            """,
            "a step would have too many chats",
        ),
        ("lambda chats, processes, fitting: (1, chats // processes)", "how large may the batch be?"),
        ("lambda chats, processes, fitting: (4, 4)", None),
    ],
    "training_bytes": [
        (
            "lambda parameters, trained, width: width * (parameters + trained) + trained * 12",
            "in how many bytes is an adapter kept?",
        ),
        ("lambda parameters, trained, width: (parameters * width + trained * 16) // 2**30", None),
        (
            "lambda parameters, trained, bytes_a_weight: 4 * 4 * (parameters + trained)",
            "frozen weights need less",
        ),
        (
            "lambda parameters, trained, bytes_a_weight: parameters * (bytes_a_weight + 12) + 16 * trained",
            "frozen weights need less",
        ),
        (
            "lambda parameters, trained, bytes_a_weight: parameters * bytes_a_weight + trained * 4",
            "trained weights need more",
        ),
        (
            "lambda parameters, trained, bytes_a_weight: parameters * bytes_a_weight + trained * (4 + 4)",
            "trained weights need more",
        ),
        (
            "lambda parameters, trained, bytes_a_weight: (parameters + 4 * trained) * bytes_a_weight",
            "in how many bytes is an adapter kept?",
        ),
        (
            "lambda parameters, trained, bytes_a_weight: parameters * bytes_a_weight + trained * 3 * 4",
            "trained weights need more",
        ),
    ],
}
