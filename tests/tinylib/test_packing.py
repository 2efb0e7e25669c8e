"""Packing loses nothing: no sample is cut, lost or joined, and no row is too full."""

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from training_data import EXAMPLES, PAD
from transformers import DataCollatorWithFlattening
from trl import pack_dataset

from tinylib.collate import PackedCollator, best_fit_decreasing
from tinylib.labels import IGNORE_INDEX

# Also such as have a label on their first token: nobody's to predict in a packed row.
EXAMPLES = EXAMPLES | EXAMPLES.map(lambda rows: [row | {"labels": row["input_ids"]} for row in rows])
LENGTHS = st.lists(st.integers(1, 40), max_size=30)


@given(lengths=LENGTHS, capacity=st.integers(1, 50))
def test_every_thing_is_in_one_bin_and_no_bin_is_too_full(lengths: list[int], capacity: int) -> None:
    bins = best_fit_decreasing(lengths, capacity)
    assert sorted(i for bin_ in bins for i in bin_) == list(range(len(lengths)))
    filled = [sum(lengths[i] for i in bin_) for bin_ in bins]
    assert all(total <= capacity or len(bin_) == 1 for total, bin_ in zip(filled, bins))
    # Best fit: what lies in one bin would have gone into another, had there been room.
    assert all(a + b > capacity for i, a in enumerate(filled) for b in filled[:i])
    assert bins == best_fit_decreasing(lengths, capacity)


@settings(max_examples=30)
@given(lengths=LENGTHS.filter(bool))
def test_it_needs_as_many_rows_as_trls_packing(lengths: list[int]) -> None:
    rows = Dataset.from_dict({"input_ids": [[7] * length for length in lengths]})
    assert len(best_fit_decreasing(lengths, 40)) == len(pack_dataset(rows, seq_length=40, strategy="bfd"))


def unpacked(batch: dict[str, torch.Tensor]) -> list[tuple[list[int], list[int]]]:
    """Take a packed batch apart again, by its positions alone."""
    samples = []
    for ids, positions, labels in zip(batch["input_ids"], batch["position_ids"], batch["labels"]):
        starts = [column for column, position in enumerate(positions) if position == 0]
        for start, end in zip(starts, [*starts[1:], len(ids)]):
            samples.append((ids[start:end].tolist(), labels[start:end].tolist()))
    return samples


@given(examples=EXAMPLES, max_length=st.integers(1, 60))
def test_no_sample_is_cut_lost_or_joined(examples: list[dict], max_length: int) -> None:
    batch = PackedCollator(PAD, max_length)(examples)
    assert list(batch) == ["input_ids", "position_ids", "labels"]
    longest = max(len(example["input_ids"]) for example in examples)
    assert batch["input_ids"].shape[1] <= max(max_length, longest)
    expected = [(e["input_ids"], [IGNORE_INDEX, *e["labels"][1:]]) for e in examples]
    found = unpacked(batch)
    pads = [sample for sample in found if set(sample[1]) == {IGNORE_INDEX}]
    assert sorted(found) == sorted(expected + pads)
    assert all(set(ids) == {PAD} for ids, _ in pads)
    assert len(pads) <= len(batch["input_ids"])
    again = PackedCollator(PAD, max_length)(examples)
    assert all(torch.equal(batch[name], again[name]) for name in batch)


@given(examples=EXAMPLES)
def test_one_row_is_what_transformers_flattening_makes(examples: list[dict]) -> None:
    reference = DataCollatorWithFlattening()(examples)
    ours = PackedCollator(PAD, max_length=10_000)(examples)
    for name, tensor in ours.items():
        assert torch.equal(tensor, reference[name]), name


@pytest.mark.parametrize("lengths", [[5] * 6, [200, 3, 3], [1000], [2, 2]])
def test_all_equal_and_one_huge_sample(lengths: list[int]) -> None:
    examples = [{"input_ids": [9] * n, "labels": [9] * n} for n in lengths]
    batch = PackedCollator(PAD, max_length=12)(examples)
    samples = [sample for sample in unpacked(batch) if sample[1][1:] and sample[1][-1] != IGNORE_INDEX]
    assert sorted(len(ids) for ids, _ in samples) == sorted(lengths)


def test_bad_rows_are_refused_by_number() -> None:
    good = {"input_ids": [5, 2], "labels": [-100, 2]}
    collate = PackedCollator(PAD)
    with pytest.raises(ValueError, match="no rows"):
        collate([])
    with pytest.raises(ValueError, match="Example 1 has 2 input_ids and 1 labels"):
        collate([good, {"input_ids": [5, 2], "labels": [2]}])
    with pytest.raises(ValueError, match="Example 1 has no supervised token"):
        collate([good, {"input_ids": [5, 2], "labels": [5, -100]}])  # the first label counts for nothing
    with pytest.raises(ValueError, match="max_length must be at least 1, not 0"):
        PackedCollator(PAD, 0)
