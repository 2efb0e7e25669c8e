"""Grade one returned notebook, in a process of its own: notebook in by stdin, what comes of it out by stdout.

Not the whole lesson is run, which would load a model and train it: only the cells that call
``exercises.check``, and of the cells before them the imports, functions, classes and constants that those
need. `tinylib.exercises.grade` starts this module and limits its time and memory. The guard in here refuses
the network, other processes, the folder of the returned notebooks, and writing outside of a working folder.
It keeps accidents and curiosity out. It is no sandbox: hostile code, and libraries that open files without
asking Python, get around it.
"""

import ast
import contextlib
import dis
import faulthandler
import functools
import importlib
import json
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import tinylib
from tinylib.exercises import EXERCISES, verdict

RECORD = "exercises.check"
"""The recorder's name among the notebook's names. No assignment can change it, since it has a dot."""
PYTHON_MAGIC = re.compile(
    r"^(?:%%(time|timeit|capture)\b.*|(?P<indent> *)%(time|timeit)\b( -\w+( \d+)?)* *)", re.M
)
"""What stands in front of Python code and only measures it or hides what it prints."""
ASKED = re.compile(r"""check\(\s*["'](\w+)["']""")
"""Which exercise a cell asks, even if the answer in it cannot be parsed."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.removexattr", "os.rename", "os.rmdir",
    "os.setxattr", "os.truncate", "os.utime", "shutil.rmtree", "sqlite3.connect",
}  # fmt: skip
PROCESSES = {
    "os.exec", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.posix_spawn", "os.spawn", "os.startfile",
    "os.system", "pty.spawn", "subprocess.Popen", "_winapi.CreateProcess", "_winapi.TerminateProcess",
}  # fmt: skip
UNANNOUNCED = (
    ("_posixsubprocess", "fork_exec", "reaching other programs"),
    ("os", "pidfd_open", "reaching other programs"),
    ("os", "setpriority", "reaching other programs"),
    ("os", "mkfifo", "writing outside of its own folder"),
    ("os", "mknod", "writing outside of its own folder"),
)

Tell = Callable[..., None]


def cells(text: bytes) -> list[str]:
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


def parse(source: str) -> list[ast.stmt]:
    """Parse a cell. Shell lines and magics become calls of ``get_ipython``, which does nothing here."""
    try:
        return ast.parse(source).body
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager  # costs time, and few notebooks need it

        return ast.parse(TransformerManager().transform_cell(PYTHON_MAGIC.sub(r"\g<indent>", source))).body


def is_check(node: ast.AST) -> bool:
    """Whether this is a call of ``exercises.check``, or of ``check``, as it may be imported."""
    return (
        isinstance(node, ast.Call)
        and len(node.args) + len(node.keywords) == 2
        and (getattr(node.func, "attr", None) or getattr(node.func, "id", None)) == "check"
    )


def bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement gives a value: its own, not those inside of its functions."""
    code = compile(ast.Module([statement], type_ignores=[]), "cell", "exec", dont_inherit=True)
    return {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_NAME"}


def definitions(statement: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
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


def needed(statements: list[ast.stmt], known: dict[str, ast.stmt]) -> list[ast.stmt]:
    """Pick the definitions that some statements need, directly or through one another, in their order."""
    wanted = {"*"}  # from … import *
    waiting = list(statements)
    while waiting:
        names = {node.id for node in ast.walk(waiting.pop()) if isinstance(node, ast.Name)} - wanted
        wanted |= names
        waiting += [known[name] for name in names if name in known]
    return [definition for name, definition in known.items() if name in wanted]


class Recorded(ast.NodeTransformer):
    """Let the recorder take every call of ``exercises.check``, whatever that name stands for by then."""

    def visit_Call(self, node: ast.Call) -> ast.AST:  # noqa: D102
        self.generic_visit(node)
        if is_check(node):
            node.func = ast.copy_location(ast.Name(RECORD, ast.Load()), node.func)
        return node


class NoShell:
    """Stands for IPython: whatever a magic or a shell line asks of it, it does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


def plan(sources: list[str], tell: Tell) -> list[tuple[int, list[ast.stmt]]]:
    """Choose what is run: parts of a cell, each with the cell's number, in their order."""
    chosen: list[tuple[int, list[ast.stmt]]] = []
    known: dict[str, ast.stmt] = {}
    places: dict[ast.stmt, int] = {}
    asked = [name for source in sources for name in ASKED.findall(source)]
    tell(asks=[name for name in EXERCISES if name in asked])
    for number, source in enumerate(sources, 1):
        try:
            statements = parse(source)
            steps = [(statement, bound(statement)) for statement in statements]
        except (ImportError, MemoryError, RecursionError, SyntaxError, ValueError) as error:
            tell(note=f"cell {number}: {told(error)}")
            continue
        if any(is_check(node) for statement in statements for node in ast.walk(statement)):
            # What an earlier part has run already is not run again.
            chosen += [(places.pop(item), [item]) for item in needed(statements, known) if item in places]
            chosen.append((number, statements))
            for _, names in steps:  # they have their values now, and keep them
                for name in names:
                    known.pop(name, None)
            continue
        for statement, names in steps:
            for name in names:  # the code that gives it a value may not be run here: then it has none
                known.pop(name, None)
            for name, definition in definitions(statement):
                known[name] = definition
                places[definition] = number
    if not asked and not chosen:
        tell(note="it has no cell that calls exercises.check(…)")
    return chosen


def import_all(statements: list[ast.stmt]) -> None:
    """Import ahead what the notebook imports: libraries do more than the guard allows, and take time."""
    for node in (node for statement in statements for node in ast.walk(statement)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{name}" for name in names)]
        for name in names:
            with contextlib.suppress(Exception):  # told when the notebook itself imports it
                importlib.import_module(name)
        for alias in node.names if isinstance(node, ast.ImportFrom) else []:
            with contextlib.suppress(Exception):  # transformers imports a name when it is asked for
                getattr(sys.modules[node.module], alias.name)


def guard(folder: str, tell: Tell) -> None:
    """Refuse the network, processes, the returned notebooks, and writing outside of the working folder.

    A refusal raises PermissionError, and is told even if the notebook catches that. It lasts as long as the
    process: Python has no way to take an audit hook back.
    """
    own, folder = os.path.realpath("."), os.path.realpath(folder)

    def within(path: Any, parent: str) -> bool:
        # Links and ".." are resolved; some systems take upper and lower case for the same.
        real = os.path.realpath(os.fsdecode(path)) + os.sep
        return real.casefold().startswith((parent + os.sep).casefold())

    def refuse(what: str, *_: Any) -> None:
        tell(note=f"{what} was refused")
        raise PermissionError(f"While a notebook is graded, {what} is refused.")

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in PROCESSES or event.startswith("ctypes."):
            refuse("reaching other programs")
        if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
            refuse("using the network")
        paths = [path for path in arguments[:2] if isinstance(path, str | bytes | os.PathLike)]
        if event in CHANGES or event == "os.symlink" or (event == "open" and arguments[2] & WRITING):
            checked = {"os.symlink": paths[1:], "open": paths[:1]}.get(event, paths)
            nowhere = event == "open" and checked and os.fsdecode(checked[0]) == os.devnull
            if not nowhere and not all(within(path, own) for path in checked):
                refuse("writing outside of its own folder")
        elif event in ("open", "os.chdir", "os.listdir", "os.scandir") and paths:
            if within(paths[0], folder):
                refuse("reading the returned notebooks")
            # With the number of an open folder, a path does not say where it leads.
            by_number = event == "open" and arguments[1] is None
            if by_number and os.path.isdir(paths[0]) and not within(paths[0], own):
                refuse("opening a folder")

    sys.addaudithook(watch)
    # What Python does not announce.
    for module, name, what in UNANNOUNCED:
        with contextlib.suppress(ImportError, AttributeError):  # some systems do not have it
            owner = importlib.import_module(module)
            getattr(owner, name)
            setattr(owner, name, functools.partial(refuse, what))


def told(error: BaseException) -> str:
    """Say in a line what was raised."""
    return textwrap.shorten(traceback.format_exception_only(error)[-1], 160, placeholder=" …")


def run(chosen: list[tuple[int, list[ast.stmt]]], tell: Tell) -> None:
    """Run the chosen parts of the cells, record what is checked, and go on after errors."""

    def record(exercise: str, answer: Any) -> None:
        if not isinstance(exercise, str) or exercise not in EXERCISES:
            tell(note="a check of something else was left out")
            return
        said = verdict(exercise, answer)
        tell(exercise=exercise, status=said.status)
        if "your code raised NameError" in said.text:  # it may need what is not run here
            tell(note=said.text)

    names = {"__name__": "__main__", RECORD: record, "display": print, "get_ipython": NoShell}
    for number, statements in chosen:
        try:
            module = ast.fix_missing_locations(Recorded().visit(ast.Module(statements, type_ignores=[])))
            exec(compile(module, f"cell {number}", "exec", dont_inherit=True), names)
        except BaseException as error:  # also SystemExit: the other cells are graded all the same
            tell(note=f"cell {number}: {told(error)}")


def main() -> None:
    """Grade the notebook on stdin, and tell on stdout what comes of it, one JSON object a line.

    The arguments are the folder of all notebooks and the seconds that this one has. The first line of stdin
    is a secret: lines that do not begin with it are not from here.
    """
    seconds, folder = int(sys.argv.pop()), sys.argv.pop()
    secret, _, text = sys.stdin.buffer.read().partition(b"\n")
    faulthandler.dump_traceback_later(seconds + 10, exit=True)  # should nobody be left to stop it
    # From here on nothing that the notebook prints gets to where the verdicts go, nor does it wait for input.
    channel, nowhere = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    before: set[str] = set()

    def tell(**what: Any) -> None:
        line = json.dumps(what)
        if "note" not in what or line not in before:  # a note in a loop is told once
            before.add(line)
            os.write(channel, secret + line.encode() + b"\n")

    try:
        chosen = plan(cells(text), tell)
        import_all([statement for _, statements in chosen for statement in statements])
        # The notebook gets a checker of its own: what it changes there does not change the one in here.
        for name in [name for name in sys.modules if name.startswith("tinylib.exercises")]:
            del sys.modules[name]
        del tinylib.exercises
        guard(folder, tell)
        run(chosen, tell)
    except ValueError as error:
        tell(note=str(error))
    tell(done=True)
    os._exit(0)  # whatever threads the notebook has started


if __name__ == "__main__":
    main()
