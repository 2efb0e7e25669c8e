"""Each fault is found, by its code, at its rows, alone; and nothing in a right batch."""

import copy
import html
import random
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pipelines
import pytest
import torch
import trl
from accelerate import Accelerator
from accelerate.state import GradientState
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, RandomSampler
from transformers import (
    BatchEncoding,
    DataCollatorForLanguageModeling,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)
from transformers.generation.streamers import BaseStreamer
from worlds import PLANTS, TALKS, World, as_planted, block_mask, without

from batchaudit import FAULTS, AuditCallback, audit
from chattune.trainer import PackedTrainer
from tinylib import models
from tinylib.collate import PackedCollator, PaddedCollator
from tinylib.labels import IGNORE_INDEX, plain_loss, shift, shifting_loss
from tinylib.padding import position_ids

MOST_PASSES = 7  # as audit says; one more with a Trainer whose loss keeps no logits


def world_of(name: str, request: pytest.FixtureRequest) -> World:
    if name == "smollm2":
        return World("smollm2", *request.getfixturevalue("shipped"))
    llama, tokenizer = request.getfixturevalue("tinyllama")
    if name == "tinyllama":
        return World("tinyllama", llama, tokenizer)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_layer=2, n_head=4, n_embd=32, n_positions=512, initializer_range=0.2,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    return World("gpt2", GPT2LMHeadModel(config).eval(), tokenizer)


@pytest.fixture(scope="module", params=["tinyllama", "gpt2"])
def world(request: pytest.FixtureRequest) -> World:
    return world_of(request.param, request)


def check_planted(world: World, name: str) -> None:
    batch, code, rows, options = PLANTS[name](world)
    with as_planted(world, options) as arguments:
        report = audit(batch, tokenizer=world.tokenizer, model=world.model, **arguments)
    found = {finding.code: finding.rows for finding in report.findings}
    assert found == ({code: rows} if code else {})


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_found_alone_at_its_rows(world: World, name: str) -> None:
    check_planted(world, name)


# Where logits are compared with a threshold, or losses with one another, a trained model can differ.
THRESHOLDS = (
    "trained_without_mask", "generated_without_mask", "packed_with_a_cache", "mask_that_looks_ahead",
    "block_mask_of_true_and_false_and_eager_attention", "shifted_by_the_data_too", "nobody_shifts",
)  # fmt: skip


@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_trained_model_shows_it_too(request: pytest.FixtureRequest, name: str) -> None:
    check_planted(world_of("smollm2", request), name)


# Found in tests of their own: those of test_cases, and of a file of chats.
IN_CASES = {
    "prompt.not_open", "labels.no_end_written", "labels.some_answers", "chat.bos_inside", "model.nan",
    "embeddings.untrained", "generation.other_end", "generation.later_tokens",
}  # fmt: skip
IN_CHATS = {"chat.unknown_role", "chat.refused", "chat.left_out", "chat.empty_answer"}


def test_every_fault_is_planted(world: World) -> None:
    planted = {plant(world)[1] for plant in PLANTS.values()}
    assert set(FAULTS) - planted - IN_CASES - IN_CHATS <= (
        {"positions.count_pads"} if world.name != "gpt2" else set()
    )


LETTERS = st.characters(exclude_categories=["C"], include_characters="\n\t")
WORDS = st.text(LETTERS, min_size=1, max_size=30).filter(str.strip) | st.lists(
    st.sampled_from(["cat", "seven", "Paris.", "the capital of", "fruits,", "2+2", "system", "assistant:"]),
    min_size=1,
    max_size=12,
).map(" ".join)


