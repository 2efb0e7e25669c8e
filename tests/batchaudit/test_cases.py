"""Kinds of batches on which an auditor goes wrong: nothing is said that is not so, nothing left out."""

from typing import Any

import pytest
from cases import cases

from batchaudit import audit

ARGUMENTS = {"tok": "tokenizer", "model": "model", "loss": "loss", "purpose": "purpose"}
OTHERS = {"must", "may", "or_unchecked", "cause_not", "notes"}


@pytest.fixture(scope="module")
def all_cases() -> list[tuple[str, dict[str, Any]]]:
    return list(cases())


def wrong_with(case: dict[str, Any]) -> list[str]:
    batch = {name: value for name, value in case.items() if name not in ARGUMENTS.keys() | OTHERS}
    report = audit(batch, **{ARGUMENTS[name]: case[name] for name in ARGUMENTS if name in case})
    found = {finding.code: finding.rows for finding in report.findings}
    said = " ".join(report.not_checked)
    unchecked = case.get("or_unchecked") and any(word in said for word in ("turn", "end", "sample"))
    must, may = case.get("must", {}), case.get("may", [])
    wrong = [
        code
        for code, rows in must.items()
        if found.get(code) != rows and not (code not in found and unchecked)
    ]
    faults = {finding.code for finding in report.faults}
    wrong += [f"{code}: a fault, no note" for code in case.get("notes", ()) if code in faults]
    wrong += [f"{code}: not so" for code in found if code not in must and code not in may]
    if any(case.get("cause_not", "\0") in finding.cause for finding in report.findings):
        wrong.append("blames the wrong one")
    return wrong


def test_what_is_said_is_so(all_cases: list[tuple[str, dict[str, Any]]]) -> None:
    wrong = {name: found for name, case in all_cases if (found := wrong_with(case))}
    assert not wrong, wrong
    assert len(all_cases) > 90
