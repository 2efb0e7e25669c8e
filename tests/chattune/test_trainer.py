"""A packed row changes only the speed: no sample is seen by another; loss, gradients and weights agree."""

import copy
import inspect
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from training_data import CHATS, EXAMPLES, PAD
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DataCollatorWithFlattening,
    Lfm2Config,
    Lfm2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from chattune import fine_tune
from chattune.attention import (
    BY_SAMPLE,
    attending_by_sample,
    attention_by_sample,
    keeps_samples_apart,
    reads_shared_beginning,
    sample_lengths,
)
from chattune.trainer import PackedTrainer, _as_one_row
from tinylib import models
from tinylib.collate import PackedCollator, PaddedCollator
from tinylib.labels import IGNORE_INDEX


def gradients(model: PreTrainedModel) -> torch.Tensor:
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


def summed(model: PreTrainedModel, batches: list[dict[str, torch.Tensor]]) -> tuple[float, torch.Tensor]:
    """Loss and gradients of batches together: the mean over all of their supervised tokens."""
    count = sum(int((batch["labels"][:, 1:] != IGNORE_INDEX).sum()) for batch in batches)
    losses = [model(**batch, use_cache=False, num_items_in_batch=count).loss for batch in batches]
    sum(losses).backward()
    return sum(losses).item(), gradients(model)


def without_first_label(examples: list[dict]) -> list[dict]:
    return [e | {"labels": [IGNORE_INDEX, *e["labels"][1:]]} for e in examples]


