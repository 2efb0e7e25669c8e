"""Training: the Trainer does what a plain loop does, whatever the micro-batches, and goes on after a kill."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training_data import CHATS
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

from chattune import add_adapters, fine_tune, prepare, train_last_layers
from chattune.__main__ import main
from chattune.runs import last_checkpoint
from chattune.trainer import PackedTrainer
from tinylib import models
from tinylib.collate import PackedCollator, PaddedCollator

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@pytest.fixture
def fresh(tinyllama_folder: Path) -> Loaded:
    """A model of one's own: training changes it."""
    return models.load(tinyllama_folder)


def weights(model: PreTrainedModel) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_trainer_gives_the_losses_of_a_plain_loop(fresh: Loaded, tinyllama_folder: Path) -> None:
    model, tokenizer = fresh
    batches = []

    def noting(examples: list[dict]) -> dict[str, torch.Tensor]:
        batches.append(PaddedCollator(tokenizer.pad_token_id)(examples))
        return batches[-1]

    losses = fine_tune(
        model,
        tokenizer,
        CHATS,
        collator=noting,
        per_device_train_batch_size=4,
        num_train_epochs=2,
        warmup_steps=2,
    )
    by_hand, _ = models.load(tinyllama_folder)
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=2e-4, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, 2, 6)
    expected = []
    for batch in batches[:6]:
        loss = by_hand(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        expected.append(loss.item())
    assert losses == pytest.approx(expected, abs=2e-4)  # transformers 4 logs four digits
    assert (weights(model) - weights(by_hand)).abs().max() < 1e-5
    assert not model.training


def test_ragged_micro_batches_give_the_loss_of_one_batch(fresh: Loaded, tinyllama_folder: Path) -> None:
    """The mean is over the supervised tokens of the whole step, not of each micro-batch."""
    model, tokenizer = fresh
    at_once = fine_tune(model, tokenizer, CHATS, per_device_train_batch_size=4)
    model, _ = models.load(tinyllama_folder)
    in_parts = fine_tune(
        model, tokenizer, CHATS, per_device_train_batch_size=1, gradient_accumulation_steps=4
    )
    assert len(at_once) == 3
    assert in_parts == pytest.approx(at_once, abs=2e-4)


@pytest.mark.parametrize("every", [2, 3, 100])
def test_the_last_steps_are_in_the_losses_whatever_logging_steps(
    fresh: Loaded, tinyllama_folder: Path, every: int
) -> None:
    each = fine_tune(*fresh, CHATS, per_device_train_batch_size=4)
    means = fine_tune(
        *models.load(tinyllama_folder), CHATS, per_device_train_batch_size=4, logging_steps=every
    )
    groups = [each[i : i + every] for i in range(0, len(each), every)]
    assert means == pytest.approx([sum(group) / len(group) for group in groups], abs=2e-4)


def test_the_same_seed_gives_the_same_training(fresh: Loaded, tinyllama_folder: Path) -> None:
    model, tokenizer = fresh
    first = fine_tune(model, tokenizer, CHATS, seed=3)
    again, _ = models.load(tinyllama_folder)
    assert fine_tune(again, tokenizer, CHATS, seed=3) == first
    assert torch.equal(weights(model), weights(again))
    other, _ = models.load(tinyllama_folder)
    assert fine_tune(other, tokenizer, CHATS, seed=4) != first


class CutOff(BaseException):
    """What no library catches."""


def test_a_training_that_was_cut_off_goes_on_to_the_same_result(
    fresh: Loaded, tinyllama_folder: Path, tmp_path: Path
) -> None:
    model, tokenizer = fresh
    arguments = {"per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 2}
    whole = fine_tune(model, tokenizer, CHATS, tmp_path / "whole", **arguments)
    collate, made = PackedCollator(tokenizer.pad_token_id), []

    def dies_at_the_fifth_step(examples: list[dict]) -> dict[str, torch.Tensor]:
        made.append(1)
        if len(made) == 6:  # the Trainer asks for one batch ahead
            raise CutOff
        return collate(examples)

    killed, folder = models.load(tinyllama_folder)[0], tmp_path / "killed"
    with pytest.raises(CutOff):
        fine_tune(killed, tokenizer, CHATS, folder, collator=dies_at_the_fifth_step, **arguments)
    assert Path(last_checkpoint(folder)).name == "checkpoint-4"
    assert not (folder / "model.safetensors").exists()

    # What a kill in the middle of writing leaves behind must not be taken for a checkpoint.
    half = folder / "checkpoint-6"
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global_st')
    again, _ = models.load(tinyllama_folder)
    resumed = fine_tune(again, tokenizer, CHATS, folder, resume=True, **arguments)
    assert resumed == whole
    assert torch.equal(weights(again), weights(model))


def test_resuming_without_a_checkpoint_starts_at_the_beginning(fresh: Loaded, tmp_path: Path) -> None:
    model, tokenizer = fresh
    assert last_checkpoint(tmp_path / "nothing") is None
    assert len(fine_tune(model, tokenizer, CHATS, tmp_path, resume=True, max_steps=2)) == 2
    with pytest.raises(ValueError, match="Give a folder to write to"):
        fine_tune(model, tokenizer, CHATS, resume=True)


def test_a_trained_model_is_saved_and_loaded_whole(fresh: Loaded, tmp_path: Path) -> None:
    model, tokenizer = fresh
    fine_tune(model, tokenizer, CHATS, max_steps=2)
    models.save(model, tokenizer, tmp_path)
    again, _ = models.load(tmp_path)
    assert torch.equal(weights(again), weights(model))


def test_only_the_last_layers_are_trained(fresh: Loaded) -> None:
    model, tokenizer = fresh
    train_last_layers(model, 1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fine_tune(model, tokenizer, CHATS, max_steps=2)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if name.startswith("model.layers.3.")}
    for count in (0, 5, 1.5, "2"):
        with pytest.raises(ValueError, match=f"the last 1 to 4 can be trained, not {count!r}"):
            train_last_layers(model, count)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == changed


def test_what_does_not_fit_is_said(tinyllama: Loaded, capsys: pytest.CaptureFixture[str]) -> None:
    _, tokenizer = tinyllama
    two_turns = [
        {"role": role, "content": "Name three fruits. " * n}
        for n in (1, 30)
        for role in ("user", "assistant")
    ]
    rows = [CHATS[0], {"prompt": "Hi!", "completion": "Hello. " * 99}, {"messages": two_turns}]
    assert len(prepare(tokenizer, rows, max_length=120)) == 2
    assert capsys.readouterr().out == (
        "1 chats left out: their first answer does not fit (max_length=120; numbers 1)\n"
        "1 chats shortened (max_length=120; numbers 2)\n"
    )
    assert len(prepare(tokenizer, rows)) == 3
    assert capsys.readouterr().out == ""


def test_bad_input_is_refused_before_any_training(fresh: Loaded) -> None:
    model, tokenizer = fresh
    with pytest.raises(ValueError, match="Chat 1: Message 1, of the assistant, is empty"):
        fine_tune(model, tokenizer, [CHATS[0], {"prompt": "Hi!", "completion": ""}])
    with pytest.raises(ValueError, match="There is no chat: the data set is empty"):
        fine_tune(model, tokenizer, [])
    with pytest.raises(ValueError, match="There is no chat: the data set is empty"):
        fine_tune(model, tokenizer, CHATS, max_length=3)
    with pytest.raises(ValueError, match=r"model.embed_tokens.weight is in bfloat16, too coarse"):
        fine_tune(model.bfloat16(), tokenizer, CHATS)
    with pytest.raises(ValueError, match="No parameter of the model is to be trained"):
        fine_tune(model.requires_grad_(False), tokenizer, CHATS)


def test_adapters_alone_are_trained_and_merge_into_a_whole_model(fresh: Loaded, tmp_path: Path) -> None:
    model, tokenizer = fresh
    size = len(weights(model))
    adapted = add_adapters(model, rank=4)
    losses = fine_tune(adapted, tokenizer, CHATS, tmp_path, learning_rate=1e-2, num_train_epochs=3)
    assert losses[-1] < losses[0]
    assert {name for name, p in adapted.named_parameters() if p.requires_grad} == {
        name for name, _ in adapted.named_parameters() if "lora_" in name
    }
    assert (tmp_path / "adapter_model.safetensors").is_file()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = adapted(ids).logits
        with adapted.disable_adapter():
            untouched = adapted(ids).logits
    models.save(adapted.merge_and_unload(), tokenizer, tmp_path / "merged")
    again, _ = models.load(tmp_path / "merged")
    assert (again(ids).logits - expected).abs().max() < 1e-4
    assert (untouched - expected).abs().max() > 0.1
    assert len(weights(again)) == size


@pytest.fixture
def command(tinyllama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run ``python -m chattune``; return the folder of its output."""
    data = tmp_path / "chats.jsonl"
    data.write_text("".join(json.dumps(chat) + "\n" for chat in CHATS), encoding="utf-8")

    def run(*more: str, data: Path = data) -> Path:
        output = tmp_path / "out"
        given = ["--model", tinyllama_folder, "--data", data, "--output", output, *more]
        monkeypatch.setattr(sys, "argv", ["train", *map(str, given)])
        main()
        return output

    return run


def test_the_command_does_what_the_function_does(
    command: Callable[..., Path], fresh: Loaded, capsys: pytest.CaptureFixture[str]
) -> None:
    output = command("--batch-size", "4", "--epochs", "2", "--save-steps", "2", "--learning-rate", "1e-3")
    model, tokenizer = fresh
    losses = fine_tune(
        model, tokenizer, CHATS, per_device_train_batch_size=4, num_train_epochs=2, learning_rate=1e-3
    )
    assert f"6 steps, loss {losses[0]:.3f} to {losses[-1]:.3f}; saved in {output}" in capsys.readouterr().out
    assert torch.equal(weights(models.load(output)[0]), weights(model))
    history = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    assert [entry["loss"] for entry in history if "loss" in entry] == losses
    assert Path(last_checkpoint(output)).name == "checkpoint-6"
    # Other programs load it, and know no class of ours.
    assert type(torch.load(output / "training_args.bin", weights_only=False)) is TrainingArguments


def test_the_command_trains_adapters_and_merges_them(command: Callable[..., Path]) -> None:
    output = command("--batch-size", "4", "--lora", "4")
    assert (output / "adapter_model.safetensors").is_file()
    models.load(output / "merged")


def test_help_is_readable_and_mistakes_are_one_line(
    command: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command("--help")
    shown = capsys.readouterr().out
    for option in ("--data", "--output", "--resume", "--lora", "--last-layers", "--save-steps"):
        assert option in shown
    with pytest.raises(SystemExit, match=r"No such file .*no\.jsonl"):
        command(data=tmp_path / "no.jsonl")
    assert not (tmp_path / "out").exists()


def test_chats_that_do_not_divide_among_processes_are_announced(
    fresh: Loaded, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    monkeypatch.setattr(PackedTrainer, "train", lambda *_, **__: None)
    fine_tune(*fresh, CHATS, per_device_train_batch_size=5)
    assert capsys.readouterr().out.startswith("The last step of an epoch repeats 8 chats")
    fine_tune(*fresh, CHATS, per_device_train_batch_size=5, dataloader_drop_last=True)
    assert not capsys.readouterr().out  # they are left out, as was asked for
