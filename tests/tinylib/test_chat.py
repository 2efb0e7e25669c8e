"""Prompts and chats in the chat template, against transformers' own rendering."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import trl
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from tinylib.chat import chat_turns, prompt_ids, prompt_rows
from tinylib.labels import label_turns
from tinylib.messages import as_messages

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


TEMPLATES = Path(trl.__file__).parent / "chat_templates"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells the weather. <|im_end|></s>",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "which"}},
                "required": ["city"],
            },
        },
    }
]
CALL = {
    "id": "abcdefghi",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
}
CALLED = [
    {"role": "user", "content": "Weather in Rome?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "tool_call_id": "abcdefghi", "content": '{"degrees": 21}'},
    {"role": "assistant", "content": "It has 21 degrees."},
]


@pytest.fixture(autouse=True)
def nothing_told_yet() -> Iterator[None]:
    logging.warning_once.cache_clear()
    yield
    logging.warning_once.cache_clear()


def with_template(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """Give a tokenizer a public template, and the special tokens that it writes."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    written = sorted(set(re.findall(r"<\|?[a-z_]+\|?>", tokenizer.chat_template)) - {"<think>"})
    tokenizer.add_special_tokens({"additional_special_tokens": [t for t in written if "|" in t]})
    return tokenizer


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3_5_nothink", "lfm2_v2", "llama3_1", "gptoss"])
def test_calls_and_tools_are_written_as_transformers_does(tinyllama: tuple, name: str) -> None:
    tokenizer = with_template(tinyllama[1], name)
    row = {"messages": CALLED, "tools": json.dumps(TOOLS)}
    turns = chat_turns(tokenizer, row)
    ids = label_turns(turns)[0]
    read = [{**m, "content": m["content"] or ""} for m in CALLED]
    read[1] = {
        **read[1],
        "tool_calls": [{**CALL, "function": {"name": "weather", "arguments": {"city": "Rome"}}}],
    }
    whole = tokenizer.apply_chat_template(read, tools=TOOLS, tokenize=False)
    assert whole.startswith(tokenizer.decode(ids))
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    harmless = json.loads(json.dumps(TOOLS).replace("<|im_end|></s>", "none"))
    expected = label_turns(chat_turns(tokenizer, {"messages": CALLED, "tools": harmless}))[0]
    assert [i for i in ids if i in special] == [i for i in expected if i in special]
    call, answer = (tokenizer.decode(said) for _, said in turns)
    assert re.search("weather.*Rome", call, re.DOTALL)
    assert "21" not in call
    assert "It has 21 degrees." in answer
    assert all(said[-1] in special for _, said in turns)


@pytest.mark.parametrize(
    ("name", "tools", "refusal"),
    [
        ("lfm2", TOOLS, "does not write the tool_calls of message 1"),
        ("phi3", TOOLS, "does not write the tools of the row"),
        ("phi3", None, "does not write the tool_calls of message 1"),
        ("gemma", TOOLS, "cannot write these messages: Conversation roles must alternate"),
    ],
)
def test_calls_and_tools_that_a_template_leaves_out_are_refused(
    tinyllama: tuple, name: str, tools: list | None, refusal: str
) -> None:
    with pytest.raises(ValueError, match=refusal):
        chat_turns(with_template(tinyllama[1], name), {"messages": CALLED, "tools": tools})


def test_words_beside_a_call_that_a_template_leaves_out_are_refused(tinyllama: tuple) -> None:
    chat = [CALLED[0], {**CALLED[1], "content": "Let me look."}, *CALLED[2:]]
    with pytest.raises(ValueError, match="does not write the content of message 1"):
        chat_turns(with_template(tinyllama[1], "llama3_1"), chat)


@pytest.mark.parametrize("name", ["smolvlm", "idefics3"])
def test_a_template_that_writes_no_text_but_parts_of_it_is_refused(tinyllama: tuple, name: str) -> None:
    with pytest.raises(ValueError, match="does not write the content of message 0"):
        chat_turns(with_template(tinyllama[1], name), CONVERSATION[1:3])
    with pytest.raises(ValueError, match=r"Prompt 1: .* does not write the content of message 0"):
        prompt_rows(with_template(tinyllama[1], name), [[{"role": "user", "content": "a"}], "Hi, you!"])


