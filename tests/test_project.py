"""The project's own files agree with one another."""

import ast
import importlib
import io
import json
import re
import tokenize
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PINNED = {
    requirement.name: requirement
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
    for requirement in [Requirement(line)]
}
RANGES = [
    Requirement(line)
    for lines in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for line in lines
]


def test_requirements_are_exact() -> None:
    for requirement in PINNED.values():
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), str(requirement)


@pytest.mark.parametrize("requirement", RANGES, ids=str)
def test_every_range_is_pinned_within_it(requirement: Requirement) -> None:
    (pin,) = PINNED[requirement.name].specifier
    assert requirement.specifier.contains(pin.version)


def test_environment_yml_takes_the_same_versions() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, with_pip = environment["dependencies"]
    (python,) = [entry for entry in conda if entry.startswith("python=")]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(
        python.removeprefix("python=")
    )
    index, *packages = with_pip["pip"]
    assert index.startswith("--extra-index-url https://download.pytorch.org/")
    assert packages == ["-r requirements.txt", "-e ."]


def test_ci_runs_what_the_readme_says() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    *before, last = [line for line in script.splitlines() if not line.startswith(("#", "set ", "cd "))]
    assert last == "make test"
    assert all("chromium" in line for line in before)  # the one thing that pip cannot install
    assert "make test" in README


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z -]*):", makefile, flags=re.MULTILINE))
    targets = {target for line in targets for target in line.split()}
    named = set(re.findall(r"`?make ([a-z-]+)", README))
    assert named >= {"run", "lab", "test", "test-portable", "notebooks"}
    assert named <= targets


def test_every_local_link_of_the_readme_exists() -> None:
    for link in re.findall(r"\]\((?!https?:|#)([^)]+)\)", README):
        assert (ROOT / link.split("#")[0]).exists(), link


def test_the_readmes_figures_are_the_last_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    speed = importlib.import_module("speed")
    results = json.loads((ROOT / "benchmarks" / "speed.json").read_text(encoding="utf-8"))
    for line in speed.training_table(results["skewed"]):
        assert line in README
    assert speed.bfloat16_line(results["bfloat16"]) in README
    assert speed.answer_line(results["answers"]) in README
    assert speed.work_line(results["work"]) in README


def lines_of_code(path: Path) -> int:
    """Count the lines that do something: no blank ones, no comments, no docstrings."""
    text = path.read_text(encoding="utf-8")
    nothing = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in nothing and token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def test_the_library_stays_small() -> None:
    """The helpers that the lessons import; and the auditor, which stands on them and is a tool of its own.

    Aside stands what readers practise with, the exercises and the playground: no other room knows of it.
    """
    aside = ("exercises", "playground.py")
    modules = [
        path for path in (ROOT / "tinylib").rglob("*.py") if not {path.name, path.parent.name} & {*aside}
    ]
    auditor = [path for path in modules if path.parent.name == "audit"]
    assert sum(map(lines_of_code, set(modules) - set(auditor))) <= 1200
    assert sum(map(lines_of_code, auditor)) <= 1150
    assert max(map(lines_of_code, modules)) <= 250


def test_nobody_imports_the_auditor_nor_what_readers_practise_with() -> None:
    for path in (ROOT / "tinylib").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "audit" not in text, path
        assert not re.search(r"^(import|from) .*(exercises|playground)", text, flags=re.MULTILINE), path
