"""Chat templates of public models, on two tokenizers: right batches pass, each planted fault is found."""

import json
from pathlib import Path

import pytest
import templates
from cases import llama, smol
from transformers import PreTrainedTokenizerBase

NO_WORDS = {
    "idefics3",
    "idefics3_training",
    "llava_next",
    "llava_next_training",
    "smolvlm",
    "smolvlm_training",
}


STORED = json.loads((Path(__file__).parents[2] / "benchmarks" / "templates.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=["SmolLM2's", "a Llama-2 type's"])
def tokenizer(request: pytest.FixtureRequest) -> tuple[str, PreTrainedTokenizerBase]:
    return request.param, smol() if request.param == "SmolLM2's" else llama(prefix=True)


@pytest.mark.parametrize("name", templates.NAMES)
def test_a_public_template(tokenizer: tuple[str, PreTrainedTokenizerBase], name: str) -> None:
    kind, its_tokenizer = tokenizer
    found = templates.result(its_tokenizer, name)
    assert templates.counts(found) == STORED["templates"][name][kind]  # what the book shows
    assert found["words"] == (name not in NO_WORDS)  # these want a message's text in a list of parts
    if found["words"]:
        assert not found["false"]
        assert not found["missed"]
        assert found["read"]
