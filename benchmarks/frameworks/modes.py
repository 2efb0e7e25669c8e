"""What each framework makes of a dozen chats, by its own code.

A function here calls a framework, and does nothing that the framework does by itself. It runs in a process
of its own (``python modes.py WHEEL FILE``), which finds the framework's wheel before anything else, and
stand-ins for what the wheel imports and does not need here.
"""

import importlib.abc
import importlib.machinery
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import torch
from transformers import AutoTokenizer, DataCollatorForSeq2Seq, PreTrainedTokenizerBase

from tinylib import models
from tinylib.labels import IGNORE_INDEX

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "build" / "frameworks"
ASKED, ANSWERED = "<|im_start|>user\n", "<|im_start|>assistant\n"
Batch = dict[str, Any]
Chat = list[dict[str, str]]
Tokenizer = PreTrainedTokenizerBase


class Mode(NamedTuple):
    """One way to make a batch with a framework.

    Attributes:
        wheel: As pinned, ``name==version``.
        name: By the framework's own names.
        make: Makes the batch, and may change the tokenizer.
        loss: ``"shifting"`` or ``"plain"``: what the framework's trainer does with labels.
        model: Whether a model is asked too.
    """

    wheel: str
    name: str
    make: Callable[[Tokenizer], Batch]
    loss: str = "shifting"
    model: bool = False


def chats() -> list[Chat]:
    """Return the dozen, as messages."""
    read = json.loads((HERE / "chats.json").read_text(encoding="utf-8"))
    return [[{"role": role, "content": content} for role, content in chat] for chat in read]


def messages() -> list[dict]:
    """Return the dozen as rows of a data set."""
    return [{"messages": chat} for chat in chats()]


def pairs() -> list[tuple[str, str]]:
    """Return those that are one question and its answer: the first six."""
    return [(chat[0]["content"], chat[1]["content"]) for chat in chats() if len(chat) == 2]


