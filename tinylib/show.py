"""Text grids and figures: look at batches, masks, answers and attention.

Nothing here computes; it only shows what the other modules made. Figures carry their alt text.
"""

import io
import logging
import textwrap
import threading
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from tinylib.labels import IGNORE_INDEX

# Okabe and Ito's colours, told apart by readers of every kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
_CATCHING = threading.RLock()  # who catches warnings changes what the whole process has
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
        batch: ``input_ids`` and any others of the same shape ``(batch, seq)``, such as
            ``attention_mask`` or ``position_ids``.
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
    return "\n\n".join(
        "\n".join(
            _padded(name, -margin)
            + " │ "
            + " ".join(_padded(cell, width) for cell, width in zip(line, widths))
            for name, line in block.items()
        )
        for block in blocks
    )


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
        width: The longest line, in characters; what is longer ends in ``…``.
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


@contextmanager
def library_warnings() -> Iterator[list[str]]:
    """Collect what transformers warns about, instead of letting it go to stderr.

    Messages that transformers gives once per process are given again. A second thread waits for the first.
    """
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    library = logging.getLogger("transformers")
    with _CATCHING, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        transformers_logging.warning_once.cache_clear()
        before, library.handlers = library.handlers, [handler]
        try:
            yield said
        finally:
            library.handlers = before
    said.extend(str(warning.message) for warning in caught)


class Picture:
    """A finished figure as PNG, with its alt text; as a cell's last value it is shown."""

    def __init__(self, figure: Figure, alt: str) -> None:
        buffer = io.BytesIO()
        # White behind the axes, so that it reads in a dark theme too; no version in the file.
        figure.savefig(buffer, dpi=110, bbox_inches="tight", facecolor="white", metadata={"Software": None})
        plt.close(figure)
        self.png, self.alt = buffer.getvalue(), alt

    def _repr_mimebundle_(self, **_: object) -> dict[str, bytes | str]:
        return {"image/png": self.png, "text/plain": self.alt}


def lines(
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
    title: str,
    alt: str,
    ylim: tuple[float, float] | None = None,
    evenly: bool = False,
) -> Picture:
    """Draw one line for each series over ``x``, told apart by colour and by marker.

    With ``evenly`` the points stand side by side at equal distances, whatever their numbers.
    """
    figure, axes = plt.subplots(figsize=(7.2, 3.6))
    places = range(len(x)) if evenly else x
    for (name, values), colour, marker in zip(series.items(), COLOURS, MARKERS):
        axes.plot(places, values, color=colour, marker=marker, markersize=5, linewidth=1.6, label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title, ylim=ylim)
    if evenly:
        axes.set_xticks(places, [f"{value:g}" for value in x])
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Picture(figure, alt)


def bars(values: Mapping[str, float], *, xlabel: str, title: str, alt: str) -> Picture:
    """Draw one horizontal bar for each name, from the top down, with its number."""
    figure, axes = plt.subplots(figsize=(7.2, 0.6 + 0.42 * len(values)))
    drawn = axes.barh(list(values), list(values.values()), color=COLOURS[0], height=0.6)
    axes.bar_label(drawn, fmt="%.1f", padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.set(xlabel=xlabel, title=title)
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    return Picture(figure, alt)


def attention_maps(
    maps: Mapping[str, np.ndarray | torch.Tensor], tokens: Sequence[str], *, alt: str
) -> Picture:
    """Draw attention weights side by side, one heat map a title; ticks are the tokens.

    Args:
        maps: For each title the weights, of shape ``(seq, seq)``: rows are queries, columns keys.
        tokens: The ``seq`` token strings.
    """
    size = 1.4 + 0.42 * len(tokens)
    figure, all_axes = plt.subplots(
        1, len(maps), figsize=(size * len(maps), size), layout="constrained", squeeze=False
    )
    for axes, (title, weights) in zip(all_axes[0], maps.items()):
        image = axes.imshow(np.asarray(weights), vmin=0, vmax=1, cmap="viridis")
        axes.set_xticks(range(len(tokens)), tokens, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(tokens)), tokens)
        for i, row in enumerate(np.asarray(weights)):
            for j, weight in enumerate(row):
                if j > i and weight == 0:
                    continue  # nobody looks ahead
                shade = "black" if weight > 0.6 else "white"
                axes.text(j, i, f"{weight:.2f}", ha="center", va="center", fontsize=7, color=shade)
        axes.set(title=title, xlabel="is looked at (key)")
    all_axes[0][0].set_ylabel("looks (query)")
    figure.colorbar(image, ax=all_axes, shrink=0.7, label="attention weight")
    return Picture(figure, alt)


def label_arrows(
    tokens: Sequence[str], offsets: Mapping[str, int], supervised: Sequence[bool], *, alt: str
) -> Picture:
    """Draw for each title an arrow from every position to the token that it is trained to say.

    Args:
        tokens: The token strings of one row.
        offsets: For each title, how far ahead the label lies: 0, 1 or 2.
        supervised: For each token, whether it is to be learned; arrows lead to these only.
    """
    figure, all_axes = plt.subplots(len(offsets), 1, figsize=(7.2, 1.45 * len(offsets)), layout="constrained")
    for axes, (title, offset), colour in zip(np.atleast_1d(all_axes), offsets.items(), COLOURS):
        for i, token in enumerate(tokens):
            axes.text(i, 1, token, ha="center", va="center", fontsize=9)
            said = i + offset
            if said < len(tokens) and supervised[said]:
                axes.text(
                    i, 0, tokens[said], ha="center", va="center", fontsize=9, color=colour, weight="bold"
                )
                axes.annotate(
                    "",
                    (i, 0.22),
                    (i, 0.78),
                    arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.4},
                )
            else:
                axes.text(i, 0, "–", ha="center", va="center", fontsize=9, color="gray")
        axes.set(xlim=(-0.9, len(tokens) - 0.4), ylim=(-0.4, 1.4), yticks=[1, 0], xticks=[])
        axes.set_yticklabels(["reads", "should say"], fontsize=9)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(title, loc="left", fontsize=10)
    return Picture(figure, alt)