@st.composite
def chat(draw: st.DrawFn) -> list[dict[str, str]]:
    said = [("system", draw(WORDS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        said += [("user", draw(WORDS)), ("assistant", draw(WORDS))]
    return [{"role": role, "content": content} for role, content in said]


@pytest.fixture(scope="module")
def chats() -> list[list[dict[str, str]]]:
    """200 of them, drawn by hypothesis."""
    drawn = []

    @settings(max_examples=200, suppress_health_check=list(HealthCheck))
    @given(chat())
    def draw(one: list[dict[str, str]]) -> None:
        drawn.append(one)

    draw()
    return drawn[:200]


def with_pad_of_its_own(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = (
        tokenizer.unk_token if tokenizer.unk_token_id != tokenizer.eos_token_id else "<fim_pad>"
    )
    return tokenizer


def shifted_by_the_script(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """As in litgpt's scripts."""
    return plain_loss(logits[..., :-1, :], labels[..., 1:])


# The pipeline, whether the pad token is one of its own, and what else audit() is to know.
RIGHT = {
    "tinylib, padded": (pipelines.padded, False, {}),
    "tinylib, padded left": (pipelines.padded_left, False, {}),
    "tinylib, packed": (pipelines.packed, False, {}),
    "tinylib, a pad of its own": (pipelines.padded, True, {}),
    "DataCollatorForSeq2Seq": (pipelines.seq2seq, False, {}),
    "DataCollatorForSeq2Seq, a pad of its own": (pipelines.seq2seq, True, {}),
    "DataCollatorWithFlattening": (pipelines.flattening, False, {}),
    "DataCollatorWithFlattening, a pad of its own": (pipelines.flattening, True, {}),
    "DataCollatorForLanguageModeling, a pad of its own": (pipelines.language_modeling, True, {}),
    "litgpt": (pipelines.litgpt, False, {"loss": shifted_by_the_script}),
    "torchtune": (pipelines.torchtune, False, {"loss": plain_loss}),
    "LLMs-from-scratch": (pipelines.llms_from_scratch, False, {"loss": plain_loss}),
    "pre-training": (pipelines.pre_training, False, {"loss": plain_loss}),
    "shifted data": (pipelines.shifted_data, False, {"loss": plain_loss}),
    "prompts": (pipelines.prompts, False, {"purpose": "generate"}),
    "apply_chat_template": (pipelines.templates_of_transformers, False, {"purpose": "generate"}),
    "apply_chat_template, a pad of its own": (
        pipelines.templates_of_transformers, True, {"purpose": "generate"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["smollm2", "tinyllama", "gpt2"])
@pytest.mark.parametrize("name", RIGHT)
def test_nothing_is_found_in_a_right_pipeline(
    request: pytest.FixtureRequest, chats: list, kind: str, name: str
) -> None:
    """Data from both tokenizers; the model is asked where it is small."""
    pipeline, own_pad, options = RIGHT[name]
    if kind == "gpt2" and pipeline not in (pipelines.padded, pipelines.packed, pipelines.prompts):
        pytest.skip("the rest is in the data, which are the other small model's")
    world = world_of(kind, request)
    tokenizer = with_pad_of_its_own(world.tokenizer) if own_pad else world.tokenizer
    model = None if kind == "smollm2" else world.model
    count = 0
    with as_planted(world, {"generation_pad": tokenizer.pad_token_id}):
        for batch in pipeline(tokenizer, chats):
            report = audit(batch, tokenizer=tokenizer, model=model, **options)
            assert report.ok, f"{report}\n{batch}"
            count += len(batch["input_ids"])
    assert count >= 25


# What people use and should not: the codes of what is wrong with it.
WRONG = {
    "DataCollatorWithFlattening with a cache": (
        pipelines.flattening_with_a_cache, {}, {"packing.samples_see_each_other"}
    ),
    "DataCollatorForLanguageModeling, pad = EOS, on chats": (
        pipelines.language_modeling_of_chats, {}, {"labels.prompt", "labels.end_of_turn"}
    ),
    "DataCollatorForLanguageModeling, pad = EOS, on texts": (
        pipelines.language_modeling, {}, {"labels.end_of_turn"}
    ),
    "qlora.py and TinyLlama's sft/finetune.py": (pipelines.qlora, {}, {"mask.hides_tokens"}),
    "the web's remedy": (pipelines.remedy_of_the_web, {}, {"labels.shifted_twice"}),
    "LLMs-from-scratch with a loss that shifts": (
        pipelines.llms_from_scratch, {"loss": shifting_loss}, {"labels.shifted_twice"}
    ),
    "litgpt's data with a plain loss": (pipelines.litgpt, {"loss": plain_loss}, {"labels.never_shifted"}),
    "torchtune's with a loss that shifts": (pipelines.torchtune, {}, {"labels.shifted_twice"}),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_what_people_use(tinyllama: tuple, chats: list, name: str) -> None:
    pipeline, options, codes = WRONG[name]
    model, tokenizer = tinyllama
    for batch in pipeline(tokenizer, chats):
        assert set(audit(batch, tokenizer=tokenizer, model=model, **options).codes) == codes


# TRL's modes: rows, arguments, the template, and what is to be found.
LAST = {"labels.some_answers"}  # a note: of each chat the last answer only
MODES = {
    "prompt and completion": (pipelines.as_pairs, {}, None, LAST),
    "assistant_only_loss": (
        pipelines.as_messages, {"assistant_only_loss": True}, pipelines.MARKED_TEMPLATE, set()
    ),
    "padding_free": (pipelines.as_pairs, {"padding_free": True, "max_length": None}, None, LAST),
    "packing, bfd": (pipelines.as_pairs, {"packing": True, "max_length": 256}, None, LAST),
    "messages": (pipelines.as_messages, {}, None, {"labels.prompt"}),
    "packing, wrapped": (
        pipelines.as_pairs, {"packing": True, "packing_strategy": "wrapped", "max_length": 256}, None,
        {"packing.positions_run_on", "labels.end_cut_off"} | LAST,
    ),
}  # fmt: skip


@pytest.fixture
def sft(tinyllama_folder: Path, tmp_path: Path, chats: list) -> Callable[[str], trl.SFTTrainer]:
    """TRL's trainer in one of its modes, with a model of its own."""

    def make(mode: str, **arguments: Any) -> trl.SFTTrainer:
        rows, own, template, _ = MODES[mode]
        model, tokenizer = models.load(tinyllama_folder)
        tokenizer.chat_template = template or tokenizer.chat_template
        return pipelines.sft_trainer(model, tokenizer, rows(chats), tmp_path, **own, **arguments)

    return make


@pytest.mark.parametrize("mode", MODES)
def test_trl(sft: Callable[[str], trl.SFTTrainer], mode: str) -> None:
    """All batches of 200 chats: nothing where all is right, else what is wrong."""
    report = audit(sft(mode), batches=200)
    assert set(report.codes) == MODES[mode][-1], report
    assert sum(rows for rows, _ in report.batches) >= 200 or "pack" in mode or "free" in mode
    assert "who shifts the labels" in report.checked


def test_a_callback_audits_before_the_first_step(
    sft: Callable[[str], trl.SFTTrainer], capsys: pytest.CaptureFixture
) -> None:
    trainer = sft("messages", max_steps=1)
    trainer.add_callback(AuditCallback(trainer))
    trainer.train()
    assert "[labels.prompt] batch 0, rows 0-7" in capsys.readouterr().out
    assert trainer.state.global_step == 1
    stopped = sft("messages", max_steps=1)
    stopped.add_callback(AuditCallback(stopped, stop=True))
    with pytest.raises(ValueError, match=r"labels\.prompt"):
        stopped.train()
    assert stopped.state.global_step == 0
    allowed = sft("messages", max_steps=1)
    allowed.add_callback(AuditCallback(allowed, stop=True, allow={"labels.prompt"}))
    allowed.train()
    assert allowed.state.global_step == 1


def trained(
    folder: Path, output: Path, audited: bool, kind: type[Trainer] = Trainer, **options: Any
) -> tuple:
    """Train a model with dropout, so that a changed random state would show; return losses and weights."""
    model, tokenizer = models.load(folder)
    model.config.attention_dropout = 0.1
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.1
    examples = Dataset.from_list(pipelines.examples_of(tokenizer, WORDY))
    settings_ = TrainingArguments(
        str(output), use_cpu=True, report_to="none", disable_tqdm=True, per_device_train_batch_size=2,
        max_steps=3, logging_steps=1, save_strategy="no",
    )  # fmt: skip
    collate = PackedCollator(2, 200) if kind is PackedTrainer else PaddedCollator(2)
    trainer = kind(
        model, settings_, train_dataset=examples, data_collator=collate, processing_class=tokenizer, **options
    )
    if audited:
        trainer.add_callback(AuditCallback(trainer, stop=True))
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, torch.cat([p.detach().flatten() for p in model.parameters()])


WORDY = [
    [
        {"role": "user", "content": f"Name {n} fruits."},
        {"role": "assistant", "content": "Bananas. " * n + "That is it."},
    ]
    for n in range(1, 9)
]


def loss_of_the_users(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    return shifting_loss(outputs.logits, labels)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(Trainer, {}), (Trainer, {"compute_loss_func": loss_of_the_users}), (PackedTrainer, {})],
    ids=["Trainer", "compute_loss_func", "PackedTrainer"],
)
def test_an_audited_training_is_the_same_training(
    tinyllama_folder: Path, tmp_path: Path, kind: type[Trainer], options: dict
) -> None:
    losses, weights = trained(tinyllama_folder, tmp_path, False, kind, **options)
    again, same_weights = trained(tinyllama_folder, tmp_path, True, kind, **options)
    assert again == losses
    assert torch.equal(same_weights, weights)


def wrong_loss_of_the_users(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None
) -> torch.Tensor:
    return plain_loss(outputs.logits, labels)


def test_a_trainers_own_loss_is_asked(tinyllama_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels\.never_shifted"):
        trained(tinyllama_folder, tmp_path, True, compute_loss_func=wrong_loss_of_the_users)


def state_of(model: torch.nn.Module, batch: dict[str, Any]) -> list[Any]:
    weights = [t.clone() for t in (*model.parameters(), *model.buffers())]
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    states = [torch.get_rng_state(), random.getstate(), str(np.random.get_state())]
    tensors = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    return [weights, gradients, modes, states, tensors]


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@pytest.mark.parametrize("name", ["padded", "left", "packed", "prompts"])
def test_nothing_is_changed(world: World, name: str) -> None:
    batch = {"padded": world.padded(), "left": world.padded("left"), "packed": world.packed(),
             "prompts": world.prompts()}[name]  # fmt: skip
    model = world.model
    purpose = "generate" if name == "prompts" else "train"
    model(input_ids=world.padded()["input_ids"]).logits.sum().backward()
    next(model.modules()).training = True  # a mixture of modes comes back as it was
    model.get_input_embeddings().training = False
    try:
        before = state_of(model, batch)
        audit(batch, tokenizer=world.tokenizer, model=model, purpose=purpose)
        audit(DataLoader([batch], batch_size=None, shuffle=True), tokenizer=world.tokenizer, model=model)
        assert equal(state_of(model, batch), before)
    finally:
        model.zero_grad()
        model.eval()


def test_cuda_that_is_not_in_use_yet_gets_no_seed(tinyllama: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch would keep it until CUDA begins: a training after the audit would not draw what its seed says."""
    model, tokenizer = tinyllama
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    batch = World("tinyllama", model, tokenizer).padded()
    audit(batch, tokenizer=tokenizer, model=lambda **inputs: model(**inputs))
    assert seeds == []


def test_a_loaders_own_generator_goes_on_where_it_was(tinyllama: tuple) -> None:
    _, tokenizer = tinyllama
    examples = pipelines.examples_of(tokenizer, WORDY)
    generator = torch.Generator().manual_seed(7)
    loader = DataLoader(examples, 2, shuffle=True, generator=generator, collate_fn=PaddedCollator(2))
    first = next(iter(loader))
    generator.manual_seed(7)
    report = audit(loader, tokenizer=tokenizer, batches=2)
    assert report.batches == [tuple(first["input_ids"].shape), report.batches[1]]
    assert equal(next(iter(loader)), first)


def batched(rows: list[dict], generator: torch.Generator) -> DataLoader:
    of_batches = BatchSampler(RandomSampler(rows, generator=generator), 2, drop_last=False)
    return DataLoader(rows, batch_sampler=of_batches, collate_fn=PaddedCollator(2))


def with_workers_that_persist(rows: list[dict], generator: torch.Generator) -> DataLoader:
    return DataLoader(
        rows, 2, shuffle=True, generator=generator, collate_fn=PaddedCollator(2), num_workers=1,
        persistent_workers=True,
    )  # fmt: skip


def prepared(rows: list[dict], generator: torch.Generator) -> Any:
    loader = DataLoader(rows, 2, shuffle=True, generator=generator, collate_fn=PaddedCollator(2))
    return Accelerator(cpu=True).prepare(loader)


@pytest.mark.parametrize("make", [batched, with_workers_that_persist, prepared])
def test_a_loader_gives_the_batches_that_it_would_have_given(tinyllama: tuple, make: Callable) -> None:
    _, tokenizer = tinyllama
    rows = pipelines.examples_of(tokenizer, WORDY)
    orders = []
    for audited in (False, True):
        torch.manual_seed(0)
        loader = make(rows, torch.Generator().manual_seed(3))
        if audited:
            in_use = list(GradientState().dataloader_references)
            assert len(audit(loader, tokenizer=tokenizer, batches=2).batches) == 2
            assert GradientState().dataloader_references == in_use
        orders.append([batch["input_ids"].tolist() for _ in range(2) for batch in loader])
    assert orders[0] == orders[1]


class Logging(Trainer):
    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        loss = model(**inputs).loss
        self.log({"of this batch": float(loss)})
        return loss


def test_an_audit_leaves_no_trace_in_a_trainer(tinyllama_folder: Path, tmp_path: Path) -> None:
    """Neither what a loss logs from within, nor a loader that accelerate keeps, with its workers."""
    model, tokenizer = models.load(tinyllama_folder)
    trainer = Logging(
        model, TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"),
        processing_class=tokenizer, data_collator=PaddedCollator(2),
        train_dataset=pipelines.examples_of(tokenizer, WORDY),
    )  # fmt: skip
    assert "who shifts the labels" in audit(trainer).checked
    assert trainer.state.log_history == []
    assert trainer.accelerator._dataloaders == []


class DropsTheMask(Trainer):
    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        return model(input_ids=inputs["input_ids"], labels=inputs["labels"]).loss


def test_a_trainer_that_does_not_pass_the_mask_is_to_blame(tinyllama_folder: Path, tmp_path: Path) -> None:
    model, tokenizer = models.load(tinyllama_folder)
    trainer = DropsTheMask(
        model, TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"),
        processing_class=tokenizer, data_collator=PaddedCollator(2, "left"),
        train_dataset=pipelines.examples_of(tokenizer, WORDY),
    )  # fmt: skip
    report = audit(trainer)
    assert report.codes == ["mask.ignored"]
    assert "does not give it to the model" in report.findings[0].cause


def test_a_trainer_of_preferences_is_asked_with_its_own_batch(tinyllama_folder: Path, tmp_path: Path) -> None:
    model, tokenizer = models.load(tinyllama_folder)
    wrong = [{"role": "assistant", "content": "No."}]
    rows = [{"prompt": c[:-1], "chosen": c[-1:], "rejected": wrong} for c in WORDY]
    settings_ = trl.DPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    trainer = trl.DPOTrainer(
        model, args=settings_, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    report = audit(trainer)
    assert report.ok
    assert "that it sees no later token" in report.checked


def _takes_a_tokenizer(rows: list, tokenizer: Any, other: Any = None) -> Any:
    return DataCollatorForLanguageModeling(tokenizer, mlm=False)(rows)


COLLATORS: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "an attribute": (
        lambda tokenizer: DataCollatorForLanguageModeling(tokenizer, mlm=False),
        ["labels.prompt", "labels.end_of_turn"],
    ),
    "a closure": (
        lambda tokenizer: lambda rows: _takes_a_tokenizer(rows, tokenizer),
        ["labels.prompt", "labels.end_of_turn"],
    ),
    "partial": (
        lambda tokenizer: partial(_takes_a_tokenizer, tokenizer=tokenizer),
        ["labels.prompt", "labels.end_of_turn"],
    ),
    "one of two": (
        lambda tokenizer: partial(_takes_a_tokenizer, tokenizer=tokenizer, other=copy.deepcopy(tokenizer)),
        [],
    ),
}


@pytest.mark.parametrize("name", COLLATORS)
def test_a_collator_brings_the_tokenizer_that_its_trainer_lacks(
    tinyllama_folder: Path, tmp_path: Path, name: str
) -> None:
    model, tokenizer = models.load(tinyllama_folder)
    rows = [{"input_ids": example["input_ids"]} for example in pipelines.examples_of(tokenizer, WORDY)]
    collator, found = COLLATORS[name]
    trainer = Trainer(
        model, TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"), train_dataset=rows,
        data_collator=collator(tokenizer),
    )  # fmt: skip
    report = audit(trainer)
    assert report.codes == found
    assert any("there is no tokenizer" in why for why in report.not_checked.values()) == (not found)


class Printer(BaseStreamer):
    def put(self, value: torch.Tensor) -> None:
        raise AssertionError("an audit writes to nobody")

    end = put


@pytest.mark.parametrize(
    "more",
    [
        {"max_new_tokens": 9, "do_sample": True, "top_p": 0.9, "streamer": Printer()},
        {"num_beams": 2, "num_return_sequences": 2, "output_scores": True},
        {"generation_config": GenerationConfig(max_new_tokens=9, num_return_sequences=3, do_sample=True)},
        {"token_type_ids": torch.zeros(4, 1, dtype=torch.int64)},
    ],
    ids=["sampling", "beams", "a config", "token types"],
)
def test_generate_is_asked_whatever_is_given_along_with_the_prompts(
    request: pytest.FixtureRequest, more: dict[str, Any]
) -> None:
    world = world_of("gpt2", request)  # its forward refuses what only generate() takes
    prompts = world.prompts()
    if "token_type_ids" in more:
        more = {"token_type_ids": torch.zeros_like(prompts["input_ids"])}
    for batch, found in ((prompts, []), (without(prompts, "attention_mask"), ["mask.missing"])):
        report = audit(batch | more, tokenizer=world.tokenizer, model=world.model, purpose="generate")
        assert report.codes == found, report
        assert "that the second new token is scored as in one pass" in report.checked or found


def test_few_forward_passes(tinyllama: tuple) -> None:
    """Eight rows of 256 tokens, whatever is in them: at most six calls of the model."""
    model, tokenizer = tinyllama
    ids = torch.randint(3, 400, (8, 256), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    for row in range(8):
        mask[row, : 20 * row] = 0
    ids[mask == 0] = tokenizer.pad_token_id
    labels = ids.masked_fill(mask == 0, IGNORE_INDEX)
    samples = torch.arange(256).repeat(8, 1) % 64
    calls = []
    handle = model.register_forward_pre_hook(
        lambda _, args, call: calls.append(call["input_ids"].shape), with_kwargs=True
    )
    try:
        for batch in (
            {"input_ids": ids, "attention_mask": mask, "labels": labels},
            {"input_ids": ids, "labels": labels},
            {"input_ids": ids, "labels": labels, "position_ids": samples, "use_cache": False},
            {"input_ids": ids, "labels": labels, "position_ids": samples, "attention_mask": block(samples)},
        ):
            calls.clear()
            audit(batch, tokenizer=tokenizer, model=model)
            assert 2 <= len(calls) <= MOST_PASSES
            assert set(calls) == {(8, 256)}
        calls.clear()
        audit({"input_ids": ids}, tokenizer=tokenizer, model=model, purpose="generate")
        assert len(calls) <= MOST_PASSES
    finally:
        handle.remove()


def test_the_most_forward_passes(tinyllama: tuple) -> None:
    """Pads before the text, packed rows with and without positions, and a label of its own for 'ignore'."""
    model, tokenizer = tinyllama
    world = World("tinyllama", model, tokenizer)
    rows = [example["input_ids"] for example in world.examples]
    pair = [rows[0] + rows[1], rows[2] + rows[3]]
    width = max(map(len, pair)) + 1
    places = [list(range(len(rows[0]))) + list(range(len(rows[1]))), list(range(len(pair[1])))]
    pads = [width - len(row) for row in pair]
    ids = torch.tensor([[2] * n + row for n, row in zip(pads, pair)])
    batch = {
        "input_ids": ids,
        "attention_mask": (torch.arange(width) >= torch.tensor(pads)[:, None]).long(),
        "position_ids": torch.tensor([[0] * n + row for n, row in zip(pads, places)]),
        "labels": ids.masked_fill(torch.arange(width) < 12, -1),
    }
    calls = []

    def ignoring(labels: torch.Tensor | None = None, **call: Any) -> Any:
        calls.append(1)
        labels = None if labels is None else labels.masked_fill(labels == -1, IGNORE_INDEX)
        return model(labels=labels, **call)

    report = audit(batch, tokenizer=tokenizer, model=ignoring)
    assert {"packing.positions_run_on", "packing.samples_see_each_other"} <= set(report.codes)
    assert 5 <= len(calls) <= MOST_PASSES
    assert len(report.checked) == len(set(report.checked))


def block(positions: torch.Tensor) -> torch.Tensor:
    return torch.zeros(block_mask(positions).shape).masked_fill(
        ~block_mask(positions), torch.finfo(torch.float32).min
    )


def test_other_forms_of_the_same_batch(tinyllama: tuple) -> None:
    model, tokenizer = tinyllama
    world = World("tinyllama", model, tokenizer)
    batch = shifted = world.padded() | {"labels": shift(world.padded()["labels"])}
    expected = str(audit(shifted, tokenizer=tokenizer, model=model))
    forms = [
        {name: tensor.tolist() for name, tensor in batch.items()},
        {name: tensor.numpy() for name, tensor in batch.items()},
        {name: tensor.int() for name, tensor in batch.items()} | {"labels": batch["labels"]},
        batch | {"attention_mask": batch["attention_mask"].float()},
        batch | {"attention_mask": batch["attention_mask"].bool()},
        BatchEncoding(batch),
    ]
    for form in forms:
        assert str(audit(form, tokenizer=tokenizer, model=model)) == expected
    later = audit([world.padded(), shifted], tokenizer=tokenizer, model=model)  # the loss is the same one
    assert [(finding.code, finding.batch) for finding in later.findings] == [("labels.shifted_twice", 1)]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ("a text", "This is a str"),
        (torch.ones(2, 3), "This is a Tensor"),
        ({"tokens": [[1]]}, "no input_ids, only tokens"),
        ({"input_ids": [1, 2]}, r"shape \(2,\)"),
        ({"input_ids": [[]]}, "a batch has"),
        ({"input_ids": [[1, 2], [3]]}, "input_ids are lists of different lengths"),
        ({"input_ids": [["a"]]}, "not of numbers"),
        ({"input_ids": {1: 2}}, "input_ids is a dict"),
        ({"input_ids": [[1.0, 2.0]]}, "input_ids are float32"),
        ({"input_ids": [[1, 2]], "labels": [[1.0, 2.0]]}, "labels are float32"),
        ({"input_ids": [[1, 2]], "labels": "ab"}, "labels is a str"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1, 1, 1]]}, r"attention_mask has shape \(1, 3\)"),
        ({"input_ids": [[1, 2]], "attention_mask": torch.ones(1, 1, 3, 3)}, r"must be \(1, 1, 2, 2\)"),
        ({"input_ids": [[1, 2]], "position_ids": [[0]]}, r"position_ids has shape \(1, 1\)"),
        (iter([{"input_ids": [[1]]}]), "An iterator would lose"),
        ([], "gives no batch"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_name(batch: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audit(batch)


def test_an_unknown_purpose_is_refused() -> None:
    with pytest.raises(ValueError, match="purpose must be 'train' or 'generate', not 'evaluate'"):
        audit({"input_ids": [[1]]}, purpose="evaluate")


@pytest.mark.parametrize("purpose", ["train", "generate"])
def test_a_missing_mask_is_seen_without_a_model(tinyllama: tuple, purpose: str) -> None:
    _, tokenizer = tinyllama
    world = World("tinyllama", *tinyllama)
    batch, rows = (
        (world.padded("left"), world.short) if purpose == "train" else (world.prompts(), world.short_prompts)
    )
    unmasked = without(batch, "attention_mask")
    report = audit(unmasked, tokenizer=tokenizer, purpose=purpose)
    assert {finding.code: finding.rows for finding in report.findings} == {"mask.missing": rows}
    assert audit(batch, tokenizer=tokenizer, purpose=purpose).ok
    positions = position_ids(batch["attention_mask"])  # they may tell pads apart, as a sample of their own
    assert audit(unmasked | {"position_ids": positions}, tokenizer=tokenizer, purpose=purpose).ok


def test_what_cannot_be_known_is_not_claimed(tinyllama: tuple) -> None:
    """Without model and tokenizer only what the numbers say; the rest is listed, with the reason."""
    model, tokenizer = tinyllama
    world = World("tinyllama", model, tokenizer)
    bare = audit(world.padded() | {"labels": shift(world.padded()["labels"])})
    assert bare.ok
    assert bare.not_checked["who shifts the labels"] == "the data do; there is no model and no loss to ask"
    assert "there is no model" in bare.not_checked.values()
    assert "there is no tokenizer" in bare.not_checked.values()
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    report = audit(world.padded(), tokenizer=plain, model=model)
    assert report.not_checked["turns, answers and their ends"] == "the tokenizer has no chat template"

    def smoothed(**batch: Any) -> Any:
        output = model(**batch)
        return SimpleNamespace(logits=output.logits, loss=output.loss and 0.9 * output.loss)

    report = audit(world.padded(), tokenizer=tokenizer, model=smoothed)
    assert "no plain mean" in report.not_checked["who shifts the labels"]


def test_any_function_may_stand_for_the_model(tinyllama: tuple) -> None:
    model, tokenizer = tinyllama
    world = World("tinyllama", model, tokenizer)

    def logits_only(input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> torch.Tensor:
        return model(input_ids=input_ids, attention_mask=attention_mask).logits

    def blind(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        return model(input_ids=input_ids).logits

    batch = world.padded("left")
    assert audit(batch, tokenizer=tokenizer, model=logits_only, loss=shifting_loss).ok
    assert audit(batch, tokenizer=tokenizer, model=blind, loss=shifting_loss).codes == ["mask.ignored"]
    assert (
        "no loss" in audit(batch, tokenizer=tokenizer, model=logits_only).not_checked["who shifts the labels"]
    )


def test_a_report_reads_well(tinyllama: tuple) -> None:
    model, tokenizer = tinyllama
    world = World("tinyllama", model, tokenizer)
    right = audit(world.padded(), tokenizer=tokenizer, model=model)
    assert right.ok
    right.raise_for_findings()
    assert "no findings" in str(right)
    report = audit(world.padded() | {"labels": world.padded()["input_ids"]}, tokenizer=tokenizer, model=model)
    assert report.codes == ["labels.padding", "labels.prompt"]
    with pytest.raises(ValueError, match="2 findings"):
        report.raise_for_findings()
    with pytest.raises(ValueError, match="2 findings"):
        report.raise_for_findings(allow={"labels.prompt"})
    report.raise_for_findings(allow={"labels.prompt", "labels.padding"})
    with pytest.raises(ValueError, match="no fault 'prompt' to allow"):
        report.raise_for_findings(allow={"prompt"})
    text, page = str(report), report._repr_html_()
    assert max(map(len, text.splitlines())) <= 80
    for finding in report.findings:
        for part in (finding.what, finding.symptom, finding.cause, finding.fix, finding.lesson):
            assert html.escape(part) in page
            assert part.split()[0] in text
        assert finding.code in text
        assert finding.code in page
        assert "▲" in finding.grid
    assert page.count("<td") == page.count("</td>") == 4


# What chat templates look like: the special tokens that they need, and how they write a conversation.
END_OF_CHATML = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
TEMPLATES = {
    "Llama-3": (
        ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + "
        "m.content | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    ),
    "Mistral": (
        ["[INST]", "[/INST]"],
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
        "{{ '[INST] ' + m.content + '[/INST]' }}"
        "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% else %}"
        "{{ raise_exception('no such role') }}{% endif %}{% endfor %}",
    ),
    "Gemma": (
        ["<start_of_turn>", "<end_of_turn>"],
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + "
        "'\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<start_of_turn>model\n' }}{% endif %}",
    ),
    "Qwen3": (
        ["<|im_start|>", "<|im_end|>"],
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}"
        "{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}" + END_OF_CHATML,
    ),
    "Phi-4-mini": (
        ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
        "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}",
    ),
    "Tulu": (
        [],
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|assistant|>\n' + m.content + eos_token }}"
        "{% if not loop.last %}{{ '\n' }}{% endif %}{% else %}{{ '<|' + m.role + '|>\n' + m.content + '\n' }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    ),
}


def templated(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    tokenizer = copy.deepcopy(tokenizer)
    special, tokenizer.chat_template = TEMPLATES[name]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    return tokenizer


@pytest.mark.parametrize("name", TEMPLATES)
def test_other_templates(tinyllama: tuple, name: str) -> None:
    tokenizer = templated(tinyllama[1], name)
    chats = [
        [{"role": "user", "content": asked}, {"role": "assistant", "content": said}] for asked, said in TALKS
    ]
    if name not in ("Qwen3", "Phi-4-mini"):  # they write a turn otherwise when more follow
        chats += [first + second for first, second in pairwise(chats)]
    batch = next(pipelines.padded(tokenizer, chats))
    report = audit(batch, tokenizer=tokenizer)
    assert report.ok, report
    assert "turns, answers and their ends" in report.checked
    real, end = batch["attention_mask"] == 1, (batch["attention_mask"].sum(dim=1) - 1)
    everything = torch.where(real, batch["input_ids"], IGNORE_INDEX)
    assert audit(batch | {"labels": everything}, tokenizer=tokenizer).codes == ["labels.prompt"]
    endless = batch["labels"].clone()
    for row, last in enumerate(end.tolist()):
        endless[row, last - (name == "Phi-4-mini") : last + 1] = IGNORE_INDEX  # which ends twice
    assert audit(batch | {"labels": endless}, tokenizer=tokenizer).codes == ["labels.end_of_turn"]
    late = batch["labels"].clone()
    first = (late != IGNORE_INDEX).long().argmax(dim=1)
    late[range(len(end)), first] = IGNORE_INDEX
    expected = [] if name == "Qwen3" else ["labels.starts_late"]  # the thought may be learned or not
    assert audit(batch | {"labels": late}, tokenizer=tokenizer).codes == expected


def test_turns_that_nothing_announces_are_not_guessed(tinyllama: tuple) -> None:
    tokenizer = copy.deepcopy(tinyllama[1])
    tokenizer.chat_template = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
    batch = next(pipelines.padded(tinyllama[1], WORDY))
    report = audit(batch, tokenizer=tokenizer)
    assert report.ok
    assert (
        report.not_checked["turns, answers and their ends"]
        == "its chat template writes the same before a user's turn as before an answer"
    )


def test_tools_may_speak(tinyllama: tuple) -> None:
    tokenizer = templated(tinyllama[1], "Llama-3")
    roles = ["user", "assistant", "tool", "assistant"]
    chat = [{"role": role, "content": f"The {role}."} for role in roles]
    batch = next(pipelines.padded(tokenizer, [chat, chat[:2]]))
    assert audit(batch, tokenizer=tokenizer).ok
    batch["labels"][0] = batch["input_ids"][0]
    assert audit(batch, tokenizer=tokenizer).codes == ["labels.prompt"]


@pytest.mark.parametrize("rows", [1, 3])
def test_every_row_padded_to_a_fixed_width(tinyllama: tuple, rows: int) -> None:
    """pad = EOS, and the template writes a line break after the end: no pad is part of the text."""
    model, tokenizer = tinyllama
    texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in WORDY[:rows]]
    batch = tokenizer(
        texts, padding="max_length", max_length=80, add_special_tokens=False, return_tensors="pt"
    )
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORE_INDEX)
    assert audit(batch, tokenizer=tokenizer, model=model).codes == ["labels.prompt"]


def test_plain_texts_one_after_another_are_pre_training(tinyllama: tuple) -> None:
    model, tokenizer = tinyllama
    text = [token for n in range(1, 30) for token in tokenizer(f"There are {n} fruits.")["input_ids"]]
    assert text.count(tokenizer.bos_token_id) == 29
    ids = torch.tensor(text[: 4 * 32]).view(4, 32)
    assert audit({"input_ids": ids, "labels": ids}, tokenizer=tokenizer, model=model).ok


def test_labels_swapped_between_rows_are_no_shift(tinyllama: tuple) -> None:
    model, tokenizer = tinyllama
    examples = pipelines.examples_of(tokenizer, WORDY[:4])
    for row in (0, 2):  # words by chance one place off, as of another answer
        answer = [i for i, label in enumerate(examples[row]["labels"]) if label != IGNORE_INDEX][:-1]
        for i in answer:
            examples[row]["labels"][i] = examples[row]["input_ids"][i + 1] if i == answer[0] else 40 + i % 3
    report = audit(PaddedCollator(2)(examples), tokenizer=tokenizer, model=model)
    assert {finding.code: finding.rows for finding in report.findings} == {"labels.other_tokens": [0, 2]}


def test_a_fragment_of_an_answer_begins_nobodys_turn(sft: Callable[..., trl.SFTTrainer]) -> None:
    """TRL's ``bfd_split`` cuts long rows and packs the pieces; what is said in them was said by somebody."""
    report = audit(sft("packing, bfd", packing_strategy="bfd_split"), batches=200)
    assert set(report.codes) <= {"labels.end_cut_off", "labels.nothing_in_row"} | LAST


def one_row_of_positions(world: World) -> dict[str, Any]:
    batch = world.padded("left")
    return batch | {"position_ids": torch.arange(batch["input_ids"].shape[1])[None]}


def test_one_row_of_positions_for_all(world: World) -> None:
    report = audit(one_row_of_positions(world), tokenizer=world.tokenizer, model=world.model)
    assert report.codes == (["positions.count_pads"] if world.name == "gpt2" else [])


def test_functions_that_take_little(tinyllama: tuple) -> None:
    model, tokenizer = tinyllama
    world = World("tinyllama", model, tokenizer)

    def of_ids(input_ids: torch.Tensor) -> torch.Tensor:
        return model(input_ids=input_ids).logits

    def of_ids_and_mask(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return model(input_ids=input_ids, attention_mask=attention_mask).logits

    prompts = {"input_ids": world.prompts()["input_ids"]}
    report = audit(prompts, tokenizer=tokenizer, model=of_ids, purpose="generate")
    assert report.not_checked["whether padding is seen"] == "the model takes no attention_mask"
    batch = without(world.padded("left"), "labels")
    report = audit(batch, tokenizer=tokenizer, model=of_ids_and_mask)
    assert report.ok
    assert "takes no position_ids" in report.not_checked["whether positions count the padding"]
    report = audit(batch, tokenizer=tokenizer, model=of_ids)  # a call that cannot be made loses nothing else
    assert any("TypeError" in why for why in report.not_checked.values())


@pytest.mark.parametrize("kind", [Trainer, PackedTrainer])
@pytest.mark.parametrize("labels", ["none", "minus one", "too short"])
def test_a_trainer_with_labels_that_it_cannot_use(
    tinyllama_folder: Path, tmp_path: Path, kind: type[Trainer], labels: str
) -> None:
    model, tokenizer = models.load(tinyllama_folder)

    def collate(rows: list[dict]) -> dict[str, Any]:
        batch = PaddedCollator(2)(rows)
        if labels == "none":
            return without(batch, "labels")
        changed = batch["labels"].masked_fill(batch["labels"] == IGNORE_INDEX, -1)
        return batch | {"labels": changed if labels == "minus one" else batch["labels"][:, 1:]}

    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    rows = pipelines.examples_of(tokenizer, WORDY)
    trainer = kind(model, arguments, train_dataset=rows, data_collator=collate, processing_class=tokenizer)
    report = audit(trainer)
    expected = {"none": [], "minus one": ["labels.out_of_vocabulary"], "too short": ["labels.shape"]}
    assert report.codes == expected[labels]
    assert "that it sees no later token" in report.checked


@pytest.mark.parametrize("kind", ["Trainer", "TRL"])
def test_few_forward_passes_of_a_trainer(
    sft: Callable[..., trl.SFTTrainer], tinyllama_folder: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "TRL":
        trainer = sft("packing, bfd")
    else:
        model, tokenizer = models.load(tinyllama_folder)
        trainer = Trainer(
            model, TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"),
            processing_class=tokenizer, data_collator=PaddedCollator(2, "left"),
            train_dataset=pipelines.examples_of(tokenizer, WORDY),
        )  # fmt: skip
    calls = []
    handle = trainer.model.register_forward_pre_hook(lambda *_: calls.append(1))
    report = audit(trainer)
    handle.remove()
    assert report.ok
    assert 2 <= len(calls) <= MOST_PASSES + 1
