"""What a file of chats would become, before anything is trained on it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from batchaudit.report import Report, finding_of
from batchaudit.turns import read_template
from tinylib.chat import find_left_out
from tinylib.jsonl import json_rows, kind_of
from tinylib.messages import Messages, as_messages, to_learn, tools_of, unknown_roles

TOLD = {  # of each fault: what is told with it, and what stands between several
    "chat.unknown_role": ("They are: {}", ", "),
    "chat.refused": ("It says: {}", "; "),
    "chat.left_out": ("It does not write {}", " and "),
    "chat.empty_answer": ("", ""),
    "chat.forged_turn": ("Special tokens are spelled out in somebody's words", ""),
}

NOT_WRITTEN = {"tools": "the row's tools", "tool_calls": "calls"}


def rows_of(path: Path) -> Iterator[Any]:
    """Read the rows of a file: of CSV, TSV or Parquet as `tinylib.data.load_chats`, else as `json_rows` does.

    Raises:
        ValueError: It cannot be read; the message names the line. Or it is a table, and what reads
            it, the packages of the course, is not installed.
    """
    if kind_of(path) in (".csv", ".tsv", ".parquet"):
        try:
            from tinylib.data import load_chats
        except ImportError as error:
            raise ValueError(f"{path} needs the package {error.name}; JSONL needs none.") from error
        yield from load_chats(str(path))
        return
    try:
        yield from json_rows(path)
    except ValueError as error:
        raise ValueError(f"{path} could not be read: {error}") from error


def audit_chats(
    path: str | Path, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None
) -> Report:
    """Look at a file of chats: what the template refuses or leaves out, empty answers, forged turns, lengths.

    Args:
        path: JSONL, a JSON list, CSV, TSV or Parquet: rows that `tinylib.messages.as_messages` reads.
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
    rows: dict[str, list[int]] = {code: [] for code in TOLD}
    details: dict[str, set[str]] = {code: set() for code in TOLD}
    lengths: dict[int, int] = {}
    count = 0
    for number, row in enumerate(rows_of(Path(path))):
        count += 1
        try:
            messages, tools = as_messages(row, must_speak=""), tools_of(row)
        except ValueError as error:
            raise ValueError(f"Row {number} is no chat: {error}") from error
        text, found = _look(tokenizer, messages, tools, specials)
        for code, said in found.items():
            rows[code].append(number)
            details[code] |= said
        if text is not None:
            ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            lengths[number] = len(ids)
    if not count:
        raise ValueError(f"There is no chat in {path}.")
    report = Report([], subject=f"{count} chats")
    report.checked += ["roles", "tools and calls", "answers", "words that spell out special tokens"]
    for code, (detail, between) in TOLD.items():
        if rows[code]:
            detail = detail.format(between.join(sorted(details[code])[:9]))
            several = f"{len(rows[code])} of {count} chats. {detail}"
            report.findings.append(finding_of(code, several, rows[code]))
    if lengths:
        report.checked.append(f"lengths: {min(lengths.values())} to {max(lengths.values())} tokens")
    if max_length is None:
        report.not_checked["what is cut"] = "give the length at which rows are cut, --max-length"
    elif cut := [number for number, length in lengths.items() if length > max_length]:
        longer = f"are longer than {max_length} tokens ({len(cut) / count:.0%})"
        report.findings.append(finding_of("labels.end_cut_off", f"{len(cut)} of {count} chats {longer}", cut))
    if template is None:
        report.not_checked["turns, answers and their ends"] = why
    return report


def _look(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: list[Any] | None, specials: set[str]
) -> tuple[str | None, dict[str, set[str]]]:
    """Write one chat: return its text, None if there is none to train on, and its faults, with details."""
    found: dict[str, set[str]] = {}
    if any(special in message["content"] for message in messages for special in specials):
        found["chat.forged_turn"] = set()
    strange = unknown_roles(messages, str(tokenizer.chat_template))
    try:
        text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
    except Exception as error:  # a template raises what it likes
        text, refusal = None, {f"{error!s:.200}"}
    else:
        missing = list(find_left_out(tokenizer, messages, text, tools))
        silent = {messages[i]["role"] for name, i in missing if name == "content"}
        heard = {m["role"] for i, m in enumerate(messages) if ("content", i) not in missing}
        strange |= silent - heard - {"user", "assistant"}  # every template knows these
        details = {NOT_WRITTEN[name] for name, _ in missing if name in NOT_WRITTEN}
        if details := details | {f"some words of {role!r}" for role in silent - strange}:
            found["chat.left_out"] = details
    if strange:
        return None, found | {"chat.unknown_role": {repr(role) for role in strange}}
    if text is None:
        return None, found | {"chat.refused": refusal}
    answers = [m.get("tool_calls") or m["content"].strip() for m in messages if m["role"] == "assistant"]
    if not to_learn(messages) or not all(answers):
        found["chat.empty_answer"] = set()
    return text, found
