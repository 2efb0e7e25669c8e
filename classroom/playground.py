"""A playground for lesson 02: move pads, mask and side, and see the answer, the grid and the attention.

Live where a notebook has widgets; elsewhere (a page, a test) a still picture of the same stands in.
"""

import base64
import copy
import html
import threading
from typing import Any

import ipywidgets
import torch
from IPython.display import display
from matplotlib.figure import Figure
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tinylib import figures, show
from tinylib.chat import prompt_rows
from tinylib.generate import greedy_generate
from tinylib.padding import pad
from tinylib.quiet import library_warnings

_ONE_AT_A_TIME = threading.Lock()
"""JupyterLab may deliver a change while another is answered, in another thread of the kernel."""
MOST = {"pads": 8, "text": 20}
"""How many tokens of each kind the figure shows; the attention to those between is summed up in one bar."""


def playground(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str = "What is the capital of France?",
    pads: int = 5,
) -> None:
    """Show the controls and, below them, what the model does with this prompt and these pads.

    Args:
        model: A causal chat model in eval mode, of which one can get attention weights (``eager``).
        tokenizer: Its tokenizer.
        prompt: What the text box begins with.
        pads: What the slider begins with; without a mask, on the left.
    """
    controls = {
        "prompt": ipywidgets.Text(prompt, description="prompt", continuous_update=False),
        "pads": ipywidgets.IntSlider(pads, 0, 64, description="pads", continuous_update=False),
        "mask": ipywidgets.Checkbox(False, description="attention mask"),
        "side": ipywidgets.ToggleButtons(options=["left", "right"], description="side"),
    }
    words, figure = ipywidgets.HTML(), ipywidgets.HTML()

    def look() -> tuple[str, figures.Picture]:
        text, picture = scene(model, tokenizer, **{name: control.value for name, control in controls.items()})
        drawn = base64.b64encode(picture.png).decode()
        words.value = f'<pre style="white-space: pre; overflow-x: auto">{html.escape(text)}</pre>'
        figure.value = (
            f'<img style="max-width: 100%" alt="{html.escape(picture.alt)}" '
            f'src="data:image/png;base64,{drawn}">'
        )
        return text, picture

    def look_again(_: Any) -> None:
        with _ONE_AT_A_TIME:
            if controls["prompt"].value.strip():
                look()
            else:
                words.value, figure.value = "<pre>Type a prompt.</pre>", ""

    with _ONE_AT_A_TIME:
        text, picture = look()
    for control in controls.values():
        control.observe(look_again, "value")
    still = f"A still picture. In Jupyter or Colab, run this cell for the live one.\n\n{text}"
    _display(ipywidgets.VBox([*controls.values(), words]), {"text/plain": still})
    _display(figure, picture._repr_mimebundle_())


def _display(widget: ipywidgets.Widget, still: dict[str, bytes | str]) -> None:
    """Display a widget, and in its place something still where there are no widgets."""
    # Written out, since ipywidgets 7, which some services still have, cannot hand out its bundle.
    live = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    display({"application/vnd.jupyter.widget-view+json": live} | still, raw=True)


def scene(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, pads: int, mask: bool, side: str
) -> tuple[str, figures.Picture]:
    """Let the model answer a padded prompt: answer and token grid as text, the attention as a figure."""
    row = prompt_rows(tokenizer, [prompt])[0]
    neighbour = [0] * (len(row) + pads)
    batch = pad([row, neighbour], tokenizer.pad_token_id, side)
    inputs = {name: tensor[:1].to(model.device) for name, tensor in batch.items()}
    grid = show.token_grid(tokenizer, inputs if mask else {"input_ids": inputs["input_ids"]}, columns=14)
    if not mask:
        del inputs["attention_mask"]
    # Weights of attention are shown by a copy that shares all tensors: another cell may use the model.
    shown = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    shown.set_attn_implementation("eager")
    with library_warnings(), torch.no_grad():
        new = greedy_generate(model, max_new_tokens=20, **inputs)[0]
        attentions = shown(**inputs, output_attentions=True).attentions
    answer = tokenizer.decode(new, skip_special_tokens=True).replace("\n", " ").strip() or "(nothing)"
    weights = torch.stack(attentions)[:, 0, :, -1].float().mean(dim=(0, 1)).tolist()
    tokens = show.token_strings(tokenizer, inputs["input_ids"][0])
    setting = f"{pads} pads on the {side}, {'with the mask' if mask else 'no mask'}"
    text = f"{setting}\n\nprompt │ {prompt}\nanswer │ {answer}\n\n{grid}"
    seen = list(zip(tokens, weights))
    parts = [("pads", seen[:pads]), ("text", seen[pads:])]
    if side == "right":
        parts = [("text", seen[: len(row)]), ("pads", seen[len(row) :])]
    return text, _strip(setting, answer, parts)


def _strip(setting: str, answer: str, parts: list[tuple[str, list[tuple[str, float]]]]) -> figures.Picture:
    """Draw one bar for each token, pads orange: how much the last token looks at it."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")  # pyplot is not made for threads
    axes = figure.subplots()
    names = []
    for kind, tokens in parts:
        half = MOST[kind] // 2
        if len(tokens) > MOST[kind] + 1:
            between = tokens[half:-half]
            name = f"… {len(between)} {'pads' if kind == 'pads' else 'more'}"
            tokens = [*tokens[:half], (name, sum(weight for _, weight in between)), *tokens[-half:]]
        places = range(len(names), len(names) + len(tokens))
        axes.bar(places, [weight for _, weight in tokens], color=figures.COLOURS[kind == "pads"])
        names += [token for token, _ in tokens]
    # A reader may type dollar signs, between which matplotlib would read a formula.
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8, parse_math=False)
    axes.set(ylabel="attention of the last token")
    axes.set_title(
        f"{setting} (pads orange)\n“{answer}”", loc="left", fontsize=10, wrap=True, parse_math=False
    )
    axes.set_ylim(0, max(0.25, axes.get_ylim()[1]))
    axes.spines[["top", "right"]].set_visible(False)
    on_pads = sum(weight for kind, tokens in parts for _, weight in tokens if kind == "pads")
    return figures.Picture(
        figure,
        f"{setting}: the model answers “{answer}”. Bars, one for each token: the last token spends "
        f"{on_pads:.0%} of its attention on the pads.",
    )
