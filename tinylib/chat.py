"""From messages to token ids: what a model reads before it answers, and what it should say."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

Prompt = str | Sequence[dict[str, str]]
"""A user's words, or a whole conversation: ``[{"role": "user", "content": "Hi!"}, ...]``."""


Turn = tuple[list[int], list[int]]
"""What the model reads since it last spoke, and what it then says, its end of turn included."""


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Write a prompt in the model's chat template, up to where its answer begins.

    The same ids as ``tokenizer.apply_chat_template(..., add_generation_prompt=True)``, but for one
    thing: a special token spelled out in somebody's words (``<|im_end|>``) stays words, so that
    nobody can end a turn but the template.

    Args:
        tokenizer: A fast tokenizer with a chat template.
        prompt: The user's words, or messages that end with a user's.

    Returns:
        Token ids, ready for the model. The template writes the special tokens (a BOS too, if the
        model wants one), so none is added here.

    Raises:
        ValueError: The prompt is empty, or the conversation does not end with a user's words.
    """
    messages = as_messages(prompt)
    return [token for token, _, _ in _tokens(tokenizer, *_rendered(tokenizer, messages, True))]


def chat_turns(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> list[Turn]:
    """Cut a conversation exactly where the model starts and stops to speak.

    The conversation is tokenized as a whole and cut afterwards, since tokens made of the parts can
    differ from those of the whole. Where a token would reach across a cut (an answer that begins with
    a line break), the text is cut first, as it is when the model answers.

    Args:
        tokenizer: A fast tokenizer with a chat template.
        messages: ``[{"role": "user", "content": ...}, {"role": "assistant", "content": ...}, ...]``.
            What comes after the last of the assistant's has nothing to teach and is left out.

    Returns:
        A `Turn` for each message of the assistant's. Joined, they are the whole conversation, up to
        its last end of turn.

    Raises:
        ValueError: No message of the assistant's, one without words, or a template from which the
            cut cannot be told.
    """
    messages = _checked(messages)
    text, guarded = _rendered(tokenizer, messages)
    spoken = []  # where each answer begins and where its turn ends, in characters
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            before = _render(tokenizer, messages[:i], True)
            until = _render(tokenizer, messages[: i + 1])
            if not (text.startswith(before) and text.startswith(until)):
                raise ValueError(
                    f"The chat template writes the turns before message {i} in another way when more follow, "
                    "so it cannot be told which tokens the model is to say. Use a template that only appends."
                )
            spoken.append((len(before), len(until)))
    tokens = _tokens(tokenizer, text, guarded)
    across = {start for start, _ in spoken for _, first, last in tokens if first < start < last}
    if across:
        edges = [0, *sorted(across), len(text)]
        tokens = [
            (token, first + left, last + left)
            for left, right in pairwise(edges)
            for token, first, last in _tokens(tokenizer, text[left:right], guarded[left:right])
        ]
    return list(_cut(tokenizer, tokens, spoken))


def _cut(
    tokenizer: PreTrainedTokenizerBase, tokens: list[tuple[int, int, int]], spoken: list[tuple[int, int]]
) -> Iterator[Turn]:
    """Cut tokens (id, first character, last) at the answers; a turn ends with its last special token."""
    special = set(_special_tokens(tokenizer).values())
    ids = [token for token, _, _ in tokens]
    read = 0
    for start, end in spoken:
        cut = next(i for i, (_, first, _) in enumerate(tokens) if first >= start)
        ends = [i for i, (token, first, _) in enumerate(tokens) if start <= first < end and token in special]
        if not ends:
            raise ValueError(
                "The chat template ends an assistant's turn without a special token, so a model could "
                "not learn from it when to stop. Use a template that writes one (such as the EOS token)."
            )
        stop = ends[-1] + 1
        yield ids[read:cut], ids[cut:stop]
        read = stop


def messages_of(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """Read the conversation out of one row of a data set, whichever of the usual forms it has.

    Args:
        row: ``messages`` (a list, or that list as JSON text, as a CSV file holds it), or ``prompt``
            and ``completion`` (texts, or lists of messages).

    Raises:
        ValueError: The row has none of these.

    >>> messages_of({"prompt": "Hi!", "completion": "Hello."})[1]
    {'role': 'assistant', 'content': 'Hello.'}
    """
    if row.get("messages") is not None:
        return _message_list(row["messages"])
    if row.get("prompt") is not None and row.get("completion") is not None:
        prompt, completion = row["prompt"], row["completion"]
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        if isinstance(completion, str):
            completion = [{"role": "assistant", "content": completion}]
        return [*_message_list(prompt), *_message_list(completion)]
    raise ValueError(
        "A row needs the column 'messages', or 'prompt' and 'completion'; this one has "
        f"{', '.join(map(repr, row)) or 'none'}."
    )


def as_messages(prompt: Prompt) -> list[dict[str, str]]:
    """Turn a prompt into messages and refuse what no model can answer (see `prompt_ids`)."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if not messages:
        raise ValueError("The conversation is empty: give at least one message of the user's.")
    for i, message in enumerate(messages):
        if not message.get("content", "").strip():
            raise ValueError(f"Message {i} of the prompt is empty: {message!r}. Give it some words.")
    if messages[-1].get("role") != "user":
        raise ValueError(
            f"The conversation ends with a message of {messages[-1].get('role')!r}; "
            "a prompt ends with one of 'user', and the model answers it."
        )
    return messages


