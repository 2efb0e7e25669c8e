"""The faults of a checkpoint: tokenizer, template, generation config and embeddings that do not agree."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from batchaudit.report import Report, finding_of
from batchaudit.turns import Template, read_template

NAMES_OF_EMBEDDINGS = (  # Llama and its like, GPT-2, Bloom and Falcon, GPT-NeoX, Mamba
    "embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", ".embeddings.weight",
)  # fmt: skip
ALIKE = 1e-2  # of the usual distance between two tokens' embeddings


def generation(
    config: Any, tokenizer: PreTrainedTokenizerBase | None, template: Template | None
) -> Iterator[tuple[str, str]]:
    """Compare a generation config with what pads, and what ends an answer.

    Yields:
        A code and what was found.
    """
    pad, own = getattr(config, "pad_token_id", None), getattr(tokenizer, "pad_token_id", None)
    if pad is not None and own is not None and pad != own:
        yield "generation.other_pad", f"it pads with id {pad}, the tokenizer with {own}"
    if config is None or template is None or not template.ends_of_last:
        return
    if told := _not_among_its_ends(config, tokenizer, template.ends_of_last):
        yield "generation.other_end", f"{told[0]}, the chat template ends an answer with {told[1]}"


def other_end(config: Any, tokenizer: PreTrainedTokenizerBase | None, learned: set[int]) -> str:
    """Compare a generation config with the ends that a batch teaches; empty if it stops at one of them.

    Nor is it said of the tokenizer's own EOS: a Trainer writes that into the config when it begins.
    """
    if config is None or not learned or tokenizer.eos_token_id in learned:
        return ""
    told = _not_among_its_ends(config, tokenizer, learned)
    return f"{told[0]}, these answers end with {told[1]}" if told else ""


def _not_among_its_ends(
    config: Any, tokenizer: PreTrainedTokenizerBase, ends: set[int]
) -> tuple[str, str] | None:
    eos = config.eos_token_id
    stops = set(eos if isinstance(eos, list | tuple) else [eos]) - {None}
    if stops & ends:
        return None
    written = " or ".join(f"{tokenizer.convert_ids_to_tokens(i)} ({i})" for i in sorted(ends))
    return (f"it stops at {sorted(stops)}" if stops else "it has no eos_token_id"), written


def untrained(
    weight: torch.Tensor | None,
    template: Template | None,
    frozen: bool = False,
    padding_idx: int | None = None,
) -> tuple[str, str]:
    """Say which tokens of the chat's frame have embeddings that nothing was learned in; empty if none.

    They are zero, or alike: as ``resize_token_embeddings`` makes new ones. (Random ones cannot be told.)

    Args:
        weight: The input embeddings, of shape ``(vocabulary, width)``; None if there are none.
        template: None if it cannot be read.
        frozen: Whether they stay as they are while something else trains.
        padding_idx: The id whose row torch keeps at zero.

    Returns:
        What was found, and which variant of the code it is.
    """
    if weight is None or template is None or weight.is_meta:
        return "", ""
    weight = weight.detach()
    ids = sorted(i for i in template.frame if i < len(weight))
    if not ids:
        return "", ""
    rows = weight[ids].float().cpu()
    sample = weight[:: max(1, len(weight) // 256)].float().cpu()
    usual = float(torch.pdist(sample).median())
    zero = rows.norm(dim=1) == 0
    alike = (torch.cdist(rows, rows) <= ALIKE * usual).sum(dim=1) > 1
    average = (rows - sample.mean(dim=0)).norm(dim=1) <= ALIKE * usual
    found = zero | ((alike | average) & (usual > 0))
    if not found.any():
        return "", ""
    bad = [i for i, is_bad in zip(ids, found.tolist()) if is_bad]
    names = template.tokenizer.convert_ids_to_tokens(bad)
    kind = "zero" if zero[found].all() else "all alike"
    also = ", and frozen while other weights train" if frozen else ""
    variant = "padding" if bad == [padding_idx] and kind == "zero" else ""
    return f"{', '.join(names)}: their embeddings are {kind}{also}", variant


def embeddings_in(model: Any) -> tuple[torch.Tensor | None, bool, int | None]:
    """Return a model's input embeddings, whether they are frozen while others train, and padding_idx."""
    try:
        embeddings = model.get_input_embeddings()
        weight = embeddings.weight
    except (AttributeError, NotImplementedError):  # no model, or none of transformers
        return None, False, None
    trains = any(parameter.requires_grad for parameter in model.parameters())
    return weight, trains and not weight.requires_grad, getattr(embeddings, "padding_idx", None)


def audit_checkpoint(folder: str | Path) -> Report:
    """Look at a folder with a tokenizer, its chat template, a generation config and weights; no data needed.

    Of the weights only the input embeddings are read, from safetensors.

    Raises:
        ValueError: There is no tokenizer in it.
    """
    folder = Path(folder)
    tokenizer = load_tokenizer(folder)
    report = Report([], subject=str(folder))
    template, why = read_template(tokenizer)
    try:
        config = GenerationConfig.from_pretrained(folder)
    except OSError:
        config = None
        report.not_checked["what ends and pads a generation"] = "there is no generation_config.json"
    found = list(generation(config, tokenizer, template))
    weight = _embeddings(folder)
    if weight is None:
        report.not_checked["embeddings"] = "there is no safetensors file with input embeddings"
    elif detail := untrained(weight, template)[0]:
        found.append(("embeddings.untrained", detail))
    if template is None:
        report.not_checked["turns, answers and their ends"] = why
    else:
        report.checked += _said_of(template)
        if not template.opens_answers:
            found.append(("prompt.not_open", "with add_generation_prompt=True nothing announces the answer"))
    report.findings = [finding_of(code, detail) for code, detail in found]
    return report


def _said_of(template: Template) -> Iterator[str]:
    """Say how a chat begins, ends and is padded."""
    tokenizer = template.tokenizer
    written = [tokenizer.convert_ids_to_tokens(i) for i in sorted(template.ends_of_last)]
    yield f"an answer ends with {' and '.join(written)}" if written else "no special token ends an answer"
    if tokenizer.pad_token_id is None:
        yield "there is no pad token"
    else:
        same = tokenizer.pad_token_id in template.ends | {tokenizer.eos_token_id}
        yield f"it pads with {tokenizer.pad_token}" + (", which also ends a text" if same else "")
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    ids = tokenizer(text)["input_ids"][:2]
    if ids == [tokenizer.bos_token_id] * 2 and not template.writes_two_bos:
        yield "the tokenizer adds a BOS to the template's own: call it with add_special_tokens=False"
    longer = tokenizer.apply_chat_template(chat + chat, tokenize=False)
    appends = longer.startswith(text.rstrip())
    yield (
        "the template only appends"
        if appends
        else "the template writes an answer otherwise when more follows"
    )


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder.

    Raises:
        ValueError: There is none.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"There is no folder {str(folder)!r}.")
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"There is no tokenizer in {str(folder)!r}: {error!s:.200}") from error


def _embeddings(folder: Path) -> torch.Tensor | None:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                if name.endswith(NAMES_OF_EMBEDDINGS):
                    return file.get_tensor(name)
    return None
