"""Grids line up, whatever is in them."""

import pytest
import torch
from bs4 import BeautifulSoup

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


def marks(grid: show.TokenGrid) -> list[str]:
    """Each line of the table: its name, and its cells, marked as they are."""
    table = BeautifulSoup(grid._repr_html_(), "html.parser")
    kinds = {"s": "~", "b": "*", "span": ""}
    lines = []
    for row in table.find_all("tr"):
        name = row.find("th", scope="row").text
        cells = [
            f"{kinds[cell.find(True).name]}{'grey ' * ('#8886' in cell['style'])}{cell.text} {cell['title']}"
            for cell in row.find_all("td")
        ]
        lines.append(f"{name}: " + ", ".join(cell.strip() for cell in cells))
    return lines


def test_a_notebook_shows_what_is_padding_hidden_or_learned(tinyllama: tuple) -> None:
    _, tokenizer = tinyllama
    pad_id = tokenizer.pad_token_id
    batch = pad([[5, pad_id, 6], [7] * 5], pad_id)
    batch["attention_mask"][0, 3] = 0
    batch["labels"] = batch["input_ids"].masked_fill(torch.arange(5) < 4, -100)
    five, six, seven = show.token_strings(tokenizer, [5, 6, 7])
    grid = show.token_grid(tokenizer, batch)
    assert marks(grid) == [
        f"row 0: ~grey </s> padding, ~grey </s> padding, {five}, ~</s> hidden, {six}",
        "attention_mask: ~grey 0 padding, ~grey 0 padding, 1, ~0 hidden, 1",
        f"labels: –, –, –, –, *{six} learned",
        f"row 1: {seven}, {seven}, {seven}, {seven}, {seven}",
        "attention_mask: 1, 1, 1, 1, 1",
        f"labels: –, –, –, –, *{seven} learned",
    ]
    assert repr(grid) == str(grid) == grid


def test_a_grids_tokens_are_no_html_and_a_mask_of_any_name_counts(shipped: tuple) -> None:
    _, tokenizer = shipped
    ids = torch.tensor([tokenizer("<b>x</b>&amp;")["input_ids"]])
    named = {"input_ids": ids, "mask <i>": (ids != ids[0, 0]), "all": torch.ones_like(ids)}
    html = show.token_grid(tokenizer, named)._repr_html_()
    table = BeautifulSoup(html, "html.parser")
    first = table.find("tr")
    assert "".join(cell.text for cell in first.find_all("td")) == "<b>x</b>&amp;"
    assert [name.text for name in table.find_all("th")] == ["row 0", "mask <i>", "all"]
    assert first.find("td")["title"] == "padding"
    assert len(html.splitlines()) == 6  # a line for each line: one reads what differs


def test_a_grid_of_text_has_80_columns_and_its_table_all_tokens(tinyllama: tuple) -> None:
    _, tokenizer = tinyllama
    batch = {"input_ids": torch.arange(300, 400)[None], "position_ids": torch.arange(100)[None]}
    grid = show.token_grid(tokenizer, batch)
    assert 60 < max(map(len, grid.splitlines())) <= 80
    assert grid._repr_html_().count("<td") == 200
    positions = grid.splitlines()[1].split("│")[1].split()
    first, last = "".join(f"{position} " for position in positions).split("… ")
    assert first.startswith("0 1 2 ")
    assert last.endswith("98 99 ")


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
