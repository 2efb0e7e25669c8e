"""What a file of chats would become, before anything is trained on it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from batchaudit.checkpoint import told
from batchaudit.report import Report
from batchaudit.turns import read_template
from tinylib.jsonl import json_rows
from tinylib.messages import as_messages, tools_of

ROLES = ("system", "user", "assistant", "tool")


def rows_of(path: Path) -> Iterator[Any]:
    """Read the rows of a file: of CSV or Parquet as `tinylib.data.load_chats`, else as `json_rows` does.

    Raises:
        ValueError: It cannot be read; the message names the line. Or it is CSV or Parquet, and what reads
            these, the packages of the course, is not installed.
    """
    if Path(path.name.lower().removesuffix(".gz")).suffix in (".csv", ".tsv", ".parquet"):
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
        path: JSONL, a JSON list, CSV or Parquet: rows that `tinylib.messages.as_messages` reads.
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
    unknown, refused, lacks, empty, forged, texts, at = [], [], [], [], [], [], []
    roles, said, parts = set(), set(), set()
    count = 0
    for number, row in enumerate(rows_of(Path(path))):
        count += 1
        try:
            messages, tools = as_messages(row, must_speak=""), tools_of(row)
        except ValueError as error:
            raise ValueError(f"Row {number} is no chat: {error}") from error
        if any(special in m["content"] for m in messages for special in specials):
            forged.append(number)
        # Many templates write whatever stands there: a header that the model does not know.
        strange = {m["role"] for m in messages if m["role"] not in ROLES and m["role"] not in written}
        try:
            text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
        except Exception as error:  # a template raises what it likes
            text, why_not = None, f"{error!s:.200}"
        if text is not None:
            unheard = [m["role"] for m in messages if m["content"].strip() not in text]
            heard = {m["role"] for m in messages if m["content"].strip() in text}
            strange |= set(unheard) - heard - {"user", "assistant"}  # every template knows these
            lacking = set(_left_out(tokenizer, messages, tools, text))
            lacking |= {f"some words of {role!r}" for role in set(unheard) - strange}
            if lacking:
                lacks.append(number)
                parts |= lacking
        elif not strange:
            refused.append(number)
            said |= {why_not} if len(said) < 3 else set()
        if strange:
            unknown.append(number)
            roles |= strange
        if strange or text is None:
            continue
        texts.append(text)
        at.append(number)
        answers = [m.get("tool_calls") or m["content"].strip() for m in messages if m["role"] == "assistant"]
        if not answers or not all(answers):
            empty.append(number)
    if not count:
        raise ValueError(f"There is no chat in {path}.")
    report = Report([], subject=f"{count} chats")
    found = [("chat.unknown_role", unknown, f"They are: {', '.join(map(repr, sorted(roles)))}"),
             ("chat.refused", refused, f"It says: {'; '.join(sorted(said))}"),
             ("chat.left_out", lacks, f"It does not write {' and '.join(sorted(parts))}"),
             ("chat.empty_answer", empty, ""),
             ("chat.forged_turn", forged, "Special tokens are spelled out in somebody's words")]  # fmt: skip
    report.checked += ["roles", "tools and calls", "answers", "words that spell out special tokens"]
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


def _left_out(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], tools: list[Any] | None, text: str
) -> Iterator[str]:
    """Name tools and calls that make no difference to the text that a template writes."""

    def write(messages: list[dict[str, Any]], tools: list[Any] | None) -> str:
        try:
            return tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
        except Exception:  # what it refuses without, it has looked at
            return ""

    if tools and write(messages, None) == text:
        yield "the row's tools"
    for i, message in enumerate(messages):
        without = {name: value for name, value in message.items() if name != "tool_calls"}
        if without != message and write([*messages[:i], without, *messages[i + 1 :]], tools) == text:
            yield "calls"
