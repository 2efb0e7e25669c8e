"""Pictures for the lessons: lines, attention maps and label arrows. Each carries its alt text."""

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
    log: bool = False,
) -> Picture:
    """Draw one line for each series over ``x``, told apart by colour, marker and dashes (where two coincide).

    ``evenly``: points stand side by side, whatever their numbers. ``log``: the values' axis is logarithmic.
    """
    figure, axes = plt.subplots(figsize=(5.8, 3.9), layout="constrained")
    axes.set_yscale("log" if log else "linear")
    places = range(len(x)) if evenly else x
    for i, (name, values) in enumerate(series.items()):
        style = {"color": COLOURS[i], "marker": MARKERS[i], "linestyle": ("-", "--", "-.", ":")[i % 4]}
        axes.plot(places, values, label=name, linewidth=1.8, markersize=(7, 4)[i % 2], **style)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title, ylim=ylim)
    axes.yaxis.set_major_formatter("{x:g}")
    if evenly:
        axes.set_xticks(places, [f"{value:g}" for value in x])
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=10, loc="outside lower left", ncols=2)
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
    """Draw for each title a row of tokens, and from every position an arrow to the token it is to say.

    Args:
        tokens: The token strings of one row.
        offsets: For each title, how far ahead the label lies: 0, 1 or 2.
        supervised: For each token, whether it is to be learned; arrows lead to these only.
    """
    figure, all_axes = plt.subplots(len(offsets), 1, figsize=(5.2, 1.75 * len(offsets)), layout="constrained")
    style = {"ha": "center", "va": "center", "fontsize": 11}
    for axes, (title, offset), colour in zip(np.atleast_1d(all_axes), offsets.items(), COLOURS):
        for i, token in enumerate(tokens):
            said = i + offset
            learns = said < len(tokens) and supervised[said]
            circle = {"boxstyle": "circle", "color": colour if learns else "#E8E8E8"}
            axes.text(i, 1, i, color="white" if learns else "dimgray", bbox=circle, **style)
            axes.text(i, 0, token, weight="bold" if supervised[i] else None, **style)
            if learns:
                arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.8}
                axes.annotate("", (said, 0.2), (i, 0.8), arrowprops=arrow)
        axes.set(xlim=(-0.6, len(tokens) - 0.4), ylim=(-0.3, 1.4), yticks=[1, 0], xticks=[])
        axes.set_yticklabels(["position", "reads"], fontsize=11)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(title, loc="left", fontsize=11)
    return Picture(figure, alt)
