"""Held-out loss and exact answers: the same at every batch size, collator and number of processes."""

import json
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from training_data import CHATS, PAD
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from chattune import fine_tune, prepare
from chattune.attention import attending_by_sample
from chattune.trainer import PackedTrainer
from tinylib import models
from tinylib.chat import chat_turns
from tinylib.collate import PackedCollator, PaddedCollator
from tinylib.generate import generate_alone
from tinylib.labels import IGNORE_INDEX

TURNS = [
    {"role": "user", "content": CHATS[0]["prompt"]},
    {"role": "assistant", "content": CHATS[0]["completion"]},
    {"role": "user", "content": "And seven?"},
    {"role": "assistant", "content": "Grapes and oranges and more."},
]
HELD_OUT = [*CHATS[:4], {"messages": TURNS}, *CHATS[9:]]
Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@pytest.fixture(scope="module")
def memorized(tinyllama_folder: Path) -> Loaded:
    """A model that knows some of the answers by heart."""
    model, tokenizer = models.load(tinyllama_folder)
    fine_tune(model, tokenizer, CHATS[:4], learning_rate=1e-2, num_train_epochs=30)
    return model, tokenizer


@pytest.fixture(scope="module")
def one_by_one(memorized: Loaded) -> dict[str, float]:
    """What transformers' own loss and greedy decoding say of each example alone."""
    model, tokenizer = memorized
    total, tokens, exact = 0.0, 0, []
    for row in prepare(tokenizer, HELD_OUT):
        count = sum(label != IGNORE_INDEX for label in row["labels"])
        inputs = {name: torch.tensor([values]) for name, values in row.items()}
        with torch.no_grad():
            total += model(**inputs, use_cache=False).loss.item() * count
        tokens += count
    for chat in HELD_OUT:
        turns = chat_turns(tokenizer, chat)
        whole = accumulate(prompt + said for prompt, said in turns)
        for ids, (_, said) in zip(whole, turns):
            exact.append(generate_alone(model, [ids[: -len(said)]], len(said)) == [said])
    assert 0 < sum(exact) < len(exact) == 9
    return {"eval_loss": total / tokens, "eval_exact": sum(exact) / len(exact)}


@pytest.fixture
def trainer_of(memorized: Loaded, tmp_path: Path) -> Callable[..., PackedTrainer]:
    def make(collate: Any, **arguments: Any) -> PackedTrainer:
        settings = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", **arguments)
        examples = prepare(memorized[1], HELD_OUT)
        return PackedTrainer(memorized[0], settings, data_collator=collate, eval_dataset=examples)

    return make


@pytest.mark.parametrize("collate", [PaddedCollator(PAD), PackedCollator(PAD, 90)], ids=["padded", "packed"])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_it_hangs_neither_on_batches_nor_on_the_collator(
    trainer_of: Callable[..., PackedTrainer], one_by_one: dict, batch_size: int, collate: Any
) -> None:
    # Label smoothing belongs to training.
    trainer = trainer_of(collate, per_device_eval_batch_size=batch_size, label_smoothing_factor=0.1)
    with attending_by_sample(trainer.model):
        found = trainer.evaluate()
        other = trainer.evaluate(trainer.eval_dataset.select([0]), metric_key_prefix="first")
    assert trainer.evaluate() == pytest.approx(found, abs=1e-5)  # attending as usual
    assert {name: found[name] for name in one_by_one} == pytest.approx(one_by_one, abs=1e-5)
    assert other["first_loss"] != pytest.approx(found["eval_loss"], abs=1e-3)


@pytest.mark.parametrize("processes", [2, 3, 11])
def test_several_processes_measure_each_example_once(
    trainer_of: Callable[..., PackedTrainer],
    one_by_one: dict,
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
) -> None:
    monkeypatch.setattr(TrainingArguments, "world_size", processes)
    sums: list[torch.Tensor] = []
    for process in range(processes):
        monkeypatch.setattr(TrainingArguments, "process_index", process)
        trainer = trainer_of(PackedCollator(PAD), per_device_eval_batch_size=2)
        # The last process gets the sum of all, as each does in a real reduction.
        trainer.accelerator.reduce = lambda own: sums.append(own) or sum(sums)
        found = trainer.evaluate()
    assert {name: found[name] for name in one_by_one} == pytest.approx(one_by_one, abs=1e-5)


def evaluations(folder: Path) -> list[dict[str, float]]:
    log = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [entry for entry in log if "eval_loss" in entry]


def test_fine_tune_measures_after_each_epoch_and_trains_as_without(
    tinyllama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = []
    for name, more in [("without", {}), ("with", {"eval_chats": HELD_OUT})]:
        model, tokenizer = models.load(tinyllama_folder)
        losses = fine_tune(model, tokenizer, CHATS, tmp_path / name, num_train_epochs=2, **more)
        results.append((losses, torch.cat([p.flatten() for p in model.parameters()]).tolist()))
    assert results[0] == results[1]
    assert evaluations(tmp_path / "without") == []
    measured = evaluations(tmp_path / "with")
    assert [entry["epoch"] for entry in measured] == [1, 2]
    shown = capsys.readouterr().err
    assert all(f"eval_loss={entry['eval_loss']:.3f}" in shown for entry in measured)


def test_it_is_measured_when_the_settings_say(tinyllama_folder: Path, tmp_path: Path) -> None:
    model, tokenizer = models.load(tinyllama_folder)
    often = {"eval_strategy": "steps", "eval_steps": 1, "per_device_train_batch_size": 4}
    fine_tune(model, tokenizer, CHATS, tmp_path, eval_chats=HELD_OUT, **often)
    assert [entry["step"] for entry in evaluations(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("chats", "expected"),
    [
        ([], "There is no held-out chat"),
        ("held-out.jsonl", "a list of chats, not 'held-out.jsonl'"),
        ([CHATS[0], {"prompt": "Hi!"}], "Held-out chat 1: A row needs"),
    ],
)
def test_bad_held_out_chats_are_refused_by_name(tinyllama: Loaded, chats: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        fine_tune(*tinyllama, CHATS, eval_chats=chats)
