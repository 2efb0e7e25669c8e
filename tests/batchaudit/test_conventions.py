"""Who shifts? The table of lesson 03, asked of the packages themselves.

litgpt does not install beside the newest versions, and torchtune brings much with it: they are asked where
they are installed, and CI has an environment for each.
"""

import inspect
import re
from pathlib import Path
from typing import Any

import pipelines
import pytest
import torch
from lessons import NOTEBOOKS
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config

from batchaudit import data_offset, loss_offset
from tinylib import models
from tinylib.labels import IGNORE_INDEX, training_example

TABLE = (NOTEBOOKS / "03_label_misalignment.ipynb").read_text(encoding="utf-8")
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2,
}  # fmt: skip

PAIRS = [
    {
        "prompt": [{"role": "user", "content": asked}],
        "completion": [{"role": "assistant", "content": answered}],
    }
    for asked, answered in [
        ("Hi!", "The capital of France."),
        ("Name three fruits.", "Seven days 🍎\nin a week."),
    ]
]
CHATS = [
    {
        "messages": [
            {"role": role, "content": f"{words} {turn}"}
            for turn in range(turns)
            for role, words in (("user", "Which animal says meow?"), ("assistant", "The cat says meow."))
        ]
    }
    for turns in (1, 2, 3)
]


def claimed(code_base: str) -> tuple[int, int]:
    """Return the data offset and the loss offset that the lesson's table gives."""
    (offsets,) = re.findall(rf"\| {re.escape(code_base)} \| (\d) \| (\d) \|", TABLE)
    return int(offsets[0]), int(offsets[1])


@pytest.fixture
def labels() -> torch.Tensor:
    ids = torch.randint(0, 64, (3, 12), generator=torch.Generator().manual_seed(0))
    ids[:, :4] = IGNORE_INDEX
    return ids


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(3, 12, 64, generator=torch.Generator().manual_seed(1)) * 5


@pytest.mark.parametrize("config", [LlamaConfig, MistralConfig, Qwen2Config])
def test_transformers(config: type, labels: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**SIZES)).eval()
    ids = labels.clamp(min=0)
    output = model(input_ids=ids, labels=labels)
    assert claimed("transformers, `*ForCausalLM(labels=...)`") == (
        data_offset(ids, labels), loss_offset(output.loss, output.logits, labels)
    )  # fmt: skip


def sft_trainer(
    folder: Path, output: Path, rows: list[dict], template: str | None = None, **arguments: bool
) -> Any:
    """TRL's trainer with a model of its own, since it changes the configuration."""
    model, tokenizer = models.load(folder)
    tokenizer.chat_template = template or tokenizer.chat_template
    return pipelines.sft_trainer(model, tokenizer, rows, output, **arguments)


def test_trl(tinyllama_folder: Path, tmp_path: Path) -> None:
    """The batch that SFTTrainer makes, and the loss that it computes for it."""
    trainer = sft_trainer(tinyllama_folder, tmp_path, PAIRS)
    batch = next(iter(trainer.get_train_dataloader()))
    model = trainer.model.eval()
    with torch.no_grad():
        loss = trainer.compute_loss(model, dict(batch))
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert claimed("TRL, `SFTTrainer`") == (
        data_offset(batch["input_ids"], batch["labels"]), loss_offset(loss, logits, batch["labels"])
    )  # fmt: skip


def test_our_labels_are_trls_for_prompts_and_completions(tinyllama_folder: Path, tmp_path: Path) -> None:
    """TRL goes on to the line break that the template writes after the end of turn; we end there."""
    trainer = sft_trainer(tinyllama_folder, tmp_path, PAIRS)
    tokenizer = trainer.processing_class
    for row, example in zip(PAIRS, trainer.train_dataset):
        theirs = trainer.data_collator([example])
        ours = training_example(tokenizer, row)
        length = len(ours["input_ids"])
        assert theirs["input_ids"][0, :length].tolist() == ours["input_ids"]
        assert theirs["labels"][0, :length].tolist() == ours["labels"]
        assert tokenizer.decode(theirs["input_ids"][0, length:]) == "\n"


def test_our_labels_are_trls_for_chats_of_several_turns(tinyllama_folder: Path, tmp_path: Path) -> None:
    """TRL needs a template that marks what the assistant says; the labels are then the same."""
    trainer = sft_trainer(
        tinyllama_folder, tmp_path, CHATS, pipelines.MARKED_TEMPLATE, assistant_only_loss=True
    )
    for row, example in zip(CHATS, trainer.train_dataset):
        theirs = trainer.data_collator([example])
        ours = training_example(trainer.processing_class, row)
        length = len(ours["input_ids"])
        assert theirs["labels"][0, :length].tolist() == ours["labels"]
        assert (theirs["labels"][0, length:] == IGNORE_INDEX).all()


def test_litgpt(labels: torch.Tensor, logits: torch.Tensor) -> None:
    """A plain loss, and data as they are; the script cuts logits and labels before it calls the loss."""
    litgpt = pytest.importorskip("litgpt.finetune.lora")
    collate = pytest.importorskip("litgpt.data.base").get_sft_collate_fn(pad_id=0)
    assert loss_offset(litgpt.chunked_cross_entropy(logits, labels, chunk_size=0), logits, labels) == 0
    script = inspect.getsource(litgpt.fit)
    assert "logits[-1] = logits[-1][..., :-1, :]" in script
    assert "chunked_cross_entropy(logits, targets[..., 1:])" in script
    chunks = list(logits.chunk(4, dim=1))
    chunks[-1] = chunks[-1][..., :-1, :]
    as_in_the_script = litgpt.chunked_cross_entropy(chunks, labels[..., 1:])
    ids = labels.clamp(min=1)
    counts = {"token_counts": {"raw": 12, "raw_plus_prompt_template": 12}}
    batch = collate([{"input_ids": i, "labels": lab, **counts} for i, lab in zip(ids, labels)])
    assert claimed("litgpt, fine-tuning") == (
        data_offset(batch["input_ids"], batch["labels"]), loss_offset(as_in_the_script, logits, labels)
    )  # fmt: skip


def test_torchtune(labels: torch.Tensor, logits: torch.Tensor) -> None:
    """A plain loss; the recipe moves the labels that the data hand it as they are."""
    torchtune = pytest.importorskip("torchtune")
    from torchtune.data import padded_collate_sft
    from torchtune.modules.loss import CEWithChunkedOutputLoss

    chunks = list(logits.chunk(4, dim=1))
    ids = labels.clamp(min=1)
    batch = padded_collate_sft(
        [{"tokens": i.tolist(), "labels": lab.tolist()} for i, lab in zip(ids, labels)], padding_idx=0
    )
    assert data_offset(batch["tokens"], batch["labels"]) == 0
    recipe = Path(torchtune.__file__).parent.parent / "recipes" / "full_finetune_single_device.py"
    assert "(labels[..., 1:], self.ignore_labels_cache[: labels.shape[0]])" in recipe.read_text()
    moved = torch.hstack((labels[..., 1:], torch.full((3, 1), IGNORE_INDEX)))  # as in the recipe
    loss = CEWithChunkedOutputLoss(num_output_chunks=4)(chunks, moved)
    assert claimed("torchtune, fine-tuning") == (data_offset(ids, moved), loss_offset(loss, logits, moved))
