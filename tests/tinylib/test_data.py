"""The shipped chats are what their README says, and anybody's chats load in their place."""

import json
import random
import re
from pathlib import Path

import datasets
import pytest

from tinylib import data
from tinylib.messages import as_messages

README = (Path(data.__file__).parent / "README.md").read_text(encoding="utf-8")
TRAIN, TEST = data.load_chats("requests", "train"), data.load_chats("requests", "test")
ROW = {
    "messages": [{"role": "user", "content": "Hi, you!"}, {"role": "assistant", "content": 'A "word".\nTwo.'}]
}


def test_every_answer_is_one_line_of_strict_json_that_its_request_explains() -> None:
    fields = {
        "timer": ["minutes", "for"],
        "message": ["to", "text"],
        "light": ["room", "state"],
        "weather": ["place", "day"],
    }
    for row in [*TRAIN, *TEST]:
        system, *turns = row["messages"]
        assert system == {"role": "system", "content": "Answer in JSON."}
        for asked, answered in zip(turns[::2], turns[1::2]):
            assert (asked["role"], answered["role"]) == ("user", "assistant")
            answer = json.loads(answered["content"])
            assert answered["content"] == json.dumps(answer)
            assert list(answer) == ["action", *fields[answer["action"]]]
            for value in list(answer.values())[1:]:
                assert str(value).lower() in asked["content"].lower()


def test_held_out_requests_are_not_in_the_training_part() -> None:
    asked = [
        {m["content"] for row in part for m in row["messages"] if m["role"] == "user"}
        for part in (TRAIN, TEST)
    ]
    assert not asked[0] & asked[1]


def test_the_readmes_numbers_are_true() -> None:
    turns = [sum(m["role"] == "assistant" for m in row["messages"]) for row in TRAIN]
    numbers = [len(TRAIN), len(TEST), sum(n > 1 for n in turns), max(turns)]
    assert re.findall(r"\*\*(\d+)\*\*", README) == [str(n) for n in numbers]
    assert "Apache" in README


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "csv"])
def test_a_file_of_ones_own_takes_their_place(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"chats.{kind}"
    rows = datasets.Dataset.from_list([ROW, ROW])
    if kind == "parquet":
        rows.to_parquet(path)
    elif kind == "csv":
        rows.map(lambda row: {"messages": json.dumps(row["messages"])}, features=None).to_csv(path)
    else:
        rows.to_json(path)
    loaded = data.load_chats(str(path))
    assert [as_messages(row) for row in loaded] == [ROW["messages"]] * 2


def test_prompt_and_completion_load_too(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("prompt,completion\nHi!,Hello.\n", encoding="utf-8")
    (row,) = data.load_chats(str(path))
    assert as_messages(row)[1] == {"role": "assistant", "content": "Hello."}


def test_what_is_no_data_set_of_chats_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other, broken = tmp_path / "other.csv", tmp_path / "broken.jsonl"
    other.write_text("question,answer\na,b\n", encoding="utf-8")
    broken.write_text('{"messages": [\n', encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"other.csv' could not be read: A row needs 'messages' .* has 'question', 'answer'"
    ):
        data.load_chats(str(other))
    with pytest.raises(ValueError, match=r"broken.jsonl' could not be read"):
        data.load_chats(str(broken))
    with pytest.raises(ValueError, match="No such file"):
        data.load_chats(str(tmp_path / "none.jsonl"))
    with pytest.raises(ValueError, match="has the splits 'train' and 'test', not 'validation'"):
        data.load_chats("requests", "validation")


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    """Floats in calls, and text that looks like JSON beside rows whose contents are lists."""
    draw = random.Random(0).uniform
    place = {"lat": [draw(-90, 90) for _ in range(1000)], "tiny": 5e-324, "zip": "00123"}
    call = [{"function": {"name": "weather", "arguments": place}}]
    rows = [
        {"messages": [{"role": "user", "content": "5"}, {"role": "assistant", "content": '"hi"'}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "5"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": call}], "n": 1},
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = data.load_chats(str(path))["messages"][:]
    assert read == [row["messages"] for row in rows]
