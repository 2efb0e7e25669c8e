"""Grids line up, whatever is in them."""

import pytest
import torch

from tinylib import show
from tinylib.padding import pad, position_ids


def test_a_token_grid_lines_up_under_the_tokens(tinyllama: tuple) -> None:
    _, tokenizer = tinyllama
    ids = tokenizer("Name three fruits.", add_special_tokens=False)["input_ids"]
    batch = pad([ids, [5] * (len(ids) + 2)], tokenizer.pad_token_id)
    batch["position_ids"] = position_ids(batch["attention_mask"])
    grid = show.token_grid(tokenizer, batch)
    assert grid.split("\n\n")[0].splitlines() == [
        "row 0          │   </s>   </s>   Name ·three ·fruits.",
        "attention_mask │      0      0      1      1        1",
        "position_ids   │      0      0      0      1        2",
    ]
    assert len({len(line) for line in grid.splitlines() if line}) == 1  # all rows make one rectangle
    second = show.token_grid(tokenizer, batch, rows=[1])
    assert second.startswith("row 1 ")
    assert "row 0" not in second


def test_a_wide_grid_is_cut_in_the_middle(tinyllama: tuple) -> None:
    _, tokenizer = tinyllama
    ids = torch.arange(260, 300)[None]
    line = show.token_grid(tokenizer, {"input_ids": ids}, columns=4)
    tokens = show.token_strings(tokenizer, ids[0])
    assert line.split(" │ ")[1].split(" ") == [*tokens[:2], "…", *tokens[-2:]]


def test_a_grid_of_tensors_that_do_not_fit_is_refused(tinyllama: tuple) -> None:
    _, tokenizer = tinyllama
    batch = {"input_ids": torch.ones(1, 3, dtype=torch.long), "attention_mask": torch.ones(1, 4)}
    with pytest.raises(ValueError, match=r"attention_mask has shape \(1, 4\), input_ids \(1, 3\)"):
        show.token_grid(tokenizer, batch)


def test_spaces_and_line_breaks_are_visible(shipped: tuple) -> None:
    _, tokenizer = shipped
    ids = tokenizer("a cat\n", add_special_tokens=False)["input_ids"]
    assert show.token_strings(tokenizer, ids) == ["a", "·cat", "⏎"]


def test_answers_are_cut_to_the_width() -> None:
    text = show.answers(
        ["Hi!", "word " * 40], {"alone": ["one\ntwo", "x" * 200], "batch": ["a", "b"]}, width=40
    )
    assert "alone │ one⏎two" in text
    assert max(map(len, text.splitlines())) == 40
