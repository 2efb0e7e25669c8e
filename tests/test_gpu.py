"""The script for a GPU runs through with tiny sizes on the CPU, and tells what is wrong."""

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from lessons import ROOT

Run = Callable[..., tuple[object, str]]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("gpu")


@pytest.fixture
def run(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr("sys.argv", ["gpu.py", *arguments])
        with pytest.raises(SystemExit) as stopped:
            gpu.main()
        return stopped.value.code, capsys.readouterr().out

    return run


def test_a_dry_run_goes_through(gpu: ModuleType, run: Run) -> None:
    code, said = run("--dry-run")
    assert not code, said
    assert said.endswith("All checks hold.\n")
    assert all(f"\n({name}: " in said for name in gpu.SECTIONS)


def test_without_a_card_it_says_so(run: Run) -> None:
    code, said = run()
    assert "There is no CUDA card" in str(code)
    assert said == ""


def test_a_failed_check_is_named(gpu: ModuleType, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def pad(*args: object, **options: object) -> dict[str, torch.Tensor]:
        batch = right(*args, **options)
        return {**batch, "attention_mask": torch.ones_like(batch["attention_mask"])}  # the bug

    right = gpu.pad
    monkeypatch.setattr(gpu, "pad", pad)
    code, said = run("--dry-run", "--only", "exactness")
    assert code == 1
    assert "\nFAILED:\nexactness: padded = alone, float32, sdpa: " in said


def test_a_section_that_breaks_off_does_not_stop_the_others(
    gpu: ModuleType, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "add_adapters", None)
    code, said = run("--dry-run", "--only", "adapters", "other-attention")
    assert code == 1
    assert "adapters broke off: TypeError" in said
    assert "(other-attention: " in said
