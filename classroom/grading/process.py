"""Grade one notebook in a process of its own: an empty folder, a clean environment, and limits."""

import contextlib
import json
import os
import signal
import site
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from classroom.grading.returned import Returned
from classroom.grading.table import Graded

ROOT = Path(__file__).resolve().parents[2]
INHERITED = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "LANG")
"""Of the teacher's environment a notebook gets what Python needs to start, no tokens and no caches."""


def grade(returned: Returned, seconds: int = 60, memory: int = 2000) -> Graded:
    """Grade one notebook. Whatever is wrong with it is a note; the last answer to an exercise counts.

    Args:
        returned: The notebook, or what cannot be graded.
        seconds: It is stopped after so many.
        memory: It is stopped when it takes more than so many megabytes; a larger file is not read at all.
    """
    graded = Graded(returned)
    problem = returned.problem or _too_large(returned.path, memory)
    lines, end = ([], problem) if problem else _run(returned.path, seconds, memory)
    for line in lines:
        graded.add(line)
    if end or {"done": True} not in lines:
        graded.notes.append(end or "Python ended before the notebook's end")
    return graded


def _too_large(notebook: Path, memory: int) -> str:
    try:
        size = notebook.stat().st_size / 1e6
    except OSError as error:  # it was removed meanwhile
        return f"the file cannot be read: {error.strerror}"
    return f"the file has {size:.0f} MB, and a notebook may take {memory}" if size > memory else ""


def _run(notebook: Path, seconds: int, memory: int) -> tuple[list[dict[str, Any]], str]:
    """Return what the process told, and why it was stopped, if it was."""
    # What cannot be removed, since the notebook has changed its permissions, is left to the system.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        told, own = Path(folder, "told"), Path(folder, "own")
        own.mkdir()
        environment = {key: os.environ[key] for key in INHERITED if key in os.environ}
        environment |= dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP"), str(own))
        environment |= {"PYTHONPATH": str(ROOT), "PYTHONUSERBASE": site.getuserbase(), "PYTHONUTF8": "1"}
        environment |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "classroom.grading.one", notebook.resolve(), told, str(seconds)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=own, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            end = _watch(process, seconds, memory)
        finally:
            _kill(process)  # also after Ctrl-C
        lines = []
        # A notebook may have removed the file, or filled the disk, which cuts a line.
        with contextlib.suppress(OSError, ValueError), told.open("rb") as file:
            for line in file:
                lines.append(json.loads(line))
        return lines, end


def _watch(process: subprocess.Popen, seconds: int, memory: int) -> str:
    """Wait until the process ends, or until it has to be stopped; then say why."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            return ""
        if _megabytes(process) > memory:
            return f"it took more than {memory} MB of memory and was stopped"
        if time.monotonic() > deadline:
            return f"it ran longer than {seconds} seconds and was stopped"


def _megabytes(process: subprocess.Popen) -> float:
    total = 0
    for each in _tree(process):
        with contextlib.suppress(psutil.Error):
            total += each.memory_info().rss
    return total / 1e6


def _kill(process: subprocess.Popen) -> None:
    """End the process and what it has started."""
    for each in _tree(process):
        with contextlib.suppress(psutil.Error):
            each.kill()
    if hasattr(os, "killpg"):  # what has outlived the process is in its group, and in the tree no longer
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tree(process: subprocess.Popen) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(process.pid)
        return [*root.children(recursive=True), root]
    return []
