"""Sphinx's settings for the book.

``make book`` builds it from the lessons' stored outputs; ``make run`` executes the lessons and builds it from
their outputs, with the tag ``run``.
"""

import sys
from pathlib import Path

from sphinx.application import Sphinx

BOOK = Path(__file__).resolve().parent
sys.path[:0] = [str(BOOK), str(BOOK.parent / "tools")]
import lessons  # noqa: E402
import pages  # noqa: E402
import publish  # noqa: E402
import sources  # noqa: E402

# The tags of the command line, which Sphinx puts here.
RUN = tags.has("run")  # noqa: F821
OUTPUTS = lessons.EXECUTED if RUN else lessons.NOTEBOOKS

project = html_title = "Silent bugs of fine-tuning"
language = "en"
smartquotes = False  # the auditor's texts have code in them
extensions = ["myst_nb"]
nb_execution_mode = "off"  # the outputs of the notebooks are shown
suppress_warnings = ["misc.highlighting_failure"] if RUN else []  # any model may print control characters

# Empty until `make publish`. With it, links to the code lead there, and a lesson opens in Colab or Binder.
REPOSITORY, TAG = publish.read_address()

myst_enable_extensions = ["substitution"]
myst_heading_anchors = 3
exclude_patterns = ["slides"]  # they have settings of their own, and are built after the pages
# Markdown that is made while the book is built; a page shows it with {{ name }}.
myst_substitutions = {
    "cards": pages.cards(REPOSITORY, TAG),
    "slider": pages.slider(),
    "progress": sources.progress(),
    "rule_card": sources.chapter("02_fix_with_masks", "Rule card"),
    "who_shifts_where": sources.chapter("03_label_misalignment", "Who shifts where?"),
    "minutes": sources.minutes_table(),
    "questions": sources.questions_tables(),
    "faults": sources.fault_list(),
    "frameworks_counts": sources.frameworks_counts(),
    "frameworks": sources.frameworks_list(),
    "templates": sources.templates_table(),
}

html_theme = "sphinx_book_theme"
html_context = {
    "default_mode": "auto",  # light or dark as the machine has it, until somebody presses
    # From where a page loads the model, if somebody presses there: a folder of the site, into which
    # tools/words.py puts it, or an https address whose server lets other sites read it (CORS).
    "words": "words",
}
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "footer_content_items": ["about.html"],
    "navbar_persistent": [],  # the search field is at the head of the menu already
}
if REPOSITORY:  # a lesson's path in the book is its path in the repository
    html_theme_options |= {
        "repository_url": REPOSITORY,
        "repository_branch": TAG,
        "launch_buttons": {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        },
    }
html_favicon = "static/icon.svg"
html_static_path = ["static"]
templates_path = ["templates"]
html_css_files = ["book.css"]
html_js_files = [("guesses.js", {"defer": "defer"})]
html_copy_source = False
html_show_search_summary = False  # it would be fetched; excerpts.js shows what a page from a disk may read
html_show_copyright = html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """Copy the lessons before Sphinx looks for its pages."""
    app.connect("builder-inited", lambda app: sources.copy_lessons(OUTPUTS, REPOSITORY, TAG))
    pages.setup(app)
