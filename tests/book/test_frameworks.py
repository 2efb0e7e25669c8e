"""The page of the audited frameworks: it is the stored run, and that agrees with what was read by hand."""

import json
import re
import sys

import pytest
from lessons import ROOT

sys.path.append(str(ROOT / "book"))
import sources

FOLDER = ROOT / "benchmarks" / "frameworks"
TRUTH, RESULTS = sources.framework_truth(), sources.framework_results()


def test_the_stored_run_is_of_all_modes_and_pinned_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    import modes

    ran = [(result["wheel"], result["mode"]) for result in RESULTS]
    assert ran == [(mode.wheel, mode.name) for mode in modes.MODES]
    lines = (FOLDER / "wheels.txt").read_text(encoding="utf-8").splitlines()
    wheels = [line for line in lines if not line.startswith("#")]
    assert wheels == list(dict.fromkeys(wheel for wheel, _ in ran))
    assert set(ran) == {(wheel, name) for wheel in wheels for name in TRUTH[wheel]}
    assert set(TRUTH) == {"lines", *wheels}
    assert len({wheel.split("==")[0] for wheel in wheels}) >= 12
    assert len(ran) >= 30
    assert len(modes.chats()) == 12


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: f"{result['wheel']}, {result['mode']}")
def test_the_audit_says_what_is_so(result: dict) -> None:
    so = TRUTH[result["wheel"]][result["mode"]]
    faults, notes = so.get("faults", {}), so.get("notes", {})
    found = {code: finding["rows"] for code, finding in result["findings"].items()}
    assert found.keys() <= faults.keys() | notes.keys()
    assert ("wrong" in so) == bool(faults)
    for code, rows in (faults | notes).items():
        assert found.get(code) == rows or "turns, answers and their ends" in result["not_checked"]
        assert result["outcomes"][code] == ("found" if code in found else "not checked")
    for code, finding in result["findings"].items():
        assert finding["severity"] == ("note" if code in notes else "fault")


def test_the_page_has_every_mode_and_finding() -> None:
    page = sources.frameworks_list()
    for result in RESULTS:
        assert f"**`{result['mode']}`**" in page
        for code in result["outcomes"]:
            assert f"(#{code})" in page
    assert str(ROOT) not in json.dumps(RESULTS)
    counts = sources.frameworks_counts()
    assert "| false alarms | 0 |" in counts
    assert "| missed | 0 |" in counts


def test_the_readme_counts_as_the_page_does() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    counts = dict(re.findall(r"\| ([^|]+) \| (\d+) \|", sources.frameworks_counts()))
    assert f"{counts['frameworks']} training frameworks' own code, in {counts['modes']} modes" in readme
    assert f"none of the {counts['modes in which nothing is wrong']} in which nothing is wrong" in readme
    found, all_of_them = counts["of these found, in just these rows"], counts["faults and notes that are so"]
    assert f"{found} of the {all_of_them} faults and notes" in readme
    rows = [line for line in sources.templates_table().splitlines() if line.startswith("| `")]
    tried = [row for row in rows if "not tried" not in row]
    assert f"{len(tried)} of the {len(rows)} templates that TRL brings along" in readme
