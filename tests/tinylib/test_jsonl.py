"""The reader of JSON against Python's own, which wrote the rows."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinylib.jsonl import json_rows

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ROW = st.dictionaries(TEXT, TEXT | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.none())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(rows=st.lists(ROW), ascii=st.booleans(), indent=st.sampled_from([None, 2]), mark=st.booleans())
def test_rows_come_back_as_they_were_written(
    tmp_path: Path, rows: list, ascii: bool, indent: int | None, mark: bool
) -> None:
    path, options = tmp_path / "rows.json", {"ensure_ascii": ascii}
    texts = [json.dumps(rows, indent=indent, **options), "\n".join(json.dumps(r, **options) for r in rows)]
    for text in texts:
        data = text.encode("utf-8-sig" if mark else "utf-8")
        path.write_bytes(data)
        assert list(json_rows(path)) == rows
        (tmp_path / "rows.JSON.GZ").write_bytes(gzip.compress(data))
        assert list(json_rows(tmp_path / "rows.JSON.GZ")) == rows


def test_a_line_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 1}\n[2]\n\n{"n": 3}\noops\n')
    rows = json_rows(path)
    assert [next(rows) for _ in range(3)] == [{"n": 1}, [2], {"n": 3}]
    with pytest.raises(ValueError, match="line 5 is no JSON"):
        next(rows)


def test_a_gzip_that_breaks_off_is_no_shorter_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"n": 1}\n' * 10_000)[:-10])
    with pytest.raises(ValueError, match="no whole gzip file"):
        list(json_rows(path))
