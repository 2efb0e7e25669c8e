"""Execute the lessons, each in a new kernel: ``run`` into copies for the book, ``store`` in place.

``run`` leaves the notebooks as they are, and a reader's own outputs where the book takes them from
(``make run``). ``store`` writes the outputs into the notebooks, where the tests compare them: into all, or
those with the given numbers (``python tools/execute.py store 02 07 quiz``).
"""

import argparse
import base64
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from lessons import EVERY, EXECUTED, LESSONS, NOTEBOOKS, ROOT, read
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

KEPT = ("tags", "cellView", "jupyter")
"""The metadata of a cell that are ours; the last two fold away the code of the first cell."""
README_FIGURE = ROOT / "book" / "pictures" / "readme-figure.png"
"""The figure that the README shows; a cell that has its name as a tag draws it."""
LIVE = "application/vnd.jupyter.widget-view+json"
"""The type of an output that lives only as long as its kernel: a progress bar, a slider."""


def execute(path: Path) -> NotebookNode:
    """Run a lesson from its first cell to its last, in a new kernel of this Python.

    Raises:
        SystemExit: A cell failed or took too long, or its process was killed; the error is printed.
    """
    notebook = read(path)
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
            output.get("data", {}).pop(LIVE, None)  # its text, or the still picture beside it, is left


def execute_into(folder: Path, paths: Sequence[Path]) -> None:
    """Execute lessons, and write them with their outputs into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        notebook = execute(path)
        clean(notebook)
        nbformat.write(notebook, folder / path.name)


def readme_figure() -> bytes:
    """Return the README's figure as its lesson has stored it."""
    (figure,) = [
        cell.outputs[0].data["image/png"]
        for path in LESSONS
        for cell in read(path).cells
        if README_FIGURE.stem in cell.metadata.get("tags", [])
    ]
    return base64.b64decode(figure)


def main() -> None:
    """Execute the lessons for the book, or for the repository."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["run", "store"])
    numbers = {path.stem.split("_")[0]: path for path in EVERY}
    # Not by choices=: some versions of argparse take none at all for one that is not among them.
    parser.add_argument("numbers", nargs="*", metavar="NUMBER", help=f"{', '.join(numbers)} (default: all)")
    chosen = parser.parse_args()
    if unknown := [number for number in chosen.numbers if number not in numbers]:
        parser.error(f"there is no lesson {', '.join(unknown)}, only {', '.join(numbers)}")
    paths = [path for number, path in numbers.items() if not chosen.numbers or number in chosen.numbers]
    if chosen.what == "run":
        execute_into(EXECUTED, paths)
    else:
        execute_into(NOTEBOOKS, paths)
        README_FIGURE.write_bytes(readme_figure())


if __name__ == "__main__":
    main()
