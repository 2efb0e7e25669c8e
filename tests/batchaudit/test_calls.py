"""What audit() is called with: each wrong call is refused by name; the command; a report as data."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from cases import llama
from datasets import Dataset
from safetensors.torch import save_file
from templates import with_template
from torch.utils.data import DataLoader, TensorDataset
from transformers import BatchEncoding, PreTrainedTokenizerBase, Trainer, TrainingArguments
from worlds import World, without

from batchaudit import AuditCallback, audit, loss_offset
from batchaudit.__main__ import main
from batchaudit.chats import audit_chats
from batchaudit.checkpoint import audit_checkpoint
from tinylib import models
from tinylib.labels import training_example

IDS = torch.tensor([[5, 6, 7, 8]])


class Classifier(torch.nn.Module):
    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=torch.zeros(len(input_ids), 2))


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        ((IDS, IDS), {}, r"tuple of 2.*\{'input_ids': x, 'labels': y\}"),
        (DataLoader(TensorDataset(IDS, IDS)), {}, "list of 2"),
        ({"data": {"input_ids": IDS}}, {}, "no input_ids, only data. Give what is in 'data'"),
        ([{"input_ids": [5, 6], "labels": [5, 6]}], {}, "one example, no batch"),
        (Dataset.from_list([{"input_ids": [5, 6]}]), {}, "one example, no batch"),
        ({"inputs_embeds": torch.zeros(1, 4, 8), "labels": IDS}, {}, "Audit the ids that they were made of"),
        ({"input_ids": IDS, "targets": IDS}, {}, "'targets'"),
        ({"input_ids": IDS, "lm_labels": IDS}, {}, "'lm_labels'"),
        ({"input_ids": IDS, "labels": torch.tensor([1])}, {}, "classifier"),
        ({"input_ids": IDS, "loss_mask": [[1]]}, {}, "loss_mask has shape"),
        ({"input_ids": IDS}, {"model": "gpt2"}, r"AutoModelForCausalLM.from_pretrained\('gpt2'\)"),
        ({"input_ids": IDS}, {"tokenizer": "gpt2"}, r"AutoTokenizer.from_pretrained\('gpt2'\)"),
        ({"input_ids": IDS}, {"model": Classifier()}, r"logits of shape \(1, 2\)"),
        ({"input_ids": IDS}, {"tokenizer": Classifier()}, "swapped"),
    ],
)
def test_a_wrong_call_is_refused_by_name(batch: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audit(batch, **options)


def test_swapped_arguments_and_other_models(tinyllama: tuple) -> None:
    model, tokenizer = tinyllama
    with pytest.raises(ValueError, match="swapped"):
        audit({"input_ids": IDS}, tokenizer=model, model=tokenizer)
    other = torch.nn.Linear(1, 1)
    other.config = SimpleNamespace(is_encoder_decoder=True)
    with pytest.raises(ValueError, match="encoder with a decoder"):
        audit({"input_ids": IDS}, model=other)


@pytest.mark.parametrize("name", ["model.embed_tokens", "transformer.wte", "backbone.embeddings"])
def test_embeddings_are_found_by_any_familys_name(tinyllama: tuple, tmp_path: Path, name: str) -> None:
    model, tokenizer = tinyllama
    tokenizer.save_pretrained(tmp_path)
    weight = model.get_input_embeddings().weight.detach().clone()
    weight[tokenizer.eos_token_id] = 0
    save_file({f"{name}.weight": weight}, tmp_path / "model.safetensors")
    assert audit_checkpoint(tmp_path).codes == ["embeddings.untrained"]


def test_texts_beside_the_ids_are_left_alone() -> None:
    assert audit({"input_ids": IDS, "source": np.array(["a"]), "names": ["b"]}).ok


@pytest.mark.parametrize("other", ["rejected_", "reject_"])
def test_preferences_are_two_batches(tinyllama: tuple, other: str) -> None:
    world = World("tinyllama", *tinyllama)
    batch = world.padded()
    pair = {f"chosen_{k}": v for k, v in batch.items()} | {f"{other}{k}": v for k, v in batch.items()}
    report = audit(pair, tokenizer=world.tokenizer)
    assert report.ok
    assert len(report.batches) == 2


def test_a_loss_that_is_not_finite_tells_nothing() -> None:
    logits, labels = torch.randn(1, 4, 9), torch.tensor([[1, 2, 3, 4]])
    for loss, scores in ((float("nan"), logits), (1.0, logits * float("nan"))):
        with pytest.raises(ValueError, match="not finite"):
            loss_offset(loss, scores, labels)


def test_an_audit_that_fails_ends_no_training(
    tinyllama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model, tokenizer = models.load(tinyllama_folder)

    def collate(rows: list[dict]) -> dict[str, Any]:
        ids = torch.tensor([row["input_ids"] for row in rows])
        return {"input_ids": ids, "labels": ids, "position_ids": torch.arange(9)[None]}

    model.forward = lambda **_: {"loss": next(model.parameters()).sum() * 0}
    arguments = TrainingArguments(
        str(tmp_path),
        use_cpu=True,
        report_to="none",
        max_steps=1,
        save_strategy="no",
        remove_unused_columns=False,
    )
    rows = [{"input_ids": [5, 6, 7]}] * 2
    trainer = Trainer(model, arguments, train_dataset=rows, data_collator=collate, processing_class=tokenizer)
    trainer.add_callback(AuditCallback(trainer))
    trainer.train()
    assert trainer.state.global_step == 1
    assert "The audit could not be made: ValueError: position_ids" in capsys.readouterr().out


def test_a_report_as_data(tinyllama: tuple) -> None:
    world = World("tinyllama", *tinyllama)
    wrong = world.padded() | {"labels": world.padded()["input_ids"]}
    report = audit([world.padded(), wrong, wrong], tokenizer=world.tokenizer)
    told = json.loads(json.dumps(report.to_dict()))
    assert [finding["code"] for finding in told["findings"]] == ["labels.padding", "labels.prompt"]
    assert told["findings"][1]["batch"] == 1
    assert told["findings"][1]["later_batches"] == [2]
    assert not told["ok"]
    assert len(told["batches"]) == 3
    assert "all 3 batches by their data" in told["checked"]


def test_the_command(
    tinyllama_folder: Path, tinyllama: tuple, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    world = World("tinyllama", *tinyllama)
    folder = str(tinyllama_folder)
    assert main(["checkpoint", folder]) == 1
    assert "[generation.other_pad]" in capsys.readouterr().out
    assert main(["checkpoint", folder, "--allow", "generation.other_pad"]) == 0
    capsys.readouterr()
    torch.save([world.padded(), without(world.padded("left"), "attention_mask")], tmp_path / "b.pt")
    assert main(["batches", str(tmp_path / "b.pt"), "--model", folder, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [(finding["code"], finding["batch"]) for finding in report["findings"]] == [("mask.missing", 1)]
    torch.save([BatchEncoding(world.padded())], tmp_path / "of_a_collator.pt")
    assert main(["batches", str(tmp_path / "of_a_collator.pt"), "--model", folder]) == 0
    rows = [{k: v[i].tolist() for k, v in world.padded().items()} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["batches", str(tmp_path / "rows.jsonl"), "--model", folder]) == 0
    chats = [{"messages": chat} for chat in world.chats()]
    chats += [{"messages": [{"role": "user", "content": "Hi </s>"}, {"role": "assistant", "content": ""}]},
              {"messages": [{"role": "critic", "content": "Hi"}]}]  # fmt: skip
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, chats)))
    capsys.readouterr()
    assert (
        main(["chats", str(tmp_path / "chats.jsonl"), "--model", folder, "--max-length", "20", "--json"]) == 1
    )
    found = {f["code"]: f["rows"] for f in json.loads(capsys.readouterr().out)["findings"]}
    assert set(found) == {"chat.unknown_role", "chat.empty_answer", "chat.forged_turn", "labels.end_cut_off"}
    assert (found["chat.unknown_role"], found["chat.empty_answer"], found["chat.forged_turn"]) == (
        [5],
        [4],
        [4],
    )
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "deep.jsonl").write_text("[" * 5000 + "]" * 5000)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "b.pt").read_bytes()[:100])
    for wrong in (
        ["checkpoint", str(tmp_path)],
        ["loader", "nothing:here"],
        ["batches", str(tmp_path / "x.pt")],
        ["batches", str(tmp_path / "cut.pt")],
        ["chats", str(tmp_path / "chats.jsonl"), "--model", folder, "--max-length", "0"],
        ["chats", str(tmp_path / "empty.jsonl"), "--model", folder],
        ["chats", str(tmp_path / "deep.jsonl"), "--model", folder],
        ["loader", "builtins:exit"],
        ["loader", "json:loads"],
    ):
        assert main(wrong) == 2


@pytest.mark.parametrize("kind", ["a.jsonl", "a.jsonl.gz", "a.json", "A.JSON.GZ", "a.csv", "a.parquet"])
def test_chats_in_every_kind_of_file(tinyllama: tuple, tmp_path: Path, kind: str) -> None:
    """A byte order mark, ShareGPT's names, parts of text; what is wrong with the second row is found."""
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo."}]
    rows = [
        {"conversations": [{"from": "human", "value": "Hi!"}, {"from": "gpt", "value": parts}]},
        {"conversations": [{"from": "human", "value": "Hi!"}, {"from": "gpt", "value": " "}]},
    ]
    path, lowered = tmp_path / kind, kind.lower()
    if ".json" in lowered:
        text = json.dumps(rows) if ".json." in lowered + "." else "\n".join(map(json.dumps, rows))
        data = b"\xef\xbb\xbf" + text.encode()
        path.write_bytes(gzip.compress(data) if lowered.endswith(".gz") else data)
    else:
        table = pd.DataFrame({"conversations": [json.dumps(row["conversations"]) for row in rows]})
        table.to_csv(path, index=False) if kind == "a.csv" else table.to_parquet(path)
    report = audit_chats(path, tinyllama[1])
    assert [(finding.code, finding.rows) for finding in report.findings] == [("chat.empty_answer", [1])]


