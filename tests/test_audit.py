"""Each fault is found, by its code, at its rows, alone; and nothing in a right batch."""

import copy

import pipelines
import pytest
import torch
from audit_worlds import PLANTS, World, as_planted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

from tinylib.audit import FAULTS, audit
from tinylib.labels import plain_loss


@pytest.fixture(scope="module", params=["smollm2", "tinyllama", "gpt2"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "smollm2":
        return World("smollm2", *request.getfixturevalue("shipped"))
    llama, tokenizer = request.getfixturevalue("tinyllama")
    if request.param == "tinyllama":
        return World("tinyllama", llama, tokenizer)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_layer=2, n_head=4, n_embd=32, n_positions=512, initializer_range=0.2,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    return World("gpt2", GPT2LMHeadModel(config).eval(), tokenizer)


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_found_alone_at_its_rows(world: World, name: str) -> None:
    batch, code, rows, options = PLANTS[name](world)
    with as_planted(world, options) as arguments:
        report = audit(batch, tokenizer=world.tokenizer, model=world.model, **arguments)
    found = {finding.code: finding.rows for finding in report.findings}
    assert found == ({code: rows} if code else {})


def test_every_fault_is_planted(world: World) -> None:
    planted = {plant(world)[1] for plant in PLANTS.values()}
    assert set(FAULTS) - planted <= ({"positions.count_pads"} if world.name != "gpt2" else set())


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
    settings(max_examples=200, suppress_health_check=list(HealthCheck))(given(chat())(drawn.append))()
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


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_is_found_in_a_right_pipeline(world: World, chats: list, name: str) -> None:
    """Data from both tokenizers; the model is asked where it is small."""
    pipeline, own_pad, options = RIGHT[name]
    tokenizer = with_pad_of_its_own(world.tokenizer) if own_pad else world.tokenizer
    model = None if world.name == "smollm2" else world.model
    if world.name == "gpt2" and pipeline is pipelines.padded_left:
        pytest.skip("absolute positions need position_ids, too")
    count = 0
    with as_planted(world, {"generation_pad": tokenizer.pad_token_id}):
        for batch in pipeline(tokenizer, chats):
            report = audit(batch, tokenizer=tokenizer, model=model, **options)
            assert report.ok, f"{report}\n{batch}"
            count += len(batch["input_ids"])
    assert count >= (200 if "pack" not in name and "Flattening" not in name else 25)
