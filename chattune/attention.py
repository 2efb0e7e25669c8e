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
    """Read the samples' lengths in a packed row off positions, ``(seq,)``: one ends where they do not go on.

    >>> sample_lengths(torch.tensor([0, 1, 2, 0, 1]))
    [3, 2]
    """
    starts = (position_ids.diff(prepend=position_ids[:1]) != 1).nonzero().flatten().tolist()
    return [end - start for start, end in zip(starts, [*starts[1:], len(position_ids)])]


def attention_by_sample(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None = None,
    shared_beginning: int = 0,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' ``sdpa`` does, in a packed row one sample after another.

    ``query``, ``key`` and ``value`` are of shape ``(batch, heads, seq, head_dim)``, the mask of
    ``(batch, 1, seq, seq)``, true where visible: what it hides within a sample stays hidden. The positions,
    ``(batch, seq)``, tell where a sample starts. The first ``shared_beginning`` tokens of a packed row begin
    each of its samples, but stand in the first, the longest, alone: the positions of the others go on from
    them. The result is of shape ``(batch, seq, heads, head_dim)``.
    """
    packed = attention_mask is not None and position_ids is not None and len(position_ids) == 1
    if not packed or len(lengths := sample_lengths(position_ids[0])) < 2 or query.shape[2] != sum(lengths):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    outputs, start = [], 0
    for length in lengths:
        own, shared = slice(start, start + length), shared_beginning if start else 0
        keys, values = (torch.cat([each[:, :, :shared], each[:, :, own]], dim=2) for each in (key, value))
        # What a sample sees of the beginning, the first sample sees of it at the same positions.
        of_beginning = attention_mask[:, :, shared : shared + length, :shared]
        visible = torch.cat([of_beginning, attention_mask[:, :, own, own]], dim=-1)
        outputs.append(sdpa_attention_forward(module, query[:, :, own], keys, values, visible, **options)[0])
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


def keeps_samples_apart(model: PreTrainedModel) -> bool:
    """Ask a model whether the samples of a packed row are apart: the second must not change with the first.

    Only models that read the samples off ``position_ids`` keep them apart: Llama's kind, not OPT, Bloom or
    Mamba, which say nothing.
    """
    positions = [0, 1, 2, 3, 0, 1, 2, 3]
    # The tokens just before the second differ, and it begins with a 1: a 0 is often a pad, embedded as zeros.
    return _end_alike(model, ([0, 1, 0, 1, 1, 0, 1, 0], positions), ([1, 0, 0, 0, 1, 0, 1, 0], positions))


def reads_shared_beginning(model: PreTrainedModel) -> bool:
    """Ask a model whether it reads a sample as it does alone where its beginning stands in another alone."""
    # Other than alone, a 0 stands before the rest, for a model that sees just one token back.
    alone = [0, 1, 1, 0, 1, 0], [0, 1, 2, 3, 4, 5]
    packed = [0, 1, 0, 0, 1, 0, 1, 0, 1, 0], [0, 1, 2, 3, 4, 5, 2, 3, 4, 5]
    return _end_alike(model, alone, packed, shared_beginning=2)


@torch.no_grad()
def _end_alike(model: PreTrainedModel, *rows: tuple[list[int], list[int]], **options: int) -> bool:
    """Tell if two rows, ids and positions, have the same logits at their last four places."""
    was_training = model.training
    model.eval()
    try:
        with attending_by_sample(model):
            inputs = [torch.tensor(row, device=model.device)[:, None] for row in rows]
            outputs = [model(ids, position_ids=at, use_cache=False, **options) for ids, at in inputs]
    except TypeError:  # it takes no position_ids, or none of the options
        return False
    finally:
        model.train(was_training)
    one, other = (output.logits[0, -4:].float() for output in outputs)
    return bool((one - other).abs().max() <= 1e-4 * one.abs().max())
