"""Load a causal chat model and its tokenizer: the shipped one, a local folder, or one of the hub.

``python -m tinylib.models`` fetches the shipped one ahead of time.
"""

import argparse
import os
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from tinylib import fetch
from tinylib.quiet import errors_in_one_line, progress_bars

HUB_IDS = {"tinyllama": "TinyLlama/TinyLlama-1.1B-Chat-v1.0"}


def load(
    name: str | os.PathLike | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal chat model in eval mode, and its tokenizer.

    The name is ``"smollm2"``, ``"tinyllama"``, a local folder, or a hub id such as
    ``"HuggingFaceTB/SmolLM2-360M-Instruct"``; by default ``TINYLIB_MODEL``, else ``"smollm2"``. For the other
    defaults see `best_device` and `best_dtype`.

    Raises:
        ValueError: Unknown name, no ``config.json``, a tokenizer without chat template, EOS or pad token.
        RuntimeError: Unknown device; the model can be neither found nor fetched; or its files are not those
            of a causal model and its tokenizer. (Other damage finds `tinylib.fetch.verify`.)
    """
    name = os.fspath(name or os.environ.get("TINYLIB_MODEL") or fetch.NAME)
    source = resolve(name)
    device = _usable(device, "device") if device is not None else torch.device(best_device())
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
            if weight := not_finite(model):
                raise ValueError(f"{weight} is not finite, as a training that diverged leaves it")
    # Transformers 4 lets a generic tokenizer return token_type_ids, which Llama models refuse.
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    # TinyLlama sets 2048 here; generate() would warn that max_new_tokens is given as well.
    model.generation_config.max_length = type(model.generation_config)().max_length
    return model.to(device).eval(), tokenizer


def not_finite(model: torch.nn.Module) -> str | None:
    """Name the first weight that is NaN or infinite, as a training that has diverged leaves them."""
    for name, weight in model.named_parameters():
        # aminmax hands a NaN on, and makes no second tensor of the weight's size.
        if weight.is_floating_point() and not torch.stack(weight.detach().aminmax()).isfinite().all():
            return name
    return None


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | os.PathLike) -> None:
    """Write a model and its tokenizer into ``folder``, from which `load` reads both again."""
    with progress_bars(False), put_when_whole(folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


@contextmanager
def put_when_whole(folder: str | os.PathLike, instead_of: Iterable[str] = ()) -> Iterator[Path]:
    """Give a side folder to write into; its files get their places in ``folder`` when all are whole.

    Then the other files that match a pattern of ``instead_of``, or stand in a folder that is written, are
    removed. Ctrl-C does not come between.
    """
    folder, part = Path(folder), Path(folder, ".part")
    shutil.rmtree(part, ignore_errors=True)  # of a save that was killed

    def put() -> None:
        inside = [f"{path.name}/*" for path in part.iterdir() if path.is_dir()]  # a tokenizer's templates
        old = {path for pattern in [*instead_of, *inside] for path in folder.glob(pattern) if path.is_file()}
        for path in sorted(filter(Path.is_file, part.rglob("*"))):
            place = folder / path.relative_to(part)
            place.parent.mkdir(exist_ok=True)
            path.replace(place)
            old.discard(place)
        for path in old:
            path.unlink()
        shutil.rmtree(part)

    # Removing a large file takes a while. Only the main thread is interrupted: it waits for the other, which
    # must run by then.
    with ThreadPoolExecutor(1) as other:
        other.submit(part.mkdir, parents=True).result()
        try:
            yield part
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        other.submit(put).result()


def best_device() -> str:
    """Name the device: ``TINYLIB_DEVICE``, else CUDA (for each process its own card), MPS or the CPU."""
    if wanted := os.environ.get("TINYLIB_DEVICE"):
        return str(_usable(wanted, "TINYLIB_DEVICE"))
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _usable(device: str | torch.device, given_as: str) -> torch.device:
    """Return a device if there is one; else raise a RuntimeError that says how it was given."""
    try:
        return torch.empty(1, device=device).device
    except Exception as error:  # torch raises several kinds
        raise RuntimeError(f"{given_as} is {str(device)!r}, which does not work here: {error}") from error


def best_dtype(device: torch.device) -> torch.dtype:
    """Choose for inference: float32; on CUDA bfloat16 if the card has it (not emulated), else float16."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def resolve(name: str) -> str:
    """Turn a name into what ``from_pretrained`` takes, a folder's path or a hub id; errors as of `load`."""
    if name == fetch.NAME:
        return str(fetch.shipped())
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
        f"Unknown model {name!r}. Give {fetch.NAME!r}, {', '.join(map(repr, HUB_IDS))}, "
        "the path of a folder that exists, or a hub id of the form 'owner/name'."
    )


@contextmanager
def _explained(what: str, name: str, source: str) -> Iterator[None]:
    """Turn every error of loading (the libraries raise many kinds) into one that says what to do."""
    try:
        yield
    except Exception as error:
        if source == str(fetch.cached_folder()):
            fetch.verify(Path(source))  # a damaged file is named
        hint = "There is no such folder; if it is a hub id, check its spelling and your network."
        if Path(source).is_dir():
            hint = "The folder must hold config.json, weights and tokenizer.json of a causal chat model."
        raise RuntimeError(
            f"The {what} of {name!r} could not be loaded: {textwrap.shorten(str(error), 200)}\n"
            f"{hint} {fetch.NAME!r} needs neither folder nor hub (unset TINYLIB_MODEL)."
        ) from error


def _check_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise a ValueError if it has no chat template, EOS token or pad token."""
    set_one = "Set one in its folder (tokenizer.{0} = ..., tokenizer.save_pretrained(folder))"
    for role, advice in [
        ("chat_template", "Take the chat (or 'instruct') version of the model"),
        ("eos_token", set_one),
        ("pad_token", f"{set_one}; the EOS token will do, as long as the attention mask is passed"),
    ]:
        if getattr(tokenizer, role) is None:
            what = role.replace("chat_", "chat ")
            raise ValueError(f"The tokenizer of {name!r} has no {what}. {advice.format(role)}.")


def main() -> None:
    """Fetch the shipped model into the cache, or check the one that is there."""
    parser = argparse.ArgumentParser(prog="python -m tinylib.models", description=main.__doc__)
    parser.add_argument("--again", action="store_true", help="fetch it anew, even if it is there")
    with errors_in_one_line():
        folder = fetch.shipped(parser.parse_args().again)
        fetch.verify(folder)
    print(f"{fetch.NAME} is ready in {folder}")


if __name__ == "__main__":
    main()
