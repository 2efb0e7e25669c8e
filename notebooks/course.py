"""Execute the lessons: ``pages`` makes readable HTML under build/, ``store`` refreshes the notebooks.

The notebooks are the only source. ``pages`` leaves them untouched; ``store`` writes the outputs of a
fresh run, from the first cell to the last, back into them.
"""

import argparse
import base64
import hashlib
import html
import os
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path

import nbformat
from jinja2 import DictLoader
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from traitlets.config import Config

NOTEBOOKS = Path(__file__).resolve().parent
ROOT = NOTEBOOKS.parent
BUILD = ROOT / "build"
KEPT = ("tags", "cellView", "jupyter")
"""The metadata of a cell that are ours; the last two fold away the code of the first cell."""
README_FIGURE = "readme-figure"
"""The tag of the cell whose figure the README shows, and the name of the file that it shows."""
LIVE = "application/vnd.jupyter.widget-view+json"
"""The type of an output that lives only as long as its kernel: a progress bar, a slider."""

# Figures get their alt text, which they carry as text/plain. Nothing is loaded from the network, and
# a narrow screen scrolls a grid sideways instead of breaking its lines.
PAGE = """{% extends "lab/index.html.j2" %}
{% block data_png %}<div class="jp-RenderedImage jp-OutputArea-output">
{%- set alt = output.data["text/plain"] | escape %}
<img src="data:image/png;base64,{{ output.data["image/png"] }}" alt="{{ alt }}">
</div>{% endblock %}
{% block body_header %}{{ super() }}<p class="up"><a href="index.html">← all lessons</a></p>{% endblock %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_css %}<style>
.jp-OutputArea-output pre { white-space: pre; overflow-x: auto; } img { max-width: 100%; }
.up { margin: 0 0 1rem; font-family: var(--jp-content-font-family); }
.up a { color: var(--jp-content-link-color); }
</style>{% endblock %}
"""
INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Silent bugs of fine-tuning</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root {{ color-scheme: light dark; }}
body {{ font: 18px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; padding: 0 1rem; }}
li {{ margin: 1rem 0; }} small {{ opacity: .75; }}
ul {{ list-style: none; padding: 0; }}
</style></head><body><h1>Silent bugs of fine-tuning</h1>
<p>Nothing raises, the loss looks fine, and the model talks garbage. Begin with lesson 00.</p>
<ul>{items}</ul></body></html>
"""


def lessons() -> list[Path]:
    """Return the lessons' notebooks in the order of their numbers."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def title_and_aim(notebook: NotebookNode) -> tuple[str, str]:
    """Return a lesson's heading and the line of prerequisites and minutes under it."""
    heading, *rest = [line for line in notebook.cells[0].source.splitlines() if line.strip()]
    return heading.lstrip("# "), re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", rest[0].strip("* "))


def execute(path: Path) -> NotebookNode:
    """Run a lesson from its first cell to its last, in a new kernel of this Python.

    Raises:
        SystemExit: A cell failed or took too long, or its process was killed; the error is printed.
    """
    notebook = nbformat.read(path, as_version=4)
    print(f"{path.stem} ", end="", flush=True)
    start = time.monotonic()
    client = NotebookClient(
        notebook,
        timeout=900,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
        extra_arguments=["--log-level=40"],  # errors only; the kernel is noisy about its transport
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        sys.exit(f"failed\n{error}")
    print(f"{time.monotonic() - start:.0f} s", flush=True)
    return notebook


def clean(notebook: NotebookNode) -> None:
    """Drop what differs from one run or machine to the next and says nothing to a reader."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in KEPT}
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = {}
            if LIVE in output.get("data", {}):
                del output.data[LIVE]  # its text is left, and compared; the bar itself would be dead


def store() -> None:
    """Execute all lessons in place, and keep the README's figure in step with its lesson."""
    for path in lessons():
        notebook = execute(path)
        clean(notebook)
        nbformat.write(notebook, path)
        for cell in notebook.cells:
            if README_FIGURE in cell.metadata.get("tags", []):
                png = base64.b64decode(cell.outputs[0].data["image/png"])
                (NOTEBOOKS / f"{README_FIGURE}.png").write_bytes(png)


def fingerprint(path: Path) -> str:
    """Digest all that a page depends on, so that an unchanged lesson is not run again."""
    digest = hashlib.sha256()
    library = sorted(
        path for path in (ROOT / "tinylib").rglob("*") if path.suffix in (".py", ".jsonl", ".toml")
    )
    for source in [path, Path(__file__), *library]:
        digest.update(source.read_bytes())
    chosen = [os.environ.get(name) for name in ("TINYLIB_MODEL", "TINYLIB_DEVICE")]
    digest.update(repr((chosen, version("transformers"), version("torch"))).encode())
    return digest.hexdigest()


def is_progress_bar(output: NotebookNode) -> bool:
    """Tell a bar, of which a page would show the text before its first step, from what is worth reading."""
    return "%|" in output.get("data", {}).get("text/plain", "")


def to_html(notebook: NotebookNode, title: str) -> str:
    """Render an executed lesson as one self-contained page."""
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not is_progress_bar(output)]
            for output in cell.outputs:
                output.get("data", {}).pop(LIVE, None)  # the still picture in its place is left
    left_out = Config(TagRemovePreprocessor={"enabled": True, "remove_cell_tags": {"remove-cell"}})
    loaders = [DictLoader({"page.html.j2": PAGE})]
    exporter = HTMLExporter(config=left_out, template_file="page.html.j2", extra_loaders=loaders)
    body, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}})
    return re.sub(r'(href="[^":]+)\.ipynb"', r'\1.html"', body)  # links from lesson to lesson


def pages() -> None:
    """Execute all lessons and leave them as HTML pages with an index under build/."""
    BUILD.mkdir(exist_ok=True)
    items = []
    for path in lessons():
        page = BUILD / f"{path.stem}.html"
        stamp = f"<!-- {fingerprint(path)} -->"
        title, aim = title_and_aim(nbformat.read(path, as_version=4))
        if page.is_file() and page.read_text(encoding="utf-8").endswith(stamp):
            print(f"{path.stem} unchanged", flush=True)
        else:
            page.write_text(to_html(execute(path), title) + stamp, encoding="utf-8")
        items.append(
            f'<li><a href="{page.name}">{html.escape(title)}</a><br><small>{html.escape(aim)}</small></li>'
        )
    index = BUILD / "index.html"
    index.write_text(INDEX.format(items="\n".join(items)), encoding="utf-8")
    print(f"open {index.relative_to(Path.cwd()) if index.is_relative_to(Path.cwd()) else index}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["pages", "store"])
    {"pages": pages, "store": store}[parser.parse_args().what]()
