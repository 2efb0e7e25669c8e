"""A playground for lesson 02: move pads, mask and side, and see the answer, the grid and the attention.

Live where a notebook has widgets; elsewhere (a page, a test) a still picture of the same stands in.
"""

import base64
import copy
import textwrap
import threading
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets
import torch
from IPython.display import display
from matplotlib.figure import Figure
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from classroom import figures
from tinylib import show
from tinylib.chat import prompt_rows
from tinylib.generate import greedy_generate
from tinylib.padding import Side, pad
from tinylib.quiet import library_warnings

STILL = "A still picture. In Jupyter or Colab, run this cell for the live one."


@dataclass(frozen=True)
class Scene:
    """What the model does with a prompt and its pads: in words, as a token grid, and as a figure."""

    setting: str
    said: dict[str, str]
    grid: show.TokenGrid
    attention: figures.Picture

    @property
    def text(self) -> str:
        """The words and the grid, in lines of 80 characters."""
        margin = max(map(len, self.said))
        lines = [
            textwrap.fill(
                words, 80, initial_indent=f"{name:{margin}} │ ", subsequent_indent=" " * margin + " │ "
            )
            for name, words in self.said.items()
        ]
        return "\n".join([self.setting, "", *lines, "", self.grid])

    @property
    def page(self) -> str:
        """The same as HTML."""
        name = '<tr style="background: none"><th scope="row" style="text-align: left; vertical-align: top">'
        words = '</th><td style="text-align: left; white-space: normal">'
        rows = "".join(
            f"{name}{escape(what)}{words}{escape(said)}</td></tr>" for what, said in self.said.items()
        )
        return f"<p>{escape(self.setting)}</p><table>{rows}</table>{self.grid._repr_html_()}"


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

    def update() -> Scene:
        seen = scene(model, tokenizer, **{name: control.value for name, control in controls.items()})
        words.value = seen.page
        drawn = base64.b64encode(seen.attention.png).decode()
        figure.value = (
            f'<div style="overflow-x: auto"><img style="max-width: none" alt="{escape(seen.attention.alt)}" '
            f'src="data:image/png;base64,{drawn}"></div>'
        )
        return seen

    def update_or_say() -> None:
        try:
            if controls["prompt"].value.strip():
                update()
            else:
                words.value, figure.value = "<p>Type a prompt.</p>", ""
        except Exception as error:  # nobody sees what another thread prints, and the next move may go well
            words.value, figure.value = f"<p>{escape(f'{type(error).__name__}: {error}')}</p>", ""

    first = update()
    newest = _Newest(update_or_say)
    for control in controls.values():
        control.observe(newest.move, "value")
    still = {
        "text/plain": f"{STILL}\n\n{first.text}",
        "text/html": f"<p>{STILL}</p>{first.page}",
    }
    _display(ipywidgets.VBox([*controls.values(), words]), still)
    _display(figure, first.attention._repr_mimebundle_())


def _display(widget: ipywidgets.Widget, still: dict[str, bytes | str]) -> None:
    """Display a widget, and in its place something still where there are no widgets."""
    # Written out, since ipywidgets 7, which some services still have, cannot hand out its bundle.
    live = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    display({"application/vnd.jupyter.widget-view+json": live} | still, raw=True)


class _Newest:
    """Answers the newest move; of those that arrive while one is answered, all but the last are skipped.

    The answers are computed in another thread: in the kernel's own, the moves would only arrive one by one,
    each after the one before it was answered.
    """

    def __init__(self, answer: Callable[[], None]) -> None:
        self.answer = answer
        self.lock = threading.Lock()
        self.working = self.moved = False

    def move(self, _: Any) -> None:
        with self.lock:
            self.moved = True
            if not self.working:
                self.working = True
                threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self.lock:
                self.working, self.moved = self.moved, False
                if not self.working:
                    return
            self.answer()


