"""Prompts in the chat template, against transformers' own rendering."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinylib.chat import as_messages, prompt_ids, prompt_rows

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi!"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Name a fruit."},
]


@pytest.mark.parametrize("kind", ["shipped", "tinyllama"])
@given(words=st.text(min_size=1).filter(str.strip))
def test_a_prompt_is_its_rendered_text_tokenized_without_more_special_tokens(
    request: pytest.FixtureRequest, kind: str, words: str
) -> None:
    _, tokenizer = request.getfixturevalue(kind)
    text = tokenizer.apply_chat_template(as_messages(words), tokenize=False, add_generation_prompt=True)
    assert prompt_ids(tokenizer, words) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_shipped_models_prompt_ends_where_the_answer_begins(shipped: tuple) -> None:
    _, tokenizer = shipped
    text = tokenizer.decode(prompt_ids(tokenizer, CONVERSATION))
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n")
    assert text.endswith("Name a fruit.<|im_end|>\n<|im_start|>assistant\n")


def test_there_is_exactly_one_bos_where_the_template_writes_one(tinyllama: tuple) -> None:
    """Rendering and tokenizing again would give two: this tokenizer adds a BOS of its own."""
    _, tokenizer = tinyllama
    template = tokenizer.chat_template
    tokenizer.chat_template = "{{ bos_token }}" + template
    try:
        ids = prompt_ids(tokenizer, "Hi!")
        twice = tokenizer(
            tokenizer.apply_chat_template(as_messages("Hi!"), tokenize=False, add_generation_prompt=True)
        )["input_ids"]
    finally:
        tokenizer.chat_template = template
    assert ids.count(tokenizer.bos_token_id) == 1
    assert twice.count(tokenizer.bos_token_id) == 2  # the mistake that prompt_ids avoids


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "Message 0, of the user, is empty"),
        (" \n", "Message 0, of the user, is empty"),
        ([], "conversation is empty"),
        (
            [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": ""}],
            "Message 1, .* is empty",
        ),
        (CONVERSATION[:3], "ends with a message of 'assistant'"),
    ],
)
def test_what_no_model_can_answer_is_refused(tinyllama: tuple, prompt: object, message: str) -> None:
    _, tokenizer = tinyllama
    with pytest.raises(ValueError, match=message):
        prompt_ids(tokenizer, prompt)


def test_refusals_give_the_number_of_the_prompt(tinyllama: tuple) -> None:
    _, tokenizer = tinyllama
    assert len(prompt_rows(tokenizer, ["Hi!", CONVERSATION])) == 2
    with pytest.raises(ValueError, match="Prompt 1: Message 0, of the user, is empty"):
        prompt_rows(tokenizer, ["Hi!", ""])
    with pytest.raises(ValueError, match="list of prompts is empty"):
        prompt_rows(tokenizer, [])
