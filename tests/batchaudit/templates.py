"""Chat templates that nobody here wrote (TRL's wheel brings them), right batches of them, and planted faults.

What is right is told by the rendered text alone: where each answer's words stand in it, and the mark that
follows them.
"""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import trl
from transformers import PreTrainedTokenizerBase

from batchaudit import audit
from tinylib.labels import IGNORE_INDEX

FOLDER = Path(trl.__file__).parent / "chat_templates"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
TURNS = "turns, answers and their ends"
TALK = [("What is 2+2?", "It makes four."), ("Sure?", "7 is wrong,\nso yes."), ("Name fruits.", "Bananas"),
        ("And Paris?", "The capital: of France!")]  # fmt: skip
WRITES_NO_END = {"glm4moe"}


def with_template(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    tokenizer = copy.copy(tokenizer)
    tokenizer.chat_template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    return tokenizer


def row(tokenizer: PreTrainedTokenizerBase, turns: int, system: bool) -> dict[str, Any] | None:
    """Render a chat and cut it; None if the template refuses it, or leaves the words out."""
    messages = [{"role": "system", "content": "Be brief."}] * system
    for asked, answered in TALK[:turns]:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception:
        return None
    spans, at = [], 0
    for asked, answered in TALK[:turns]:
        if asked not in text[at:] or answered not in text[at:]:
            return None
        start = text.index(answered, text.index(asked, at) + len(asked))
        at = start + len(answered)
        mark = re.match(r"\s*(<[^<>]+>)", text[at:])
        # What a template may write before the words, and leave to the model: a thought, a channel.
        before = re.search(r"<think>|<\|channel\|>| to=", text[text.rindex(asked, 0, start) : start])
        opens = text.rindex(asked, 0, start) + before.start() if before else start
        spans.append((opens, start, at, at + mark.end() if mark else at))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]
    where = [
        ([i for i, (a, b) in enumerate(offsets) if a < words and b > start and a < b],
         [i for i, (a, b) in enumerate(offsets) if a >= words and b <= end and a < b],
         next(i for i, (a, b) in enumerate(offsets) if b > opens))
        for opens, start, words, end in spans
    ]  # fmt: skip
    return {"ids": encoded["input_ids"], "answers": where}


def rows(tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    made = [row(tokenizer, turns, system) for system in (False, True) for turns in (1, 2, 3, 4)]
    return [one for one in made if one is not None]


def labelled(one: dict[str, Any], ends: bool) -> list[int]:
    learned = {i for words, end, _ in one["answers"] for i in words + end * ends}
    return [token if i in learned else IGNORE_INDEX for i, token in enumerate(one["ids"])]


def batch(
    tokenizer: PreTrainedTokenizerBase, ids: list[list[int]], labels: list[list[int]]
) -> dict[str, Any]:
    width = max(map(len, ids)) + 1
    width += width % 2 == 0  # every row is padded
    pads = [width - len(row) for row in ids]
    return {
        "input_ids": torch.tensor([row + [tokenizer.pad_token_id] * n for row, n in zip(ids, pads)]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * n for row, n in zip(ids, pads)]),
        "labels": torch.tensor([row + [IGNORE_INDEX] * n for row, n in zip(labels, pads)]),
    }


def right(tokenizer: PreTrainedTokenizerBase, name: str) -> dict[str, Any] | None:
    made = rows(tokenizer)
    labels = [labelled(one, name not in WRITES_NO_END) for one in made]
    return batch(tokenizer, [one["ids"] for one in made], labels) if made else None


def planted(tokenizer: PreTrainedTokenizerBase, name: str) -> Iterator[tuple[str, list[int], dict[str, Any]]]:
    """Yield a code, the rows that have it, and the batch."""
    made = rows(tokenizer)
    ids, every = [one["ids"] for one in made], list(range(len(made)))
    ends = name not in WRITES_NO_END
    good = [labelled(one, ends) for one in made]
    yield "labels.prompt", every, batch(tokenizer, ids, ids)

    def changed(change: Any) -> list[list[int]]:
        found = []
        for one, labels in zip(made, good):
            labels = list(labels)
            for answer in one["answers"]:
                change(one, labels, *answer)
            found.append(labels)
        return found

    def late(one: dict, labels: list[int], words: list[int], end: list[int], opens: int) -> None:
        labels[words[0]] = IGNORE_INDEX

    def early(one: dict, labels: list[int], words: list[int], end: list[int], opens: int) -> None:
        labels[opens - 2 : words[0]] = one["ids"][opens - 2 : words[0]]

    def endless(one: dict, labels: list[int], words: list[int], end: list[int], opens: int) -> None:
        for i in end:
            labels[i] = IGNORE_INDEX

    yield "labels.starts_late", every, batch(tokenizer, ids, changed(late))
    yield "labels.starts_early", every, batch(tokenizer, ids, changed(early))
    if ends:
        yield "labels.end_of_turn", every, batch(tokenizer, ids, changed(endless))
        longest = max(every, key=lambda i: len(ids[i]))
        cut = made[longest]["answers"][-1][0][-1]
        short = [row[:cut] if i == longest else row for i, row in enumerate(ids)]
        yield (
            "labels.end_cut_off",
            [longest],
            batch(tokenizer, short, [row[:cut] if i == longest else row for i, row in enumerate(good)]),
        )
    padded = batch(tokenizer, ids, good)
    padded["labels"][padded["attention_mask"] == 0] = tokenizer.pad_token_id
    yield "labels.padding", every, padded
    yield "labels.nothing_in_row", [0], batch(tokenizer, ids, [[IGNORE_INDEX] * len(ids[0]), *good[1:]])
    hidden = batch(tokenizer, ids, good)
    hidden["attention_mask"][:, 1] = 0
    yield "mask.hides_tokens", every, hidden


def result(tokenizer: PreTrainedTokenizerBase, name: str) -> dict[str, Any]:
    """Audit the right batch and the wrong ones of a template: what is false, found, not checked, missed."""
    tokenizer = with_template(tokenizer, name)
    good = right(tokenizer, name)
    if good is None:
        return {"words": False}
    report = audit(good, tokenizer=tokenizer)
    written = {"labels.no_end_written"} if name in WRITES_NO_END else set()
    counts: dict[str, Any] = {
        "words": True, "false": sorted(set(report.codes) - written), "read": TURNS not in report.not_checked,
        "found": 0, "not checked": 0, "missed": [],
    }  # fmt: skip
    for code, expected, wrong in planted(tokenizer, name):
        report = audit(wrong, tokenizer=tokenizer)
        found = {finding.code: finding.rows for finding in report.findings}
        others = set(found) - {code} - written
        if found.get(code) == expected and not others:
            counts["found"] += 1
        elif TURNS in report.not_checked and not others:
            counts["not checked"] += 1
        else:
            counts["missed"].append((code, expected, found))
    return counts


def counts(result: dict[str, Any]) -> dict[str, int] | None:
    """Count what a result holds; None where the template wants a message's text in another form."""
    if not result["words"]:
        return None
    many = {name: len(result[name]) for name in ("false", "missed")}
    return {"found": result["found"], "not checked": result["not checked"], **many}
