"""Attention in which each sample of a packed row is computed on its own.

In a packed row no sample may see another. transformers says so with a mask, but on a CPU PyTorch computes the
scores of all pairs of tokens before it hides most of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

BY_SAMPLE = "sdpa_by_sample"  # the name under which transformers finds the function below


def sample_lengths(position_ids: torch.Tensor) -> list[int]:
    """Read the samples' lengths in a packed row off its positions, ``(seq,)``, which start anew at 0.

    >>> sample_lengths(torch.tensor([0, 1, 2, 0, 1]))
    [3, 2]
    """
    starts = (position_ids == 0).nonzero().flatten().tolist()
    return [end - start for start, end in zip(starts, [*starts[1:], len(position_ids)])]


def attention_by_sample(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' ``sdpa`` does, in a packed row one sample after another.

    ``query``, ``key`` and ``value`` are of shape ``(batch, heads, seq, head_dim)``, the mask of
    ``(batch, 1, seq, seq)``, true where visible: what it hides within a sample stays hidden. The positions,
    ``(batch, seq)``, tell where a sample starts. The result is of shape ``(batch, seq, heads, head_dim)``.
    """
    packed = attention_mask is not None and position_ids is not None and len(position_ids) == 1
    if not packed or len(lengths := sample_lengths(position_ids[0])) < 2 or query.shape[2] != sum(lengths):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    outputs, start = [], 0
    for length in lengths:
        own = slice(start, start + length)
        parts = [tensor[:, :, own] for tensor in (query, key, value)]
        visible = attention_mask[:, :, own, own]
        outputs.append(sdpa_attention_forward(module, *parts, visible, **options)[0])
        start += length
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(BY_SAMPLE, attention_by_sample)
AttentionMaskInterface.register(BY_SAMPLE, sdpa_mask)


@contextmanager
def attending_by_sample(model: PreTrainedModel) -> Iterator[None]:
    """Let a model attend by sample for a while, if it uses ``sdpa`` on the CPU; else do nothing."""
    usual = model.config._attn_implementation
    wanted = usual == "sdpa" and model.device.type == "cpu"
    if wanted:
        model.set_attn_implementation(BY_SAMPLE)
    try:
        yield
    finally:
        if wanted:
            model.set_attn_implementation(usual)


@torch.no_grad()
def keeps_samples_apart(model: PreTrainedModel) -> bool:
    """Ask a model whether the samples of a packed row are apart: the second must not change with the first.

    Only models that read the samples off ``position_ids`` keep them apart: Llama's kind, not OPT, Bloom or
    Mamba, which say nothing.
    """
    was_training, positions = model.training, torch.arange(4).repeat(2)[None].to(model.device)
    model.eval()
    try:
        with attending_by_sample(model):
            rows = torch.tensor([[0, 1, 0, 1, 0, 1, 0, 1], [1, 0, 0, 0, 0, 1, 0, 1]], device=model.device)
            inputs = [{"input_ids": row[None], "position_ids": positions, "use_cache": False} for row in rows]
            one, other = (model(**each).logits[0, 4:].float() for each in inputs)
    except TypeError:  # it takes no position_ids
        return False
    finally:
        model.train(was_training)
    return bool((one - other).abs().max() <= 1e-3 * one.abs().max())
