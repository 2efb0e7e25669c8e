"""Chats as people have them: rows of data sets, in any of the usual forms, become messages."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from transformers.utils import logging

Prompt = str | Sequence[Mapping[str, Any]]
"""A user's words, or a whole conversation: ``[{"role": "user", "content": "Hi!"}, ...]``."""

Messages = list[dict[str, Any]]
"""With ``role``, ``content`` and what else they have."""

ROLES = {
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "chatbot", "ai", "bot", "model", "function_call"), "assistant"),
    **dict.fromkeys(("observation", "function"), "tool"),
}
"""Other names that data sets have for roles. The words of a ``function_call`` are a call, as JSON."""

KNOWN_ROLES = ("system", "user", "assistant", "tool")

# How a list of messages begins, as JSON or as Python prints it.
_LIKE_MESSAGES = re.compile(
    r"""\s*\[\s*\{.*?['"](role|from)['"]\s*:\s*['"](system|user|assistant|human|gpt)['"]""", re.DOTALL
)

tell_once = logging.get_logger(__name__).warning_once


def as_messages(
    chat: Prompt | Mapping[str, Any],
    must_speak: str | None = None,
    tell: Callable[[str], object] = tell_once,
) -> Messages:
    """Read a conversation, whichever of the usual forms it has, and refuse what cannot be written.

    Args:
        chat: A user's words; a list of messages; or a row of a data set, with ``messages`` (or ShareGPT's
            ``conversations``: a list, or that list as JSON text, as in a CSV file), with ``prompt`` and
            ``completion``, or with Alpaca's ``instruction``, ``input`` and ``output``; what its ``system``
            has comes first, unless a message of the system's does. A prompt or completion is such a list, or
            words; also a list if it is the JSON of objects that each have a ``role`` or ``from``, and what
            was said. Other text that looks like JSON (``[1, 2]``, ``5``) is words.
        must_speak: The role whose messages must not be empty; default: nobody's may, ``""``: all may.
        tell: What takes a line about what is not used, or read as something else; default: the log, once.

    Returns messages with ``role``, ``content``, and what else they have, those of a ``prompt`` with weight 0.
    Columns that are not used are told once, and roles that are read as another (`ROLES`). It is a ValueError
    if the chat has none of these forms, or a message has no role, or neither text nor a call.

    >>> as_messages({"prompt": "Hi!", "completion": "Hello."})[1]
    {'role': 'assistant', 'content': 'Hello.'}
    """
    tools = tools_of(chat)
    messages = [_message(i, given, tools, tell) for i, given in enumerate(_listed(copied(chat), tell))]
    if not messages:
        raise ValueError("The conversation is empty: give at least one message of the user's.")
    for i, message in enumerate(messages):
        says = message["content"].strip() or message.get("tool_calls")
        if not says and must_speak in (None, message["role"]):
            raise ValueError(f"Message {i}, of the {message['role']}, is empty. Give it some words.")
    return messages


def to_learn(messages: Messages) -> list[int]:
    """Number the answers that a model is to learn: the assistant's, but those of weight 0, and its greetings.

    A greeting is what it says before anybody has asked.
    """
    others = (i for i, m in enumerate(messages) if m["role"] not in ("system", "developer", "assistant"))
    asked = next(others, len(messages))
    learned = [m["role"] == "assistant" and m.get("weight", 1) != 0 for m in messages]
    return [i for i in range(asked + 1, len(messages)) if learned[i]]


def unknown_roles(messages: Messages, template: str) -> set[str]:
    """Name roles for which a chat template has no place: many write a header that the model does not know."""
    return {m["role"] for m in messages if m["role"] not in KNOWN_ROLES and m["role"] not in template}


def tools_of(chat: Any) -> list[Any] | None:
    """Read the ``tools`` of a row, a list or its JSON; None if it has none; a ValueError if it is no JSON."""
    return copied(_from_json(chat.get("tools"))) or None if isinstance(chat, Mapping) else None


def _message(number: int, given: Any, tools: Any, tell: Callable[[str], object]) -> dict[str, Any]:
    """Read one message, with the usual names of what it has."""
    message = dict(given) if isinstance(given, Mapping) else {}
    for name, other in (("role", "from"), ("content", "value")):
        if name not in message and other in message:
            message[name] = message.pop(other)
    try:
        if calls := _calls(message, tools, tell):
            message = {"content": "", **message, "tool_calls": calls}
    except ValueError as error:
        raise ValueError(f"Message {number}: {error}") from error
    role, content = message.get("role"), _joined(message.get("content"))
    if not isinstance(content, str) or not isinstance(role, str) or not role.strip():
        raise ValueError(f"Message {number} needs a 'role' and a 'content' that is text: {given!r:.80}.")
    for name in ("train", "weight"):
        if (learned := message.get(name, 1)) not in (0, 1):
            raise ValueError(f"Message {number} has the {name} {learned!r}: it is 0, not learned, or 1.")
    if "train" in message:
        message["weight"] = int(message.pop("train") and message.get("weight", 1))
    usual = role.strip().lower()
    message |= {"role": ROLES.get(usual, usual), "content": content}
    if message["role"] != role:
        tell(f"Messages of {role!r} are read as those of {message['role']!r}.")
    return message


def _listed(chat: Any, tell: Callable[[str], object], role: str = "user") -> list[Any]:
    """List the messages of a chat, of whatever form; words alone are those of ``role``."""
    match chat:
        case str():
            return [{"role": role, "content": chat}]
        case {"messages": listed, **rest} | {"conversations": listed, **rest}:
            messages = copied(_from_json(listed))
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
    if messages and isinstance(rest.get("system"), str) and not _is_systems(messages[0]):
        system = {"role": "system", "content": rest.pop("system")}
        messages = [system, *messages] if system["content"].strip() else messages
    if unused := ", ".join(repr(name) for name in rest if name != "tools"):
        tell(f"These columns of chats are not used: {unused}.")
    return messages


def _is_systems(message: Any) -> bool:
    return isinstance(message, Mapping) and "system" in (message.get("role"), message.get("from"))


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


def copied(value: Any, words: Callable[[str], str] | None = None) -> Any:
    """Copy a chat: with its texts changed, or without what is None, as a table fills what a row has not.

    In a call's arguments it stays: there it may be meant (see `_unfilled`).
    """
    if isinstance(value, str):
        return words(value) if words else value
    if isinstance(value, Mapping):
        return {
            name: copied(inner, words or (str if name == "arguments" else None))
            for name, inner in value.items()
            if words or inner is not None
        }
    if hasattr(value, "tolist"):  # numpy's, as pandas reads Parquet
        value = value.tolist()
    return [copied(inner, words) for inner in value] if isinstance(value, list | tuple) else value


def _joined(content: Any) -> Any:
    """Join parts of text; anything else is returned as it is."""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") for part in parts if isinstance(part, Mapping) and part.get("type") == "text"]
    return "".join(texts) if len(texts) == len(parts) and all(isinstance(t, str) for t in texts) else content
