"""The course's address goes into all that must know it; and what the first cell does with it."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import publish
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from lessons import EVERY, LESSONS, ROOT, read
from nbformat import NotebookNode

REPOSITORY, TAG = "https://github.com/someone/silent-bugs", "v1.0"


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """Copy the files that an address goes into."""
    copy = tmp_path / "course"
    (copy / "notebooks").mkdir(parents=True)
    for path in [ROOT / "pyproject.toml", ROOT / "README.md", *EVERY]:
        shutil.copyfile(path, copy / path.relative_to(ROOT))
    return copy


def lesson(course: Path, path: Path = LESSONS[-1]) -> NotebookNode:
    return read(course / "notebooks" / path.name)


def texts(course: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in course.rglob("*") if path.is_file()}


# Publishing


def test_the_repository_is_as_publishing_leaves_it(course: Path) -> None:
    """All first cells are the template with the address of pyproject.toml, and all links lead there."""
    assert publish.publish(course, *publish.read_address(course)) == []


def test_the_address_goes_everywhere(course: Path) -> None:
    changed = publish.publish(course, REPOSITORY, TAG)
    assert len(changed) == 2 + len(EVERY)
    assert publish.read_address(course) == (REPOSITORY, TAG)
    readme = (course / "README.md").read_text(encoding="utf-8")
    files = "someone/silent-bugs/blob/v1.0/notebooks"
    for link in (
        f"https://colab.research.google.com/github/{files}/00_start_here.ipynb",
        f"https://kaggle.com/kernels/welcome?src=https://github.com/{files}/00_start_here.ipynb",
        "https://mybinder.org/v2/gh/someone/silent-bugs/v1.0?urlpath=lab/tree/notebooks/00_start_here.ipynb",
    ):
        assert f"]({link})" in readme
    installed = f"git+{REPOSITORY}@v1.0"
    assert f"<!-- install, by make publish -->\n```bash\npython -m pip install {installed}\n```\n" in readme
    for path in EVERY:
        title, first, *_ = lesson(course, path).cells
        colab = f"https://colab.research.google.com/github/{files}/{path.name}"
        assert f"\n\nOpen in [Colab]({colab}) · " in title.source
        assert f'"silent-bugs[course] @ {installed}"' in first.source


def test_publishing_keeps_what_a_lesson_has(course: Path) -> None:
    before = [cell for cell in lesson(course).cells[1:] if cell.id != "install"]
    publish.publish(course, REPOSITORY, TAG)
    _, first, *after = lesson(course).cells
    assert (first.cell_type, first.id, first.outputs) == ("code", "install", [])
    assert first.metadata == publish.FIRST_CELL_IS
    for cell in [*before, *after]:
        cell.pop("execution_count", None)
    assert after == before
    counts = [cell.execution_count for cell in lesson(course).cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_publishing_again_changes_nothing_and_elsewhere_replaces_it(course: Path) -> None:
    publish.publish(course, REPOSITORY, TAG)
    once = texts(course)
    assert publish.publish(course, REPOSITORY, TAG) == []
    publish.publish(course, "https://github.com/else/where", "v2.0")
    assert not [path for path, text in texts(course).items() if b"someone/" in text]
    publish.publish(course, REPOSITORY, TAG)
    assert texts(course) == once


@pytest.mark.parametrize(
    ("repository", "tag", "named"),
    [
        ("https://github.com/someone", "v1.0", "REPO must be"),
        ("https://github.com/https://github.com/a/b", "v1.0", "REPO must be"),
        ('https://github.com/a/b"', "v1.0", "REPO must be"),
        ("https://github.com/a/b.git", "v1.0", "REPO must be"),
        ("", "v1.0", "REPO must be"),
        (REPOSITORY, "", "TAG must be"),
        (REPOSITORY, "v 1", "TAG must be"),
        (REPOSITORY, "v1..0", "TAG must be"),
        (REPOSITORY, "v1.lock", "TAG must be"),
    ],
)
def test_what_is_no_address_is_refused(course: Path, repository: str, tag: str, named: str) -> None:
    before = texts(course)
    with pytest.raises(ValueError, match=named):
        publish.publish(course, repository, tag)
    assert texts(course) == before


def test_nothing_is_written_where_a_file_has_no_place(course: Path) -> None:
    path = course / "notebooks" / LESSONS[-1].name
    path.write_text(path.read_text(encoding="utf-8").replace(" minutes · ", " hours · "), encoding="utf-8")
    before = texts(course)
    with pytest.raises(ValueError, match="has no line with its minutes"):
        publish.publish(course, REPOSITORY, TAG)
    assert texts(course) == before


# The first cell


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment in which nothing is but pip, and return its Python."""
    folder = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@pytest.fixture
