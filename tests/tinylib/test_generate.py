"""Batched generation equals one prompt at a time, and the measures of how far apart two answers are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tinylib import generate as g
from tinylib.padding import pad

QUESTIONS = ["What is the capital of France?", "Which animal says meow?", "Name three fruits."]
LONG = "Tom has a dog called Max. Every day they walk to the river and back. " * 4 + "Who is Max?"
ROWS = st.lists(st.lists(st.integers(3, 300), min_size=1, max_size=20), min_size=2, max_size=5)


@settings(max_examples=25)
@given(rows=ROWS)
def test_a_batch_gives_what_each_row_gives_alone(tinyllama: tuple, rows: list[list[int]]) -> None:
    model, tokenizer = tinyllama
    batched = g.generate(model, rows, tokenizer.pad_token_id, max_new_tokens=6)
    assert batched == g.generate_alone(model, rows, max_new_tokens=6)


def test_alone_is_plain_generate_of_transformers(tinyllama: tuple) -> None:
    model, _ = tinyllama
    row = [5, 6, 7, 8]
    output = model.generate(torch.tensor([row]), do_sample=False, max_new_tokens=6)
    expected = output[0, len(row) :].tolist()
    assert g.generate_alone(model, [row], max_new_tokens=6)[0] == g.truncate_at_eos(expected, [2])


def test_the_shipped_model_in_a_mixed_batch_and_without_the_mask(shipped: tuple) -> None:
    model, tokenizer = shipped
    rows = g.prompt_rows(tokenizer, [*QUESTIONS, LONG])
    alone = g.generate_alone(model, rows, 16)
    assert g.generate(model, rows, tokenizer.pad_token_id, 16) == alone
    unmasked = g.greedy_generate(model, pad(rows, tokenizer.pad_token_id)["input_ids"], 16)
    assert all(a != b for a, b in zip(unmasked[:3], alone[:3]))  # the bug, so that the test above can fail
    assert unmasked[3] == alone[3]  # the longest row has no pads


def test_answers_come_in_order_whatever_the_batch_size(shipped: tuple) -> None:
    model, tokenizer = shipped
    expected = [
        "The capital of France is Paris.",
        'The animal that says "meow" is a cat.',
        "1. Bananas\n2. Oranges\n3. Grapes",
    ]
    for batch_size in (1, 2, 8):
        answers = g.answer(model, tokenizer, QUESTIONS, max_new_tokens=16, batch_size=batch_size)
        assert answers == expected


def test_the_pad_of_tinyllamas_generation_config_does_not_leak_into_answers(tinyllama: tuple) -> None:
    model, tokenizer = tinyllama
    assert model.generation_config.pad_token_id == 0 != tokenizer.pad_token_id
    rows = [[5, 6, 7], [8] * 12]
    expected = [g.truncate_at_eos(ids, [2]) for ids in g.generate_alone(model, rows, 8)]
    assert g.generate(model, rows, tokenizer.pad_token_id, 8) == expected


@given(ids=st.lists(st.integers(0, 9), max_size=8), ends=st.lists(st.integers(0, 9), min_size=1, max_size=2))
def test_truncate_at_eos_keeps_the_first_end_and_nothing_after_it(ids: list[int], ends: list[int]) -> None:
    kept = g.truncate_at_eos(ids, ends)
    assert ids[: len(kept)] == kept
    assert not any(token in ends for token in kept[:-1])
    assert kept == ids or kept[-1] in ends


def test_eos_token_ids_of_a_model_with_several(tinyllama: tuple) -> None:
    model, _ = tinyllama
    assert g.eos_token_ids(model) == [2]
    model.generation_config.eos_token_id = [2, 7]
    try:
        assert g.eos_token_ids(model) == [2, 7]
    finally:
        model.generation_config.eos_token_id = 2


LOGITS = arrays("float64", (2, 5), elements=st.floats(-20, 20)).map(torch.from_numpy)


@given(logits=LOGITS)
def test_total_variation_is_the_probability_that_has_to_move(logits: torch.Tensor) -> None:
    moved = g.total_variation(logits[0], logits[1]).item()
    p, q = [row.exp() / row.exp().sum() for row in logits]
    assert moved == pytest.approx(sum(max(0.0, float(a - b)) for a, b in zip(p, q)), abs=1e-9)
    assert 0 <= moved <= 1 + 1e-9
    assert g.total_variation(logits[0], logits[0] + 3).item() == pytest.approx(0, abs=1e-9)


@given(a=st.lists(st.integers(0, 2), max_size=6), b=st.lists(st.integers(0, 2), max_size=6))
def test_common_prefix_length_is_the_longest_common_beginning(a: list[int], b: list[int]) -> None:
    count = g.common_prefix_length(a, b)
    assert a[:count] == b[:count]
    assert count == min(len(a), len(b)) or a[count] != b[count]


def test_next_token_logits_is_the_last_column_of_forward(tinyllama: tuple) -> None:
    model, _ = tinyllama
    batch = pad([[5, 6, 7], [8, 9]], pad_id=2)
    with torch.no_grad():
        expected = model(**batch).logits[:, -1]
    ours = g.next_token_logits(model, **batch)
    assert ours.shape == (2, model.config.vocab_size)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "list of prompts is empty"),
        ("Hi!", r"Give a list of prompts"),
        (["Hi!", "  "], "Prompt 1: Message 0, of the user, is empty"),
        (["word " * 3000], r"Prompt 0 has \d+ tokens; with 64 new ones .* the model's context of 2048"),
    ],
)
def test_bad_prompts_are_refused_clearly(tinyllama: tuple, prompts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        g.answer(*tinyllama, prompts)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_nothing_is_refused(tinyllama: tuple, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, not {batch_size}"):
        g.answer(*tinyllama, ["Hi!"], batch_size=batch_size)


def test_rows_that_do_not_fit_are_refused_before_any_is_generated(tinyllama: tuple) -> None:
    model, tokenizer = tinyllama
    fits, too_long = [5] * 2040, [5] * 2041
    g.check_fits(model, [fits], max_new_tokens=8)
    for call in (
        lambda: g.generate(model, [[5], too_long], tokenizer.pad_token_id, 8),
        lambda: g.generate_alone(model, [[5], too_long], 8),
    ):
        with pytest.raises(ValueError, match="Prompt 1 has 2041 tokens"):
            call()
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        g.generate(model, [[5]], tokenizer.pad_token_id, 0)
    with pytest.raises(ValueError, match="Row 0 is empty"):
        g.generate(model, [[]], tokenizer.pad_token_id)
