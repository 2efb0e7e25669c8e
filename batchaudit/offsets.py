"""Two probes that tell who shifts the labels: the data or the loss.

At position i a causal model predicts token i + 1, so that exactly one of them has to move the labels by one:
`data_offset` plus `loss_offset` must be 1.
"""

import math

import torch

from tinylib.labels import IGNORE_INDEX, plain_loss

OFFSETS = (-1, 0, 1, 2)
"""What the probes look for."""


def data_offset(input_ids: torch.Tensor, labels: torch.Tensor) -> int:
    """Tell which token the labels hold at position i: token i (0), token i + 1 (1), ... (see `OFFSETS`).

    Both are of shape ``(batch, seq)``.

    Raises:
        ValueError: No offset fits all supervised labels, or more than one does.
    """
    found, supervised = [], labels != IGNORE_INDEX
    for offset in OFFSETS:
        here, there = _pairs(labels.shape[1], offset)
        inside = supervised[:, here]
        # The last label of shifted data has no token in the batch; all others must agree.
        if inside.any() and (labels[:, here] == input_ids[:, there])[inside].all():
            found.append(offset)
    if len(found) != 1:
        raise ValueError(
            f"{len(found)} of the offsets -1, 0, 1, 2 fit the labels ({found}). The labels must be tokens of "
            "the same rows, and differ enough from one another to tell the offsets apart."
        )
    return found[0]


def loss_offset(loss: torch.Tensor | float, logits: torch.Tensor, labels: torch.Tensor) -> int:
    """Tell by its value which label a loss has compared with the logits of position i: i (0), i + 1 (1), ...

    Use it on a batch of your own: ``loss_offset(output.loss, output.logits, batch["labels"])``.

    Args:
        loss: What came out, a mean over the supervised tokens.
        logits: Of shape ``(batch, seq, vocab)``, and ``labels``, ``(batch, seq)``, as they went in.

    Raises:
        ValueError: No offset, or more than one, gives this loss; or it is not finite, or the logits are not.
    """
    loss = float(torch.as_tensor(loss).detach())
    if not math.isfinite(loss) or not torch.isfinite(logits).all():
        raise ValueError(f"The loss {loss}, or one of the logits, is not finite: nothing follows from it.")
    values = {}
    for offset in OFFSETS:
        here, there = _pairs(labels.shape[1], offset)
        if (labels[:, there] != IGNORE_INDEX).any():
            values[offset] = plain_loss(logits[:, here], labels[:, there]).item()
    far = {offset: abs(value - loss) for offset, value in values.items()}
    best, *others = sorted(far, key=far.__getitem__)
    if far[best] > 1e-3 * max(1.0, loss) or any(far[other] < 10 * max(far[best], 1e-5) for other in others):
        listed = ", ".join(f"{offset}: {value:.4f}" for offset, value in values.items())
        raise ValueError(
            f"The loss {loss:.4f} is that of no offset, or of several ({listed}). The probe knows a mean "
            "cross-entropy over the supervised tokens, without weights or smoothing, and needs logits that "
            "tell the offsets apart."
        )
    return best


def _pairs(seq: int, offset: int) -> tuple[slice, slice]:
    """Return the positions i for which i + offset is in the row too, and those positions i + offset."""
    first, last = max(0, -offset), seq - max(0, offset)
    return slice(first, last), slice(first + offset, last + offset)
