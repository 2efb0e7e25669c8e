"""A training step on packed rows without what it would compute for nothing.

In a packed row no sample may see another. transformers says so with a mask, but on a CPU PyTorch computes the
scores of all pairs of tokens before it hides most of them: here each sample attends on its own. And the
vocabulary, the largest layer of a small model, is scored only where a label is.
"""

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from tinylib.labels import IGNORE_INDEX, shift

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


class PackedTrainer(Trainer):
    """``transformers.Trainer``, but it scores only where a label is, and on a CPU one packed row at a time.

    Losses and gradients are the same; it saves work on the vocabulary, and there a batch takes the memory of
    its longest row. For models whose ``forward`` takes ``logits_to_keep``.
    """

    def __init__(self, model: PreTrainedModel, args: TrainingArguments, **options: Any) -> None:
        loss = functools.partial(_mean_of_the_step, label_smoothing=args.label_smoothing_factor)
        super().__init__(model, args, compute_loss_func=loss, **options)

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Compute the gradients of a batch; return its share of the loss."""
        loss = torch.zeros((), device=self.args.device)
        for batch in self._parts(inputs):
            loss += super().training_step(model, batch, num_items_in_batch)
        return loss

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """Compute the loss as the Trainer does, from the logits where a label is."""
        if "labels" not in inputs:
            raise ValueError("The batch has no labels: a collator for training must put them in.")
        kept = _has_label(shift(inputs["labels"]))
        # With a cache transformers does not look for packed samples; its Trainer before 5 leaves it on.
        inputs = {**inputs, "logits_to_keep": kept, "use_cache": False}
        return super().compute_loss(model, inputs, *args, **options)

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure held-out examples, whatever the batch size, the collator and the number of processes.

        ``eval_loss`` is the mean over all supervised tokens; the Trainer's own is a mean over batches.
        ``eval_exact`` is the share of answers that greedy decoding would give after what stands before them:
        it would where each token of the answer is the likeliest after those before it.
        """
        own = range(self.args.process_index, len(self.eval_dataset), self.args.world_size)
        size, sums = self.args.eval_batch_size, torch.zeros(4, dtype=torch.float64)
        self.model.eval()
        for start in tqdm(range(0, len(own), size), "evaluating", leave=False, delay=2):
            rows = self.eval_dataset.select(own[start : start + size]).to_list()
            batch = self._prepare_inputs(self.data_collator(rows))
            for part in self._parts(batch):
                sums += _scores(self.model, part).cpu()
        loss, tokens, answers, wrong = self.accelerator.reduce(sums.float().to(self.args.device)).tolist()
        metrics = {"eval_loss": loss / tokens, "eval_exact": 1 - wrong / answers}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _parts(self, batch: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """Cut a packed batch as the device likes it: a CPU takes a row at a time, a card all at once.

        On an H200 rows of 512 tokens one by one are a tenth as fast as together: the card waits for each.
        """
        on_cpu = self.args.device.type == "cpu"
        if "position_ids" not in batch or "attention_mask" in batch:  # it is not packed
            return [batch]
        # Several processes must call the model equally often, and may have unequally many rows.
        if on_cpu and self.accelerator.distributed_type == DistributedType.NO:
            return _one_by_one(batch)
        in_one_row = on_cpu or "flash" in self.model.config._attn_implementation
        return [_as_one_row(batch)] if in_one_row else [batch]


def _scores(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum the loss over the supervised tokens; count these, the answers, and those that are not exact."""
    labels = shift(batch["labels"])
    kept, supervised = _has_label(labels), labels != IGNORE_INDEX
    inputs = {name: values for name, values in batch.items() if name != "labels"}
    logits = model(**inputs, logits_to_keep=kept, use_cache=False).logits[supervised[:, kept]].float()
    # An answer begins where the label before it is none: none is in a row's last column, once shifted.
    begins = supervised & ~supervised.roll(1)
    answer_of = begins.flatten().cumsum(dim=0)[supervised.flatten()]
    wrong = answer_of[logits.argmax(dim=-1) != labels[supervised]].unique()
    loss = cross_entropy(logits, labels[supervised], reduction="sum")
    return torch.stack([loss, supervised.sum(), begins.sum(), torch.tensor(len(wrong)).to(loss)])


def _has_label(labels: torch.Tensor) -> torch.Tensor:
    """Tell the columns in which any row has a label; bool of shape ``(seq,)``."""
    return (labels != IGNORE_INDEX).any(dim=0)


def _mean_of_the_step(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor, label_smoothing: float
) -> torch.Tensor:
    """Sum the loss where a label is, over the supervised tokens of the whole optimizer step."""
    labels = shift(labels)
    labels = labels[:, _has_label(labels)].flatten()
    logits = outputs.logits.flatten(0, -2).float()
    options = {"ignore_index": IGNORE_INDEX, "label_smoothing": label_smoothing, "reduction": "sum"}
    total = cross_entropy(logits, labels, **options)
    return total / num_items_in_batch


def _as_one_row(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Lay the rows of a packed batch end to end: ``flash_attention_2`` tells samples apart in one only."""
    labels = batch["labels"].clone()
    labels[:, 0] = IGNORE_INDEX  # nobody's to predict
    return {name: values.reshape(1, -1) for name, values in {**batch, "labels": labels}.items()}


def _one_by_one(batch: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    """Take a packed batch apart into its rows, each up to its last label: no later token plays a part."""
    for i, labels in enumerate(batch["labels"]):
        labeled = (labels != IGNORE_INDEX).nonzero()
        if len(labeled):
            yield {name: values[i : i + 1, : int(labeled.max()) + 1] for name, values in batch.items()}