@pytest.mark.parametrize(
    "form", [json.dumps, lambda row: json.dumps(row, indent=1), lambda row: json.dumps([row])]
)
def test_a_json_file_of_any_form_is_read_as_a_training_reads_it(
    tinyllama: tuple, tmp_path: Path, form: Any
) -> None:
    (tmp_path / "chats.json").write_text(form({"prompt": "Hi!", "completion": ""}))
    assert audit_chats(tmp_path / "chats.json", tinyllama[1]).codes == ["chat.empty_answer"]
    (tmp_path / "chats.json").write_text(form({"prompt": "Hi!", "completion": "\ud800"}))
    with pytest.raises(ValueError, match=r"chats\.json could not be read: line 1 is no JSON in UTF-8"):
        audit_chats(tmp_path / "chats.json", tinyllama[1])


def test_a_call_is_no_empty_answer_and_no_content_no_chat(tinyllama: tuple, tmp_path: Path) -> None:
    call = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
    }
    user = {"role": "user", "content": "Hi!"}
    (tmp_path / "calls.jsonl").write_text(json.dumps({"messages": [user, call]}))
    assert audit_chats(tmp_path / "calls.jsonl", tinyllama[1]).codes == ["chat.left_out"]
    (tmp_path / "none.jsonl").write_text(json.dumps({"messages": [user, {**call, "tool_calls": None}]}))
    with pytest.raises(ValueError, match="Row 0 is no chat: Message 1 needs"):
        audit_chats(tmp_path / "none.jsonl", tinyllama[1])


