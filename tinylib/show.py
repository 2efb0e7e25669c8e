"""Text grids: look at batches, masks and answers, in a terminal, a notebook or a test.

Nothing here computes; it only writes down what the other rooms made.
"""

import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from transformers import PreTrainedTokenizerBase

from tinylib.labels import IGNORE_INDEX

_VISIBLE = {"Ġ": "·", "▁": "·", "Ċ": "⏎", "<0x0A>": "⏎", "\n": "⏎"}


def token_strings(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int] | torch.Tensor) -> list[str]:
    """Write each id as its token, with ``·`` for a leading space and ``⏎`` for a line break."""
    tokens = tokenizer.convert_ids_to_tokens([int(i) for i in ids])
    for written, shown in _VISIBLE.items():
        tokens = [token.replace(written, shown) for token in tokens]
    return tokens


def token_string(tokenizer: PreTrainedTokenizerBase | None, value: int) -> str:
    """Write an id or a label as its token; as a number without a tokenizer, or if it has no such token."""
    if value == IGNORE_INDEX:
        return "–"
    known = tokenizer is not None and 0 <= value < len(tokenizer)
    return token_strings(tokenizer, [value])[0] if known else str(value)


def token_grid(
    tokenizer: PreTrainedTokenizerBase,
    batch: Mapping[str, torch.Tensor],
    rows: Sequence[int] | None = None,
    columns: int = 8,
) -> str:
    """Draw a batch as text: for each row its tokens and, under each token, whatever else is there.

    Labels are written as tokens, and ``–`` where they are ignored; all else as numbers.

    Args:
        batch: ``input_ids`` and any others of the same shape ``(batch, seq)``, such as ``attention_mask``.
        rows: The numbers of the rows to draw; all by default.
        columns: The most columns to draw; from the middle of a wider batch some are left out (``…``).

    Raises:
        ValueError: A tensor is not of the shape of ``input_ids``.
    """
    input_ids = batch["input_ids"]
    for name, tensor in batch.items():
        if tensor.shape != input_ids.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, input_ids {tuple(input_ids.shape)}.")
    seq = input_ids.shape[1]
    shown = list(range(seq))
    if seq > columns:
        shown = [*range(columns // 2), None, *range(seq - (columns - columns // 2), seq)]
    blocks = []
    for i in range(len(input_ids)) if rows is None else rows:
        lines = {f"row {i}": token_strings(tokenizer, input_ids[i])}
        for name in [name for name in batch if name != "input_ids"]:
            write = partial(token_string, tokenizer) if name.startswith("labels") else str
            lines[name] = [write(int(number)) for number in batch[name][i]]
        blocks.append({name: ["…" if j is None else line[j] for j in shown] for name, line in lines.items()})
    return grid(*blocks)


def grid(*blocks: Mapping[str, Sequence[str]]) -> str:
    """Write named lines of short texts, column under column; an empty line between blocks."""
    margin = max(_width(name) for block in blocks for name in block)
    every_line = [line for block in blocks for line in block.values()]
    widths = [max(map(_width, column)) for column in zip(*every_line)]

    def written(name: str, line: Sequence[str]) -> str:
        return _padded(name, -margin) + " │ " + " ".join(map(_padded, line, widths))

    return "\n\n".join("\n".join(written(*line) for line in block.items()) for block in blocks)


def _width(text: str) -> int:
    """Columns that a text takes in a monospaced font: Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _padded(text: str, width: int) -> str:
    """Fill with spaces: on the left, or on the right if ``width`` is negative."""
    spaces = " " * (abs(width) - _width(text))
    return spaces + text if width > 0 else text + spaces


def answers(prompts: Sequence[str], columns: Mapping[str, Sequence[str]], width: int = 76) -> str:
    """List answers under their prompts, one line for each way of asking.

    Args:
        prompts: The users' words.
        columns: For each way of asking (``"alone"``, ``"in a batch"``, ...) the answers in order.
        width: Of the longest line, in characters; what is longer ends in ``…``.
    """
    margin = max(map(len, columns))
    lines = []
    for i, prompt in enumerate(prompts):
        lines.append(textwrap.shorten(prompt, width, placeholder=" …"))
        for name, texts in columns.items():
            text = texts[i].replace("\n", "⏎")
            room = width - margin - 5
            lines.append(f"  {name:>{margin}} │ " + (text if len(text) <= room else text[: room - 1] + "…"))
        lines.append("")
    return "\n".join(lines[:-1])