def _message_list(messages: Any) -> list[dict[str, str]]:
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except ValueError as error:
            raise ValueError(f"The messages are text, but no JSON: {messages[:60]!r} ({error}).") from error
    return list(messages)


def _checked(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Refuse a conversation that has nothing to learn from; drop what comes after the last answer."""
    for i, message in enumerate(messages):
        content = message.get("content")
        if not message.get("role") or not isinstance(content, str):
            raise ValueError(f"Message {i} needs a 'role' and a 'content' that is text: {message!r:.80}.")
        if message["role"] == "assistant" and not content.strip():
            raise ValueError(f"Message {i}, of the assistant, is empty: there is nothing to learn from it.")
    said = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not said:
        raise ValueError("The chat has no message of the assistant's: there is nothing to learn from it.")
    return [{"role": m["role"], "content": m["content"]} for m in messages[: said[-1] + 1]]


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], generation: bool = False
) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    return {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}


def _rendered(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], generation: bool = False
) -> tuple[str, str]:
    """Write messages in the template, and again with the special tokens in their words blotted out."""
    specials, guarded = _special_tokens(tokenizer), []
    for message in messages:
        content = message["content"]
        for special in specials:
            content = content.replace(special, "x" * len(special))
        guarded.append({**message, "content": content})
    return _render(tokenizer, messages, generation), _render(tokenizer, guarded, generation)


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str, guarded: str) -> list[tuple[int, int, int]]:
    """Tokenize a text: id, first character and last character (exclusive) of each token.

    Where ``guarded`` differs, somebody's words spell a special token; they stay ordinary tokens.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    tokens = []
    for token, (first, last) in zip(encoded["input_ids"], encoded["offset_mapping"]):
        ids = [token]
        if text[first:last] != guarded[first:last]:
            words = tokenizer(text[first:last], add_special_tokens=False, split_special_tokens=True)
            ids = words["input_ids"]
        tokens.extend((i, first, last) for i in ids)
    return tokens


def prompt_rows(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Write several prompts in the chat template: one list of token ids, a *row*, for each.

    Raises:
        ValueError: There is no prompt at all, or one is unusable; the message gives its number.
    """
    if isinstance(prompts, str):
        raise ValueError("Give a list of prompts: [prompt], not one string.")
    if not prompts:
        raise ValueError("The list of prompts is empty: give at least one.")
    rows = []
    for i, prompt in enumerate(prompts):
        try:
            rows.append(prompt_ids(tokenizer, prompt))
        except ValueError as error:
            raise ValueError(f"Prompt {i}: {error}") from error
    return rows
