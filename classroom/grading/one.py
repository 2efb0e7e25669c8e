"""Grade one notebook, in the process that `classroom.grading.process` starts and limits for it."""

import ast
import faulthandler
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from classroom.exercises import EXERCISES, verdict
from classroom.exercises.values import told
from classroom.grading.cells import Part, Tell, choose, is_check, sources

RECORD = "exercises.check"
"""The recorder's name among the notebook's names. No assignment can change it, since it has a dot."""


def grade(text: bytes, tell: Tell) -> None:
    """Run the cards of a notebook, and tell what comes of them. Errors are told, and the next cell is run."""
    try:
        chosen = choose(sources(text), tell)
    except ValueError as error:
        tell(note=str(error))
        return
    _run(chosen, tell)


class _Recorded(ast.NodeTransformer):
    """Let the recorder take every call of ``exercises.check``, whatever that name stands for by then."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if is_check(node):
            node.func = ast.copy_location(ast.Name(RECORD, ast.Load()), node.func)
        return node


class _NoShell:
    """Stands for IPython: whatever a magic or a shell line asks of it, it does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


def _run(chosen: list[Part], tell: Tell) -> None:
    def record(exercise: str, answer: Any) -> None:
        if not isinstance(exercise, str) or exercise not in EXERCISES:
            tell(note="a check of something else was left out")
            return
        said = verdict(exercise, answer)
        tell(exercise=exercise, status=said.status)
        if "your code raised NameError" in said.text:  # it may need what is not run here
            tell(note=said.text)

    names = {"__name__": "__main__", RECORD: record, "display": print, "get_ipython": _NoShell}
    for number, statements in chosen:
        try:
            module = ast.fix_missing_locations(_Recorded().visit(ast.Module(statements, type_ignores=[])))
            exec(compile(module, f"cell {number}", "exec", dont_inherit=True), names)
        except BaseException as error:  # also SystemExit: the other cells are graded all the same
            tell(note=f"cell {number}: {told(error, 160)}")


def main() -> None:
    """Grade a notebook, and append what comes of it to a file, one JSON object a line.

    The arguments are the notebook, the file, and the seconds that the process has.
    """
    notebook, file, seconds = sys.argv[1:]
    faulthandler.dump_traceback_later(int(seconds) + 10, exit=True)  # should nobody be left to stop it
    last: dict[str, dict[str, Any]] = {}

    def tell(**what: Any) -> None:
        about = what.get("exercise") or what.get("note") or ""
        if last.get(about) != what:  # the same thing in a loop is told once
            last[about] = what
            with open(file, "a", encoding="utf-8") as opened:
                opened.write(json.dumps(what) + "\n")

    try:
        grade(Path(notebook).read_bytes(), tell)
    except OSError as error:
        tell(note=f"the file cannot be read: {error.strerror}")
    tell(done=True)
    os._exit(0)  # whatever threads the notebook has started


if __name__ == "__main__":
    main()
