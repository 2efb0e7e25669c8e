"""Pictures for the lessons: lines, bars, attention maps and label arrows. Each carries its alt text."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by readers of every kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"


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


def attention_maps(maps: Mapping[str, Any], tokens: Sequence[str], *, alt: str) -> Picture:
    """Draw attention weights side by side, one heat map a title; ticks are the tokens.

    Args:
        maps: For each title the weights, a tensor or array of shape ``(seq, seq)``: rows are queries, columns
            keys.
        tokens: The ``seq`` token strings.
    """
    size = 1.4 + 0.42 * len(tokens)
    figure, all_axes = plt.subplots(1, len(maps), figsize=(size * len(maps), size), layout="constrained")
    all_axes = np.atleast_1d(all_axes)
    for axes, (title, weights) in zip(all_axes, maps.items()):
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
    all_axes[0].set_ylabel("looks (query)")
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
    style = {"ha": "center", "va": "center", "fontsize": 9}
    for axes, (title, offset), colour in zip(np.atleast_1d(all_axes), offsets.items(), COLOURS):
        for i, token in enumerate(tokens):
            axes.text(i, 1, token, **style)
            said = i + offset
            if said < len(tokens) and supervised[said]:
                axes.text(i, 0, tokens[said], color=colour, weight="bold", **style)
                arrow = {"arrowstyle": "->", "color": colour, "linewidth": 1.4}
                axes.annotate("", (i, 0.22), (i, 0.78), arrowprops=arrow)
            else:
                axes.text(i, 0, "–", color="gray", **style)
        axes.set(xlim=(-0.9, len(tokens) - 0.4), ylim=(-0.4, 1.4), yticks=[1, 0], xticks=[])
        axes.set_yticklabels(["reads", "should say"], fontsize=9)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(title, loc="left", fontsize=10)
    return Picture(figure, alt)
