"""The probes tell by how much the data and the loss shift, and refuse to guess."""

import pytest
import torch

from batchaudit import data_offset, loss_offset
from tinylib.labels import IGNORE_INDEX, plain_loss, shift, shifting_loss, training_example


def test_the_shift_happens_exactly_once(scored: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = scored
    assert loss_offset(plain_loss(logits, labels), logits, labels) == 0
    assert loss_offset(shifting_loss(logits, labels), logits, labels) == 1
    assert torch.nn.CrossEntropyLoss().ignore_index == IGNORE_INDEX
    ids = labels.clamp(min=0)
    assert data_offset(ids, labels) == 0
    assert data_offset(ids, shift(labels)) == 1
    assert data_offset(ids, shift(shift(labels))) == 2
    assert data_offset(ids[:, :-1], ids[:, 1:]) == 1


def test_tinylibs_examples_are_for_a_loss_that_shifts(tinyllama: tuple) -> None:
    model, tokenizer = tinyllama
    example = training_example(tokenizer, {"prompt": "Hi!", "completion": "The capital of France."})
    ids, labels = torch.tensor([example["input_ids"]]), torch.tensor([example["labels"]])
    with torch.no_grad():
        output = model(input_ids=ids, labels=labels)
    assert data_offset(ids, labels) + loss_offset(output.loss, output.logits, labels) == 1
    assert abs(shifting_loss(output.logits, labels) - output.loss) < 1e-5


def test_the_probes_refuse_to_guess(scored: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = scored
    with pytest.raises(ValueError, match="of no offset, or of several"):
        loss_offset(plain_loss(logits, labels) + 0.5, logits, labels)
    with pytest.raises(ValueError, match="of no offset, or of several"):
        loss_offset(plain_loss(logits * 0, labels), logits * 0, labels)  # every offset has the same loss
    with pytest.raises(ValueError, match="of the offsets -1, 0, 1, 2 fit"):
        data_offset(torch.ones(2, 8).long(), torch.ones(2, 8).long())
    with pytest.raises(ValueError, match="0 of the offsets"):
        data_offset(torch.arange(8)[None], torch.arange(8).flip(0)[None])
