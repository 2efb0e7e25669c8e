"""Grids: look at batches, masks and answers; as text, and in a notebook in colour."""

import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from html import escape

import torch
from transformers import PreTrainedTokenizerBase

from tinylib.labels import IGNORE_INDEX

_VISIBLE = {"Ġ": "·", "▁": "·", "Ċ": "⏎", "<0x0A>": "⏎", "\n": "⏎"}
# A mark is never a colour alone, and its colour does on a light page and on a dark one.
_MARKS = {"": "span none", "padding": "s #8886", "hidden": "s none", "learned": "b #0976"}
_PAGE = "var(--jp-layout-color0, var(--pst-color-background, var(--colab-primary-surface-color, Canvas)))"
_CELL = "padding: 2px 6px; white-space: nowrap"
_NAME = f"{_CELL}; position: sticky; left: 0; text-align: left; background: {_PAGE}"


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


class TokenGrid(str):
    """A grid as text, which a notebook shows as a table with colours if it is a cell's last value."""

    blocks: list[dict[str, list[str]]]
    __repr__ = str.__str__

    def _repr_html_(self) -> str:
        rows = ""
        for block in self.blocks:
            mask = next((line for name, line in block.items() if "mask" in name), [])
            rows += '\n<tbody style="border-top: 1px solid #8888">'
            for name, line in block.items():
                rows += f'\n<tr style="background: none"><th scope="row" style="{_NAME}">{escape(name)}</th>'
                seen = line if "mask" in name else mask if name.startswith("row ") else []
                for j, text in enumerate(line):
                    mark = "learned" if name.startswith("labels") and text != "–" else ""
                    if seen and seen[j] == "0":
                        mark = "hidden" if "1" in seen[:j] and "1" in seen[j:] else "padding"
                    tag, colour = _MARKS[mark].split()
                    rows += f'<td title="{mark}" style="{_CELL}; background: {colour}">'
                    rows += f"<{tag}>{escape(text)}</{tag}></td>"
                rows += "</tr>"
            rows += "</tbody>"
        style = "border-collapse: collapse; text-align: right"
        return f'<div style="overflow-x: auto"><table style="{style}">{rows}\n</table></div>'


def token_grid(
    tokenizer: PreTrainedTokenizerBase, batch: Mapping[str, torch.Tensor], rows: Sequence[int] | None = None
) -> TokenGrid:
    """Draw a batch: for each row its tokens and, under each token, whatever else is there.

    Labels are written as tokens, and ``–`` where they are ignored; all else as numbers. The text is at most
    80 wide, with ``…`` between a row's ends; the table is whole. In it the first tensor with ``mask`` in its
    name marks the tokens: padding at a row's edges, hidden ones inside.

    The batch has ``input_ids`` and any others of their shape ``(batch, seq)``, else it is a ValueError;
    ``rows`` are the numbers of those to draw, at least one; default: all.
    """
    input_ids = batch["input_ids"]
    for name, tensor in batch.items():
        if tensor.shape != input_ids.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, input_ids {tuple(input_ids.shape)}.")
    blocks, seq = [], input_ids.shape[1]
    for i in range(len(input_ids)) if rows is None else rows:
        lines = {f"row {i}": token_strings(tokenizer, input_ids[i])}
        for name in [name for name in batch if name != "input_ids"]:
            known = tokenizer if name.startswith("labels") else None
            lines[name] = [token_string(known, int(number)) for number in batch[name][i]]
        blocks.append(lines)
    for count in range(min(40, seq), 0, -1):
        left, right, between = count // 2, seq - (count - count // 2), ["…"] * (count < seq)
        cut = [{name: line[:left] + between + line[right:] for name, line in x.items()} for x in blocks]
        drawn = TokenGrid(grid(*cut))
        if max(map(_width, drawn.splitlines())) <= 80:
            break
    drawn.blocks = blocks
    return drawn


def grid(*blocks: Mapping[str, Sequence[str]]) -> str:
    """Write named lines of short texts, column under column; an empty line between blocks."""
    margin = max(_width(name) for block in blocks for name in block)
    every_line = [line for block in blocks for line in block.values()]
    widths = [max(map(_width, column)) for column in zip(*every_line)]

    def written(name: str, line: Sequence[str]) -> str:
        cells = [" " * (width - _width(text)) + text for text, width in zip(line, widths)]
        return name + " " * (margin - _width(name)) + " │ " + " ".join(cells)

    return "\n\n".join("\n".join(written(*line) for line in block.items()) for block in blocks)


def _width(text: str) -> int:
    """Columns that a text takes in a monospaced font: Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def answers(prompts: Sequence[str], columns: Mapping[str, Sequence[str]], width: int = 76) -> str:
    """List answers under their prompts, cut at ``width``: a line for each way of asking, from its column."""
    margin = max(map(len, columns))
    lines = []
    for i, prompt in enumerate(prompts):
        lines.append(textwrap.shorten(prompt, width, placeholder=" …"))
        for name, texts in columns.items():
            line = f"  {name:>{margin}} │ " + texts[i].replace("\n", "⏎")
            lines.append(line if len(line) <= width else line[: width - 1] + "…")
        lines.append("")
    return "\n".join(lines[:-1])
