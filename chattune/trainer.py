"""``transformers.Trainer`` without what it would compute for nothing, and with an evaluation of tokens.

The vocabulary, the largest layer of a small model, is scored only where a label is; and a packed batch is cut
up as the device likes it.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformers import PreTrainedModel, Trainer, TrainingArguments

from chattune.attention import BY_SAMPLE, reads_shared_beginning, sample_lengths
from tinylib.labels import IGNORE_INDEX, shift


class PackedTrainer(Trainer):
    """``transformers.Trainer``, but it scores only where a label is, and on a CPU one packed row at a time.

    Losses and gradients are the same, padded or packed. It saves work on the vocabulary; on a CPU a packed
    batch takes the memory of its longest row, what fills rows up costs nothing, and a system message that all
    chats of a row begin with is computed once. For models whose ``forward`` takes ``logits_to_keep``.
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
        kept = _columns_with_a_label(shift(inputs["labels"]))
        # With a cache transformers does not look for packed samples; its Trainer before 5 leaves it on.
        inputs = {**inputs, "logits_to_keep": kept, "use_cache": False}
        return super().compute_loss(model, inputs, *args, **options)

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Dataset | None = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Measure held-out examples, whatever the batch size, the collator and the number of processes.

        ``eval_loss`` is the mean over all supervised tokens; the Trainer's own is a mean over batches.
        ``eval_exact`` is the share of answers that greedy decoding would give after what stands before them:
        it would where each token of the answer is the likeliest after those before it.
        """
        examples = self.eval_dataset if eval_dataset is None else eval_dataset
        own = range(self.args.process_index, len(examples), self.args.world_size)
        size, sums = self.args.eval_batch_size, torch.zeros(4, dtype=torch.float64)
        self.model.eval()
        for start in tqdm(range(0, len(own), size), "evaluating", leave=False, delay=2):
            rows = examples.select(own[start : start + size]).to_list()
            batch = self._prepare_inputs(self.data_collator(rows))
            for part in self._parts(batch):
                sums += _scores(self.model, part).cpu()
        sums = sums.float().to(self.args.device)  # Apple's GPUs have no float64
        loss, tokens, answers, wrong = self.accelerator.reduce(sums).tolist()
        metrics = {
            f"{metric_key_prefix}_loss": loss / tokens,
            f"{metric_key_prefix}_exact": 1 - wrong / answers,
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @functools.cached_property
    def _reads_shared_beginning(self) -> bool:
        return reads_shared_beginning(self.model)

    def _parts(self, batch: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """Cut a packed batch as the device likes it: a CPU takes a row at a time, without what fills it up.

        A card takes all rows at once, filled up: on an H200 rows of 512 tokens one by one are a tenth as
        fast, since it waits for each. Several processes on CPUs, and flash attention, take one long row.
        """
        on_cpu = self.args.device.type == "cpu"
        if "position_ids" not in batch or "attention_mask" in batch:  # it is not packed
            return [batch]
        if any(getattr(values, "shape", None) != batch["labels"].shape for values in batch.values()):
            return [batch]  # some collators tell where samples begin in tensors of another shape
        # Several processes must call the model equally often, and may have unequally many rows.
        if on_cpu and self.accelerator.distributed_type == DistributedType.NO:
            rows, by_sample = _one_by_one(batch), self.model.config._attn_implementation == BY_SAMPLE
            return map(_beginning_once, rows) if by_sample and self._reads_shared_beginning else rows
        in_one_row = on_cpu or "flash" in self.model.config._attn_implementation
        return [_as_one_row(batch)] if in_one_row else [batch]


def _scores(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum the loss over the supervised tokens; count these, the answers, and those that are not exact."""
    labels = shift(batch["labels"])
    kept, supervised = _columns_with_a_label(labels), labels != IGNORE_INDEX
    inputs = {name: values for name, values in batch.items() if name != "labels"}
    logits = model(**inputs, logits_to_keep=kept, use_cache=False).logits[supervised[:, kept]].float()
    # An answer begins where the label before it is none: none is in a row's last column, once shifted.
    begins = supervised & ~supervised.roll(1)
    answer_of = begins.flatten().cumsum(dim=0)[supervised.flatten()]
    wrong = answer_of[logits.argmax(dim=-1) != labels[supervised]].unique()
    loss = cross_entropy(logits, labels[supervised], reduction="sum")
    return torch.stack([loss, supervised.sum(), begins.sum(), torch.tensor(len(wrong)).to(loss)])


def _columns_with_a_label(labels: torch.Tensor) -> torch.Tensor:
    """Tell the columns in which any row has a label; bool of shape ``(seq,)``."""
    return (labels != IGNORE_INDEX).any(dim=0)


def _mean_of_the_step(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor, label_smoothing: float
) -> torch.Tensor:
    """Sum the loss where a label is, over the supervised tokens of the whole optimizer step."""
    labels = shift(labels)
    labels = labels[:, _columns_with_a_label(labels)].flatten()
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


def _beginning_once(row: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Keep what all samples of a packed row begin with, such as a system message, in the longest alone.

    That comes first, and `attention_by_sample` lets the others read their beginning there. The beginning has
    no label, and ends before the token that predicts a first one. A row without one stays as it is.
    """
    lengths = sample_lengths(row["position_ids"][0])
    columns = sorted(torch.arange(sum(lengths)).split(lengths), key=len, reverse=True)
    first = torch.stack([own[: min(lengths)] for own in columns])
    inputs = torch.stack([values[0, first] for name, values in row.items() if name != "labels"])
    alike = (inputs == inputs[:, :1]).all(dim=0).all(dim=0)
    unlabeled = (row["labels"][0, first] == IGNORE_INDEX).all(dim=0)
    shared = int((alike[:-1] & unlabeled[:-1] & unlabeled[1:]).long().cumprod(dim=0).sum())
    if not shared:
        return row
    kept = torch.cat([columns[0], *(own[shared:] for own in columns[1:])])
    return {name: values[:, kept] for name, values in row.items()} | {"shared_beginning": shared}
