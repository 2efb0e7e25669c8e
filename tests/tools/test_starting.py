"""Starting anywhere: on Colab, on Binder, and in a classroom without network, each from an empty environment.

The stick is packed once, by pip as this machine has it set up. Its wheels then serve the other two, which
see no index at all.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import publish
import pytest
import yaml
from lessons import LESSONS, ROOT, read
from nbclient import NotebookClient
from nbformat import NotebookNode

from tinylib import fetch

LESSON = LESSONS[0].relative_to(ROOT)
REPOSITORY, TAG = "https://github.com/someone/silent-bugs", "v1.0"
# Compiling what pip installs takes longer than installing it. (To pip, this "no" means: do not compile.)
PIP = {"PIP_NO_COMPILE": "no", "PIP_QUIET": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
# A new network has not even a loopback, over which a notebook talks to its kernel.
WITHOUT_NETWORK = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execvp(sys.argv[1], sys.argv[1:])
"""

pytestmark = [
    pytest.mark.starting,
    pytest.mark.skipif(sys.platform != "linux", reason="these simulate Linux machines"),
]


@pytest.fixture(scope="module")
def stick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Pack a stick. The space in its name is there for whatever cuts a path at spaces."""
    folder = tmp_path_factory.mktemp("packed") / "a stick"
    command = [sys.executable, ROOT / "tools" / "stick.py", folder]
    run(*command, PYTHONPATH=str(ROOT), PIP_DISABLE_PIP_VERSION_CHECK="1")
    yield folder
    remove(folder)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """Give a folder that is removed afterwards: an environment takes more than a gigabyte."""
    folder = tmp_path / "room"
    folder.mkdir()
    yield folder
    remove(folder)


@pytest.fixture
def plain_pip(bare_pip: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave pip no configuration, and a single index, at which nobody answers."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for name, value in PIP.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")


@pytest.fixture
def wheels_only(plain_pip: None, stick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip find what is on the stick, and nothing else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{(stick / 'wheels').as_uri()} {(stick / 'model').as_uri()}")


@pytest.fixture
def empty(room: Path, plain_pip: None) -> Path:
    """Make an environment in which nothing is but pip, and return its Python."""
    run(sys.executable, "-m", "venv", room / "environment")
    return room / "environment" / "bin" / "python"


def remove(folder: Path) -> None:
    """Delete a folder without waiting: on some disks, an environment's 25,000 files take minutes."""
    subprocess.run(["sh", "-c", 'rm -rf "$1" &', "sh", folder], stdout=subprocess.DEVNULL, check=True)


def run(*command: str | Path, cwd: Path | None = None, **variables: str) -> str:
    environment = {**os.environ, **variables}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def results(notebook: NotebookNode) -> list[str]:
    """List what each code cell printed but the first, where that is the same on every machine."""
    return [
        "".join(output.get("text", "") for output in cell.outputs if output.get("name") == "stdout")
        for cell in notebook.cells
        if cell.cell_type == "code" and cell.id != "install"
        if "nbval-ignore-output" not in cell.metadata.get("tags", [])
    ]


def test_a_lesson_alone_installs_the_course_on_colab(
    stick: Path, wheels_only: None, empty: Path, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published lesson 00, in one kernel from its first cell to its last, as stored."""
    course, kernel, alone = room / "course", room / "jupyter" / "kernels" / "colab", room / "content"
    shutil.copytree(stick / "course", course)
    publish.publish(course, REPOSITORY, TAG)
    as_someone = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org"]
    for command in (["init"], ["add", "--all"], [*as_someone, "commit", "-m", "Publish"], ["tag", TAG]):
        run("git", *command, cwd=course)
    # git takes the published address, and finds it in that folder
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{course.as_uri()}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", REPOSITORY)

    run(empty, "-m", "pip", "install", "ipykernel")
    kernel.mkdir(parents=True)
    on_colab = {
        "argv": [str(empty), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "env": {"COLAB_RELEASE_TAG": "1", "PATH": f"{empty.parent}{os.pathsep}{os.environ['PATH']}"},
        "display_name": "",
        "language": "python",
    }
    (kernel / "kernel.json").write_text(json.dumps(on_colab))
    monkeypatch.setenv("JUPYTER_PATH", str(room / "jupyter"))
    monkeypatch.setenv("TINYLIB_CACHE", str(fetch.cached_folder().parent))

    lesson = read(course / LESSON)
    stored = results(lesson)
    alone.mkdir()
    lesson.cells.append(nbformat.v4.new_code_cell("import peft, trl"))  # what lessons 07 and 08 need
    client = NotebookClient(lesson, kernel_name="colab", timeout=600, resources={"metadata": {"path": alone}})
    client.execute()
    assert results(lesson)[:-1] == stored


def test_binder_builds_from_its_files(stick: Path, wheels_only: None, empty: Path, room: Path) -> None:
    """Conda writes the pip part of environment.yml to a file beside it, and hands that to pip."""
    course = room / "course"
    shutil.copytree(stick / "course", course)
    shutil.copymode(ROOT / "postBuild", course / "postBuild")
    parts = yaml.safe_load((course / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (course / "pip.txt").write_text("\n".join(parts[-1]["pip"]))
    run(empty, "-m", "pip", "install", "--upgrade", "--requirement", "pip.txt", cwd=course)
    activated = {
        "PATH": f"{empty.parent}{os.pathsep}{os.environ['PATH']}",
        "TINYLIB_CACHE": str(room / "cache"),
    }
    assert "smollm2 is ready" in run("./postBuild", cwd=course, **activated)
    report = run("python", "-m", "classroom.environment", cwd=course / "notebooks", **activated)
    assert report.endswith("Ready.\n")
    assert "ok   the model is " in report
    assert run("jupyter", "lab", "--version", **activated)


def test_a_stick_installs_the_course_without_network(
    stick: Path, plain_pip: None, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an interruption: half an environment is made anew, and a reader's lesson stays as it is."""
    monkeypatch.setenv("TINYLIB_CACHE", str(room / "cache"))
    offline = ["unshare", "--map-root-user", "--net", sys.executable, "-c", WITHOUT_NETWORK]
    if not shutil.which("unshare") or subprocess.run([*offline, "true"], capture_output=True).returncode:
        pytest.skip("the network cannot be cut off: unshare may not make a network of its own here")
    folder = room / "silent-bugs"
    (folder / ".venv" / "half").mkdir(parents=True)
    (folder / ".from-stick").touch()
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "01_garbled_output.ipynb").write_text("mine")

    said = run(*offline, sys.executable, stick / "install.py", cwd=room)
    assert "lab notebooks/00_start_here.ipynb" in said.splitlines()[-1]
    assert not (folder / ".venv" / "half").exists()
    assert (folder / "notebooks" / "01_garbled_output.ipynb").read_text() == "mine"

    lesson = folder / LESSON
    stored = results(read(lesson))
    jupyter = folder / ".venv" / "bin" / "jupyter"
    run(*offline, jupyter, "execute", "--inplace", lesson)
    assert results(read(lesson)) == stored
    assert run(*offline, jupyter, "lab", "--version")
