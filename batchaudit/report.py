"""What an audit found, written for a terminal, for a notebook, for a program and for a test suite."""

import html
import textwrap
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from tinylib import show


def _texts(name: str) -> dict[str, Any]:
    return tomllib.loads(files("batchaudit").joinpath(name).read_text(encoding="utf-8"))


FAULTS: dict[str, dict[str, str]] = _texts("faults.toml")
"""By code: what it is, the symptom one would see, the cause, the fix, and the lesson that explains it."""
VARIANTS: dict[str, dict[str, dict[str, str]]] = _texts("variants.toml")
"""By code and variant: the texts that take the place of those, where it is known who is to blame."""

WINDOW = 8  # columns of a grid, at most
WIDTH = 80
_TOKEN = 14  # letters of a token that are shown


@dataclass(frozen=True)
class Finding:
    """One fault of a batch.

    Attributes:
        code: A key of `FAULTS`; codes stay the same from version to version.
        places: For each row that has it, the columns of the batch where it is.
        table: The first of these places, as tokens: named lines of texts.
        detail: What was measured.
        batch: The number of the batch, if there were several.
        severity: ``"fault"``, or ``"note"`` if it may be meant so.
        what: What it is; this and the rest are those of `FAULTS`.
        symptom: What one would see.
        cause: Why.
        fix: What to do.
        lesson: Where it is explained.
        later_batches: The numbers of others that have it too.
    """

    code: str
    places: Mapping[int, Sequence[int]]
    table: Mapping[str, Sequence[str]]
    detail: str
    batch: int
    severity: str
    what: str
    symptom: str
    cause: str
    fix: str
    lesson: str
    later_batches: list[int] = field(default_factory=list)

    @property
    def rows(self) -> list[int]:
        """The numbers of the rows."""
        return list(self.places)

    @property
    def grid(self) -> str:
        """The table as text, with a mark under each place; empty if there is none."""
        return show.grid(self.table) if self.table else ""

    def where(self) -> str:
        """Say in which rows it is."""
        return ("row " if len(self.rows) == 1 else "rows ") + _numbers(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as numbers, texts, lists and dictionaries, as JSON can hold them."""
        names = ("code", "severity", "batch", "detail", "what", "symptom", "cause", "fix", "lesson")
        return {name: getattr(self, name) for name in names} | {
            "rows": self.rows,
            "places": {str(row): list(columns) for row, columns in self.places.items()},
            "later_batches": list(self.later_batches),
        }


@dataclass
class Report:
    """All that an audit has to say.

    Attributes:
        batches: The shapes of the batches.
        findings: Faults and notes, in the order of a batch's life: ids, mask, labels, packing, model.
        checked: What was checked.
        not_checked: What was not, and why.
        subject: What was audited, if not batches.
    """

    batches: list[tuple[int, int]]
    findings: list[Finding] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    not_checked: dict[str, str] = field(default_factory=dict)
    subject: str = ""

    @property
    def faults(self) -> list[Finding]:
        """The findings that are no mere notes."""
        return [finding for finding in self.findings if finding.severity == "fault"]

    @property
    def ok(self) -> bool:
        """Whether there is no fault. (There may be notes: what may be meant so.)"""
        return not self.faults

    @property
    def codes(self) -> list[str]:
        """The codes of the findings, notes too, each once."""
        return list(dict.fromkeys(finding.code for finding in self.findings))

    def raise_for_findings(self, allow: Collection[str] = ()) -> None:
        """Raise a ValueError with the whole report, if there is a fault that is not allowed.

        Args:
            allow: Codes of what is intended, such as ``{"labels.prompt"}``.

        Raises:
            ValueError: There is one; or there is no such code.
        """
        if self.not_allowed(allow):
            raise ValueError(str(self))

    def not_allowed(self, allow: Collection[str]) -> list[Finding]:
        """Return the faults of other codes than these.

        Raises:
            ValueError: There is no such code.
        """
        allow = [allow] if isinstance(allow, str) else allow
        if unknown := set(allow) - set(FAULTS):
            raise ValueError(f"There is no fault {', '.join(map(repr, sorted(unknown)))} to allow.")
        return [finding for finding in self.faults if finding.code not in allow]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as numbers, texts, lists and dictionaries, as JSON can hold them."""
        return {
            "ok": self.ok,
            "subject": self.subject or "batches",
            "batches": [list(shape) for shape in self.batches],
            "findings": [finding.to_dict() for finding in self.findings],
            "checked": list(self.checked),
            "not_checked": dict(self.not_checked),
        }

    def _head(self) -> str:
        size = self.subject
        if not size:
            rows, widest = sum(rows for rows, _ in self.batches), max(seq for _, seq in self.batches)
            size = f"{_count(rows, 'row')} of up to {_count(widest, 'token')}"
            size += f" in {_count(len(self.batches), 'batch')}" if len(self.batches) > 1 else ""
        notes = len(self.findings) - len(self.faults)
        told = [_count(len(self.faults), "finding")] if self.faults else []
        told += [_count(notes, "note")] if notes else []
        return f"Audit of {size}: {' and '.join(told) or 'no findings'}."

    def _place(self, finding: Finding) -> str:
        if not finding.places:
            return ""
        batch = f"batch {finding.batch}, " if len(self.batches) > 1 else ""
        later = finding.later_batches
        also = f" (and in {'batch' if len(later) == 1 else 'batches'} {_numbers(later)})" if later else ""
        return batch + finding.where() + also

    def __str__(self) -> str:
        parts = [textwrap.fill(self._head(), WIDTH)]
        for number, finding in enumerate(self.findings, 1):
            note = "Note: " if finding.severity == "note" else ""
            what = textwrap.fill(f"{number}. {note}{finding.what}", WIDTH, subsequent_indent="   ")
            place = textwrap.fill(
                f"[{finding.code}] {self._place(finding)}",
                WIDTH,
                initial_indent="   ",
                subsequent_indent="   ",
            )
            lines = [what, place, ""]
            lines += [f"   {line}" for line in finding.grid.splitlines()] + [""] * bool(finding.grid)
            lines += [_filled(name, text) for name, text in _told(finding).items()]
            parts.append("\n".join(line.rstrip() for line in lines))
        if self.checked:
            parts.append(_filled("Checked", "; ".join(self.checked) + "."))
        if self.not_checked:
            listed = [_filled("-", f"{what}: {why}.", 2) for what, why in self.not_checked.items()]
            parts.append("\n".join(["   Not checked", *listed]))
        return "\n\n".join(parts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Show a notebook a table of the findings with coloured grids, and below it what was not checked."""
        rows = ""
        for finding in self.findings:
            told = "".join(f"<br><b>{name}</b> {html.escape(text)}" for name, text in _told(finding).items())
            note = "Note: " if finding.severity == "note" else ""
            what = f"<b>{note}{html.escape(finding.what)}</b><br><code>{finding.code}</code><br>"
            what += html.escape(self._place(finding))
            seen = _coloured(finding.table) + told.removeprefix("<br>")
            rows += "<tr>" + "".join(f'<td style="{_LEFT}">{cell}</td>' for cell in (what, seen)) + "</tr>"
        table = f"<table>{rows}</table>" if rows else ""
        listed = "".join(
            f"<li>{html.escape(f'{what}: {why}.')}</li>" for what, why in self.not_checked.items()
        )
        done = f"<p>Checked: {html.escape('; '.join(self.checked))}.</p>" if self.checked else ""
        rest = f"<p>Not checked:</p><ul>{listed}</ul>" if listed else ""
        return f"<p><b>{html.escape(self._head())}</b></p>{table}{done}{rest}"


_LEFT = "text-align: left; vertical-align: top"


def _coloured(table: Mapping[str, Sequence[str]]) -> str:
    """Draw a finding's table: what is at fault in red, what is learned in green, what is hidden in grey."""
    if not table:
        return ""
    marked = [bool(mark) for mark in table["problem"]]
    lines = ""
    for name, line in table.items():
        cells = ""
        for text, wrong in zip(line, marked):
            learned, hidden = name == "labels" and text != "–", name == "attention_mask" and text == "0"
            colour = "#f8c8c8" if wrong else "#cfe8cf" if learned else "#d8d8d8" if hidden else ""
            style = "font-family: monospace; text-align: center; padding: 1px 4px"
            style += f"; background: {colour}; color: black" if colour else ""
            cells += f'<span style="display: table-cell; {style}">{html.escape(text)}</span>'
        name = f'<span style="display: table-cell; padding-right: 6px">{html.escape(name)}</span>'
        lines += f'<span style="display: table-row">{name}{cells}</span>'
    return f'<span style="display: table; overflow-x: auto">{lines}</span>'


def texts_of(code: str, variant: str = "") -> dict[str, str]:
    """Return what there is to say of a code, or of one of its causes."""
    return FAULTS[code] | VARIANTS.get(code, {}).get(variant, {})


def finding_of(code: str, detail: str, rows: Sequence[int] = ()) -> Finding:
    """Make a fault of what is no batch: of a checkpoint, or of some chats of a file."""
    return Finding(code, {row: [] for row in rows}, {}, detail, 0, "fault", **texts_of(code))


def _told(finding: Finding) -> dict[str, str]:
    """Return what there is to say of a finding, by the word that introduces it."""
    told = {
        "Found": finding.detail, "Symptom": finding.symptom, "Cause": finding.cause, "Fix": finding.fix,
        "More": finding.lesson,
    }  # fmt: skip
    return {name: text for name, text in told.items() if text}


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "es" if thing.endswith("ch") else "s")


def _numbers(rows: Sequence[int]) -> str:
    """List numbers, those in sequence as a range; at most eight of these."""
    ranges: list[list[int]] = []
    for row in rows:
        if ranges and row == ranges[-1][-1] + 1:
            ranges[-1] = [ranges[-1][0], row]
        else:
            ranges.append([row])
    named = [f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in ranges]
    return ", ".join(named[:8]) + (f", … ({len(rows)} in all)" if len(named) > 8 else "")


def _filled(name: str, text: str, margin: int = 9) -> str:
    indent = " " * (margin + 3)
    first = f"   {name:<{margin}}"
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=indent)


