"""Padding changes no loss, and supervises nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_data import EXAMPLES, PAD
from transformers import DataCollatorForSeq2Seq

from tinylib.collate import PaddedCollator
from tinylib.labels import IGNORE_INDEX, shifting_loss


@given(examples=EXAMPLES, side=st.sampled_from(["left", "right"]))
def test_the_batch_is_the_rows_and_hidden_unsupervised_pads(examples: list[dict], side: str) -> None:
    batch = PaddedCollator(PAD, side)(examples)
    for example, ids, mask, labels in zip(examples, *batch.values()):
        assert ids[mask == 1].tolist() == example["input_ids"]
        assert labels[mask == 1].tolist() == example["labels"]
        assert (labels[mask == 0] == IGNORE_INDEX).all()
        assert (ids[mask == 0] == PAD).all()
    assert list(batch) == ["input_ids", "attention_mask", "labels"]


@pytest.mark.parametrize("kind", ["tinyllama", "gpt2"])
@given(examples=EXAMPLES)
def test_the_padded_loss_is_the_token_weighted_loss_of_the_rows(
    request: pytest.FixtureRequest, kind: str, examples: list[dict]
) -> None:
    model = request.getfixturevalue(kind)
    model = model[0] if kind == "tinyllama" else model
    collate = PaddedCollator(PAD)
    with torch.no_grad():
        together = model(**collate(examples)).loss.item()
        alone = [model(**collate([example])).loss.item() for example in examples]
    counts = [sum(label != IGNORE_INDEX for label in example["labels"]) for example in examples]
    assert together == pytest.approx(sum(map(lambda a, n: a * n, alone, counts)) / sum(counts), abs=1e-4)


@given(examples=EXAMPLES)
def test_it_makes_what_transformers_collator_makes_of_labels_made_before(
    tinyllama: tuple, examples: list[dict]
) -> None:
    _, tokenizer = tinyllama
    features = [{**example, "attention_mask": [1] * len(example["input_ids"])} for example in examples]
    reference = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORE_INDEX)(features)
    ours = PaddedCollator(tokenizer.pad_token_id)(examples)
    for name, tensor in ours.items():
        assert torch.equal(tensor, reference[name]), name


def test_our_loss_of_a_padded_batch_is_transformers(tinyllama: tuple) -> None:
    model, _ = tinyllama
    batch = PaddedCollator(PAD)(
        [
            {"input_ids": [5, 6, 7, PAD], "labels": [IGNORE_INDEX, 6, 7, PAD]},
            {"input_ids": [8, PAD], "labels": [8, PAD]},
        ]
    )
    with torch.no_grad():
        output = model(**batch)
    assert abs(shifting_loss(output.logits, batch["labels"]) - output.loss) < 1e-5


def test_bad_rows_are_refused_by_number() -> None:
    good = {"input_ids": [5, 2], "labels": [-100, 2]}
    with pytest.raises(ValueError, match="Example 1 has no supervised token"):
        PaddedCollator(PAD)([good, {"input_ids": [5, 2], "labels": [-100, -100]}])
    with pytest.raises(ValueError, match="Example 1 has 2 input_ids and 1 labels"):
        PaddedCollator(PAD)([good, {"input_ids": [5, 2], "labels": [2]}])
    with pytest.raises(ValueError, match="no rows"):
        PaddedCollator(PAD)([])
