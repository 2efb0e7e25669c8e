"""The course's address goes into all that must know it; and what the first cell does with it."""

import importlib
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
from nbformat import NotebookNode

ROOT = Path(__file__).parent.parent
REPOSITORY, TAG = "https://github.com/someone/silent-bugs", "v1.0"
LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """Copy the files that an address goes into."""
    copy = tmp_path / "course"
    (copy / "notebooks").mkdir(parents=True)
    for path in [ROOT / "pyproject.toml", ROOT / "README.md", *LESSONS]:
        shutil.copyfile(path, copy / path.relative_to(ROOT))
    return copy


def lesson(course: Path, name: str = "08_scale_up") -> NotebookNode:
    return nbformat.read(course / "notebooks" / f"{name}.ipynb", as_version=4)


def texts(course: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in course.rglob("*") if path.is_file()}


# Publishing


def test_the_repository_is_as_publishing_leaves_it(course: Path) -> None:
    """All first cells are the template with the address of pyproject.toml, and all links lead there."""
    assert publish.publish(course, *publish.read_address(course)) == []


def test_the_address_goes_everywhere(course: Path) -> None:
    changed = publish.publish(course, REPOSITORY, TAG)
    assert len(changed) == 2 + len(LESSONS)
    assert publish.read_address(course) == (REPOSITORY, TAG)
    readme = (course / "README.md").read_text(encoding="utf-8")
    files = "someone/silent-bugs/blob/v1.0/notebooks"
    for link in (
        f"https://colab.research.google.com/github/{files}/00_start_here.ipynb",
        f"https://kaggle.com/kernels/welcome?src=https://github.com/{files}/00_start_here.ipynb",
        "https://mybinder.org/v2/gh/someone/silent-bugs/v1.0?urlpath=lab/tree/notebooks/00_start_here.ipynb",
    ):
        assert f"]({link})" in readme
    for path in LESSONS:
        title, first, *_ = lesson(course, path.stem).cells
        assert (
            f"\n\nOpen in [Colab](https://colab.research.google.com/github/{files}/{path.name}) · "
            in title.source
        )
        assert f'COURSE = "git+{REPOSITORY}@v1.0"' in first.source


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


def test_a_page_leaves_the_links_of_a_published_lesson(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "notebooks")
    pages = importlib.import_module("course")
    publish.publish(course, REPOSITORY, TAG)
    page = pages.to_html(lesson(course, "01_garbled_output"), "01")
    assert 'v1.0/notebooks/01_garbled_output.ipynb"' in page
    assert 'href="00_start_here.html"' in page


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
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


def wheel(shelf: Path, name: str, version: str, *needs: str) -> Path:
    """Put a package on the shelf: one module, and what it needs."""
    path = shelf / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "")
        extras = [need.split("'")[1] for need in needs if "extra ==" in need]
        metadata = [f"Name: {name}", f"Version: {version}", *(f"Provides-Extra: {extra}" for extra in extras)]
        metadata += [f"Requires-Dist: {need}" for need in needs]
        archive.writestr(f"{info}/METADATA", "\n".join(["Metadata-Version: 2.1", *metadata, ""]))
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/top_level.txt", f"{name}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def run_cell(
    python: Path, address: str, before: str = "", after: str = ""
) -> subprocess.CompletedProcess[str]:
    code = "\n".join([before, publish.FIRST_CELL.format(address=address), after])
    return subprocess.run([python, "-c", code], capture_output=True, text=True, encoding="utf-8")


COLAB = "import sys, types; sys.modules['google.colab'] = types.ModuleType('google.colab')"
KAGGLE = "import os; os.environ['KAGGLE_KERNEL_RUN_TYPE'] = 'Interactive'"


@pytest.mark.parametrize("where", ["", COLAB, KAGGLE], ids=["a laptop", "Colab", "Kaggle"])
def test_where_the_course_is_installed_the_cell_does_nothing(
    where: str, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    result = run_cell(Path(sys.executable), "git+https://127.0.0.1:9/no/where@v0", before=where)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("where", "address"),
    [("", "git+https://127.0.0.1:9/a/b@v1"), ("", ""), (COLAB, ""), (KAGGLE, "")],
    ids=["a laptop", "a laptop, not published", "Colab, not published", "Kaggle, not published"],
)
def test_where_it_cannot_install_the_cell_says_what_to_do(
    where: str, address: str, empty: Path, shelf: Path
) -> None:
    result = run_cell(empty, address, before=where)
    assert result.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: The course is not installed here. Its README.md says how, under Start."
    )


@pytest.mark.skipif(os.name == "nt", reason="Colab and Kaggle are Linux machines")
@pytest.mark.parametrize("where", [COLAB, KAGGLE], ids=["Colab", "Kaggle"])
def test_where_pip_fails_the_cell_says_so(where: str, empty: Path, shelf: Path) -> None:
    needy = wheel(shelf, "tinylib", "0.1.0", "what-nobody-has")
    result = run_cell(empty, needy.as_uri(), before=where)
    assert "No matching distribution found for what-nobody-has" in result.stderr
    assert "pip says why, above. Is the network switched on?" in result.stderr.splitlines()[-1]


@pytest.mark.skipif(os.name == "nt", reason="Colab and Kaggle are Linux machines")
def test_the_cell_downgrades_nothing_and_needs_no_restart(empty: Path, shelf: Path) -> None:
    """The newest helper would put each of these packages at another version; an older one would not."""
    for version in ("1.0", "2.0", "3.0"):
        for name in ("ahead", "loaded", "behind"):
            wheel(shelf, name, version)
    wheel(shelf, "local", "2.0+cu126")
    wheel(shelf, "local", "3.0")
    here = ["ahead==3.0", "loaded==2.0", "behind==1.0", "local==2.0+cu126"]
    subprocess.run([empty, "-m", "pip", "install", "--quiet", *here], check=True)
    wheel(shelf, "helper", "1.0", "ahead", "loaded", "local", "behind>=2")
    wheel(shelf, "helper", "1.1", "ahead<3")
    wheel(shelf, "helper", "1.2", "loaded>=3")
    wheel(shelf, "helper", "1.3", "local>=3")
    course = wheel(
        shelf, "tinylib", "0.1.0", "helper", "adapters; extra == 'lora'", "more; extra == 'lessons'"
    )
    wheel(shelf, "adapters", "1.0")
    wheel(shelf, "more", "1.0")
    result = run_cell(
        empty,
        course.as_uri(),
        before=f"{COLAB}; import loaded",
        after="import tinylib, helper, adapters, more, json\n"
        "print(json.dumps({d.name: d.version for d in metadata.distributions()}))",
    )
    assert result.returncode == 0, result.stderr
    versions = json.loads(result.stdout.splitlines()[-1])
    found = {name: versions[name] for name in ("ahead", "loaded", "local", "behind", "helper")}
    assert found == {"ahead": "3.0", "loaded": "2.0", "local": "2.0+cu126", "behind": "3.0", "helper": "1.0"}
