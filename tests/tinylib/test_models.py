"""The shipped model, and what `load` takes and refuses."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import make_tinyllama, make_tokenizer
from transformers import BertConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, T5Config

from tinylib import models

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test on the CPU, whatever model and device the caller has chosen."""
    monkeypatch.delenv("TINYLIB_MODEL", raising=False)
    monkeypatch.setenv("TINYLIB_DEVICE", "cpu")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Write a TinyLlama-shaped model folder."""
    return make_tinyllama(tmp_path / "tiny")


def _edit(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None removes a key."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


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


def test_an_unreachable_hub_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files")

    monkeypatch.setattr(models.AutoTokenizer, "from_pretrained", unreachable)
    told = r"'tinyllama' could not be loaded: We couldn't connect(.|\n)*your network(.|\n)*TINYLIB_MODEL"
    with pytest.raises(RuntimeError, match=told):
        models.load("tinyllama")


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


@pytest.mark.parametrize("device", ["nope", "cuda:99", -1])
def test_a_device_that_is_not_there_is_named_before_anything_is_loaded(tiny: Path, device: str | int) -> None:
    (tiny / "model.safetensors").unlink()
    with pytest.raises(RuntimeError, match=f"device is '{device}', which does not work here"):
        models.load(tiny, device=device)


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


def test_tinyllama_loads_by_path_with_its_two_pad_ids(tiny: Path) -> None:
    model, tokenizer = models.load(tiny)
    assert type(model) is LlamaForCausalLM
    assert not model.training
    assert tokenizer.pad_token == tokenizer.eos_token == "</s>"
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    assert model.generation_config.pad_token_id == 0


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


def test_a_model_is_saved_over_an_earlier_one_also_with_several_templates(tiny: Path) -> None:
    model, tokenizer = models.load(tiny)
    for other in ("tool_use", "rag"):
        tokenizer.chat_template = {"default": make_tokenizer().chat_template, other: "{{ messages }}"}
        models.save(model, tokenizer, tiny)
    assert models.load(tiny)[1].chat_template == tokenizer.chat_template
    assert not (tiny / ".part").exists()