def stand_ins(*names: str) -> None:
    """Let these modules, and all below them, be imported as if they were there: they are not used."""
    sys.meta_path.insert(0, _StandIns(names))


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if any(name == known or name.startswith(known + ".") for known in self.names):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class _StandIn(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        return _thing(name)


class _StandInClass(type):
    def __getattr__(cls, name: str) -> Any:
        return _thing(name)

    def __getitem__(cls, _: Any) -> Any:
        return cls


def _thing(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if name[:1].isupper():  # may be a base, or an argument of isinstance()
        return _StandInClass(name, (), {"__init__": lambda self, *_, **__: None})
    return MagicMock(name=name)


def bare_package(name: str, wheel: str) -> None:
    """Make a package whose own ``__init__`` is not run."""
    package = types.ModuleType(name)
    package.__path__ = [str(FOLDER / wheel / name)]
    sys.modules[name] = package


class _Config(dict):
    """A dictionary whose keys are attributes too, as several packages have one."""

    def __getattr__(self, name: str) -> Any:
        value = self.get(name)
        return _Config(value) if isinstance(value, dict) else value


def written(name: str, text: str) -> str:
    """Write a file that a framework reads, and return its path."""
    path = FOLDER / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def parquet(rows: list[dict]) -> str:
    """Write rows that a framework reads, and return the file's path."""
    import pandas

    pandas.DataFrame(rows).to_parquet(FOLDER / "rows.parquet")
    return str(FOLDER / "rows.parquet")


def openrlhf(tokenizer: Tokenizer, multiturn: bool = False) -> Batch:
    """Its mask says of each position whether what it predicts is learned; its trainer cuts the last one."""
    stand_ins("deepspeed", "ray", "openrlhf.models", "openrlhf.trainer", "pylatexenc")
    from datasets import Dataset
    from openrlhf.datasets.sft_dataset import SFTDataset

    data = SimpleNamespace(input_key="messages", apply_chat_template=True)
    strategy = SimpleNamespace(args=SimpleNamespace(data=data))
    rows = Dataset.from_list(messages())
    made = SFTDataset(rows, tokenizer, 512, strategy, num_processors=1, multiturn=multiturn)
    ids, mask, learned = (part.squeeze(1) for part in made.collate_fn([made[i] for i in range(len(made))]))
    labels = ids.roll(-1, dims=1).masked_fill(learned == 0, IGNORE_INDEX)
    labels[:, -1] = IGNORE_INDEX
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _verl(made: Any) -> Batch:
    """Its trainer shifts the mask together with the labels: it is that of the tokens."""
    batch = torch.utils.data.default_collate([made[i] for i in range(len(made))])
    return batch | {"labels": batch["input_ids"].masked_fill(batch.pop("loss_mask") == 0, IGNORE_INDEX)}


def verl_turns(tokenizer: Tokenizer) -> Batch:
    """Let it make rows of chats."""
    stand_ins("verl.models", "ray", "omegaconf", "tensordict", "hydra", "codetiming", "torchdata", "wandb")
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    return _verl(
        MultiTurnSFTDataset(parquet(messages()), tokenizer, {"max_length": 192, "pad_mode": "right"})
    )


def verl_pairs(tokenizer: Tokenizer) -> Batch:
    """Let it make rows of questions and answers."""
    import transformers

    stand_ins("verl.models", "ray", "omegaconf", "tensordict", "hydra", "codetiming", "torchdata", "wandb")
    transformers.AutoModelForVision2Seq = transformers.AutoModelForImageTextToText  # its name before 5
    from verl.utils.dataset.sft_dataset import SFTDataset

    rows = parquet([{"prompt": asked, "response": answer} for asked, answer in pairs()])
    return _verl(SFTDataset(rows, tokenizer, {"max_length": 96}))


def fastchat(tokenizer: Tokenizer, template: str) -> Batch:
    """Give it chats in its own form, and a pad token as its script does."""
    stand_ins("jsonlines", "fastchat.model.model_adapter")
    from fastchat import conversation
    from fastchat.train import train_with_template

    train_with_template.get_conversation_template = conversation.get_conv_template
    tokenizer.model_max_length, tokenizer.pad_token = 192, tokenizer.unk_token  # as its train() does
    if template == "vicuna_v1.1":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<s>", "</s>"]})
        tokenizer.bos_token, tokenizer.eos_token, tokenizer.chat_template = "<s>", "</s>", None
    else:
        tokenizer.bos_token = None  # as Qwen's
    names = {"user": "human", "assistant": "gpt"}
    rows = [
        {
            "system": "".join(m["content"] for m in chat if m["role"] == "system"),
            "conversations": [
                {"from": names[m["role"]], "value": m["content"]} for m in chat if m["role"] in names
            ],
        }
        for chat in chats()
    ]
    made = train_with_template.SupervisedDataset(rows, tokenizer, template)
    return torch.utils.data.default_collate([made[i] for i in range(len(made))])


def instructlab(tokenizer: Tokenizer, packed: bool = False, **more: bool) -> Batch:
    """Let it process chats and collate them."""
    stand_ins("numba", "aiofiles", "instructlab.training.model", "instructlab.training.gpt_oss_utils_correct")
    from datasets import Dataset
    from instructlab.training import data_process, sampler

    own = data_process.configure_tokenizer(tokenizer.name_or_path)
    made = data_process.process_samples(Dataset.from_list([row | more for row in messages()]), own, 1)
    rows = [
        {
            "input_ids": row["input_ids"],
            "labels": row["labels"],
            "num_loss_counted_tokens": sum(label != IGNORE_INDEX for label in row["labels"]),
        }
        for row in made
    ]
    count = sum(row["num_loss_counted_tokens"] for row in rows)
    if packed:
        batch = sampler.mb_collate_fn(rows, count)
        return {name: batch[name] for name in ("input_ids", "labels", "position_ids")} | {"use_cache": False}
    return sampler.padded_mb_collate_fn(rows, count, tokenizer.pad_token_id)


def fms(tokenizer: Tokenizer, rows: list[dict], handler: str, **more: Any) -> Batch:
    """Its set-up takes transformers' collator for data that are tokenized so."""
    from tuning.data import data_handlers

    made = [getattr(data_handlers, handler)(row, tokenizer=tokenizer, **more) for row in rows]
    keys = ("input_ids", "labels", "attention_mask")
    return dict(DataCollatorForSeq2Seq(tokenizer)([{key: list(row[key]) for key in keys} for row in made]))


def litgpt(tokenizer: Tokenizer, mask_prompt: bool) -> Batch:
    """Its script shifts logits and labels; without a mask, for the pads are at the right end."""
    stand_ins("lightning", "lightning_utilities", "litgpt.model", "litgpt.config", "litgpt.api")
    stand_ins("litgpt.chat", "litgpt.utils")
    from litgpt.data.base import SFTDataset, get_sft_collate_fn
    from litgpt.tokenizer import Tokenizer as OwnTokenizer

    rows = [{"instruction": asked, "output": answer} for asked, answer in pairs()]
    made = SFTDataset(rows, OwnTokenizer(tokenizer.name_or_path), "alpaca", mask_prompt=mask_prompt)
    batch = get_sft_collate_fn(pad_id=tokenizer.pad_token_id)([made[i] for i in range(len(made))])
    return {name: batch[name] for name in ("input_ids", "labels")}


def llmfoundry(tokenizer: Tokenizer, rows: list[dict], **more: Any) -> Batch:
    """Let it tokenize rows and collate them."""
    stand_ins("composer", "streaming", "omegaconf", "catalogue", "mlflow", "boto3", "typer")
    others = "models algorithms callbacks cli eval loggers metrics optim tp command_utils registry interfaces"
    others += " layers_registry data.contrastive_pairs"
    others += " utils.builders utils.config_utils utils.model_download_utils"
    stand_ins(*(f"llmfoundry.{name}" for name in others.split()))
    from llmfoundry.data.finetuning.collator import Seq2SeqFinetuningCollator
    from llmfoundry.data.finetuning.tasks import tokenize_formatted_example

    collate = Seq2SeqFinetuningCollator(tokenizer, 192, decoder_only_format=True, **more)
    return dict(collate([tokenize_formatted_example(row, tokenizer) for row in rows]))


def nemo(tokenizer: Tokenizer, **more: Any) -> Batch:
    """Its data shift, its loss does not."""
    stand_ins("nemo_automodel.components.models", "nemo_automodel.components.distributed")
    stand_ins("nemo_automodel.recipes", "nemo_automodel.shared.import_utils")
    from nemo_automodel.components.datasets.llm.chat_dataset import ChatDataset
    from nemo_automodel.components.datasets.utils import default_collater

    rows = written("rows.jsonl", "\n".join(map(json.dumps, messages())))
    made = ChatDataset(rows, tokenizer, **more)
    return dict(default_collater([made[i] for i in range(len(made))]))


def oumi(tokenizer: Tokenizer, **more: Any) -> Batch:
    """Its collator alone: its data set gives transformers 5 what that does not take."""
    stand_ins("omegaconf", "oumi.builders", "torchdata", "jsonlines")
    from oumi.core.collators.text_completions_collator_with_padding import TextCompletionsCollatorWithPadding

    rows = [dict(tokenizer.apply_chat_template(chat)) for chat in chats()]
    collate = TextCompletionsCollatorWithPadding(tokenizer, ANSWERED, instruction_template=ASKED, **more)
    return dict(collate(rows))


def _xtuner_stand_ins() -> None:
    stand_ins(
        "mmengine", "loguru", "bitsandbytes", "torchvision", "skimage", "pycocotools", "xtuner.parallel"
    )
    stand_ins("xtuner.model", "xtuner.engine", "xtuner._lite.device", "xtuner.utils.handle_moe_load_and_save")
    import mmengine.config
    import xtuner.parallel.sequence

    mmengine.config.ConfigDict = _Config
    xtuner.parallel.sequence.get_sequence_parallel_world_size = lambda: 1


def xtuner_lite(tokenizer: Tokenizer, pack: bool = False) -> Batch:
    """Let the newer of its two ways tokenize chats and collate them."""
    _xtuner_stand_ins()
    from xtuner._lite.algorithms.sft.dataset import SftCollator, SftTokenizeFunction
    from xtuner._lite.chat import CHAT_TEMPLATE_MAP

    cut = SftTokenizeFunction(tokenizer, CHAT_TEMPLATE_MAP["qwen2"])
    collate = SftCollator(pad_token_id=tokenizer.pad_token_id, pack_batch=pack)
    return collate(list(map(cut, messages())))


def xtuner(tokenizer: Tokenizer) -> Batch:
    """Let the older of its two ways do it."""
    _xtuner_stand_ins()
    from xtuner.dataset.collate_fns.default_collate_fn import default_collate_fn
    from xtuner.dataset.map_fns.dataset_map_fns.openai_map_fn import openai_map_fn
    from xtuner.dataset.map_fns.template_map_fn import template_map_fn
    from xtuner.dataset.utils import encode_fn
    from xtuner.utils.templates import PROMPT_TEMPLATE

    said = [template_map_fn(openai_map_fn(row), PROMPT_TEMPLATE.qwen_chat) for row in messages()]
    rows = [encode_fn(one, tokenizer, 192) for one in said]
    return default_collate_fn(rows, pad_index=tokenizer.pad_token_id, return_hf_format=True)


def unsloth(tokenizer: Tokenizer, **more: Any) -> Batch:
    """Let it make labels; it leaves the collator to transformers."""
    bare_package("unsloth_zoo", "unsloth-zoo==2026.10.9")  # which asks for a GPU
    from unsloth_zoo.dataset_utils import train_on_responses_only

    cut = train_on_responses_only(None, tokenizer=tokenizer, return_function=True, **more)
    ids = [tokenizer.apply_chat_template(chat, return_dict=False) for chat in chats()]
    rows = [{"input_ids": i, "labels": y} for i, y in zip(ids, cut({"input_ids": ids})["labels"])]
    return dict(DataCollatorForSeq2Seq(tokenizer)(rows))


def torchtune(tokenizer: Tokenizer, packed: bool = False, **more: Any) -> Batch:
    """Its recipe shifts the labels before its loss, which does not."""
    stand_ins("torchao", "omegaconf", "kagglehub", "blobfile", "tiktoken", "sentencepiece", "torchdata")
    from torchtune.data import OpenAIToMessages, padded_collate_packed, padded_collate_sft
    from torchtune.datasets import PackedDataset
    from torchtune.datasets._sft import SFTTransform
    from torchtune.models.qwen2._tokenizer import Qwen2Tokenizer

    read = json.loads((Path(tokenizer.name_or_path) / "tokenizer.json").read_text(encoding="utf-8"))
    merges = [one if isinstance(one, str) else " ".join(one) for one in read["model"]["merges"]]
    files = written("vocab.json", json.dumps(read["model"]["vocab"])), written("merges", "\n".join(merges))
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer.pad_token = names[0]  # as this class has it
    own = Qwen2Tokenizer(*files, {name: tokenizer.convert_tokens_to_ids(name) for name in names})
    cut = SFTTransform(OpenAIToMessages(**more), own)
    rows = list(map(cut, messages()))
    if not packed:
        batch = padded_collate_sft(rows, padding_idx=tokenizer.pad_token_id)
        return {"input_ids": batch["tokens"], "labels": batch["labels"]}
    made = PackedDataset(rows, max_seq_len=256, padding_idx=tokenizer.pad_token_id)
    batch = padded_collate_packed([made[i] for i in range(len(made))])
    more = {"position_ids": batch["input_pos"], "attention_mask": batch["mask"][:, None]}
    return {"input_ids": batch["tokens"], "labels": batch["labels"]} | more


def llamafactory(
    tokenizer: Tokenizer, name: str | None = "chatml", packing: bool = False, **more: Any
) -> Batch:
    """Let it tokenize chats, with a template of its own (None: the tokenizer's), and collate them."""
    stand_ins("omegaconf", "librosa", "av", "fire", "torchaudio")
    stand_ins("llamafactory.hparams", "llamafactory.model", "llamafactory.extras.ploting")
    from llamafactory.data.collator import SFTDataCollatorWith4DAttentionMask
    from llamafactory.data.processor.supervised import (
        PackedSupervisedDatasetProcessor,
        SupervisedDatasetProcessor,
    )
    from llamafactory.data.template import get_template_and_fix_tokenizer

    args = _Config({"template": name, "cutoff_len": 191, "enable_thinking": True} | more)
    template = get_template_and_fix_tokenizer(tokenizer, args)
    kind = PackedSupervisedDatasetProcessor if packing else SupervisedDatasetProcessor
    said = [[m for m in chat if m["role"] != "system"] for chat in chats()]
    systems = ["".join(m["content"] for m in chat if m["role"] == "system") for chat in chats()]
    rows = {"_prompt": [chat[:-1] for chat in said], "_response": [chat[-1:] for chat in said]}
    rows |= {"_system": systems, "_tools": [""] * len(said)}
    rows |= {name: [None] * len(said) for name in ("_images", "_videos", "_audios")}
    made = kind(template, tokenizer, None, args).preprocess_dataset(rows)
    collate = SFTDataCollatorWith4DAttentionMask(
        template=template, tokenizer=tokenizer, model=None, pad_to_multiple_of=8,
        label_pad_token_id=IGNORE_INDEX, block_diag_attn=bool(args.neat_packing), attn_implementation="sdpa",
        neat_packing=bool(args.neat_packing),
    )  # fmt: skip
    return dict(collate([dict(zip(made, values)) for values in zip(*made.values())]))


def axolotl(
    tokenizer: Tokenizer,
    name: str = "tokenizer_default",
    train_on_inputs: bool = False,
    packed: bool = False,
    **more: Any,
) -> Batch:
    """Let it tokenize chats by a template of its name, and collate them."""
    stand_ins("addict", "colorama", "mistral_common")
    import addict
    import colorama

    addict.Dict, colorama.Fore = _Config, SimpleNamespace(CYAN="", RESET="")
    from axolotl.prompt_strategies.chat_template import load
    from axolotl.utils.collators import DataCollatorForSeq2Seq, V2BatchSamplerDataCollatorForSeq2Seq

    config = _Config(train_on_inputs=train_on_inputs, sequence_len=192, chat_template=name)
    strategy = load(tokenizer, config, {"roles_to_train": ["assistant"], "train_on_eos": "turn"} | more)
    tokenizer.chat_template = strategy.prompter.chat_template
    rows = [dict(strategy.tokenize_prompt(row)) for row in messages()]
    if not packed:
        return dict(DataCollatorForSeq2Seq(tokenizer)(rows))
    rows = [row | {"position_ids": list(range(len(row["input_ids"])))} for row in rows]
    return dict(V2BatchSamplerDataCollatorForSeq2Seq(tokenizer)([rows[:6], rows[6:]]))


def swift(tokenizer: Tokenizer, **more: Any) -> Batch:
    """Let its template encode chats and collate them."""
    bare_package("swift", "ms-swift==4.6.0")
    stand_ins("json_repair", "modelscope", "swift.model", "swift.infer_engine", "swift.dataset")
    from swift.template import get_template

    tokenizer.model_info = SimpleNamespace(
        model_dir=tokenizer.name_or_path, task_type="causal_lm", max_model_len=8192, config=None
    )
    tokenizer.model_meta = SimpleNamespace(template="chatml", is_multimodal=False)
    template = get_template(tokenizer, template_type="chatml", **more)
    template.set_mode("train")
    rows = [template.encode(row, return_length=True) for row in messages()]
    return dict(template.data_collator(rows))


def torchtitan(tokenizer: Tokenizer) -> Batch:
    """Its data shift, its loss does not."""
    stand_ins("tyro", "torchdata", "spmd_types", "torchtitan.distributed", "torchtitan.config")
    stand_ins("torchtitan.components.loss", "torchtitan.components.dataloader")
    import torchtitan.components.dataloader
    import torchtitan.components.loss
    import torchtitan.config
    from datasets import Dataset

    base = type("Configurable", (), {"Config": type("Config", (), {})})
    torchtitan.config.Configurable = torchtitan.components.dataloader.ParallelAwareDataloader = base
    torchtitan.components.loss.IGNORE_INDEX = IGNORE_INDEX
    from torchtitan.components.tokenizer import HuggingFaceTokenizer
    from torchtitan.hf_datasets.text_datasets import ChatDataset

    own = HuggingFaceTokenizer(tokenizer_path=tokenizer.name_or_path)
    rows = Dataset.from_list([{"messages": chat} for chat in chats() if len(chat) == 2])
    made = list(ChatDataset(rows, own, lambda row: row["messages"], seq_len=128))
    return {
        "input_ids": torch.stack([row["input"] for row, _ in made]),
        "position_ids": torch.stack([row["positions"] for row, _ in made]),
        "labels": torch.stack([labels for _, labels in made]),
        "use_cache": False,
    }


def other_marks(make: Callable[..., Batch], name: str, tokens: list[str], bos: str, eos: str) -> Callable:
    """Let a framework write another template: its marks are made special tokens first."""

    def made(tokenizer: Tokenizer) -> Batch:
        tokenizer.add_special_tokens({"additional_special_tokens": tokens})
        tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = bos, eos, "<|endoftext|>"
        tokenizer.chat_template = None  # the framework writes its own
        return make(tokenizer, name)

    return made


def prompted() -> list[tuple[str, str]]:
    """Return the pairs, the question in a frame of the user's own."""
    return [(f"### Input:\n{asked}\n\n### Response:\n", answer) for asked, answer in pairs()]


LLAMA3 = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
GEMMA = ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
GLM4 = ["[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>", "<|observation|>"]
DEEPSEEK = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"]
PHI = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
TEXT, STS = "<|endoftext|>", ["<s>", "</s>"]

MODES = [
    Mode("openrlhf==0.11.2", "default", openrlhf, "plain"),
    Mode("openrlhf==0.11.2", "--multiturn", lambda t: openrlhf(t, multiturn=True), "plain"),
    Mode("verl==0.9.1", "MultiTurnSFTDataset, pad_mode=right", verl_turns),
    Mode("verl==0.6.1", "SFTDataset", verl_pairs),
    Mode("fschat==0.2.36", "train_with_template, mistral-7b-openorca (ChatML)",
         lambda t: fastchat(t, "mistral-7b-openorca")),
    Mode("fschat==0.2.36", "train_with_template, vicuna_v1.1", lambda t: fastchat(t, "vicuna_v1.1")),
    Mode("instructlab-training==0.16.2", "padded", instructlab),
    Mode("instructlab-training==0.16.2", "unmask: true", lambda t: instructlab(t, unmask=True)),
    Mode("instructlab-training==0.16.2", "packed, without padding",
         lambda t: instructlab(t, packed=True), model=True),
    Mode("fms-hf-tuning==3.2.2", "tokenize_and_apply_input_masking",
         lambda t: fms(t, [{"in": asked, "out": answer} for asked, answer in prompted()],
                       "tokenize_and_apply_input_masking", input_column_name="in", output_column_name="out")),
    Mode("fms-hf-tuning==3.2.2", "tokenize_and_apply_chat_template_with_masking",
         lambda t: fms(t, messages(), "tokenize_and_apply_chat_template_with_masking",
                       conversation_column="messages")),
    Mode("torchtune==0.6.1", "qwen2, padded_collate_sft", torchtune),
    Mode("torchtune==0.6.1", "qwen2, train_on_input", lambda t: torchtune(t, train_on_input=True)),
    Mode("torchtune==0.6.1", "qwen2, packed", lambda t: torchtune(t, packed=True), model=True),
    Mode("litgpt==0.5.13", "alpaca, mask_prompt", lambda t: litgpt(t, mask_prompt=True)),
    Mode("litgpt==0.5.13", "alpaca, mask_prompt off", lambda t: litgpt(t, mask_prompt=False)),
    Mode("llm-foundry==0.22.0", "chat, target_responses=last", lambda t: llmfoundry(t, messages())),
    Mode("llm-foundry==0.22.0", "chat, target_responses=all",
         lambda t: llmfoundry(t, messages(), target_responses="all")),
    Mode("llm-foundry==0.22.0", "prompt and response",
         lambda t: llmfoundry(t, [{"prompt": asked, "response": answer} for asked, answer in prompted()])),
    Mode("nemo-automodel==0.7.0", "ChatDataset", nemo, "plain"),
    Mode("nemo-automodel==0.7.0", "ChatDataset, mask_generation_prompt",
         lambda t: nemo(t, mask_generation_prompt=True), "plain"),
    Mode("nemo-automodel==0.7.0", "ChatDataset, mask_history, mask_generation_prompt",
         lambda t: nemo(t, mask_history=True, mask_generation_prompt=True), "plain"),
    Mode("oumi==0.9", "text_completions_only_with_padding, all_assistant_turns",
         lambda t: oumi(t, train_target="all_assistant_turns", end_of_turn_template="<|im_end|>")),
    Mode("oumi==0.9", "text_completions_only_with_padding, final_assistant_turn",
         lambda t: oumi(t, train_target="final_assistant_turn")),
    Mode("xtuner==0.2.0", "_lite, qwen2", xtuner_lite),
    Mode("xtuner==0.2.0", "_lite, qwen2, pack_batch", lambda t: xtuner_lite(t, pack=True)),
    Mode("xtuner==0.2.0", "openai_map_fn, qwen_chat", xtuner),
    Mode("unsloth-zoo==2026.10.9", "train_on_responses_only", unsloth),
    Mode("unsloth-zoo==2026.10.9", "train_on_responses_only, last_response_only",
         lambda t: unsloth(t, last_response_only=True)),
    Mode("llamafactory==0.9.5", "chatml", llamafactory),
    Mode("llamafactory==0.9.5", "template of the tokenizer", lambda t: llamafactory(t, None)),
    Mode("llamafactory==0.9.5", "alpaca", lambda t: llamafactory(t, "alpaca")),
    Mode("llamafactory==0.9.5", "chatml, train_on_prompt", lambda t: llamafactory(t, train_on_prompt=True)),
    Mode("llamafactory==0.9.5", "chatml, mask_history", lambda t: llamafactory(t, mask_history=True)),
    Mode("llamafactory==0.9.5", "chatml, cutoff_len=48", lambda t: llamafactory(t, cutoff_len=48)),
    Mode("llamafactory==0.9.5", "chatml, packing", lambda t: llamafactory(t, packing=True), model=True),
    Mode("llamafactory==0.9.5", "chatml, neat_packing",
         lambda t: llamafactory(t, packing=True, neat_packing=True), model=True),
    Mode("llamafactory==0.9.5", "llama3",
         other_marks(llamafactory, "llama3", LLAMA3, LLAMA3[0], LLAMA3[3])),
    Mode("llamafactory==0.9.5", "llama2", other_marks(llamafactory, "llama2", STS, *STS)),
    Mode("llamafactory==0.9.5", "mistral", other_marks(llamafactory, "mistral", STS, *STS)),
    Mode("llamafactory==0.9.5", "gemma", other_marks(llamafactory, "gemma", GEMMA, *GEMMA[:2])),
    Mode("llamafactory==0.9.5", "glm4", other_marks(llamafactory, "glm4", GLM4, TEXT, TEXT)),
    Mode("llamafactory==0.9.5", "qwen3",
         other_marks(llamafactory, "qwen3", ["<think>", "</think>"], "<|im_start|>", "<|im_end|>")),
    Mode("llamafactory==0.9.5", "deepseek3",
         other_marks(llamafactory, "deepseek3", DEEPSEEK, *DEEPSEEK[:2])),
    Mode("axolotl==0.21.0", "chat_template, tokenizer_default", axolotl),
    Mode("axolotl==0.21.0", "chat_template, tokenizer_default, train_on_inputs",
         lambda t: axolotl(t, train_on_inputs=True)),
    Mode("axolotl==0.21.0", "chat_template, tokenizer_default, train_on_eos=last",
         lambda t: axolotl(t, train_on_eos="last")),
    Mode("axolotl==0.21.0", "chat_template, chatml", lambda t: axolotl(t, "chatml")),
    Mode("axolotl==0.21.0", "chat_template, qwen3", lambda t: axolotl(t, "qwen3")),
    Mode("axolotl==0.21.0", "chat_template, llama3",
         other_marks(axolotl, "llama3", LLAMA3, LLAMA3[0], LLAMA3[3])),
    Mode("axolotl==0.21.0", "chat_template, mistral_v1", other_marks(axolotl, "mistral_v1", STS, *STS)),
    Mode("axolotl==0.21.0", "chat_template, phi_35", other_marks(axolotl, "phi_35", PHI, TEXT, TEXT)),
    Mode("axolotl==0.21.0", "chat_template, sample_packing", lambda t: axolotl(t, packed=True)),
    Mode("ms-swift==4.6.0", "chatml", swift),
    Mode("ms-swift==4.6.0", "chatml, loss_scale=last_round", lambda t: swift(t, loss_scale="last_round")),
    Mode("ms-swift==4.6.0", "chatml, loss_scale=all", lambda t: swift(t, loss_scale="all")),
    Mode("ms-swift==4.6.0", "chatml, padding_free", lambda t: swift(t, padding_free=True)),
    Mode("ms-swift==4.6.0", "chatml, max_length=40, truncation_strategy=left",
         lambda t: swift(t, max_length=40, truncation_strategy="left")),
    Mode("torchtitan==0.3.0", "ChatDataset", torchtitan, "plain", model=True),
]  # fmt: skip


def main(wheel: str, out: str) -> None:
    """Make the batches of a framework's modes, and keep each with the tokenizer that it used."""
    made = {}
    for one in MODES:
        if one.wheel == wheel:
            tokenizer = AutoTokenizer.from_pretrained(models.resolve("smollm2"))
            made[one.name] = one.make(tokenizer), tokenizer
    torch.save(made, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
