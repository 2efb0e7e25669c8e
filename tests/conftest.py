"""For the tests: the shipped model, two random ones of the shapes of TinyLlama and GPT-2, and a browser."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from tiny_models import make_tinyllama
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerBase

from tinylib import models
from tinylib.labels import IGNORE_INDEX

os.environ.pop("TINYLIB_MODEL", None)  # tests name their model
os.environ["TINYLIB_DEVICE"] = "cpu"

# The same examples on every run and machine, and no time limit: machines differ.
settings.register_profile("course", deadline=None, derandomize=True)
settings.load_profile("course")

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@pytest.fixture(scope="session")
def tinyllama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tinyllama(tmp_path_factory.mktemp("models") / "tinyllama")


@pytest.fixture(scope="session")
def tinyllama(tinyllama_folder: Path) -> Loaded:
    return models.load(tinyllama_folder)


@pytest.fixture(scope="session")
def shipped() -> Loaded:
    return models.load("smollm2", dtype=torch.float32)


@pytest.fixture(scope="session")
def gpt2() -> PreTrainedModel:
    """Absolute positions, and weights far enough from 0 that a wrong position shows."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=64, n_layer=2, n_head=4, n_embd=32, n_positions=128, initializer_range=0.2,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


@pytest.fixture
def scored() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of three rows, the first labels ignored; made up, but far from one another."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 32, (3, 10), generator=generator)
    labels[:, :3] = IGNORE_INDEX
    return torch.randn(3, 10, 32, generator=generator) * 4, labels


@pytest.fixture
def bare_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave pip no configuration; where it finds packages is for the test to say."""
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window. While it is open, no other event loop can run here: hence for one module."""
    playwright = pytest.importorskip("playwright.sync_api", reason="a real browser is driven by playwright")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("there is no chromium here, nor a chrome")
    quiet = [
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    small = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]  # containers have no more to give
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=[*quiet, *small])
        yield browser
        browser.close()
