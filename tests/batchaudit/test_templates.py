"""Chat templates of public models, on two tokenizers: right batches pass, each planted fault is found."""

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


@pytest.fixture(scope="module", params=["SmolLM2", "a space after BOS"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    return smol() if request.param == "SmolLM2" else llama(prefix=True)


@pytest.mark.parametrize("name", templates.NAMES)
def test_a_public_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    found = templates.result(tokenizer, name)
    assert found["words"] == (name not in NO_WORDS)  # these want a message's text in a list of parts
    if found["words"]:
        assert not found["false"]
        assert not found["missed"]
        assert found["read"]
