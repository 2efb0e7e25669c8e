"""From messages to token ids: what a model reads before it answers, and what it should say."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import accumulate, chain, pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from tinylib.messages import (
    Messages,
    Prompt,
    as_messages,
    copied,
    tell_once,
    to_learn,
    tools_of,
    unknown_roles,
)

AssistantTurn = tuple[list[int], list[int]]
"""What the model reads since it last spoke, and what it then says, its end of turn included."""

Render = partial[str]
"""`_render` with its tokenizer and its options, of which ``tools`` are looked at."""


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Write a prompt as token ids in the model's chat template, up to where its answer begins.

    The same ids as a fast tokenizer's ``apply_chat_template(..., add_generation_prompt=True)``, but that a
    special token spelled out in somebody's words (``<|im_end|>``) stays words: nobody can end a turn but the
    template. It is a ValueError if a message is unusable (see `as_messages`), the last is not a user's, or
    the template leaves out words or calls.
    """
    messages = as_messages(prompt)
    if (last := messages[-1]["role"]) != "user":
        raise ValueError(f"The conversation ends with a message of {last!r}: a prompt ends with a user's.")
    render = partial(_render, tokenizer, add_generation_prompt=True)
    text, guarded = _guarded(tokenizer, render, messages)
    _check_written(find_left_out(tokenizer, messages, text, add_generation_prompt=True))
    return _tokens(tokenizer, text, guarded)[0]


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
    the text is cut first, as it is when the model answers. What follows the last answer is left out. For the
    forms of ``chat`` see `as_messages`; the ``tools`` of a row are written too.

    Returns a turn for each answer of the assistant's, but for those of ``"weight": 0`` (as OpenAI writes it)
    or ``"train": false`` (axolotl), and what it says before anybody has asked; joined, the whole conversation
    up to its last end of turn. It is a ValueError if a message is unusable, none is to be learned, the
    template leaves out words, calls or tools (anything else is told once), or does not tell the cut.
    """
    return _cut(tokenizer, *_written(tokenizer, chat))


def turns_within(
    tokenizer: PreTrainedTokenizerBase, chat: Prompt | Mapping[str, Any], max_length: int
) -> tuple[list[AssistantTurn], int]:
    """Cut a conversation as `chat_turns` does; return the turns that fit, and how many do not.

    What ends far beyond ``max_length`` tokens is not tokenized: 20 MB would take 20 seconds and 3 GB.
    """
    text, guarded, spoken = _written(tokenizer, chat)
    far = 32 * max_length  # in characters; most tokens have about four
    near = [(start, end) for start, end in spoken if end <= far]
    if len(near) < len(spoken):
        head = tokenizer(text[:far], add_special_tokens=False, verbose=False)["input_ids"]
        if len(head) <= 2 * max_length:  # some have many, such as runs of spaces; twice: its end is broken
            near = spoken
    turns = _cut(tokenizer, text[: near[-1][1]], guarded[: near[-1][1]], near) if near else []
    ends = accumulate(len(read) + len(said) for read, said in turns)
    kept = sum(end <= max_length for end in ends)
    return turns[:kept], len(spoken) - kept


def _written(
    tokenizer: PreTrainedTokenizerBase, chat: Prompt | Mapping[str, Any]
) -> tuple[str, str, list[tuple[int, int]]]:
    """Write a chat as text, and guarded (see `_guarded`); tell where in it each answer begins and ends."""
    messages = as_messages(chat, must_speak="assistant")
    if not (said := to_learn(messages)):
        raise ValueError("The chat has no message of the assistant's to learn: none that answers another's.")
    for role in sorted(unknown_roles(messages, str(tokenizer.chat_template))):
        tell_once(f"The chat template does not know the role {role!r}: the model may not, either.")
    messages = [{k: v for k, v in m.items() if k != "weight"} for m in messages[: said[-1] + 1]]
    tools = tools_of(chat)
    render = partial(_render, tokenizer, tools=tools)
    text, guarded = _guarded(tokenizer, render, messages)
    _check_written(find_left_out(tokenizer, messages, text, tools))
    special, spoken = _special_tokens(tokenizer, len(tokenizer)), []
    for start, end in _spoken(render, messages, said, text):
        stops = [found.end() for found in special.finditer(guarded, start, end)]
        if not stops:
            raise ValueError("The chat template ends an answer without a special token that tells to stop.")
        spoken.append((start, stops[-1]))
    return text, guarded, spoken


def _cut(
    tokenizer: PreTrainedTokenizerBase, text: str, guarded: str, spoken: list[tuple[int, int]]
) -> list[AssistantTurn]:
    """Tokenize a text, and cut it where answers begin and end."""
    ids, places = _tokens(tokenizer, text, guarded)
    before = [(start, bisect_left(places, (start,)) - 1) for start, _ in spoken]
    if across := [start for start, i in before if i >= 0 and places[i][1] > start]:
        ids, places = [], []
        for left, right in pairwise([0, *across, len(text)]):
            more, inside = _tokens(tokenizer, text[left:right], guarded[left:right])
            ids += more
            places += [(left + first, left + last) for first, last in inside]
    cuts = [bisect_left(places, (at,)) for at in chain([0], *spoken)]
    return [(ids[read:cut], ids[cut:end]) for read, cut, end in zip(cuts[::2], cuts[1::2], cuts[2::2])]


def _render(tokenizer: PreTrainedTokenizerBase, messages: Messages, **options: Any) -> str:
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
        text.encode()  # half of a surrogate pair is no text
        return text
    except Exception as error:  # each template raises its own
        raise ValueError(f"The chat template cannot write these messages: {error}") from error


@lru_cache(maxsize=16)  # some have hundreds; ``size`` tells when one is added
def _special_tokens(tokenizer: PreTrainedTokenizerBase, size: int) -> re.Pattern[str]:
    """Make what finds the special tokens in a text."""
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or "(?!)")


def _guarded(tokenizer: PreTrainedTokenizerBase, render: Render, messages: Messages) -> tuple[str, str]:
    """Render messages, and once more with the special tokens in their words blotted out, if there are any."""
    special = _special_tokens(tokenizer, len(tokenizer))
    text, given = render(messages), [messages, render.keywords.get("tools")]
    harmless = copied(given, lambda words: special.sub(lambda found: "x" * len(found[0]), words))
    guarded = text if harmless == given else render(harmless[0], tools=harmless[1])
    if len(guarded) != len(text):
        raise ValueError("The chat template acts on special tokens that are spelled out in somebody's words.")
    return text, guarded


def find_left_out(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, text: str, tools: Any = None, **options: Any
) -> Iterator[tuple[str, int]]:
    """Find what makes no difference to the text that a chat template writes.

    ``text`` is what it makes of the messages with these tools and options. Yields names, and numbers of
    messages: each whose ``content`` is left out, the first of anything else that is, and ``"tools"``, with 0.
    """
    render = partial(_render, tokenizer, tools=tools, **options)
    if tools:
        with suppress(ValueError):  # what it refuses without, it has looked at
            if render(messages, tools=None) == text:
                yield "tools", 0
    found = {"role"}
    for i, message in enumerate(messages):
        for name in [name for name, value in message.items() if value and name not in found]:
            if name == "content":
                words = message[name].strip()
                if text.count(words) >= sum(m["content"].count(words) for m in messages):
                    continue
            other = "\ue000" if name == "content" else ""  # some look whether its first letter is an image
            changed = [*messages[:i], {**message, name: other}, *messages[i + 1 :]]
            with suppress(ValueError):
                if render(changed) == text:
                    found |= {name} - {"content"}
                    yield name, i


def _check_written(missing: Iterable[tuple[str, int]]) -> None:
    """Refuse a chat of which the template leaves out words, calls or tools; tell what else it does."""
    for name, i in missing:
        if name == "tools":
            raise ValueError("The chat template does not write the tools of the row: take one that does.")
        if name in ("content", "tool_calls"):
            raise ValueError(f"The chat template does not write the {name} of message {i}.")
        tell_once(f"The chat template does not write {name!r} of a message: it is not used.")


def _spoken(render: Render, messages: Messages, said: list[int], text: str) -> Iterator[tuple[int, int]]:
    """Find where in the text each answer begins, and where its turn ends.

    For that the messages before it are rendered on their own: not for every answer, which takes quadratic
    time, but for each different pair of texts that stand before and after an answer's words.
    """
    stand_ins = [{**message, "content": f"\ue000{i}\ue001"} for i, message in enumerate(messages)]
    between = re.split("\ue000\\d+\ue001", render(stand_ins)) if len(said) > 2 else []
    ends: list[int] = []
    for piece, message in zip(between, messages):
        at, words = ends[-1] if ends else 0, piece + message["content"]
        ends += [at + len(words)] if len(between) > len(messages) and text.startswith(words, at) else []
    found: dict[Any, tuple[int, int]] = {}
    for i in said:
        key, first, last = i, 0, 0  # one of a kind, unless all words stand there as they are
        if len(ends) == len(messages):
            key, first, last = (between[i], between[i + 1]), ends[i] - len(messages[i]["content"]), ends[i]
        if key not in found:
            before = render(messages[:i], add_generation_prompt=True)
            until = text if i == said[-1] else render(messages[: i + 1])
            if not (text.startswith(before) and text.startswith(until)):
                raise ValueError(
                    f"The chat template writes the turns before message {i} in another way when more follow, "
                    "so it cannot be told which tokens the model is to say. Use a template that only appends."
                )
            found[key] = (len(before) - first, len(until) - last)
        yield first + found[key][0], last + found[key][1]


def _tokens(
    tokenizer: PreTrainedTokenizerBase, text: str, guarded: str
) -> tuple[list[int], list[tuple[int, int]]]:
    """Tokenize a text: the ids, and the first and the last character (exclusive) of each.

    Where ``guarded`` differs, somebody's words spell a special token; they stay ordinary tokens.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    if text == guarded:
        return encoded["input_ids"], encoded["offset_mapping"]
    ids, places = [], []
    for token, (first, last) in zip(encoded["input_ids"], encoded["offset_mapping"]):
        words = [token]
        if text[first:last] != guarded[first:last]:
            spelled = tokenizer(text[first:last], add_special_tokens=False, split_special_tokens=True)
            words = spelled["input_ids"]
        ids += words
        places += [(first, last)] * len(words)
    return ids, places