def test_a_reasoning_is_learned_where_the_template_writes_it_else_told(
    tinyllama: tuple, caplog: pytest.LogCaptureFixture
) -> None:
    chat = [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "reasoning_content": "Count it out.", "content": "Four."},
    ]
    tokenizer = with_template(tinyllama[1], "qwen3")
    ((_, said),) = chat_turns(tokenizer, chat)
    assert re.fullmatch(r"<think>\nCount it out.\n</think>\n\nFour.<\|im_end\|>", tokenizer.decode(said))
    assert not caplog.records
    tokenizer = with_template(tinyllama[1], "qwen2_5")
    for _ in range(2):
        ((_, said),) = chat_turns(tokenizer, chat)
    assert tokenizer.decode(said) == "Four.<|im_end|>"
    (record,) = caplog.records
    assert "does not write 'reasoning_content' of a message: it is not used" in record.getMessage()


def test_what_is_mapped_and_what_is_not_used_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    talk = [
        {"from": "gpt", "value": "Welcome."},
        {"from": "human", "value": "Hi!"},
        {"from": "gpt", "value": "Yes?"},
    ]
    row = {"conversations": talk, "id": 7, "source": "x", "tools": None, "system": None}
    for _ in range(2):
        messages = as_messages(row)
    assert [m["role"] for m in messages] == ["assistant", "user", "assistant"]
    assert [record.getMessage() for record in caplog.records] == [
        "These columns of chats are not used: 'id', 'source'.",
        "Messages of 'gpt' are read as those of 'assistant'.",
        "Messages of 'human' are read as those of 'user'.",
    ]


ASKED = [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Yes?"}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": ASKED},
        {"messages": json.dumps(ASKED)},
        {"conversations": [{"from": "human", "value": "Hi!"}, {"from": "Chatbot", "value": "Yes?"}]},
        {"prompt": "Hi!", "completion": "Yes?"},
        {"instruction": "Hi!", "input": "", "output": "Yes?"},
    ],
)
def test_a_system_of_its_own_comes_first(row: dict, caplog: pytest.LogCaptureFixture) -> None:
    first, *rest = as_messages({**row, "system": "Be brief."})
    assert first == {"role": "system", "content": "Be brief."}
    assert (
        rest
        == as_messages(row)
        == as_messages({**row, "system": " "})
        == as_messages({**row, "system": None})
    )
    assert "system" not in caplog.text
    # Of two the messages' is theirs, and the other is told.
    messages = [{"from": "system", "value": "Be kind."}, *ASKED]
    assert as_messages({"messages": messages, "system": "Be brief."}) == as_messages(messages)
    assert "not used: 'system'" in caplog.text


def called(call: dict, **row: object) -> list[dict]:
    return as_messages({"messages": [CALLED[0], {"role": "assistant", "tool_calls": [call]}], **row})


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "tool_calls": [{"name": "weather", "arguments": '{"city": "Rome"}'}]},
        {"role": "assistant", "tool_calls": [{"name": "weather", "arguments": {"city": "Rome"}}]},
        {"role": "assistant", "function_call": {"name": "weather", "arguments": '{"city": "Rome"}'}},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Rome"}}'},
        {"from": "function_call", "value": '[{"name": "weather", "arguments": "{\\"city\\": \\"Rome\\"}"}]'},
    ],
)
def test_calls_in_every_form_are_written_alike(tinyllama: tuple, message: dict) -> None:
    tokenizer = with_template(tinyllama[1], "qwen2_5")
    result = {"from": "observation", "value": '{"degrees": 21}'}
    expected = chat_turns(tokenizer, CALLED)
    assert chat_turns(tokenizer, [CALLED[0], message, result, CALLED[3]]) == expected
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    assert as_messages([message])[0] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert '{"name": "weather", "arguments": {"city": "Rome"}}' in tokenizer.decode(expected[0][1])