@pytest.mark.parametrize("kind", ["tinyllama", "gpt2"])
@settings(max_examples=25)
@given(examples=EXAMPLES, max_length=st.integers(1, 60))
def test_loss_and_gradients_packed_padded_and_one_by_one(
    request: pytest.FixtureRequest, kind: str, examples: list[dict], max_length: int
) -> None:
    model = request.getfixturevalue(kind)
    model = model[0] if kind == "tinyllama" else model
    examples = without_first_label(examples)
    loss, gradient = summed(model, [PaddedCollator(PAD)([e]) for e in examples])
    padded = summed(model, [PaddedCollator(PAD)(examples)])
    packed = summed(model, [PackedCollator(PAD, max_length)(examples)])
    with attending_by_sample(model):
        by_sample = summed(model, [PackedCollator(PAD, max_length)(examples)])
    for other_loss, other_gradient in (padded, packed, by_sample):
        assert other_loss == pytest.approx(loss, abs=1e-4)
        assert (other_gradient - gradient).abs().max() < 1e-3 * max(1.0, float(gradient.abs().max()))


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    rng = random.Random(0)
    lengths = [3, 40, 7, 7, 25, 60]
    examples = []
    for length in lengths:
        ids = [rng.randrange(5, 60) for _ in range(length)]
        examples.append({"input_ids": ids, "labels": [IGNORE_INDEX] * (length // 2) + ids[length // 2 :]})
    return PackedCollator(PAD, max_length=70)(examples)


def trainer_of(kind: type[Trainer], model: PreTrainedModel, folder: Path, **arguments: Any) -> Trainer:
    settings = TrainingArguments(str(folder), use_cpu=True, report_to="none", **arguments)
    return kind(model, settings)


@contextmanager
def calls_of(model: PreTrainedModel) -> Iterator[list[dict[str, Any]]]:
    """What a model is called with to learn or to be scored."""
    calls = []
    handle = model.register_forward_pre_hook(lambda *call: calls.append(call[2]), with_kwargs=True)
    yield calls
    handle.remove()
    calls[:] = [call for call in calls if "logits_to_keep" in call]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_scoring_labels_only_and_row_by_row_changes_nothing(
    tinyllama: tuple, batch: dict[str, torch.Tensor], tmp_path: Path, smoothing: float
) -> None:
    model, _ = tinyllama
    count = (batch["labels"] != IGNORE_INDEX).sum()
    whole = dict(batch, use_cache=False)  # transformers 4's Trainer leaves the cache on, and samples leak
    reference = trainer_of(Trainer, model, tmp_path, label_smoothing_factor=smoothing)
    expected = reference.training_step(model, whole, count)
    expected_gradient = gradients(model)
    ours = trainer_of(PackedTrainer, model, tmp_path, label_smoothing_factor=smoothing)
    with attending_by_sample(model), calls_of(model) as calls:
        loss = ours.training_step(model, batch, count)
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    assert (gradients(model) - expected_gradient).abs().max() < 1e-5
    assert len(calls) == len(batch["input_ids"]) > 1
    assert sum(int(call["logits_to_keep"].sum()) for call in calls) == count
    model.eval()


@pytest.mark.parametrize("beginning", [0, 6])
def test_a_first_label_that_a_collator_forgets_to_ignore_is_learned_as_by_the_trainer(
    tinyllama: tuple, tmp_path: Path, beginning: int
) -> None:
    model, _ = tinyllama
    samples = [[*range(10, 10 + beginning), *range(n, 2 * n)] for n in (5, 20, 9)]
    labels = [[IGNORE_INDEX] * (beginning + 1) + ids[beginning + 1 :] for ids in samples]
    batch = PackedCollator(PAD)([{"input_ids": i, "labels": t} for i, t in zip(samples, labels)])
    batch["labels"] = torch.where(batch["position_ids"] == 0, batch["input_ids"], batch["labels"])
    count = (batch["labels"] != IGNORE_INDEX).sum()
    reference = trainer_of(Trainer, model, tmp_path)
    expected = reference.training_step(model, dict(batch, use_cache=False), count).item(), gradients(model)
    with attending_by_sample(model):
        loss = trainer_of(PackedTrainer, model, tmp_path).training_step(model, batch, count)
    assert loss == pytest.approx(expected[0], abs=1e-5)
    assert (gradients(model) - expected[1]).abs().max() < 1e-5
    model.eval()


@pytest.fixture(scope="module")
def windowed() -> PreTrainedModel:
    """Mistral, of which a token reads itself and four before it."""
    torch.manual_seed(0)
    small = {"vocab_size": 431, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 5}
    return MistralForCausalLM(MistralConfig(**small, **heads, initializer_range=0.2)).eval()


@pytest.mark.parametrize("kind", ["tinyllama", "gpt2", "windowed"])
@settings(max_examples=25)
@given(
    examples=EXAMPLES,
    beginning=st.lists(st.integers(5, 60), max_size=12),
    max_length=st.integers(1, 120),
    labeled=st.booleans(),
)
@example(
    examples=[{"input_ids": [n, 5, PAD], "labels": [IGNORE_INDEX, 5, PAD]} for n in (6, 7, 8)],
    beginning=[7, 8, 9, 10, 11, 12, 13],
    max_length=120,
    labeled=False,
)
def test_what_samples_begin_with_is_computed_once_and_read_by_each(
    request: pytest.FixtureRequest,
    kind: str,
    examples: list[dict],
    beginning: list[int],
    max_length: int,
    labeled: bool,
) -> None:
    model = request.getfixturevalue(kind)
    model = model[0] if kind == "tinyllama" else model
    before = beginning if labeled else [IGNORE_INDEX] * len(beginning)
    examples = [
        {"input_ids": beginning + e["input_ids"], "labels": before + e["labels"]}
        for e in without_first_label(examples)
    ]
    examples = without_first_label(examples)
    batch = PackedCollator(PAD, max_length)(examples)
    expected = summed(model, [PaddedCollator(PAD)([e]) for e in examples])
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(PackedTrainer, model, Path(folder))
    model.eval()  # no dropout
    count = (batch["labels"] != IGNORE_INDEX).sum()
    with attending_by_sample(model), calls_of(model) as calls:
        losses = [
            trainer.compute_loss(model, part, num_items_in_batch=count) for part in trainer._parts(batch)
        ]
    sum(losses).backward()
    assert sum(losses).item() == pytest.approx(expected[0], abs=1e-4)
    assert (gradients(model) - expected[1]).abs().max() < 1e-3 * max(1.0, float(expected[1].abs().max()))
    computed = sum(call["input_ids"].numel() for call in calls)
    reads = reads_shared_beginning(model)
    assert reads or kind == "gpt2"  # in transformers 4 its attention does not get what tells of the beginning
    saved = (len(beginning) - 1) * (len(examples) - len(calls)) if reads and not labeled else 0
    assert computed <= sum(len(e["input_ids"]) for e in examples) - saved


def test_rows_laid_end_to_end_for_several_processes_stay_apart(tinyllama: tuple, batch: dict) -> None:
    model, _ = tinyllama
    one = _as_one_row(batch)
    assert one["input_ids"].shape == (1, batch["input_ids"].numel())
    with torch.no_grad():
        expected, found = (model(**rows, use_cache=False).logits.flatten(0, 1) for rows in (batch, one))
    assert (found - expected).abs().max() < 1e-4
    wanted = batch | {"labels": batch["labels"].clone()}
    wanted["labels"][:, 0] = 9  # as of a collator that forgets them
    assert (_as_one_row(wanted)["labels"] == one["labels"]).all()


def test_a_batch_without_labels_is_refused(tinyllama: tuple, tmp_path: Path) -> None:
    model, _ = tinyllama
    with pytest.raises(ValueError, match="The batch has no labels"):
        trainer_of(PackedTrainer, model, tmp_path).training_step(model, {"input_ids": torch.tensor([[5]])}, 1)
    model.eval()


def test_fine_tune_packs_and_pads_to_the_same_losses_and_weights(tinyllama_folder: Path) -> None:
    results = []
    for collator in (None, PaddedCollator(PAD), PackedCollator(PAD, max_length=100)):
        model, tokenizer = models.load(tinyllama_folder)
        losses = fine_tune(
            model, tokenizer, CHATS, collator=collator, per_device_train_batch_size=4, num_train_epochs=2
        )
        assert model.config._attn_implementation == "sdpa"
        results.append((losses, torch.cat([p.detach().flatten() for p in model.parameters()])))
    (losses, weights), *others = results
    for other_losses, other_weights in others:
        assert other_losses == pytest.approx(losses, abs=2e-4)
        assert (other_weights - weights).abs().max() < 1e-4


def test_fine_tune_packs_by_itself(tinyllama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    collate = PackedCollator.__call__
    monkeypatch.setattr(PackedCollator, "__call__", lambda *a: made.append(collate(*a)) or made[-1])
    model, tokenizer = models.load(tinyllama_folder)
    fine_tune(model, tokenizer, CHATS, max_steps=1)
    assert "position_ids" in made[0]


@pytest.mark.parametrize("kind", ["tinyllama", "gpt2"])
def test_no_sample_sees_another(request: pytest.FixtureRequest, kind: str, batch: dict) -> None:
    model = request.getfixturevalue(kind)
    model = model[0] if kind == "tinyllama" else model
    inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
    start = 0
    for length in sample_lengths(batch["position_ids"][0]):
        own = slice(start, start + length)
        changed = inputs["input_ids"].clone()
        changed[0, own] = (changed[0, own] + 7) % 50 + 5
        for by_sample in (False, True):
            with torch.no_grad(), attending_by_sample(model) if by_sample else torch.no_grad():
                before = model(**inputs, use_cache=False).logits
                after = model(**inputs | {"input_ids": changed}, use_cache=False).logits
            moved = (after - before).abs().amax(dim=-1)
            assert moved[0, own].max() > 0.1
            moved[0, own] = 0
            assert moved.max() == 0
        start += length


def test_attention_by_sample_is_sdpa_under_the_block_mask(tinyllama: tuple, batch: dict) -> None:
    model, _ = tinyllama
    inputs = {name: batch[name][:1] for name in ("input_ids", "position_ids")}
    with torch.no_grad():
        expected = model(**inputs, use_cache=False).logits
        with attending_by_sample(model):
            assert model.config._attn_implementation == BY_SAMPLE
            found = model(**inputs, use_cache=False).logits
    assert (found - expected).abs().max() < 1e-4


SMALL = {"vocab_size": 431, "hidden_size": 32, "num_hidden_layers": 2}
OTHERS = {
    "OPT": lambda: OPTForCausalLM(
        OPTConfig(**SMALL, ffn_dim=64, num_attention_heads=4, word_embed_proj_dim=32)
    ),
    "Bloom": lambda: BloomForCausalLM(BloomConfig(vocab_size=431, hidden_size=32, n_layer=2, n_head=4)),
    "Mamba": lambda: MambaForCausalLM(MambaConfig(**SMALL, state_size=4)),
    # Its convolution sees one token back, into the sample before; and its token 0 is a pad, embedded as 0.
    "Lfm2": lambda: Lfm2ForCausalLM(
        Lfm2Config(
            **SMALL,
            num_attention_heads=4,
            num_key_value_heads=2,
            conv_L_cache=2,
            initializer_range=0.2,
            layer_types=["conv", "full_attention"],
        )
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_model_that_lets_packed_samples_see_each_other_gets_them_padded(
    tinyllama: tuple, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer, options = tinyllama[1], {"max_steps": 2, "max_length": 200, "per_device_train_batch_size": 4}
    torch.manual_seed(0)
    packed = OTHERS[kind]()
    if "logits_to_keep" not in inspect.signature(packed.forward).parameters:
        pytest.skip("in transformers 4 it cannot leave out logits, and is refused")
    padded = copy.deepcopy(packed)
    assert not reads_shared_beginning(packed)
    losses = fine_tune(packed, tokenizer, CHATS, **options)
    assert "they are padded" in capsys.readouterr().out
    assert losses == fine_tune(padded, tokenizer, CHATS, collator=PaddedCollator(PAD), **options)
    with pytest.raises(ValueError, match="lets packed chats see each other"):
        fine_tune(padded, tokenizer, CHATS, collator=PackedCollator(PAD), **options)


def test_models_that_read_samples_off_the_positions_are_known(
    tinyllama: tuple, gpt2: PreTrainedModel
) -> None:
    for model in (tinyllama[0].train(), gpt2):
        assert keeps_samples_apart(model)
    assert reads_shared_beginning(tinyllama[0])
    assert tinyllama[0].training
    tinyllama[0].eval()


@pytest.mark.parametrize(
    "collator",
    [
        DataCollatorWithFlattening(return_flash_attn_kwargs=True),
        DataCollatorForLanguageModeling(pad_token_id=PAD, padding_free=True),
    ],
    ids=["transformers", "TRL"],
)
def test_what_others_pack_is_trained_alike(tinyllama_folder: Path, collator: Any) -> None:
    losses = []
    for collate in (PaddedCollator(PAD), collator):
        model, tokenizer = models.load(tinyllama_folder)
        losses.append(fine_tune(model, tokenizer, CHATS, collator=collate, max_steps=2))
    assert losses[1] == pytest.approx(losses[0], abs=2e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_attending_by_sample_keeps_to_the_mask_of_a_padded_batch(tinyllama: tuple, side: str) -> None:
    model, _ = tinyllama
    rows = [{"input_ids": [5, 6, 7, 8], "labels": [5, 6, 7, 8]}, {"input_ids": [9, 8], "labels": [9, 8]}]
    for examples in (rows, rows[1:]):
        batch = PaddedCollator(PAD, side)(examples)
        with torch.no_grad():
            expected = model(**batch).loss
            with attending_by_sample(model):
                assert model(**batch).loss == pytest.approx(expected.item(), abs=1e-5)


def test_what_is_hidden_within_a_sample_stays_hidden() -> None:
    """A sliding window, say: the mask decides, packed or not."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 9, 4)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
    sample = torch.tensor([0] * 4 + [1] * 5)
    i, j = torch.arange(9)[:, None], torch.arange(9)[None]
    visible = ((j <= i) & (i - j < 2) & (sample[:, None] == sample[None]))[None, None]
    module = torch.nn.Module()
    found, _ = attention_by_sample(module, query, key, value, visible, position_ids=positions)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, visible).transpose(1, 2)
    assert torch.allclose(found, expected, atol=1e-6)
