"""In a real browser: JupyterLab runs what answers a reader, the exercises of a lesson and the playground."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from lessons import LESSONS, read
from nbformat import NotebookNode

MINUTES_5 = 300_000  # milliseconds


def write(path: Path, cells: list[NotebookNode]) -> None:
    """Write a notebook that nobody has executed."""
    for cell in cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def lab(browser: Any, tinyllama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start JupyterLab in a folder with the exercises of lesson 01, and with the playground of lesson 02."""
    folder = tmp_path_factory.mktemp("lab")
    title, install, *others = read(LESSONS[1]).cells
    first = next(i for i, cell in enumerate(others) if cell.source.startswith("## Exercise 1"))
    write(folder / "exercises.ipynb", [title, install, *others[first:]])
    (cell,) = [cell for cell in read(LESSONS[2]).cells if "playground(" in cell.source]
    load = "import torch\nfrom tinylib import models\nmodel, tokenizer = models.load(dtype=torch.float32)"
    write(folder / "playground.ipynb", [nbformat.v4.new_code_cell(load), cell])

    # All cells are drawn, in view or not, and nothing is asked or fetched at the start.
    settings = folder / "settings" / "@jupyterlab"
    for name, values in {
        "notebook-extension/tracker": {"windowingMode": "none"},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }.items():
        file = settings / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    port = free_port()
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--port-retries=0", "--IdentityProvider.token=", "--ServerApp.root_dir=.", "--log-level=ERROR",
        *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
    ]  # fmt: skip
    environment = os.environ | {
        "TINYLIB_MODEL": str(tinyllama_folder),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    address = f"http://127.0.0.1:{port}"
    with open(folder / "lab.log", "wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            wait_for(f"{address}/api/status", server)
            yield address
        finally:
            server.terminate()  # it stops its kernels before it ends
            server.wait(30)
            shutil.rmtree(folder)


def wait_for(address: str, server: subprocess.Popen) -> None:
    for _ in range(300):
        assert server.poll() is None, "JupyterLab has ended"
        try:
            urllib.request.urlopen(address, timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"nobody answers at {address}")


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    context.close()


def run_all(page: Any, lab: str, notebook: str) -> None:
    """Open a notebook and press Run, Run All Cells."""
    # In a workspace of its own: another one would open again what was open there, and might run that.
    page.goto(f"{lab}/lab/workspaces/{Path(notebook).stem}/tree/{notebook}")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # else JupyterLab asks which kernel to take
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def code_cell(page: Any, text: str) -> Any:
    return page.locator(".jp-CodeCell").filter(has=page.locator(".jp-InputArea", has_text=text))


def answer(page: Any, cell: Any, code: str) -> None:
    """Replace the code of a cell as a reader does, and run it with Shift and Enter."""
    cell.locator(".cm-content").click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(code)
    page.keyboard.press("Shift+Enter")


def test_the_exercises_answer_in_jupyterlab(lab: str, page: Any) -> None:
    run_all(page, lab, "exercises.ipynb")
    card = code_cell(page, 'exercises.check("garbled_calls"')
    card.get_by_text("Not answered yet.").wait_for(timeout=MINUTES_5)  # the last cell
    assert page.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0
    assert not page.get_by_text("find_spec").first.is_visible(), "the first cell lies open"

    rows = code_cell(page, 'exercises.check("safe_rows"')
    assert rows.locator(".jp-OutputArea-output").inner_text().strip() == "Not answered yet."
    stub = "from classroom import exercises\n\n\ndef safe_rows(lengths):\n    return {}\n\n\n"
    check = 'exercises.check("safe_rows", safe_rows)'
    answer(page, rows, stub.format("[lengths.index(max(lengths))]") + check)
    # Its hint lies unfolded below the verdict, and the card's own stays as it is.
    rows.locator("blockquote", has_text="it fails when two rows are the longest").wait_for()
    rows.get_by_text("In [4, 9, 9] two rows are longest").wait_for()
    rows.get_by_text("Right in this lesson: 0 of 2.").wait_for()
    right = "[i for i, n in enumerate(lengths) if n == max(lengths)]"
    answer(page, rows, stub.format(right) + check)
    rows.get_by_text("✓ Right, on the example and 40 fresh cases.").wait_for()
    answer(page, card, 'garbled = {"A", "D", "F"}\n\nexercises.check("garbled_calls", garbled)')
    card.get_by_text("✓ Right.").wait_for()
    card.get_by_text("Right in this lesson: 2 of 2.").wait_for()

    hint = page.locator("details", has_text="it fails when two rows are the longest").first
    assert not hint.get_by_text("The answer is a list").is_visible()
    hint.locator("summary").click()
    assert hint.get_by_text("The answer is a list").is_visible()


def test_the_playground_is_live_in_jupyterlab(lab: str, page: Any) -> None:
    """What it shows is tested without a browser; here, that it follows each of its controls."""
    run_all(page, lab, "playground.ipynb")
    cell = code_cell(page, "playground(model, tokenizer)")

    def follows(text: str) -> None:
        cell.locator("p", has_text=text).wait_for()
        cell.locator(f'img[alt^="{text}"]').wait_for()

    cell.get_by_text("5 pads on the left, no mask").first.wait_for(timeout=MINUTES_5)
    assert cell.get_by_text("A still picture").count() == 0  # the live one is in its place
    cell.get_by_role("checkbox").check()
    follows("5 pads on the left, with the mask")
    cell.get_by_role("button", name="right").click()
    follows("5 pads on the right, with the mask")
    prompt = cell.locator("input[type=text]").first
    prompt.fill("")
    page.keyboard.press("Enter")
    cell.get_by_text("Type a prompt.").wait_for()
    prompt.fill("Name three fruits.")
    page.keyboard.press("Enter")
    cell.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")  # before that prompt is answered
    follows("6 pads on the right, with the mask")
    cell.get_by_role("row", name="prompt Name three fruits.").wait_for()
    cell.get_by_role("rowheader", name="row 0").wait_for()
