"""The faults of a checkpoint: tokenizer, chat template, generation config and embeddings that do not agree."""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from batchaudit.turns import Template

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
    eos = config.eos_token_id
    stops = set(eos if isinstance(eos, list | tuple) else [eos]) - {None}
    if not stops & template.ends_of_last:
        ends = " or ".join(f"{tokenizer.convert_ids_to_tokens(i)} ({i})" for i in sorted(template.ends_of_last))
        told = f"it stops at {sorted(stops)}" if stops else "it has no eos_token_id"
        yield "generation.other_end", f"{told}, the chat template ends an answer with {ends}"


def untrained(model: Any, template: Template | None) -> str:
    """Say which tokens of the chat's frame have embeddings that nothing was learned in; empty if none.

    They are zero, or alike: as `resize_token_embeddings` makes new ones. (Random ones cannot be told.)
    """
    try:
        weight = model.get_input_embeddings().weight.detach()
    except (AttributeError, NotImplementedError):
        return ""
    ids = sorted(i for i in template.frame if i < len(weight)) if template else []
    if not ids or weight.is_meta:
        return ""
    rows = weight[ids].float().cpu()
    sample = weight[:: max(1, len(weight) // 256)].float().cpu()
    usual = float(torch.pdist(sample).median())
    zero = rows.norm(dim=1) == 0
    near = torch.cdist(rows, rows) <= ALIKE * usual
    average = (rows - weight.float().mean(dim=0).cpu()).norm(dim=1) <= ALIKE * usual
    alike = near.sum(dim=1) > 1
    found = zero | alike | average if usual > 0 else zero
    if not found.any():
        return ""
    names = template.tokenizer.convert_ids_to_tokens([i for i, bad in zip(ids, found.tolist()) if bad])
    kind = "zero" if zero[found].all() else "all alike"
    text = f"{', '.join(names)}: their embeddings are {kind}"
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if trained and not model.get_input_embeddings().weight.requires_grad:
        text += ", and frozen while other weights train"
    return text