def table_of(
    tensors: Mapping[str, torch.Tensor],
    places: Mapping[int, Sequence[int]],
    tokenizer: PreTrainedTokenizerBase | None,
) -> dict[str, list[str]]:
    """Write the first row that has a fault around its first place, with a mark under each.

    Args:
        tensors: ``input_ids`` and others of the same shape ``(rows, seq)``.
        places: For each row the columns to mark.
        tokenizer: Without one the ids are written as numbers.

    Returns:
        Named lines of texts, as many columns as fit a report.
    """
    row, columns = next(iter(places.items()))
    seq = tensors["input_ids"].shape[1]
    for window in range(WINDOW, 0, -1):
        first = max(0, min(columns[0] - window // 2 + 1, seq - window))
        shown = range(first, min(first + window, seq))
        table = {"column": [str(column) for column in shown]}
        for name, tensor in tensors.items():
            values = tensor[row, shown.start : shown.stop].tolist()
            table[f"row {row}" if name == "input_ids" else name] = [
                _shortened(show.token_string(tokenizer, value))
                if name in ("input_ids", "labels")
                else str(value)
                for value in values
            ]
        table["problem"] = ["▲" if column in columns else "" for column in shown]
        if len(show.grid(table).splitlines()[0]) <= WIDTH - 3:
            break
    return table


def _shortened(token: str) -> str:
    return token if len(token) <= _TOKEN else token[: _TOKEN - 1] + "…"
