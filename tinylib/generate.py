"""Answers to several prompts at once, and how far they are from each prompt's answer alone.

Decoding is greedy, whatever the generation config says of sampling and beams, so that runs can be compared
token for token. (Its ``repetition_penalty`` stays, and counts pads as tokens.)
"""

from collections.abc import Sequence

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tinylib.chat import prompt_rows
from tinylib.messages import Prompt
from tinylib.models import not_finite
from tinylib.padding import check_rows, pad


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 64,
    batch_size: int = 8,
) -> list[str]:
    """Answer prompts in batches, as text in their order; each answer is what the prompt alone would have got.

    In 16 bits a batch rounds otherwise than a single row, so a close choice can fall the other way. It is a
    ValueError if there is no prompt, one is unusable or does not fit, or a weight is not finite.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}.")
    if name := not_finite(model):
        raise ValueError(f"The model's {name} is not finite: it can only answer noise. Load another.")
    rows = prompt_rows(tokenizer, prompts)
    check_fits(model, rows, max_new_tokens)
    # Rows of similar length share a batch: less padding. The order is restored below.
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    answers = [""] * len(rows)
    for batch in tqdm(batches, desc="answering", unit="batch", disable=len(batches) == 1):
        ids = generate(model, [rows[i] for i in batch], tokenizer.pad_token_id, max_new_tokens)
        for i, text in zip(batch, tokenizer.batch_decode(ids, skip_special_tokens=True)):
            answers[i] = text
    return answers


def generate(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], pad_id: int, max_new_tokens: int = 32
) -> list[list[int]]:
    """Continue all rows, lists of token ids, in one batch: padded on the left, with the attention mask.

    Returns the new tokens of each row, up to and including its first end of turn. Errors are `check_fits`'s.
    """
    check_fits(model, rows, max_new_tokens)
    batch = pad(rows, pad_id, side="left")
    return greedy_generate(model, batch["input_ids"], max_new_tokens, attention_mask=batch["attention_mask"])


def generate_alone(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], max_new_tokens: int = 32
) -> list[list[int]]:
    """Continue one row at a time: no padding, nothing to go wrong. The reference for `generate`."""
    check_fits(model, rows, max_new_tokens)
    return [greedy_generate(model, torch.tensor([row]), max_new_tokens)[0] for row in rows]


def greedy_generate(
    model: PreTrainedModel, input_ids: torch.Tensor, max_new_tokens: int, **inputs: torch.Tensor
) -> list[list[int]]:
    """Call ``model.generate`` greedily on exactly these inputs, right or wrong; the result is `generate`'s.

    ``input_ids`` are int64 of shape ``(batch, seq)``. ``inputs`` is what else it is to get, such as
    ``attention_mask``; nothing is added.
    """
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    output = model.generate(
        input_ids.to(model.device), do_sample=False, num_beams=1, max_new_tokens=max_new_tokens, **inputs
    )
    return [truncate_at_eos(row, eos_token_ids(model)) for row in output[:, input_ids.shape[1] :].tolist()]


def eos_token_ids(model: PreTrainedModel) -> list[int]:
    """Return the ids that end an answer of this model: its generation config's, none, one or several."""
    eos = model.generation_config.eos_token_id
    return eos if isinstance(eos, list) else [] if eos is None else [eos]


def truncate_at_eos(ids: Sequence[int], eos_ids: Sequence[int]) -> list[int]:
    """Keep the ids up to and including the first that ends an answer, without what ``generate`` fills up."""
    for i, token in enumerate(ids):
        if token in eos_ids:
            return list(ids[: i + 1])
    return list(ids)


@torch.no_grad()
def next_token_logits(model: PreTrainedModel, **inputs: torch.Tensor) -> torch.Tensor:
    """Score what follows the last column by one ``forward``: float32 on the CPU, ``(batch, vocab)``."""
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    return model(**inputs, logits_to_keep=1).logits[:, -1].float().cpu()


def total_variation(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Measure how much probability has moved to other tokens: 0 = none, 1 = all of it.

    That is the total variation distance of two softmax distributions: from ``(..., vocab)`` to ``(...)``.
    """
    return (logits.softmax(dim=-1) - reference.softmax(dim=-1)).abs().sum(dim=-1) / 2


def common_prefix_length(answer: Sequence[int], reference: Sequence[int]) -> int:
    """Count the tokens at the start of an answer that agree with the reference."""
    for i, (ours, theirs) in enumerate(zip(answer, reference)):
        if ours != theirs:
            return i
    return min(len(answer), len(reference))


def check_fits(model: PreTrainedModel, rows: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Raise a ValueError for no row, an empty one, one that does not fit with its answer, or no new token."""
    check_rows(rows)
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, not {max_new_tokens}.")
    context = model.config.max_position_embeddings
    for i, row in enumerate(rows):
        if len(row) + max_new_tokens > context:
            raise ValueError(
                f"Prompt {i} has {len(row)} tokens; with {max_new_tokens} new ones it does not fit into "
                f"the model's context of {context}. Shorten it, or lower max_new_tokens."
            )