def shelf(bare_pip: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave pip a single source, an empty folder."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for variable in ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


def wheel(shelf: Path, name: str, version: str, *needs: str, module: str = "") -> Path:
    """Put a package on the shelf: one module, which has its name if no other, and what it needs."""
    path = shelf / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{module or name}/__init__.py", "")
        extras = [need.split("'")[1] for need in needs if "extra ==" in need]
        metadata = [f"Name: {name}", f"Version: {version}", *(f"Provides-Extra: {extra}" for extra in extras)]
        metadata += [f"Requires-Dist: {need}" for need in needs]
        archive.writestr(f"{info}/METADATA", "\n".join(["Metadata-Version: 2.1", *metadata, ""]))
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


# What `!` and `%pip` are in a kernel.
KERNEL = """
import subprocess, sys

class Kernel:
    def system(self, command):
        subprocess.run(command, shell=True)

    def run_line_magic(self, name, line):
        self.system(f"{sys.executable} -m {name} {line}")

def get_ipython():
    return Kernel()
"""
PUBLISHED = publish.PUBLISHED_FIRST_CELL.format(address="git+https://127.0.0.1:9/no/where@v0")


def run_cell(python: Path, cell: str, after: str = "") -> subprocess.CompletedProcess[str]:
    """Run a first cell in a new process of this Python, as a kernel of its environment would."""
    code = "\n".join([KERNEL, TransformerManager().transform_cell(cell), after])
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    return subprocess.run(
        [python, "-c", code],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def published(course: Path) -> str:
    """The first cell of a course that lies in a wheel."""
    return publish.PUBLISHED_FIRST_CELL.format(address=course.as_uri())


def silent_bugs(shelf: Path, *needs: str) -> Path:
    """Put the course on the shelf: the packages of it and of its extra, and what else it needs."""
    wheel(shelf, "gguf", "0.17.0")
    needs = ("gguf; extra == 'course'", *needs)
    return wheel(shelf, "silent_bugs", "0.1.0", *needs, module="classroom")


def test_ruff_takes_a_published_first_cell(tmp_path: Path) -> None:
    address = publish.pip_address(publish.HOST + "a" * 39 + "/" + "b" * 100, "v1.0")
    cell = nbformat.v4.new_code_cell(publish.PUBLISHED_FIRST_CELL.format(address=address))
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "lesson.ipynb")
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--config", ROOT / "pyproject.toml", tmp_path]
        subprocess.run(ruff, check=True)


@pytest.mark.parametrize("cell", [publish.FIRST_CELL, PUBLISHED], ids=["not published", "published"])
@pytest.mark.parametrize("where", ["a laptop", "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"])
def test_where_the_course_is_installed_the_cell_does_nothing(
    cell: str, where: str, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(where, "1")
    result = run_cell(Path(sys.executable), cell)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("cell", [publish.FIRST_CELL, PUBLISHED], ids=["not published", "published"])
def test_where_it_does_not_install_the_cell_says_what_to_do(cell: str, empty: Path, shelf: Path) -> None:
    assert run_cell(empty, cell).stderr.splitlines()[-1] == (
        "ModuleNotFoundError: Not installed: see README.md, Start."
    )


@pytest.mark.skipif(os.name == "nt", reason="Colab and Kaggle are Linux machines")
def test_where_pip_fails_one_sees_why(empty: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "1")
    result = run_cell(empty, published(silent_bugs(shelf, "what-nobody-has")))
    assert "No matching distribution found for what-nobody-has" in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="Colab and Kaggle are Linux machines")
def test_the_cell_installs_the_course_and_downgrades_nothing(
    empty: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest helper would put two of these packages at another version; an older one would not.

    The course is there already, without its extra, for the auditor.
    """
    monkeypatch.setenv("COLAB_RELEASE_TAG", "1")
    for name in ("ahead", "behind"):
        for version in ("1.0", "2.0", "3.0"):
            wheel(shelf, name, version)
    wheel(shelf, "local", "2.0+cu126")
    wheel(shelf, "local", "3.0")
    wheel(shelf, "helper", "1.0", "ahead", "local", "behind>=2")
    wheel(shelf, "helper", "1.1", "ahead<3")
    wheel(shelf, "helper", "1.2", "local>=3")
    course = silent_bugs(shelf, "helper; extra == 'course'")
    here = ["ahead==3.0", "behind==1.0", "local==2.0+cu126", course]
    subprocess.run([empty, "-m", "pip", "install", "--quiet", *here], check=True)
    found = "import classroom, gguf, json; from importlib import metadata; " + (
        "print(json.dumps({d.name: d.version for d in metadata.distributions()}))"
    )
    result = run_cell(empty, published(course), after=found)
    assert result.returncode == 0, result.stderr
    versions = json.loads(result.stdout.splitlines()[-1])
    kept = {name: versions[name] for name in ("ahead", "local", "behind", "helper")}
    assert kept == {"ahead": "3.0", "local": "2.0+cu126", "behind": "3.0", "helper": "1.0"}
    assert not list(Path.cwd().glob("*.txt")), "a file is left in the reader's folder"
