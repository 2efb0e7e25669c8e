"""The project's own files agree with one another."""

import ast
import importlib.util
import json
import re
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from lessons import ROOT
from packaging.requirements import Requirement

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
HOUSES = ("tinylib", "chattune", "batchaudit", "classroom")


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
    assert packages == ["-r requirements.txt", "-e .[course]"]


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
    assert named <= targets


def test_every_module_that_the_readme_starts_exists() -> None:
    for module in re.findall(rf"-m ((?:{'|'.join(HOUSES)})[.\w]*)", README):
        assert importlib.util.find_spec(module), module


LINKING = [*ROOT.glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb"), ROOT / "tinylib" / "data" / "README.md"]


@pytest.mark.parametrize("path", LINKING, ids=lambda path: path.name)
def test_every_link_into_the_repository_leads_to_something(path: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / link.split("#")[0]).exists(), link


def test_the_readmes_figures_are_the_last_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    speed = importlib.import_module("speed")
    results = json.loads((ROOT / "benchmarks" / "speed.json").read_text(encoding="utf-8"))
    for line in speed.training_table(results["skewed"]):
        assert line in README
    assert speed.bfloat16_line(results["bfloat16"]) in README
    assert speed.answer_line(results["answers"]) in README
    assert speed.work_line(results["work"]) in README


def test_the_readmes_figures_of_a_gpu_are_in_the_last_output() -> None:
    output = (ROOT / "benchmarks" / "gpu.txt").read_text(encoding="utf-8")
    told = README[README.index("### On a GPU") : README.index("## Audit your own pipeline")]
    numbers = re.findall(r"\d+(?:[.,]\d+)+", told)  # with a point or a comma: what was measured
    assert len(numbers) > 8
    for number in set(numbers) - {"4,096"}:
        assert number in output, number


def imports() -> dict[str, set[str]]:
    """Return the modules of the houses, each with those of them that it imports, wherever in its code."""
    files = {}
    for path in [path for house in HOUSES for path in (ROOT / house).rglob("*.py")]:
        *packages, name = path.relative_to(ROOT).with_suffix("").parts
        files[".".join(packages if name == "__init__" else [*packages, name])] = path
    found: dict[str, set[str]] = {module: set() for module in files}
    for module, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} has a relative import"
                parts = {f"{node.module}.{alias.name}" for alias in node.names}
                names = {part if part in files else str(node.module) for part in parts}
            else:
                continue
            found[module] |= names & files.keys()
    return found


def test_arrows_run_toward_tinylib_only_and_never_in_a_circle() -> None:
    graph = imports()
    for module, imported in graph.items():
        house = module.split(".")[0]
        assert {name.split(".")[0] for name in imported} <= {house, "tinylib"}, module
    TopologicalSorter(graph).prepare()  # or CycleError, with the circle


@pytest.mark.parametrize("house", ["tinylib", "chattune"])
def test_the_map_names_every_room_and_none_imports_one_below_it(house: str) -> None:
    graph = {module: imported for module, imported in imports().items() if module.startswith(f"{house}.")}
    table = ast.get_docstring(ast.parse((ROOT / house / "__init__.py").read_text(encoding="utf-8")))
    firsts = [line.split("|")[1] for line in str(table).splitlines() if line.startswith("| `")]
    rooms = [f"{house}.{room}" for first in firsts for room in re.findall(r"`(\w+)`", first)]
    assert sorted(rooms) == sorted(graph)
    for number, room in enumerate(rooms):
        assert graph[room] & graph.keys() <= set(rooms[:number]), room
