"""What of a notebook is run: its cards, and of the cells before them what those need.

Not the whole lesson, which would load a model and train it: only the cells that call ``exercises.check``, and
from the cells before them the imports, functions, classes and constants that they use.
"""

import ast
import dis
import json
import re
from collections.abc import Callable, Iterator

from classroom.exercises import EXERCISES
from classroom.exercises.values import told

PYTHON_MAGIC = re.compile(
    r"^(?:%%(time|timeit|capture)\b.*|(?P<indent> *)%(time|timeit)\b( -\w+( \d+)?)* *)", re.M
)
"""What stands in front of Python code and only measures it or hides what it prints."""
ASKED = re.compile(r"""check\(\s*["'](\w+)["']""")
"""Which exercise a cell asks, even if the answer in it cannot be parsed."""

Tell = Callable[..., None]
"""Tells the grader something: ``tell(asks=[…])``, ``tell(note="…")``, ``tell(exercise="…", status="…")``."""
Part = tuple[int, list[ast.stmt]]
"""Statements of a cell, and the cell's number."""


def sources(text: bytes) -> list[str]:
    """Return the sources of a notebook's cells; of those that are not Python, an empty one.

    Raises:
        ValueError: It is not a notebook of format 4.
    """
    if not text.strip():
        raise ValueError("the file is empty")
    try:
        notebook = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise ValueError("the file is damaged: it is not JSON") from None
    version = notebook.get("nbformat") if isinstance(notebook, dict) else None
    if version is None:
        raise ValueError("it is not a notebook")
    if version != 4:
        raise ValueError(f"it has notebook format {version}, not 4; Jupyter converts it when it saves it")
    try:
        return ["".join(cell["source"]) * (cell["cell_type"] == "code") for cell in notebook["cells"]]
    except (KeyError, TypeError):
        raise ValueError("the notebook is damaged: it has no cells, or one without a source") from None


def choose(cells: list[str], tell: Tell) -> list[Part]:
    """Choose what is run, in its order. It is told what the cells ask, and which of them are no Python."""
    chosen: list[Part] = []
    known: dict[str, ast.stmt] = {}
    numbers: dict[ast.stmt, int] = {}
    asked = [name for cell in cells for name in ASKED.findall(cell)]
    tell(asks=[name for name in EXERCISES if name in asked])
    for number, cell in enumerate(cells, 1):
        try:
            statements = _parse(cell)
            steps = [(statement, _bound(statement)) for statement in statements]
        except (ImportError, MemoryError, RecursionError, SyntaxError, ValueError) as error:
            tell(note=f"cell {number}: {told(error, 160)}")
            continue
        if any(is_check(node) for statement in statements for node in ast.walk(statement)):
            # What an earlier part has run already is not run again.
            for definition in _needed(statements, known):
                if definition in numbers:
                    chosen.append((numbers.pop(definition), [definition]))
            chosen.append((number, statements))
            for _, names in steps:  # they have their values now, and keep them
                for name in names:
                    known.pop(name, None)
            continue
        for statement, names in steps:
            for name in names:  # the code that gives it a value may not be run here: then it has none
                known.pop(name, None)
            for name, definition in _definitions(statement):
                known[name] = definition
                numbers[definition] = number
    if not asked and not chosen:
        tell(note="it has no cell that calls exercises.check(…)")
    return chosen


def is_check(node: ast.AST) -> bool:
    """Whether this is a call of ``exercises.check``, or of ``check``, as it may be imported."""
    return (
        isinstance(node, ast.Call)
        and len(node.args) + len(node.keywords) == 2
        and (getattr(node.func, "attr", None) or getattr(node.func, "id", None)) == "check"
    )


def _parse(cell: str) -> list[ast.stmt]:
    """Parse a cell. Shell lines and magics become calls of ``get_ipython``, which does nothing here."""
    try:
        return ast.parse(cell).body
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager  # costs time, and few notebooks need it

        return ast.parse(TransformerManager().transform_cell(PYTHON_MAGIC.sub(r"\g<indent>", cell))).body


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement gives a value: its own, not those inside of its functions."""
    code = compile(ast.Module([statement], type_ignores=[]), "cell", "exec", dont_inherit=True)
    return {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_NAME"}


def _definitions(statement: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    """Yield what a statement defines, and how, if defining is all that it does."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name, statement
        case ast.Import() | ast.ImportFrom():
            for alias in statement.names:  # one by one: another module of the line may take seconds
                fields = {**vars(statement), "names": [alias]}
                yield alias.asname or alias.name.split(".")[0], type(statement)(**fields)
        case ast.Assign() | ast.AnnAssign(value=ast.expr()):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            stored = [node for target in targets for node in ast.walk(target)]
            # A constant: nothing is looked up or called to make it. A lambda is a function.
            if isinstance(statement.value, ast.Lambda) or not any(
                isinstance(node, ast.Name | ast.Call | ast.Await) for node in ast.walk(statement.value)
            ):
                names = [node for node in stored if isinstance(node, ast.Name)]
                # Not those of `table["a"] = 1`, which gives an entry a value and not the name.
                yield from ((name.id, statement) for name in names if isinstance(name.ctx, ast.Store))


def _needed(statements: list[ast.stmt], known: dict[str, ast.stmt]) -> list[ast.stmt]:
    """Pick the definitions that some statements need, directly or through one another, in their order."""
    wanted = {"*"}  # from … import *
    waiting = list(statements)
    while waiting:
        names = {node.id for node in ast.walk(waiting.pop()) if isinstance(node, ast.Name)} - wanted
        wanted |= names
        waiting += [known[name] for name in names if name in known]
    return [definition for name, definition in known.items() if name in wanted]
