"""The environment check: fine here, and clear advice where it is not."""

from importlib import metadata
from pathlib import Path

import pytest

from tinylib import environment


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
    monkeypatch.setattr(environment, "NEEDED_MEMORY", 10**18)
    monkeypatch.setattr(environment.models, "cached_folder", lambda: tmp_path / "no model")
    assert not environment.check()
    text = capsys.readouterr().out
    assert 'NO   gguf is not installed\n     → python -m pip install "gguf' in text
    assert 'NO   transformers 4.0.0\n     → python -m pip install "transformers' in text
    assert "3 GB needed\n     → Close other programs" in text
    assert "ok   the model is not here yet\n     → It comes by itself" in text
    assert text.endswith("Not ready yet: see the lines that begin with NO.\n")
