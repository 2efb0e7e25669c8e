"""From messages to token ids: what a model reads before it answers, and what it should say."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

Prompt = str | Sequence[Mapping[str, str]]
"""A user's words, or a whole conversation: ``[{"role": "user", "content": "Hi!"}, ...]``."""

AssistantTurn = tuple[list[int], list[int]]
"""What the model reads since it last spoke, and what it then says, its end of turn included."""


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Write a prompt as token ids in the model's chat template, up to where its answer begins.

    The same ids as a fast tokenizer's ``apply_chat_template(..., add_generation_prompt=True)``, but that a
    special token spelled out in somebody's words (``<|im_end|>``) stays words: nobody can end a turn but the
    template.

    Raises:
        ValueError: A message is unusable (see `as_messages`), or the last is not a user's.
    """
    messages = as_messages(prompt)
    if messages[-1]["role"] != "user":
        raise ValueError(
            f"The conversation ends with a message of {messages[-1]['role']!r}; "
            "a prompt ends with one of 'user', and the model answers it."
        )
    return [token for token, _, _ in _tokens(tokenizer, *_written(tokenizer, messages, True))]


def prompt_rows(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Write several prompts in the chat template: one list of token ids, a *row*, for each.

    A ValueError if there is none, or one is unusable (with its number).
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


def chat_turns(tokenizer: PreTrainedTokenizerBase, chat: Prompt | Mapping[str, Any]) -> list[AssistantTurn]:
    """Cut a conversation exactly where the model starts and stops to speak.

    The conversation is tokenized as a whole and cut afterwards, since tokens made of the parts can differ
    from those of the whole. Where a token would reach across a cut (an answer that begins with a line break),
    the text is cut first, as it is when the model answers. What follows the last answer is left out, and what
    a message has besides ``role`` and ``content``. For the forms of ``chat`` see `as_messages`.

    Returns:
        A turn for each message of the assistant's; joined, the whole conversation up to its last end of turn.

    Raises:
        ValueError: A message is unusable, none is the assistant's, or the template does not tell the cut.
    """
    messages = as_messages(chat, must_speak="assistant")
    said = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not said:
        raise ValueError("The chat has no message of the assistant's: there is nothing to learn from it.")
    # A template may write other fields than these unguarded, in the middle of what is learned.
    messages = [{"role": m["role"], "content": m["content"]} for m in messages[: said[-1] + 1]]
    text, guarded = _written(tokenizer, messages)
    spoken = []  # where each answer begins and where its turn ends, in characters
    for i in said:
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


def as_messages(chat: Prompt | Mapping[str, Any], must_speak: str | None = None) -> list[dict[str, Any]]:
    """Read a conversation, whichever of the usual forms it has, and refuse what cannot be written.

    Args:
        chat: A user's words; a list of messages; or a row of a data set, with ``messages`` (a list, or that
            list as JSON text, as in a CSV file) or ``prompt`` and ``completion`` (texts, or such lists).
        must_speak: The role whose messages must not be empty; default: nobody's may.

    Raises:
        ValueError: There is no message, one has no role or text, or one is empty (it says which); or it has
            none of these forms.

    >>> as_messages({"prompt": "Hi!", "completion": "Hello."})[1]
    {'role': 'assistant', 'content': 'Hello.'}
    """
    messages = _listed(chat)
    if not messages:
        raise ValueError("The conversation is empty: give at least one message of the user's.")
    for i, message in enumerate(messages):
        content = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(content, str) or not message.get("role"):
            raise ValueError(f"Message {i} needs a 'role' and a 'content' that is text: {message!r:.80}.")
        if not content.strip() and must_speak in (None, message["role"]):
            raise ValueError(f"Message {i}, of the {message['role']}, is empty. Give it some words.")
    # A table writes None where other rows have a column; to a template that would be a value.
    return [{name: value for name, value in m.items() if value is not None} for m in messages]


def _listed(chat: Prompt | Mapping[str, Any], role: str = "user") -> list[Any]:
    """List the messages of a chat, of whatever form; words alone are those of ``role``."""
    if isinstance(chat, str):
        return [{"role": role, "content": chat}]
    if not isinstance(chat, Mapping):
        if not isinstance(chat, Iterable):
            raise ValueError(f"A chat is text, a list of messages or a row, not {chat!r:.80}.")
        return list(chat)
    if (messages := chat.get("messages")) is not None:
        if isinstance(messages, str):
            try:
                messages = json.loads(messages)
            except ValueError as error:
                text = f"The messages are text, but no JSON: {messages[:60]!r} ({error})."
                raise ValueError(text) from error
            if not isinstance(messages, list):
                raise ValueError(f"The messages are JSON text, but no list: {messages!r:.60}.")
        return _listed(messages)
    if chat.get("prompt") is not None and chat.get("completion") is not None:
        return [*_listed(chat["prompt"]), *_listed(chat["completion"], "assistant")]
    names = ", ".join(map(repr, chat)) or "none"
    raise ValueError(f"A row needs 'messages', or 'prompt' and 'completion'; this one has {names}.")


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], generation: bool = False
) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    return {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}


def _written(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], generation: bool = False
) -> tuple[str, str]:
    """Render messages, and once more with the special tokens in their words blotted out."""
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


def _cut(
    tokenizer: PreTrainedTokenizerBase, tokens: list[tuple[int, int, int]], spoken: list[tuple[int, int]]
) -> Iterator[AssistantTurn]:
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
