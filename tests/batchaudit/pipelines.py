"""Ways to make a batch that people use: the libraries' own parts, and collators written from descriptions.

Each takes chats, as lists of messages, and yields batches of eight.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from tiny_models import TINYLLAMA_TEMPLATE
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorWithFlattening,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tinylib.chat import prompt_rows
from tinylib.collate import PackedCollator, PaddedCollator
from tinylib.labels import IGNORE_INDEX, shift, training_example
from tinylib.padding import pad

Chat = list[dict[str, str]]
Batches = Iterator[dict[str, Any]]
SIZE = 8


def by_eight(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (rows[i : i + SIZE] for i in range(0, len(rows), SIZE))


def examples_of(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> list[dict[str, list[int]]]:
    made = [training_example(tokenizer, {"messages": chat}) for chat in chats]
    return [{"input_ids": example["input_ids"], "labels": example["labels"]} for example in made]


def collated(collate: Callable, examples: Sequence[Any], **more: Any) -> Batches:
    for rows in by_eight(examples):
        yield {**collate(list(rows)), **more}


def texts_of(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> list[list[int]]:
    """No chats, but plain texts that end with EOS, as for pre-training."""
    texts = [tokenizer(chat[-1]["content"], add_special_tokens=False)["input_ids"] for chat in chats]
    return [[*ids, tokenizer.eos_token_id] for ids in texts if len(ids) > 1]


# transformers


def seq2seq(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    return collated(DataCollatorForSeq2Seq(tokenizer), examples_of(tokenizer, chats))


def flattening(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    """The collator has no pads; ``use_cache=False`` is the Trainer's."""
    return collated(DataCollatorWithFlattening(), examples_of(tokenizer, chats), use_cache=False)


def flattening_with_a_cache(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    """As in a loop of one's own."""
    return collated(DataCollatorWithFlattening(), examples_of(tokenizer, chats))


def language_modeling(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    """On plain texts."""
    collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    return collated(collate, [{"input_ids": ids} for ids in texts_of(tokenizer, chats)])


def language_modeling_of_chats(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    """With pad = EOS it ignores every end of turn, and it learns the prompts."""
    collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    return collated(collate, [{"input_ids": e["input_ids"]} for e in examples_of(tokenizer, chats)])


# TRL


def as_pairs(chats: list[Chat]) -> list[dict[str, Chat]]:
    return [{"prompt": chat[:-1], "completion": chat[-1:]} for chat in chats]


def as_messages(chats: list[Chat]) -> list[dict[str, Chat]]:
    return [{"messages": chat} for chat in chats]


MARKED_TEMPLATE = TINYLLAMA_TEMPLATE.replace(
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n",
    "{{ '<|assistant|>\n' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{{ '\n' }}",
)


assert "{% generation %}" in MARKED_TEMPLATE


def sft_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict],
    folder: Path,
    **arguments: Any,
) -> trl.SFTTrainer:
    config = trl.SFTConfig(
        output_dir=str(folder), report_to="none", use_cpu=True, bf16=False, disable_tqdm=True,
        per_device_train_batch_size=SIZE, gradient_checkpointing=False, **arguments,
    )  # fmt: skip
    return trl.SFTTrainer(model, config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


# litgpt and torchtune, where they are installed


def litgpt(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    import pytest

    collate = pytest.importorskip("litgpt.data.base").get_sft_collate_fn(pad_id=tokenizer.pad_token_id)
    counts = {"token_counts": {"raw": 12, "raw_plus_prompt_template": 12}}
    rows = [
        {name: torch.tensor(values) for name, values in example.items()} | counts
        for example in examples_of(tokenizer, chats)
    ]
    for batch in collated(collate, rows):
        yield {"input_ids": batch["input_ids"], "labels": batch["labels"]}


def torchtune(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    """The recipe shifts the labels before its loss, which does not."""
    import pytest

    collate = pytest.importorskip("torchtune.data").padded_collate_sft
    rows = [{"tokens": e["input_ids"], "labels": e["labels"]} for e in examples_of(tokenizer, chats)]
    for some in by_eight(rows):
        batch = collate(list(some), padding_idx=tokenizer.pad_token_id)
        yield {"input_ids": batch["tokens"], "labels": shift(batch["labels"])}


# written from descriptions


def llms_from_scratch(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    """Raschka's chapter 7: EOS appended, inputs and targets one apart, all but the first pad ignored."""
    pad_id = tokenizer.eos_token_id
    for rows in by_eight([ids[:-1] for ids in texts_of(tokenizer, chats)]):
        longest = max(len(row) + 1 for row in rows)
        inputs, targets = [], []
        for row in rows:
            padded = torch.tensor([*row, pad_id] + [pad_id] * (longest - len(row)))
            inputs.append(padded[:-1])
            target = padded[1:].clone()
            pads = (target == pad_id).nonzero().flatten()
            target[pads[1:]] = IGNORE_INDEX
            targets.append(target)
        yield {"input_ids": torch.stack(inputs), "labels": torch.stack(targets)}


def pre_training(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    """nanoGPT's, and TinyLlama's own pre-training: blocks of a long text, the targets one further."""
    text = torch.tensor([token for ids in texts_of(tokenizer, chats) for token in ids])
    block = 24
    starts = range(0, len(text) - block - 1, block)
    for some in by_eight(list(starts)):
        yield {
            "input_ids": torch.stack([text[i : i + block] for i in some]),
            "labels": torch.stack([text[i + 1 : i + block + 1] for i in some]),
        }


def qlora(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    """DataCollatorForCausalLM of qlora.py and of TinyLlama's sft/finetune.py: the mask is made of the ids."""
    for rows in by_eight(examples_of(tokenizer, chats)):
        batch = PaddedCollator(tokenizer.pad_token_id)(rows)
        yield batch | {"attention_mask": batch["input_ids"].ne(tokenizer.pad_token_id)}


def remedy_of_the_web(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    """``labels = label[1:] + [IGNORE_INDEX]``, with a model that shifts by itself."""
    for rows in by_eight(examples_of(tokenizer, chats)):
        shifted = [row | {"labels": [*row["labels"][1:], IGNORE_INDEX]} for row in rows]
        yield PaddedCollator(tokenizer.pad_token_id)(shifted)


# ours, and generation


def padded(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    return collated(PaddedCollator(tokenizer.pad_token_id), examples_of(tokenizer, chats))


def padded_left(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    return collated(PaddedCollator(tokenizer.pad_token_id, "left"), examples_of(tokenizer, chats))


def packed(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    collate = PackedCollator(tokenizer.pad_token_id, 256)
    return collated(collate, examples_of(tokenizer, chats), use_cache=False)


def shifted_data(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    for batch in padded(tokenizer, chats):
        yield batch | {"labels": shift(batch["labels"])}


def prompts(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    for some in by_eight(chats):
        rows = prompt_rows(tokenizer, [chat[:-1] for chat in some])
        yield pad(rows, tokenizer.pad_token_id)


def templates_of_transformers(tokenizer: PreTrainedTokenizerBase, chats: list[Chat]) -> Batches:
    """Prompts as the library writes and pads them. (It takes a ``padding_side=``, and ignores it.)"""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = "left"
    for some in by_eight(chats):
        yield tokenizer.apply_chat_template(
            [chat[:-1] for chat in some],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        )