@dataclass(frozen=True)
class Look:
    """What the model does with one row: its answer, the next token's logits, where its last token looks."""

    inputs: dict[str, torch.Tensor]
    is_pad: list[bool]
    answer: str
    logits: torch.Tensor
    """float32, of shape ``(vocab,)``."""
    attention: list[float]
    """One weight for each token of the row, the mean over layers and heads."""


def look(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, pads: int, mask: bool, side: Side
) -> Look:
    """Let the model answer a prompt with its pads in at most 20 tokens, and look at its first step."""
    row = prompt_rows(tokenizer, [prompt])[0]
    neighbour = [0] * (len(row) + pads)
    batch = pad([row, neighbour], tokenizer.pad_token_id, side)
    inputs = {name: tensor[:1].to(model.device) for name, tensor in batch.items()}
    if not mask:
        del inputs["attention_mask"]
    # Weights of attention are shown by a copy that shares all tensors: another cell may use the model.
    shown = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    shown.set_attn_implementation("eager")
    seen = {"output_attentions": True, "output_logits": True, "return_dict_in_generate": True}
    with library_warnings():
        # One step of generate, not of forward: it counts positions from the mask.
        step = shown.generate(**inputs, max_new_tokens=1, do_sample=False, **seen)
    weights = torch.stack(step.attentions[0])[:, 0, :, -1].float().mean(dim=(0, 1)).tolist()
    is_pad = (batch["attention_mask"][0] == 0).tolist()
    return Look(inputs, is_pad, _answer(model, tokenizer, inputs), step.logits[0][0].float().cpu(), weights)


def _answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, inputs: dict[str, torch.Tensor]
) -> str:
    with library_warnings():
        new = greedy_generate(model, max_new_tokens=20, **inputs)[0]
    return tokenizer.decode(new, skip_special_tokens=True).replace("\n", " ").strip() or "(nothing)"


def scene(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, pads: int, mask: bool, side: Side
) -> Scene:
    """Let the model answer a prompt with its pads, and without them."""
    padded = look(model, tokenizer, prompt, pads, mask, side)
    row = torch.tensor(prompt_rows(tokenizer, [prompt]), device=model.device)
    setting = f"{pads} pads on the {side}, {'with the mask' if mask else 'no mask'}"
    said = {"prompt": prompt, "answer": padded.answer}
    said["answer without pads"] = _answer(model, tokenizer, {"input_ids": row}) if pads else padded.answer
    tokens = show.token_strings(tokenizer, padded.inputs["input_ids"][0])
    bars = _bars(setting, padded.answer, tokens, padded.attention, padded.is_pad)
    return Scene(setting, said, show.token_grid(tokenizer, padded.inputs), bars)


def _bars(
    setting: str, answer: str, tokens: list[str], weights: list[float], is_pad: list[bool]
) -> figures.Picture:
    """Draw one bar for each token, pads orange: how much the last token looks at it. None is left out."""
    # As wide as its tokens need to be read, and scrolled where that is wider than the page.
    figure = Figure(figsize=(max(7.2, 0.15 * len(tokens)), 3.4), layout="constrained")
    axes = figure.subplots()  # pyplot is not made for threads
    axes.bar(range(len(tokens)), weights, color=[figures.COLOURS[pad] for pad in is_pad])
    # A reader may type dollar signs, between which matplotlib would read a formula.
    axes.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=8, parse_math=False)
    axes.set_xlim(-1, len(tokens))
    axes.set(ylabel="attention of the last token")
    axes.set_title(
        f"{setting} (pads orange)\n“{answer}”", loc="left", fontsize=10, wrap=True, parse_math=False
    )
    axes.set_ylim(0, max(0.25, axes.get_ylim()[1]))
    axes.spines[["top", "right"]].set_visible(False)
    on_pads = sum(weight for weight, pad in zip(weights, is_pad) if pad)
    return figures.Picture(
        figure,
        f"{setting}: the model answers “{answer}”. Bars, one for each token: the last token spends "
        f"{on_pads:.0%} of its attention on the pads.",
    )
