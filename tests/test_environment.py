"""The environment check: fine here, and clear advice where it is not."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tinylib import environment, models

ROOT = Path(__file__).parent.parent


def test_this_environment_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert environment.check()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Ready."
    assert not any(line.startswith("NO") for line in lines)
    assert any("transformers 5." in line or "transformers 4." in line for line in lines)


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
    assert 'NO   gguf is not installed\n     → python -m pip install "gguf' in text
    assert 'NO   transformers 4.0.0\n     → python -m pip install "transformers' in text
    assert text.endswith("Not ready yet: see the lines that begin with NO.\n")

    monkeypatch.undo()
    monkeypatch.setattr(environment, "NEEDED_MEMORY", 10**18)
    monkeypatch.setenv("TINYLIB_CACHE", str(tmp_path))
    assert not environment.check()
    text = capsys.readouterr().out
    assert "3 GB needed\n     → Close other programs" in text
    assert "ok   the model is not here yet: it is fetched when first used" in text


def test_without_its_packages_it_says_how_to_install_them() -> None:
    command = [sys.executable, "-S", "-m", "tinylib.environment"]  # -S: without what is installed
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 1
    assert "NO   the course is not installed for" in done.stdout
    assert "README.md says how, under Start." in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("error", [OSError("a library of the system is missing"), ImportError("half")])
def test_packages_that_cannot_be_loaded_are_told(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "psutil.py").write_text(f"raise {error!r}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "psutil", raising=False)
    assert not environment.check()
    assert f"NO   model or packages cannot be loaded\n     → {error}\n" in capsys.readouterr().out


def test_its_lines_can_be_written_to_a_file_on_windows(tmp_path: Path) -> None:
    windows = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "TINYLIB_MODEL": "/no/such"}
    command = [sys.executable, "-m", "tinylib.environment"]
    done = subprocess.run(command, cwd=ROOT, env=windows, capture_output=True)
    assert "     → Unknown model '/no/such'." in done.stdout.decode()
    assert done.stderr == b""


def test_a_model_that_cannot_be_loaded_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TINYLIB_MODEL", "/no/such/model")
    assert not environment.check()
    assert (
        "NO   model or packages cannot be loaded\n     → Unknown model '/no/such/model'."
        in capsys.readouterr().out
    )
    monkeypatch.setenv("TINYLIB_MODEL", "tinyllama")
    assert environment.check()
    assert "ok   the model is TinyLlama/TinyLlama-1.1B-Chat-v1.0" in capsys.readouterr().out

    monkeypatch.delenv("TINYLIB_MODEL")
    monkeypatch.setenv("TINYLIB_CACHE", str(tmp_path))
    models.cached_folder().mkdir()
    assert not environment.check()
    assert "missing or damaged" in capsys.readouterr().out
