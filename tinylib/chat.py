"""From messages to token ids: what a model reads before it answers, and what it should say."""

import json
import re
from bisect import bisect_left
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
    template. It is a ValueError if a message is unusable (see `as_messages`), or the last is not a user's.
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

    Returns a turn for each answer of the assistant's, but for those of ``"weight": 0`` and a greeting before
    anybody has asked; joined, the whole conversation up to its last end of turn. It is a ValueError if a
    message is unusable, none is to be learned, or the template does not tell the cut.
    """
    messages = as_messages(chat, must_speak="assistant")
    asked = next((i for i, m in enumerate(messages) if m["role"] not in ("system", "assistant")), 0)
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    said = [i for i in answers if i > asked and messages[i].get("weight", 1) != 0]
    if not said:
        raise ValueError("The chat has no message of the assistant's to learn: none, or none after a user's.")
    # A template may write other fields than these unguarded, in the middle of what is learned.
    messages = [{"role": m["role"], "content": m["content"]} for m in messages[: said[-1] + 1]]
    text, guarded = _written(tokenizer, messages)
    spoken = list(_spoken(tokenizer, messages, said, text))
    tokens = _tokens(tokenizer, text, guarded)
    firsts = [first for _, first, _ in tokens]
    before = [(start, bisect_left(firsts, start) - 1) for start, _ in spoken]
    across = [start for start, i in before if i >= 0 and tokens[i][2] > start]
    if across:
        tokens = [
            (token, first + left, last + left)
            for left, right in pairwise([0, *across, len(text)])
            for token, first, last in _tokens(tokenizer, text[left:right], guarded[left:right])
        ]
    return list(_cut(tokenizer, tokens, spoken))


def as_messages(chat: Prompt | Mapping[str, Any], must_speak: str | None = None) -> list[dict[str, Any]]:
    """Read a conversation, whichever of the usual forms it has, and refuse what cannot be written.

    Args:
        chat: A user's words; a list of messages; or a row of a data set, with ``messages`` (a list, or that
            list as JSON text, as in a CSV file) or ``prompt`` and ``completion`` (texts, or such lists).
        must_speak: The role whose messages must not be empty; default: nobody's may.

    It is a ValueError if it has none of these forms, or a message has no role or text, or calls a tool.

    >>> as_messages({"prompt": "Hi!", "completion": "Hello."})[1]
    {'role': 'assistant', 'content': 'Hello.'}
    """
    messages = []
    for i, given in enumerate(_listed(chat)):
        # A table writes None where other rows have a column; to a template that would be a value.
        message = {k: v for k, v in given.items() if v is not None} if isinstance(given, Mapping) else {}
        if message.get("tool_calls"):
            raise ValueError(f"Message {i} calls a tool, which is not learned here: leave the chat out.")
        if not all(isinstance(message.get(name), str) for name in ("role", "content")) or not message["role"]:
            raise ValueError(f"Message {i} needs a 'role' and a 'content' that is text: {given!r:.80}.")
        if not message["content"].strip() and must_speak in (None, message["role"]):
            raise ValueError(f"Message {i}, of the {message['role']}, is empty. Give it some words.")
        messages.append(message)
    if not messages:
        raise ValueError("The conversation is empty: give at least one message of the user's.")
    return messages


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
                raise ValueError(f"Messages are text, but no JSON: {messages!r:.60} ({error}).") from error
        if isinstance(messages, str | Mapping):
            raise ValueError(f"The messages are no list: {messages!r:.60}.")
        return _listed(messages)
    if chat.get("prompt") is not None and chat.get("completion") is not None:
        return [*_listed(chat["prompt"]), *_listed(chat["completion"], "assistant")]
    names = ", ".join(map(repr, chat)) or "none"
    raise ValueError(f"A row needs 'messages', or 'prompt' and 'completion'; this one has {names}.")


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], generation: bool = False
) -> str:
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
    except Exception as error:  # each template raises its own
        raise ValueError(f"The chat template refuses these messages: {error}") from error


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    return {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}


def _written(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], generation: bool = False
) -> tuple[str, str]:
    """Render messages, and once more with the special tokens in their words blotted out, if there are any."""
    special = re.compile("|".join(map(re.escape, _special_tokens(tokenizer))) or "(?!)")
    text = _render(tokenizer, messages, generation)
    if not any(special.search(message["content"]) for message in messages):
        return text, text
    blotted = [special.sub(lambda found: "x" * len(found[0]), message["content"]) for message in messages]
    guarded = [{**message, "content": words} for message, words in zip(messages, blotted)]
    return text, _render(tokenizer, guarded, generation)


def _spoken(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], said: list[int], text: str
) -> Iterator[tuple[int, int]]:
    """Find where in the text each answer begins, and where its turn ends.

    For that the messages before it are rendered on their own: not for every answer, which takes quadratic
    time, but for each different pair of texts that stand before and after an answer's words.
    """
    marked = [{**message, "content": f"\ue000{i}\ue001"} for i, message in enumerate(messages)]
    between = re.split("\ue000\\d+\ue001", _render(tokenizer, marked)) if len(said) > 2 else []
    places: list[tuple[int, int]] = []
    for piece, message in zip(between, messages if len(between) == len(messages) + 1 else []):
        at, words = places[-1][1] if places else 0, message["content"]
        if not text.startswith(piece + words, at):
            break
        places.append((at + len(piece), at + len(piece + words)))
    if len(places) < len(messages):  # not found as they are: every answer is one of a kind
        between, places = range(len(messages) + 1), [(0, 0)] * len(messages)
    found: dict[Any, tuple[int, int]] = {}
    for i in said:
        first, last = places[i]
        if (key := (between[i], between[i + 1])) not in found:
            before = _render(tokenizer, messages[:i], True)
            until = text if i == said[-1] else _render(tokenizer, messages[: i + 1])
            if not (text.startswith(before) and text.startswith(until)):
                raise ValueError(
                    f"The chat template writes the turns before message {i} in another way when more follow, "
                    "so it cannot be told which tokens the model is to say. Use a template that only appends."
                )
            found[key] = (len(before) - first, len(until) - last)
        yield first + found[key][0], last + found[key][1]


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
    ids, firsts = [token for token, _, _ in tokens], [first for _, first, _ in tokens]
    read = 0
    for start, end in spoken:
        cut, stop = bisect_left(firsts, start), bisect_left(firsts, end)
        while stop > cut and ids[stop - 1] not in special:
            stop -= 1
        if stop == cut:
            raise ValueError(
                "The chat template ends an assistant's turn without a special token, so a model could "
                "not learn from it when to stop. Use a template that writes one (such as the EOS token)."
            )
        yield ids[read:cut], ids[cut:stop]
        read = stop
