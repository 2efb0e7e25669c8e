"""What an audit found, written for a terminal, for a notebook and for a test suite."""

import html
import textwrap
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

import torch
from transformers import PreTrainedTokenizerBase

from tinylib import show

FAULTS: dict[str, dict[str, str]] = tomllib.loads(
    files("batchaudit").joinpath("faults.toml").read_text(encoding="utf-8")
)
"""By code: what it is, the symptom one would see, the cause, the fix, and the lesson that explains it."""

WINDOW = 8  # columns of a grid, at most
WIDTH = 80


@dataclass(frozen=True)
class Finding:
    """One fault of a batch.

    Attributes:
        code: A key of `FAULTS`; codes stay the same from version to version.
        places: For each row that has it, the columns of the batch where it is.
        grid: The first of these places, as tokens.
        detail: What was measured.
        batch: The number of the batch, if there were several.
        what: What it is; this and the rest are those of `FAULTS`.
        symptom: What one would see.
        cause: Why.
        fix: What to do.
        lesson: Where it is explained.
    """

    code: str
    places: Mapping[int, Sequence[int]]
    grid: str
    detail: str
    batch: int
    what: str
    symptom: str
    cause: str
    fix: str
    lesson: str

    @property
    def rows(self) -> list[int]:
        """The numbers of the rows."""
        return list(self.places)

    def where(self) -> str:
        """Say in which rows it is."""
        return ("row " if len(self.rows) == 1 else "rows ") + _numbers(self.rows)


@dataclass
class Report:
    """All that an audit has to say.

    Attributes:
        findings: The faults, in the order of a batch's life: ids, mask, labels, packing, model.
        checked: What was checked.
        not_checked: What was not, and why.
        batches: The shapes of the batches.
    """

    batches: list[tuple[int, int]]
    findings: list[Finding] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    not_checked: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def codes(self) -> list[str]:
        """The codes of the findings, each once."""
        return list(dict.fromkeys(finding.code for finding in self.findings))

    def raise_for_findings(self, allow: Collection[str] = ()) -> None:
        """Raise a ValueError with the whole report, if anything was found that is not allowed.

        Args:
            allow: Codes of what is intended, such as ``{"labels.prompt"}``.

        Raises:
            ValueError: Something was found; or there is no such code.
        """
        if unknown := set(allow) - set(FAULTS):
            raise ValueError(f"There is no fault {', '.join(map(repr, sorted(unknown)))} to allow.")
        if set(self.codes) - set(allow):
            raise ValueError(str(self))

    def _head(self) -> str:
        rows, widest = sum(rows for rows, _ in self.batches), max(seq for _, seq in self.batches)
        size = f"{_count(rows, 'row')} of up to {_count(widest, 'token')}"
        size += f" in {_count(len(self.batches), 'batch')}" if len(self.batches) > 1 else ""
        found = _count(len(self.findings), "finding") if self.findings else "no findings"
        return f"Audit of {size}: {found}."

    def _place(self, finding: Finding) -> str:
        batch = f"batch {finding.batch}, " if len(self.batches) > 1 else ""
        return batch + finding.where()

    def __str__(self) -> str:
        parts = [self._head()]
        for number, finding in enumerate(self.findings, 1):
            what = textwrap.fill(f"{number}. {finding.what}", WIDTH, subsequent_indent="   ")
            lines = [what, f"   [{finding.code}] {self._place(finding)}", ""]
            lines += [f"   {line}" for line in finding.grid.splitlines()] + [""]
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
        """Show a notebook a table of the findings, and below it what was not checked."""
        rows = ""
        for finding in self.findings:
            told = "".join(f"<br><b>{name}</b> {html.escape(text)}" for name, text in _told(finding).items())
            what = f"<b>{html.escape(finding.what)}</b><br><code>{finding.code}</code><br>"
            what += html.escape(self._place(finding))
            seen = (
                f'<pre style="overflow-x: auto">{html.escape(finding.grid)}</pre>{told.removeprefix("<br>")}'
            )
            cells = [
                f'<td style="text-align: left; vertical-align: top">{cell}</td>' for cell in (what, seen)
            ]
            rows += f"<tr>{''.join(cells)}</tr>"
        table = f"<table>{rows}</table>" if rows else ""
        listed = "".join(
            f"<li>{html.escape(f'{what}: {why}.')}</li>" for what, why in self.not_checked.items()
        )
        rest = f"<p>Not checked:</p><ul>{listed}</ul>" if listed else ""
        return f"<p><b>{html.escape(self._head())}</b></p>{table}{rest}"


def _told(finding: Finding) -> dict[str, str]:
    """Return what there is to say of a finding, by the word that introduces it."""
    told = {
        "Found": finding.detail, "Symptom": finding.symptom, "Cause": finding.cause, "Fix": finding.fix,
        "More": finding.lesson,
    }  # fmt: skip
    return {name: text for name, text in told.items() if text}


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "es" if thing.endswith("ch") else "s")


def _numbers(rows: Sequence[int], most: int = 8) -> str:
    """List numbers, those in sequence as a range."""
    ranges: list[list[int]] = []
    for row in rows:
        if ranges and row == ranges[-1][-1] + 1:
            ranges[-1] = [ranges[-1][0], row]
        else:
            ranges.append([row])
    named = [f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in ranges]
    return ", ".join(named[:most]) + (f", … ({len(rows)} in all)" if len(named) > most else "")


def _filled(name: str, text: str, margin: int = 9) -> str:
    indent = " " * (margin + 3)
    first = f"   {name:<{margin}}"
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=indent)


def draw(
    tensors: Mapping[str, torch.Tensor],
    places: Mapping[int, Sequence[int]],
    tokenizer: PreTrainedTokenizerBase | None,
) -> str:
    """Draw the first row that has a fault around its first place, with a mark under each.

    Args:
        tensors: ``input_ids`` and others of the same shape ``(rows, seq)``.
        places: For each row the columns to mark.
        tokenizer: Without one the ids are written as numbers.
    """
    row, columns = next(iter(places.items()))
    seq = tensors["input_ids"].shape[1]
    for window in range(WINDOW, 0, -1):
        first = max(0, min(columns[0] - window // 2 + 1, seq - window))
        shown = range(first, min(first + window, seq))
        block = {"column": [str(column) for column in shown]}
        for name, tensor in tensors.items():
            known = tokenizer if name in ("input_ids", "labels") else None
            values = tensor[row, shown.start : shown.stop].tolist()
            line = [show.token_string(known, value) for value in values]
            block[f"row {row}" if name == "input_ids" else name] = line
        block["problem"] = ["▲" if column in columns else "" for column in shown]
        drawn = show.grid(block)
        if len(drawn.splitlines()[0]) <= WIDTH - 3:
            break
    return drawn
