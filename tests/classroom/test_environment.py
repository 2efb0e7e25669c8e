"""The environment check: fine here, and clear advice where it is not."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from lessons import ROOT

from classroom import environment
from tinylib import fetch


def test_this_environment_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert environment.check()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Ready."
    assert not any(line.startswith("NO") for line in lines)
    # What the auditor needs and what the course adds to it, but nothing that only tests or the book need.
    for name, needed in {"transformers": 1, "trl": 1, "pytest": 0, "sphinx": 0}.items():
        assert sum(line.startswith(f"ok   {name} ") for line in lines) == needed


def test_what_is_wrong_comes_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str:
        if name == "gguf":
            raise metadata.PackageNotFoundError(name)
        return "4.0.0" if name == "transformers" else metadata.version(name)

    monkeypatch.setattr(environment, "version", version)
    assert not environment.check()
    text = capsys.readouterr().out
    assert 'NO   gguf is not installed\n     → python -m pip install "gguf>=0.17"\n' in text
    assert 'NO   transformers 4.0.0\n     → python -m pip install "transformers<6,>=4.57"\n' in text
    assert text.endswith("Not ready yet: see the lines that begin with NO.\n")

    monkeypatch.undo()
    monkeypatch.setattr(environment, "NEEDED_MEMORY", 10**18)
    monkeypatch.setenv("TINYLIB_CACHE", str(tmp_path))
    assert not environment.check()
    text = capsys.readouterr().out
    assert "3 GB needed\n     → Close other programs" in text
    assert "ok   the model is not here yet: it is fetched when first used" in text


def test_without_its_packages_it_says_how_to_install_them() -> None:
    """Into a file on Windows as well, where the code page has no →."""
    command = [sys.executable, "-S", "-m", "classroom.environment"]  # -S: without what is installed
    windows = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = subprocess.run(command, cwd=ROOT, env=windows, capture_output=True)
    assert done.returncode == 1
    told = done.stdout.decode()
    assert "NO   the course is not installed for" in told
    assert "     → README.md says how, under Start." in told
    assert done.stderr == b""


@pytest.mark.parametrize("error", [OSError("a library of the system is missing"), ImportError("half")])
def test_packages_that_cannot_be_loaded_are_told(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "psutil.py").write_text(f"raise {error!r}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "psutil", raising=False)
    assert not environment.check()
    assert f"NO   model or packages cannot be loaded\n     → {error}\n" in capsys.readouterr().out


def test_a_model_that_cannot_be_loaded_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TINYLIB_MODEL", "/no/such/model")
    assert not environment.check()
    told = "NO   model or packages cannot be loaded\n     → Unknown model '/no/such/model'."
    assert told in capsys.readouterr().out
    monkeypatch.setenv("TINYLIB_MODEL", "tinyllama")
    assert environment.check()
    assert "ok   the model is TinyLlama/TinyLlama-1.1B-Chat-v1.0" in capsys.readouterr().out

    monkeypatch.delenv("TINYLIB_MODEL")
    monkeypatch.setenv("TINYLIB_CACHE", str(tmp_path))
    fetch.cached_folder().mkdir()
    assert not environment.check()
    assert "missing or damaged" in capsys.readouterr().out
