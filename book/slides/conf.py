"""Sphinx's settings for the teacher's slides: ``make slides``. What they quote is taken from the lessons."""

import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx

BOOK = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(BOOK), str(BOOK.parent / "tools")]
import quoted  # noqa: E402

project = "Silent bugs of fine-tuning"
language = "en"
smartquotes = False
extensions = ["myst_parser", "sphinx_revealjs"]
myst_enable_extensions = ["attrs_block", "attrs_inline", "substitution"]
myst_substitutions = quoted.everything()

revealjs_static_path = ["static"]
revealjs_css_files = ["slides.css"]
revealjs_style_theme = "white"
revealjs_use_section_ids = True
revealjs_script_conf = {
    "width": 1280,
    "height": 720,
    "margin": 0.03,
    "center": False,
    "navigationMode": "linear",  # all slides one after the other, with the arrow to the right
    "hash": True,
    "slideNumber": "c/t",
    "transition": "none",
}
revealjs_script_plugins = [{"name": "RevealNotes", "src": "revealjs/plugin/notes/notes.js"}]


def drop_unused(app: Sphinx, error: Exception | None) -> None:
    """Take out the themes and plugins that no slide uses: a third; some ask Google for fonts."""
    revealjs = Path(app.outdir) / "_static" / "revealjs"
    for theme in (revealjs / "dist" / "theme").glob("*.css"):
        if theme.stem != revealjs_style_theme:
            theme.unlink()
    for plugin in (revealjs / "plugin").iterdir():
        if plugin.name != "notes":
            shutil.rmtree(plugin)


def setup(app: Sphinx) -> None:
    """Connect it."""
    app.connect("build-finished", drop_unused)
