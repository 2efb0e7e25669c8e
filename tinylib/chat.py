"""From messages to token ids: what a model reads before it answers, and what it should say."""

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import chain, pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

Prompt = str | Sequence[Mapping[str, Any]]
"""A user's words, or a whole conversation: ``[{"role": "user", "content": "Hi!"}, ...]``."""

AssistantTurn = tuple[list[int], list[int]]
"""What the model reads since it last spoke, and what it then says, its end of turn included."""

ROLES = {
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "ai", "bot", "model", "function_call"), "assistant"),
    **dict.fromkeys(("observation", "function"), "tool"),
}
"""Other names that data sets have for roles. The words of a ``function_call`` are a call, as JSON."""

# How a list of messages begins, as JSON or as Python prints it.
_LIKE_MESSAGES = re.compile(
    r"""\s*\[\s*\{.*?['"](role|from)['"]\s*:\s*['"](system|user|assistant|human|gpt)['"]""", re.DOTALL
)

Messages, Render = list[dict[str, Any]], Callable[..., str]
tell_once = logging.get_logger(__name__).warning_once


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Write a prompt as token ids in the model's chat template, up to where its answer begins.

    The same ids as a fast tokenizer's ``apply_chat_template(..., add_generation_prompt=True)``, but that a
    special token spelled out in somebody's words (``<|im_end|>``) stays words: nobody can end a turn but the
    template. It is a ValueError if a message is unusable (see `as_messages`), or the last is not a user's.
    """
    messages = as_messages(prompt)
    if (last := messages[-1]["role"]) != "user":
        raise ValueError(f"The conversation ends with a message of {last!r}: a prompt ends with a user's.")
    render = partial(_render, tokenizer, add_generation_prompt=True)
    return _tokens(tokenizer, *_guarded(tokenizer, render, messages))[0]


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
    messages = as_messages(chat, must_speak="assistant")
    others = (i for i, m in enumerate(messages) if m["role"] not in ("system", "developer", "assistant"))
    asked = next(others, len(messages))
    learned = [m["role"] == "assistant" and m.get("weight", 1) != 0 for m in messages]
    said = [i for i in range(asked + 1, len(messages)) if learned[i]]
    if not said:
        raise ValueError("The chat has no message of the assistant's to learn: none that answers another's.")
    messages = [{k: v for k, v in m.items() if k != "weight"} for m in messages[: said[-1] + 1]]
    render = partial(_render, tokenizer, tools=tools_of(chat))
    text, guarded = _guarded(tokenizer, render, messages)
    _check_written(render, messages, text)
    special, spoken = _special_tokens(tokenizer, len(tokenizer)), []
    for start, end in _spoken(render, messages, said, text):
        stops = [found.end() for found in special.finditer(guarded, start, end)]
        if not stops:
            raise ValueError("The chat template ends an answer without a special token that tells to stop.")
        spoken.append((start, stops[-1]))
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


def as_messages(
    chat: Prompt | Mapping[str, Any],
    must_speak: str | None = None,
    tell: Callable[[str], object] = tell_once,
) -> Messages:
    """Read a conversation, whichever of the usual forms it has, and refuse what cannot be written.

    Args:
        chat: A user's words; a list of messages; or a row of a data set, with ``messages`` (or ShareGPT's
            ``conversations``: a list, or that list as JSON text, as in a CSV file), with ``prompt`` and
            ``completion``, or with Alpaca's ``instruction``, ``input`` and ``output``. A prompt or completion
            is such a list, or words; also a list if it is the JSON of objects that each have a ``role`` or
            ``from``, and what was said. Other text that looks like JSON (``[1, 2]``, ``5``) is words.
        must_speak: The role whose messages must not be empty; default: nobody's may, ``""``: all may.
        tell: What takes a line about what is not used, or read as something else; default: the log, once.

    Returns messages with ``role``, ``content``, and what else they have, those of a ``prompt`` with weight 0.
    Columns that are not used are told once, and roles that are read as another (`ROLES`). It is a ValueError
    if the chat has none of these forms, or a message has no role, or neither text nor a call.

    >>> as_messages({"prompt": "Hi!", "completion": "Hello."})[1]
    {'role': 'assistant', 'content': 'Hello.'}
    """
    messages, tools = [], tools_of(chat)
    for i, given in enumerate(_listed(_copied(chat), tell)):
        message = dict(given) if isinstance(given, Mapping) else {}
        for name, other in (("role", "from"), ("content", "value")):
            if name not in message and other in message:
                message[name] = message.pop(other)
        role = message.get("role")
        try:
            if calls := _calls(message, tools, tell):
                message = {"content": "", **message, "tool_calls": calls}
        except ValueError as error:
            raise ValueError(f"Message {i}: {error}") from error
        content = _joined(message.get("content"))
        if not isinstance(content, str) or not isinstance(role, str) or not role:
            raise ValueError(f"Message {i} needs a 'role' and a 'content' that is text: {given!r:.80}.")
        for name in ("train", "weight"):
            if message.get(name, 1) not in (0, 1):
                raise ValueError(f"Message {i} has the {name} {message[name]!r}: it is 0, not learned, or 1.")
        if "train" in message:
            message["weight"] = int(message.pop("train") and message.get("weight", 1))
        message |= {"role": ROLES.get(role.lower(), role.lower()), "content": content}
        if message["role"] != role:
            tell(f"Messages of {role!r} are read as those of {message['role']!r}.")
        if not content.strip() and not calls and must_speak in (None, message["role"]):
            raise ValueError(f"Message {i}, of the {message['role']}, is empty. Give it some words.")
        messages.append(message)
    if not messages:
        raise ValueError("The conversation is empty: give at least one message of the user's.")
    return messages


def tools_of(chat: Any) -> list[Any] | None:
    """Read the ``tools`` of a row, a list or its JSON; None if it has none; a ValueError if it is no JSON."""
    return _copied(_from_json(chat.get("tools"))) or None if isinstance(chat, Mapping) else None


def _listed(chat: Any, tell: Callable[[str], object], role: str = "user") -> list[Any]:
    """List the messages of a chat, of whatever form; words alone are those of ``role``."""
    match chat:
        case str():
            return [{"role": role, "content": chat}]
        case {"messages": listed, **rest} | {"conversations": listed, **rest}:
            messages = _copied(_from_json(listed))
            if isinstance(messages, str | Mapping):
                raise ValueError(f"The messages are no list: {messages!r:.60}.")
            messages = _listed(messages, tell)
        case {"prompt": asked, "completion": answer, **rest}:
            prompt = _listed(_cell(asked), tell)
            prompt = [{**m, "weight": 0} if isinstance(m, Mapping) else m for m in prompt]
            messages = [*prompt, *_listed(_cell(answer), tell, "assistant")]
        case {"instruction": asked, "output": answer, **rest}:
            parts = [asked, "\n", more] if (more := rest.pop("input", "")) else [asked]
            content = [{"type": "text", "text": part} for part in parts]
            messages = [{"role": "user", "content": content}, *_listed(answer, tell, "assistant")]
        case Mapping():
            forms = "'messages' or 'conversations', 'prompt' and 'completion', 'instruction' and 'output'"
            raise ValueError(f"A row needs {forms}; this one has {', '.join(map(repr, chat)) or 'none'}.")
        case Iterable():
            return list(chat)
        case _:
            raise ValueError(f"A chat is text, a list of messages or a row, not {chat!r:.80}.")
    if unused := ", ".join(name for name in map(repr, rest) if name != "'tools'"):
        tell(f"These columns of chats are not used: {unused}.")
    return messages


def _cell(text: Any) -> Any:
    """Read what a table has as text: JSON of messages as these, and anything else as it is."""
    if not isinstance(text, str) or not text.lstrip().startswith("["):
        return text
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError) as error:
        if _LIKE_MESSAGES.match(text):
            raise ValueError(f"These are messages, but no JSON: {text!r:.60} ({error}).") from error
        return text
    pairs = [{"role", "from"}, {"content", "value", "tool_calls"}]
    are_messages = [isinstance(m, Mapping) and all(p & m.keys() for p in pairs) for m in listed]
    return listed if listed and all(are_messages) else text


def _calls(message: dict[str, Any], tools: Any, tell: Callable[[str], object]) -> Any:
    """Take the calls out of a message, each as ``{"function": {"name": ..., "arguments": {...}}}``."""
    said = str(message.get("role")).lower() == "function_call"
    if not said and message.keys().isdisjoint(("tool_calls", "function_call")):
        return None
    calls = _from_json(message.pop("tool_calls", None) or message.pop("function_call", None))
    if said:
        calls = _from_json(message.pop("content", None))
    calls = [calls] if isinstance(calls, Mapping) else calls
    several = calls if isinstance(calls, list) else []
    for i, call in enumerate(several):
        if isinstance(call, Mapping) and "name" in call and "function" not in call:
            function = {name: call[name] for name in ("name", "arguments") if name in call}
            rest = {name: value for name, value in call.items() if name not in function}
            several[i] = {"type": "function", **rest, "function": function}
        match several[i]:
            case {"function": {"arguments": str(words)} as function}:
                # Most templates would quote once more what OpenAI has as text.
                function["arguments"] = _from_json(words)
            case {"function": {"name": str(name), "arguments": Mapping() as given} as function}:
                function["arguments"] = _unfilled(given, _schema(tools, name))
                if function["arguments"] != given:
                    tell("What is null in a call's arguments, and no tool declares it, is left out.")
    if said and not (several and all(isinstance(c, Mapping) and "function" in c for c in several)):
        raise ValueError(f"a 'function_call' is JSON with 'name' and 'arguments', not {calls!r:.60}.")
    return calls


def _schema(tools: Any, function: str) -> str:
    """Find what a tool declares of its arguments, as JSON."""
    for tool in tools if isinstance(tools, list) else []:
        match tool:
            case {"function": {"name": name, **rest}} | {"name": name, **rest} if name == function:
                return json.dumps(rest)
    return ""


def _unfilled(value: Any, schema: str) -> Any:
    """Leave out what is None, unless the schema names it: a table gives each call the arguments of all."""
    if isinstance(value, Mapping):
        named = {n: v for n, v in value.items() if v is not None or f"{json.dumps(n)}: " in schema}
        return {name: _unfilled(inner, schema) for name, inner in named.items()}
    return [_unfilled(inner, schema) for inner in value] if isinstance(value, list) else value


def _from_json(value: Any) -> Any:
    """Read what a table has as JSON text; what is no text is returned as it is."""
    try:
        return json.loads(value) if isinstance(value, str) and value else value
    except (ValueError, RecursionError) as error:
        raise ValueError(f"This is text, but no JSON: {value!r:.60} ({error}).") from error


def _copied(value: Any, words: Callable[[str], str] | None = None) -> Any:
    """Copy a chat: with its texts changed, or without what is None, as a table fills what a row has not.

    In a call's arguments it stays: there it may be meant (see `_unfilled`).
    """
    if isinstance(value, str):
        return words(value) if words else value
    if isinstance(value, Mapping):
        return {
            name: _copied(inner, words or (str if name == "arguments" else None))
            for name, inner in value.items()
            if words or inner is not None
        }
    if hasattr(value, "tolist"):  # numpy's, as pandas reads Parquet
        value = value.tolist()
    return [_copied(inner, words) for inner in value] if isinstance(value, list | tuple) else value


def _joined(content: Any) -> Any:
    """Join parts of text; anything else is returned as it is."""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") for part in parts if isinstance(part, Mapping) and part.get("type") == "text"]
    return "".join(texts) if len(texts) == len(parts) and all(isinstance(t, str) for t in texts) else content


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
    harmless = _copied(given, lambda words: special.sub(lambda found: "x" * len(found[0]), words))
    guarded = text if harmless == given else render(harmless[0], tools=harmless[1])
    if len(guarded) != len(text):
        raise ValueError("The chat template acts on special tokens that are spelled out in somebody's words.")
    return text, guarded


def _check_written(render: Render, messages: Messages, text: str) -> None:
    """Refuse a chat of which the template leaves out words, calls or tools; tell what else it does."""
    left_out = []
    if render.keywords["tools"] and render(messages, tools=None) == text:
        raise ValueError("The chat template does not write the tools of the row: take one that does.")
    for i, message in enumerate(messages):
        for name in [n for n in message if message[n] and n != "role" and n not in dict(left_out)]:
            if name == "content":
                words = message[name].strip()
                if text.count(words) >= sum(m["content"].count(words) for m in messages):
                    continue
            other = "\ue000" if name == "content" else ""  # some look whether its first letter is an image
            changed = [*messages[:i], {**message, name: other}, *messages[i + 1 :]]
            with suppress(ValueError):  # what it refuses without, it has looked at
                left_out += [(name, i)] if render(changed) == text else []
    for name, i in left_out:
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
