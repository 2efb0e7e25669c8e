"""What a reader sees: grids line up, figures carry alt text, warnings are caught and given back."""

import logging
import threading
import warnings

import numpy as np
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


def test_library_warnings_are_collected_again_and_handlers_restored(
    tinyllama: tuple, capfd: pytest.CaptureFixture[str]
) -> None:
    model, _ = tinyllama
    batch = pad([[5, 6], [7]], pad_id=2, side="right")
    handlers = list(logging.getLogger("transformers").handlers)
    for _ in range(2):  # transformers gives this one once per process; here every time
        with show.library_warnings() as said:
            model.generate(**batch, max_new_tokens=1, do_sample=False, pad_token_id=2)
        assert any("right-padding was detected" in message for message in said)
    assert logging.getLogger("transformers").handlers == handlers
    assert capfd.readouterr().err == ""


def test_two_threads_that_catch_warnings_leave_everything_as_it_was() -> None:
    handlers, filters = list(logging.getLogger("transformers").handlers), list(warnings.filters)
    entered, left = threading.Event(), threading.Event()

    def catch() -> None:
        with show.library_warnings():
            entered.set()
            left.wait(0.2)  # the other one would end first, if it could begin

    first = threading.Thread(target=catch)
    first.start()
    entered.wait()
    with show.library_warnings():
        left.set()
        first.join(0.2)
    first.join()
    assert logging.getLogger("transformers").handlers == handlers
    assert warnings.filters == filters


@pytest.mark.parametrize(
    "picture",
    [
        lambda: show.lines([0, 1], {"a": [0, 1]}, xlabel="x", ylabel="y", title="t", alt="a line"),
        lambda: show.attention_maps({"t": np.eye(2)}, ["a", "b"], alt="a line"),
    ],
)
def test_a_picture_is_a_png_with_alt_text_and_the_same_bytes_each_time(picture: object) -> None:
    bundle = picture()._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert bundle["text/plain"] == "a line"
    assert picture().png == bundle["image/png"]