def test_special_tokens_in_a_calls_arguments_stay_words(tinyllama: tuple) -> None:
    tokenizer = with_template(tinyllama[1], "qwen2_5")
    for arguments in ({"city": "<|im_end|>"}, '{"city": "<|im_end|>"}'):
        call = {"function": {"name": "weather", "arguments": arguments}}
        ((_, said),) = chat_turns(tokenizer, [CALLED[0], {"role": "assistant", "tool_calls": [call]}])
        assert said.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1


@pytest.mark.parametrize("wrapped", [True, False])
def test_null_in_arguments_stays_where_it_is_meant(caplog: pytest.LogCaptureFixture, wrapped: bool) -> None:
    """A table gives each call the arguments of all, as null; JSON text has none that is not meant."""
    given = {"city": "Rome", "day": None, "minutes": None, "where": [{"zip": None, "lat": 1.5}]}
    tool = {"name": "weather", "parameters": {"properties": {"city": {}, "day": {}, "where": {"lat": {}}}}}
    other = {"name": "timer", "parameters": {"properties": {"minutes": {}, "zip": {}}}}
    tools = [{"type": "function", "function": one} if wrapped else one for one in (other, tool)]
    call = {"function": {"name": "weather", "arguments": given}}
    kept = {"city": "Rome", "day": None, "where": [{"lat": 1.5}]}
    for several in (tools, json.dumps(tools)):
        assert called(call, tools=several)[1]["tool_calls"][0]["function"]["arguments"] == kept
    (record,) = caplog.records
    assert "null in a call's arguments, and no tool declares it" in record.getMessage()
    call = {"function": {"name": "weather", "arguments": json.dumps(given)}}
    assert called(call)[1]["tool_calls"][0]["function"]["arguments"] == given


@pytest.mark.parametrize(
    "words",
    [
        "[1, 2]",
        "[]",
        '{"a": 1}',
        "5",
        "[{}]",
        '[{"a": "role"}]',
        "[",
        "[link](x)",
        '[{"from": "Rome", "to": "Bari"}]',
        '[{"value": 3}] What is it?',
        "[{'role': 'admin'}]",
    ],
)
def test_words_that_look_like_json_are_words(words: str) -> None:
    row = {"prompt": words, "completion": words}
    assert [m["content"] for m in as_messages(row)] == [words] * 2
    assert as_messages(json.dumps(CONVERSATION))[0]["content"] == json.dumps(CONVERSATION)  # a user's


def test_messages_in_a_cell_are_messages() -> None:
    answer = [{"from": "gpt", "value": "A fig."}]
    row = {"prompt": json.dumps(CONVERSATION), "completion": json.dumps(answer)}
    assert as_messages(row) == as_messages({"prompt": CONVERSATION, "completion": answer})


def test_what_is_not_to_be_trained_is_read_and_not_learned(tinyllama: tuple) -> None:
    chat = [
        {"from": "prompter", "value": "Hi!", "train": False},
        {"from": "ai", "value": "Bananas.", "train": False, "weight": 1},
        {"from": "prompter", "value": "And?", "train": True},
        {"from": "chatgpt", "value": "Paris.", "train": True},
        {"from": "prompter", "value": "And?"},
        {"from": "gpt", "value": "Rome.", "train": True, "weight": 0},
    ]
    ((read, said),) = chat_turns(tinyllama[1], chat)
    assert "Bananas." in tinyllama[1].decode(read)
    assert "Paris." in tinyllama[1].decode(said)


def test_of_a_prompt_nothing_is_learned(tinyllama: tuple) -> None:
    """As with TRL: what the assistant says before the completion is context."""
    row = {"prompt": CONVERSATION, "completion": [{"role": "assistant", "content": "A fig."}]}
    ((read, said),) = chat_turns(tinyllama[1], row)
    assert "Hello." in tinyllama[1].decode(read)
    assert "A fig." in tinyllama[1].decode(said)
