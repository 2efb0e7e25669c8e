"""What a file of chats would become, before anything is trained on it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from batchaudit.checkpoint import told
from batchaudit.report import Report
from batchaudit.turns import read_template

LISTS = ("messages", "conversations", "conversation")
"""Columns in which a data set may hold a list of messages."""
ROLES = ("system", "user", "assistant", "tool")


def rows_of(path: Path) -> Iterator[Any]:
    """Read the lines of a JSONL file, or the list of a JSON file.

    Raises:
        ValueError: It is neither; the message names the line.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        yield from json.loads(text)
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number} is no JSON: {error}") from error


def audit_chats(
    path: str | Path, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None
) -> Report:
    """Look at a file of chats: empty answers, roles that the template does not write, forged turns, lengths.

    Args:
        path: JSONL, or a JSON list: rows with ``messages`` (or one of `LISTS`), or ``prompt`` and
            ``completion``.
        tokenizer: With a chat template.
        max_length: Where rows would be cut, in tokens; None if nowhere.

    Raises:
        ValueError: The file cannot be read, a row is no chat, or the tokenizer has no chat template.
    """
    if max_length is not None and max_length < 1:
        raise ValueError(f"The length at which rows are cut must be at least 1, not {max_length}.")
    if tokenizer.chat_template is None:
        raise ValueError("The tokenizer has no chat template: there is nothing that writes a chat.")
    template, why = read_template(tokenizer)
    marks = {tokenizer.bos_token_id, tokenizer.eos_token_id} | (template.frame if template else set())
    specials = {tokenizer.convert_ids_to_tokens(i) for i in marks - {None}}
    written = str(tokenizer.chat_template)
    unknown, empty, forged, texts, at = [], [], [], [], []
    roles: set[str] = set()
    count = 0
    for number, row in enumerate(rows_of(Path(path))):
        count += 1
        messages = _messages(row, number)
        if any(special in m["content"] for m in messages for special in specials):
            forged.append(number)
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False)
        except Exception:  # a template raises what it likes
            text = ""
        missing = {m["role"] for m in messages if m["content"].strip() not in text}
        # Many templates write whatever stands there: a header that the model does not know.
        missing |= {m["role"] for m in messages if m["role"] not in ROLES and m["role"] not in written}
        if missing:
            unknown.append(number)
            roles |= missing
        else:
            texts.append(text)
            at.append(number)
            said = [m["content"] for m in messages if m["role"] == "assistant"]
            if not said or not all(map(str.strip, said)):
                empty.append(number)
    if not count:
        raise ValueError(f"There is no chat in {path}.")
    report = Report([], subject=f"{count} chats")
    found = [("chat.unknown_role", unknown, f"They are: {', '.join(map(repr, sorted(roles)))}"),
             ("chat.empty_answer", empty, ""),
             ("chat.forged_turn", forged, "Special tokens are spelled out in somebody's words")]  # fmt: skip
    report.checked += ["roles", "answers", "words that spell out special tokens"]
    if texts:
        lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]
        report.checked.append(f"lengths: {min(lengths)} to {max(lengths)} tokens")
        if max_length is not None:
            cut = [number for number, length in zip(at, lengths) if length > max_length]
            share = (
                f"{len(cut)} of {count} chats are longer than {max_length} tokens ({len(cut) / count:.0%})"
            )
            found.append(("labels.end_cut_off", cut, share))
    if max_length is None:
        report.not_checked["what is cut"] = "give the length at which rows are cut, --max-length"
    if template is None:
        report.not_checked["turns, answers and their ends"] = why
    for code, rows, detail in found:
        if rows:
            several = f"{len(rows)} of {count} chats"
            report.findings.append(
                told(code, detail if detail.startswith(several) else f"{several}. {detail}", rows)
            )
    return report


def _messages(row: Any, number: int) -> list[dict[str, str]]:
    """Read a row as messages with a role and a text.

    Raises:
        ValueError: It is none; the message gives its number.
    """
    listed = next((row[name] for name in LISTS if isinstance(row, dict) and name in row), row)
    if isinstance(row, dict) and listed is row and "prompt" in row and "completion" in row:
        listed = []
        for name, role in (("prompt", "user"), ("completion", "assistant")):
            value = row[name]
            listed += [{"role": role, "content": value}] if isinstance(value, str) else list(value)
    if not isinstance(listed, list) or not all(isinstance(message, dict) for message in listed):
        raise ValueError(f"Row {number} is no chat: it needs 'messages', or 'prompt' and 'completion'.")
    return [
        {
            "role": str(message.get("role", message.get("from", ""))),
            "content": str(message.get("content", message.get("value")) or ""),
        }
        for message in listed
    ]
