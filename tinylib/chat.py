"""From messages to token ids: everything a model reads before it answers."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

Prompt = str | Sequence[dict[str, str]]
"""A user's words, or a whole conversation: ``[{"role": "user", "content": "Hi!"}, ...]``."""


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Write a prompt in the model's chat template, up to where its answer begins.

    Args:
        tokenizer: A tokenizer with a chat template.
        prompt: The user's words, or messages that end with a user's.

    Returns:
        Token ids, ready for the model. The template writes the special tokens (a BOS too, if the
        model wants one), so none is added here; rendering to text and tokenizing that again would
        add a second BOS.

    Raises:
        ValueError: The prompt is empty, or the conversation does not end with a user's words.
    """
    messages = as_messages(prompt)
    encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    return encoded["input_ids"]


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
