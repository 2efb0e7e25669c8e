"""`pad` and `position_ids`: against transformers, and the invariants that they exist for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from tinylib.generate import next_token_logits
from tinylib.padding import check_rows, pad, position_ids

# Id 2 is the pad and EOS: it occurs inside rows, too, as it does in a conversation.
ROWS = st.lists(st.lists(st.integers(2, 63), min_size=1, max_size=12), min_size=1, max_size=5)
SIDES = st.sampled_from(["left", "right"])


def test_pad_on_an_example_that_one_can_read() -> None:
    batch = pad([[5, 6, 7], [8]], pad_id=2, side="left")
    assert batch["input_ids"].tolist() == [[5, 6, 7], [2, 2, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    batch = pad([[5, 6, 7], [8]], pad_id=2, side="right")
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 2, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_left_is_the_default() -> None:
    assert pad([[5, 6], [7]], 2)["input_ids"].tolist() == [[5, 6], [2, 7]]


@given(rows=ROWS, side=SIDES)
def test_pad_equals_the_tokenizers_own(tinyllama: tuple, rows: list[list[int]], side: str) -> None:
    _, tokenizer = tinyllama
    reference = tokenizer.pad({"input_ids": rows}, padding_side=side, return_tensors="pt")
    ours = pad(rows, tokenizer.pad_token_id, side)
    for name in ("input_ids", "attention_mask"):
        assert torch.equal(ours[name], reference[name])
        assert ours[name].dtype == torch.int64


@given(rows=ROWS, side=SIDES)
def test_nothing_is_lost_and_only_pads_are_hidden(rows: list[list[int]], side: str) -> None:
    batch = pad(rows, pad_id=2, side=side)
    for ids, mask, row in zip(batch["input_ids"], batch["attention_mask"], rows):
        assert ids[mask.bool()].tolist() == row
        assert (ids[~mask.bool()] == 2).all()


def test_a_real_eos_is_never_hidden() -> None:
    mask = pad([[5, 2, 6, 2, 7], [8]], pad_id=2)["attention_mask"]
    assert mask.tolist() == [[1, 1, 1, 1, 1], [0, 0, 0, 0, 1]]


@given(rows=ROWS, side=SIDES)
def test_positions_count_real_tokens(rows: list[list[int]], side: str) -> None:
    mask = pad(rows, pad_id=2, side=side)["attention_mask"]
    for positions, real, row in zip(position_ids(mask), mask.bool(), rows):
        assert positions[real].tolist() == list(range(len(row)))
        assert positions.min() >= 0


@pytest.mark.parametrize("kind", ["tinyllama", "gpt2"])
@settings(max_examples=25)
@given(rows=ROWS, extra=st.integers(0, 6), side=SIDES)
def test_logits_do_not_change_with_amount_or_side_of_padding(
    request: pytest.FixtureRequest, kind: str, rows: list[list[int]], extra: int, side: str
) -> None:
    """The invariant behind everything: a row in a batch scores what it scores alone."""
    fixture = request.getfixturevalue(kind)
    model: PreTrainedModel = fixture[0] if isinstance(fixture, tuple) else fixture
    widest = [3] * (max(map(len, rows)) + extra)
    batch = pad([*rows, widest], pad_id=2, side=side)
    positions = position_ids(batch["attention_mask"])
    with torch.no_grad():
        logits = model(**batch, position_ids=positions).logits
    for i, row in enumerate(rows):
        alone = next_token_logits(model, input_ids=torch.tensor([row]))[0]
        last_real = batch["attention_mask"][i].nonzero().max()
        torch.testing.assert_close(logits[i, last_real], alone, atol=1e-4, rtol=1e-4)


def test_without_the_mask_the_same_check_fails(tinyllama: tuple) -> None:
    """The property above can fail: it does, as soon as the mask is left out."""
    model, _ = tinyllama
    batch = pad([[5, 6, 7], [8] * 9], pad_id=2)
    alone = next_token_logits(model, input_ids=torch.tensor([[5, 6, 7]]))
    unmasked = next_token_logits(model, input_ids=batch["input_ids"])[:1]
    assert (unmasked - alone).abs().max() > 0.1


def test_gpt2_needs_positions_and_generate_makes_the_same(gpt2: PreTrainedModel) -> None:
    rows = [[5, 6, 7], [8] * 9, [9, 10]]
    batch = pad(rows, pad_id=2)
    alone = torch.cat([next_token_logits(gpt2, input_ids=torch.tensor([row])) for row in rows])
    positions = position_ids(batch["attention_mask"])
    ours = next_token_logits(gpt2, **batch, position_ids=positions)
    torch.testing.assert_close(ours, alone, atol=1e-4, rtol=1e-4)
    mask_only = next_token_logits(gpt2, **batch)
    assert (mask_only - alone)[[0, 2]].abs().amax(dim=-1).min() > 0.1
    # The reference: transformers' generate, which makes its positions from the mask.
    output = gpt2.generate(
        **batch, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    torch.testing.assert_close(output.logits[0], ours, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("rows", "message"), [([], "no rows"), ([[1], []], "Row 1 is empty"), ([[]], "Row 0 is empty")]
)
def test_empty_input_is_refused(rows: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_rows(rows)
    with pytest.raises(ValueError, match=message):
        pad(rows, pad_id=2)


def test_an_unknown_side_is_refused() -> None:
    with pytest.raises(ValueError, match="side must be 'left' or 'right', not 'top'"):
        pad([[1]], pad_id=2, side="top")
