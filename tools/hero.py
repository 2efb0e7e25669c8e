"""Draw the README's moving picture from the slider's states: ``book/pictures/hero.svg`` (``make states``).

The same prompt behind more and more pads: without the mask the answer changes, with it nothing does. Who has
asked their machine for less motion sees the last state alone.
"""

import textwrap
from html import escape

from lessons import ROOT
from states import PROMPTS, stored

HERO = ROOT / "book" / "pictures" / "hero.svg"
PADS = [0, 1, 4, 8, 16, 32, 56, 64]
SECONDS = 2.5
WIDTH, HEIGHT, CARD = 800, 280, 376
BLUE, ORANGE = "#0072b2", "#d55e00"

STYLE = f"""
text {{ font: 15px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #222 }}
.head {{ font: bold 17px system-ui, "DejaVu Sans", sans-serif }}
.frame {{ visibility: hidden; animation: shown {SECONDS * len(PADS)}s step-end infinite }}
.frame:last-of-type {{ visibility: visible }}
@keyframes shown {{ 0% {{ visibility: visible }} {100 / len(PADS):.4g}%, to {{ visibility: hidden }} }}
@media (prefers-reduced-motion: reduce) {{ .frame {{ animation: none }} }}"""


def lines(x: int, y: int, text: str) -> str:
    """Return a text as SVG, in lines that fit a card."""
    wrapped = enumerate(textwrap.wrap(text, 38))
    spans = [f'<tspan x="{x}" dy="{21 * (i > 0)}">{escape(line)}</tspan>' for i, line in wrapped]
    return f'<text x="{x}" y="{y}">{"".join(spans)}</text>'


def tokens(x: int, y: int, pads: int, real: int, opacity: float) -> str:
    """Return a row of tokens as marks, its pads in front; they are faint where the mask hides them."""
    step = (CARD - 40) / (PADS[-1] + real)
    dashes = f'fill="none" stroke-width="16" stroke-dasharray="{step - 1:.2f} 1"'
    return (
        f'<path d="M{x} {y}h{pads * step:.2f}" {dashes} stroke="{ORANGE}" stroke-opacity="{opacity}"/>'
        f'<path d="M{x + pads * step:.2f} {y}h{real * step:.2f}" {dashes} stroke="{BLUE}"/>'
    )


def picture() -> str:
    """Return the picture as SVG."""
    states = stored()
    alone = states[PROMPTS[0], 0, True, "left"]
    real = len(alone["tokens"])
    left, right = 12, 36 + CARD
    cards = ""
    for x, head, call, colour in (
        (left, "The mask left out", 'model.generate(batch["input_ids"])', ORANGE),
        (right, "The mask passed", "model.generate(**batch)", BLUE),
    ):
        cards += (
            f'<rect x="{x}" y="12" width="{CARD}" height="256" rx="10" fill="#fff" stroke="{colour}"/>'
            f'<text class="head" x="{x + 20}" y="44">{head}</text>'
            f'<rect x="{x + 12}" y="58" width="{CARD - 24}" height="30" fill="{colour}" fill-opacity="0.13"/>'
            f"{lines(x + 20, 78, call)}"
        )
    frames = ""
    for i, pads in enumerate(PADS):
        answer = (states[PROMPTS[0], pads, False, "left"] if pads else alone)["answer"]
        frames += f'<g class="frame" style="animation-delay: {(i - len(PADS)) * SECONDS:g}s">'
        for x, said, opacity in ((left + 20, answer, 1), (right + 20, alone["answer"], 0.25)):
            asked = f"{pads} pad{'s' * (pads != 1)} in front of “{PROMPTS[0]}”"
            frames += tokens(x, 112, pads, real, opacity) + lines(x, 144, asked) + lines(x, 204, said)
        frames += "</g>"
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}><style>{STYLE}</style>{cards}{frames}</svg>\n'


if __name__ == "__main__":
    HERO.write_text(picture(), encoding="utf-8")