USER, ANSWER = {"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}
CRITIC, SYSTEM = {"role": "critic", "content": "No."}, {"role": "system", "content": "Be brief."}
TOOL = {"type": "function", "function": {"name": "f", "description": "Does.", "parameters": {}}}
CALL = {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{}"}]}
RESULT = {"role": "tool", "name": "f", "content": "Done."}
PLAIN, TOOLS = [USER, ANSWER], {"messages": [USER, ANSWER], "tools": json.dumps([TOOL])}
CALLS, BOTH = [USER, CALL, RESULT, ANSWER], [USER, {**CALL, "content": "I see."}, RESULT, ANSWER]

PUBLIC = {
    "all is written": ("qwen2_5", [PLAIN, TOOLS, CALLS, BOTH], {}),
    "no tools": ("phi3", [PLAIN, TOOLS], {"chat.left_out": ([1], "It does not write the row's tools")}),
    "no calls": (
        "phi3",
        [PLAIN, TOOLS, CALLS, BOTH],
        {"chat.unknown_role": ([2, 3], "'tool'"), "chat.left_out": ([1, 2, 3], "calls and the row's tools")},
    ),
    "tools, but no calls": (
        "lfm2",
        [TOOLS, {**TOOLS, "messages": CALLS}],
        {"chat.left_out": ([1], "It does not write calls")},
    ),
    "no words beside a call": (
        "llama3_1",
        [PLAIN, CALLS, BOTH],
        {"chat.left_out": ([2], "some words of 'assistant'")},
    ),
    "nothing but parts of text": (
        "smolvlm",
        [PLAIN, PLAIN],
        {"chat.left_out": ([0, 1], "some words of 'assistant' and some words of 'user'")},
    ),
    "turns": (
        "gemma",
        [PLAIN, [USER, USER, ANSWER], [ANSWER, USER, ANSWER]],
        {"chat.refused": ([1, 2], "It says: Conversation roles must alternate")},
    ),
    "a system": ("gemma", [[SYSTEM, *PLAIN], PLAIN], {"chat.refused": ([0], "System role not supported")}),
    "a role": ("gemma", [PLAIN, [CRITIC, *PLAIN]], {"chat.unknown_role": ([1], "'critic'")}),
}


@pytest.mark.parametrize(("template", "rows", "found"), PUBLIC.values(), ids=PUBLIC)
def test_what_a_public_template_refuses_or_leaves_out(
    tinyllama: tuple, tmp_path: Path, template: str, rows: list[dict], found: dict[str, tuple[list[int], str]]
) -> None:
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report = audit_chats(tmp_path / "chats.jsonl", with_template(tinyllama[1], template))
    assert {finding.code: finding.rows for finding in report.findings} == {
        code: rows for code, (rows, _) in found.items()
    }
    for finding in report.findings:
        assert found[finding.code][1] in finding.detail


def test_a_template_may_write_words_in_another_way(tmp_path: Path) -> None:
    template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split() | join(' ') }}</s>{% endfor %}"
    chat = [SYSTEM, {"role": "user", "content": "Hi!\nYou?"}, {**ANSWER, "content": "Yes.\n\nI."}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": chat}))
    assert audit_chats(tmp_path / "chats.jsonl", llama(template)).codes == []


def test_a_template_that_does_not_parse_back_is_not_used() -> None:
    tokenizer: PreTrainedTokenizerBase = llama(
        "{% for m in messages %}{{ '<|user|>\n' + m.content + '\n<|user|>\n' }}{% endfor %}"
    )
    report = audit({"input_ids": [[5, 6, 7]], "labels": [[5, 6, 7]]}, tokenizer=tokenizer)
    assert "template" in report.not_checked["turns, answers and their ends"]
    assert "labels" in report.checked


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "Be kind."}, {"role": "assistant", "content": "Hello!"}],
        [{"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Hi."}],
        [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello!", "weight": 0}],
        [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello!", "train": False}],
    ],
    ids=["nobody asked", "a greeting", "weight 0", "train false"],
)
def test_a_chat_of_which_nothing_is_learned_is_told(tinyllama: tuple, tmp_path: Path, messages: list) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": messages}) + "\n", encoding="utf-8")
    assert audit_chats(path, tinyllama[1]).codes == ["chat.empty_answer"]
    with pytest.raises(ValueError, match="no message of the assistant's to learn"):
        training_example(tinyllama[1], {"messages": messages})
