"""What people give to a training, and what they see: so many examples, or a line that says what is wrong."""

import gzip
import json
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict

from tinylib.collate import PaddedCollator

PAIR = {"prompt": "Hi!", "completion": "Hello."}


USER, ANSWER = {"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}
TWO = [USER, ANSWER]
SYSTEM = {"role": "system", "content": "Be brief."}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
PARTS = [{"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}]
SHAREGPT = {"conversations": [{"from": "human", "value": "Hi!"}, {"from": "gpt", "value": "Hello."}]}
ALPACA = {"instruction": "Say it.", "input": "Hi!", "output": "Hello."}


def lines(*rows: Any) -> bytes:
    """Write rows as JSONL."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


FILES: dict[str, tuple[str, bytes, int | str]] = {
    "JSONL": ("a.jsonl", lines(PAIR, PAIR), 2),
    "a byte order mark": ("a.jsonl", b"\xef\xbb\xbf" + lines(PAIR), 1),
    "CRLF": ("a.jsonl", lines(PAIR, PAIR).replace(b"\n", b"\r\n"), 2),
    "empty lines": ("a.jsonl", b"\n" + lines(PAIR) + b"\n\n", 1),
    "no last line break": ("a.jsonl", lines(PAIR, PAIR).rstrip(), 2),
    "pretty JSON": ("a.json", json.dumps([PAIR, PAIR], indent=2).encode(), 2),
    "gzip": ("a.jsonl.gz", gzip.compress(lines(PAIR, PAIR)), 2),
    "gzip that is none": ("a.jsonl.gz", lines(PAIR), "could not be read"),
    "an upper-case suffix": ("A.JSONL", lines(PAIR), 1),
    "right to left, and Chinese": ("a.jsonl", lines({"prompt": "שלום، مرحبا", "completion": "你好"}), 1),
    "Latin-1": (
        "a.jsonl",
        lines(PAIR, {"prompt": "Grüße", "completion": "x"}).decode().encode("latin-1"),
        "line 2",
    ),
    "a broken line": ("a.jsonl", lines(PAIR) + b'{"prompt": \n' + lines(PAIR), "line 2 is no JSON"),
    "a broken line after an empty one": ("a.jsonl", lines(PAIR) + b"\n{oops}\n", "line 3 is no JSON"),
    "a change of type": ("a.jsonl", lines({"messages": TWO}, {"messages": 3}), "Chat 1: A chat is text"),
    "lines that are no objects": ("a.jsonl", b"[1]\n[2]\n", "Message 0 needs a 'role'"),
    "messages on each line": ("a.jsonl", lines(TWO, TWO), 2),
    "objects without anything": ("a.jsonl", lines(*[{}] * 300), "The messages are no list: {}"),
    "lines that are numbers": ("a.jsonl", b"1\n2\n", "could not be read: A chat is text"),
    "pretty JSON that breaks off": ("a.json", b'[\n{"prompt": "Hi!",\n', "line 3 is no JSON"),
    "JSONL as .json": ("a.json", lines(PAIR, PAIR), 2),
    "pretty JSON as .jsonl": ("a.jsonl", json.dumps({"messages": TWO}, indent=2).encode(), 1),
    "a line that breaks off after it": ("a.jsonl", lines(PAIR) + b'{"prompt": "Hi!",', "line 2 is no JSON"),
    "a first line that breaks off": (
        "a.jsonl",
        b'{"prompt":\n' + lines(PAIR),
        "line 3 .*from line 1, which breaks",
    ),
    "a first line that breaks off in a text": (
        "a.jsonl",
        b'{"prompt": "Hi\n' + lines(PAIR),
        "line 1 is no JSON",
    ),
    "a list as .jsonl": ("a.jsonl", json.dumps([PAIR, PAIR], indent=1).encode(), 2),
    "a list of lists of messages": ("a.json", json.dumps([TWO, TWO]).encode(), 2),
    "one object that holds all": ("a.json", json.dumps({"data": [PAIR]}).encode(), "this one has 'data'"),
    "UTF-16": ("a.jsonl", lines(PAIR).decode().encode("utf-16"), "line 1 is not in UTF-8"),
    "nested too deep": ("a.jsonl", lines(PAIR) + b"{" + b'"a":{' * 5000, "line 2 is no JSON"),
    "a type that changes late": (
        "a.jsonl",
        lines(*[PAIR] * 3000, {"prompt": ["Hi!"], "completion": 1}),
        "Chat 3000: A chat is text, .* not 1",
    ),
    "a column that comes late": ("a.jsonl", lines(PAIR, {**PAIR, "messages": TWO}), 2),
    "answers that are dates": ("a.jsonl", lines({"prompt": "When?", "completion": "2026-11-27"}), 1),
    "a number as large as none": ("a.jsonl", lines({**PAIR, "id": 2**70}), "could not be read: .*too large"),
    "a name with a star": ("a*[1].jsonl", lines(PAIR), 1),
    "a name of Parquet with brackets": ("[a].parquet", pd.DataFrame([PAIR]).to_parquet(), 1),
    "messages of Parquet": ("a.parquet", pd.DataFrame([{"messages": TWO}]).to_parquet(), 1),
    "CSV in gzip, in upper case": ("A.CSV.GZ", gzip.compress(b"prompt,completion\nHi!,Hello.\n"), 1),
    "0 bytes": ("a.jsonl", b"", "could not be read: there is no row in it"),
    "nothing but empty lines": ("a.jsonl", b"\n\n", "there is no row in it"),
    "a CSV of 0 bytes": ("a.csv", b"", "could not be read"),
    "a CSV without rows": ("a.csv", b"prompt,completion\n", "there is no row in it"),
    "newline-delimited JSON": ("a.ndjson", lines(PAIR, PAIR), 2),
    "a file of another kind": ("a.txt", b"Hi!", r"its name must end in \.jsonl, \.ndjson, \.json, \.csv"),
    "a compression that is not read": ("a.jsonl.zst", b"Hi!", r"its name must end in"),
    "a Parquet file that is none": ("a.parquet", b"PAR1", "could not be read"),
    "semicolons in CSV": ("a.csv", b"prompt;completion\nHi, you!;Hello.\n", 1),
    "TSV": ("a.tsv", b"prompt\tcompletion\nHi, you!\tHello.\n", 1),
    "tabs in CSV": ("a.csv", b"prompt\tcompletion\nHi, you!\tHello.\n", 1),
    "a cell more than the header": ("a.csv", b"prompt,completion\nHi!,Hello.,x\n", "Length of header"),
    "a cell more later on": ("a.csv", b"prompt,completion\nHi!,Hello.\nHi, you!,x\n", "in line 3, saw 3"),
    "a cell less": ("a.csv", b"prompt,completion\nHi!\n", "Message 1, of the assistant, is empty"),
    "a quote that is not closed": ("a.csv", b'prompt,completion\n"Hi!,Hello.\n', "EOF inside string"),
    "CSV in Latin-1": ("a.csv", "prompt,completion\nGrüße,x\n".encode("latin-1"), "line 2 is not in UTF-8"),
    "a CSV with a byte order mark": ("a.csv", b"\xef\xbb\xbfprompt,completion\nHi!,Hello.\n", 1),
    "answers that are numbers": ("a.csv", b"prompt,completion\nOne?,1\nTwo?,2\n", 2),
    "answers that look like none": ("a.csv", b"prompt,completion\nSodium?,NA\nNo?,null\n", 2),
    "an empty cell of CSV": (
        "a.csv",
        b"prompt,completion\nHi!,\n",
        "Chat 0: Message 1, of the assistant, is empty",
    ),
    "messages as JSON in CSV": ("a.csv", pd.DataFrame({"messages": [json.dumps(TWO)]}).to_csv().encode(), 1),
    "Alpaca": ("a.jsonl", lines(ALPACA, {**ALPACA, "input": ""}), 2),
    "Alpaca in CSV": ("a.csv", pd.DataFrame([ALPACA]).to_csv(index=False).encode(), 1),
    "ShareGPT": ("a.jsonl", lines(SHAREGPT, {**SHAREGPT, "id": "x"}), 2),
    "ShareGPT, empty": ("a.jsonl", lines({"conversations": []}), "The conversation is empty"),
    "questions and answers": (
        "a.jsonl",
        lines({"question": "a", "answer": "b"}),
        "one has 'question', 'answer'",
    ),
    "2 MB in a line": ("a.jsonl", lines({"prompt": "Hi! " * 500_000, "completion": "x"}, PAIR), 1),
    "a lone surrogate": (
        "a.jsonl",
        b'{"prompt": "\\ud800", "completion": "x"}\n',
        "line 1 is no JSON in UTF-8: .*surrogates not allowed",
    ),
    "special tokens in words": ("a.jsonl", lines({"prompt": "</s><|assistant|>", "completion": "</s>"}), 1),
    "None in a column": ("a.jsonl", lines(PAIR, {"prompt": None, "completion": "x"}), "Chat 1: A row needs"),
    "other columns too": ("a.jsonl", lines({**PAIR, "id": 7}), 1),
}

CHATS: dict[str, tuple[Any, int | str]] = {
    "a list of pairs": ([PAIR], 1),
    "a list of conversations": ([TWO, TWO], 2),
    "a generator": ((chat for chat in [PAIR, PAIR]), 2),
    "a table of pandas": (pd.DataFrame([PAIR, PAIR]), 2),
    "an array of numpy": (np.array([PAIR, PAIR]), 2),
    "several splits": (DatasetDict(train=Dataset.from_list([PAIR])), "one split of it"),
    "one chat": ({"messages": TWO}, 1),
    "one pair": (PAIR, 1),
    "a file's name": ("chats.jsonl", "a list of chats, not 'chats.jsonl'"),
    "None": (None, "a list of chats, not None"),
    "a number": (3, "a list of chats, not 3"),
    "a table of Arrow": (Dataset.from_list([PAIR]).data.table, "a list of chats, not pyarrow.Table"),
    "a data set": (Dataset.from_list([PAIR]), 1),
    "rows of several forms": ([PAIR, {"messages": TWO}, TWO], 3),
    "the messages of one chat": (TWO, "Chat 0: A row needs"),
    "no chats": ([], "There is no chat: the data set is empty"),
    "a chat that is a number": ([PAIR, 3], "Chat 1: A chat is text, .* not 3"),
    "a chat that is None": ([None], "Chat 0: A chat is text"),
    "words alone": (["Hi!"], "Chat 0: The chat has no message of the assistant's"),
    "an empty chat": ([[]], "Chat 0: The conversation is empty"),
    "an empty answer": ([{"prompt": "Hi!", "completion": " "}], "Message 1, of the assistant, is empty"),
    "an answer that is a number": ([{"prompt": "Hi!", "completion": 7}], "Chat 0: A chat is text"),
    "an answer that is NaN": ([{"prompt": "Hi!", "completion": float("nan")}], "Chat 0: A chat is text"),
    "a message that is text": ([["Hi!", "Hello."]], "Message 0 needs a 'role' and a 'content'"),
    "a content that is a number": ([[USER, {**ANSWER, "content": 7}]], "Message 1 needs a 'role'"),
    "a role that is a number": ([[{**USER, "role": 1}, ANSWER]], "Message 0 needs a 'role'"),
    "an empty role": ([[{**USER, "role": ""}, ANSWER]], "Message 0 needs a 'role'"),
    "no role": ([[{"content": "Hi!"}, ANSWER]], "Message 0 needs a 'role'"),
    "parts of text": (
        [[{**USER, "content": PARTS}, {**ANSWER, "content": PARTS}]],
        1,
    ),
    "an image among them": (
        [[{**USER, "content": [*PARTS, {"type": "image_url", "image_url": {"url": "x"}}]}, ANSWER]],
        "a 'content' that is text",
    ),
    "a part of text without any": (
        [[{**USER, "content": [{"type": "text"}]}, ANSWER]],
        "a 'content' that is",
    ),
    "no parts": ([[USER, {**ANSWER, "content": []}]], "Message 1, of the assistant, is empty"),
    "a tool is called": (
        [[USER, CALL]],
        "Chat 0: The chat template does not write the tool_calls of message 1",
    ),
    "tools": (
        [{"messages": TWO, "tools": [{"name": "f"}]}],
        "Chat 0: .* does not write the tools of the row",
    ),
    "tools that are no JSON": ([{**PAIR, "tools": "f, g"}], "Chat 0: This is text, but no JSON: 'f, g'"),
    "no tools": ([{**PAIR, "tools": tools} for tools in ("", "[]", "null", [], None, np.array([]))], 6),
    "arguments that are no JSON": (
        [[USER, {**CALL, "tool_calls": [{"function": {"name": "f", "arguments": "x"}}]}]],
        "Chat 0: Message 1: This is text, but no JSON: 'x'",
    ),
    "calls that are no list": (
        [[USER, {**CALL, "tool_calls": 3}]],
        "does not write the tool_calls|cannot write",
    ),
    "a reasoning": ([[USER, {**ANSWER, "reasoning_content": "A greeting."}]], 1),
    "an answer that is nothing but a reasoning": (
        [[USER, {"role": "assistant", "content": "", "reasoning_content": "A greeting."}]],
        "Message 1, of the assistant, is empty",
    ),
    "ShareGPT": ([SHAREGPT], 1),
    "a system's words beside no messages": (
        [{"messages": [], "system": "Be brief."}],
        "The conversation is empty",
    ),
    "ShareGPT with a weight": (
        [{"conversations": [{"from": "human", "value": "Hi!"}, {"from": "gpt", "value": "x", "weight": 0}]}],
        "no message of the assistant's to learn",
    ),
    "a bot, a model": (
        [[{**USER, "role": "User"}, {**ANSWER, "role": name}] for name in ("bot", "model")],
        2,
    ),
    "an Alpaca row": ([ALPACA], 1),
    "an Alpaca row with NaN": ([{**ALPACA, "input": float("nan")}], "Message 0 needs a 'role'"),
    "half of a surrogate pair": (
        [[USER, {**ANSWER, "content": "\ud800"}]],
        "Chat 0: .*surrogates not allowed",
    ),
    "one in a column that is not used": ([{**PAIR, "id": "\ud800"}], 1),
    "a weight that is text": ([[USER, {**ANSWER, "weight": "0"}]], "Message 1 has the weight '0'"),
    "a weight between": ([[USER, {**ANSWER, "weight": 0.5}]], "Message 1 has the weight 0.5"),
    "weight 0 alone": ([[USER, {**ANSWER, "weight": 0}]], "no message of the assistant's to learn"),
    "a greeting alone": ([[ANSWER]], "no message of the assistant's to learn"),
    "a greeting after the system's": (
        [[SYSTEM, ANSWER]],
        "no message of the assistant's to learn: none that",
    ),
    "two greetings": ([[ANSWER, ANSWER]], "no message of the assistant's to learn"),
    "a greeting after the developer's": (
        [[{**SYSTEM, "role": "developer"}, ANSWER]],
        "no message of the assistant's to learn",
    ),
    "train that is text": ([[USER, {**ANSWER, "train": "false"}]], "Message 1 has the train 'false'"),
    "a prompt that is messages, in CSV's text": ([{"prompt": json.dumps([USER]), "completion": "x"}], 1),
    "such text that breaks off": (
        [{"prompt": json.dumps([USER])[:-1], "completion": "x"}],
        "These are messages, but no JSON",
    ),
    "such text as Python writes it": (
        [{"prompt": "Hi!", "completion": str([ANSWER])}],
        "These are messages, but no JSON",
    ),
    "a call in ShareGPT's words": (
        [{"conversations": [*SHAREGPT["conversations"][:1], {"from": "function_call", "value": "f(x)"}]}],
        "Message 1: This is text, but no JSON: 'f",
    ),
    "a call without a name": (
        [{"conversations": [*SHAREGPT["conversations"][:1], {"from": "function_call", "value": '{"a": 1}'}]}],
        "Message 1: a 'function_call' is JSON with 'name' and",
    ),
    "calls that are numbers": (
        [[USER, {"role": "function_call", "content": "[1]"}]],
        "Message 1: a 'function_call' is",
    ),
    "a greeting first": ([[ANSWER, *TWO]], 1),
    "messages that are text": ([{"messages": "Hi!"}], "Chat 0: This is text, but no JSON: 'Hi!'"),
    "messages that are a number": ([{"messages": 3}], "Chat 0: A chat is text"),
    "messages that are one message": ([{"messages": USER}], "The messages are no list"),
    "messages as JSON, but no list": ([{"messages": '"Hi!"'}], "The messages are no list"),
    "400 turns": ([TWO * 400], 1),
}

NAN, INF = float("nan"), float("inf")
SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"{name} {value}": ({name: value}, f"{name} must be a .*number above 0, not {value}")
        for name, values in {
            "num_train_epochs": (0, -1, NAN, INF),
            "learning_rate": (0, -1e-4, NAN, INF),
            "per_device_train_batch_size": (0, -8, 2.5),
            "per_device_eval_batch_size": (0, -1),
            "gradient_accumulation_steps": (0, 1.5),
            "eval_steps": (0,),
            "max_length": (0, -5, 0.5),
            "save_steps": (0,),
            "logging_steps": (0,),
        }.items()
        for value in values
    },
    "max_length 1": ({"max_length": 1}, "There is no chat: the data set is empty"),
    **{
        f"{name} that is text": ({name: "2"}, f"{name} must be a number, not '2'")
        for name in ("learning_rate", "num_train_epochs", "max_length", "weight_decay", "seed", "max_steps")
    },
    "float16 on a CPU": ({"fp16": True}, "On a CPU there is no training in float16"),
    "resume and overwrite": ({"folder": "x", "resume": True, "overwrite": True}, "ask for one of them"),
    "resume without a folder": ({"resume": True}, "Give a folder"),
    "a folder without a name": ({"folder": ""}, "Give a folder"),
    "a folder of spaces": ({"folder": " "}, "Give a folder"),
    "a folder that is a number": ({"folder": 3}, "The folder is a path, not 3"),
    "a collator that is none": ({"collator": 3}, "The collator is called .*; 3 cannot be"),
    "a collator that is not made": ({"collator": PaddedCollator}, "The collator is called .* cannot be"),
    "a last batch that is the first": (
        {"dataloader_drop_last": True, "per_device_train_batch_size": 99},
        "leaves out all .* chats: 99 make a batch",
    ),
    "max_steps 0": ({"max_steps": 0}, "max_steps must be a whole number above 0, or -1 for none, not 0"),
    "max_steps 2.5": ({"max_steps": 2.5}, "max_steps must be a whole number"),
    "max_length beyond the context": ({"max_length": 2049}, "the model's context ends at 2048"),
    "a misspelt setting": ({"learning_rat": 1e-4}, "takes no setting 'learning_rat'. Is it 'learning_rate'?"),
    "a setting nothing is like": ({"zzz": 1}, r"takes no setting 'zzz'\.$"),
    **{f"{name} nan": ({name: NAN}, f"{name} must be a number") for name in ("weight_decay", "warmup_steps")},
    "what the folder says": ({"output_dir": "x"}, "takes no setting 'output_dir'"),
}

COMMANDS: dict[str, tuple[list[str], int | str, str]] = {
    "--epochs 0": (["--epochs", "0"], 1, "num_train_epochs must be"),
    "--epochs nan": (["--epochs", "nan"], 1, "num_train_epochs must be"),
    "--epochs many": (["--epochs", "many"], 2, "invalid float value: 'many'"),
    "--batch-size 0": (["--batch-size", "0"], 1, "per_device_train_batch_size must be"),
    "--batch-size 1.5": (["--batch-size", "1.5"], 2, "invalid int value"),
    "--learning-rate inf": (["--learning-rate", "inf"], 1, "learning_rate must be"),
    "--lora 0": (["--lora", "0"], 1, "rank of adapters must be a whole number of at least 1, not 0"),
    "--last-layers 0": (["--last-layers", "0"], 1, "the last 1 to 4 can be trained, not 0"),
    "--last-layers 5": (["--last-layers", "5"], 1, "the last 1 to 4 can be trained, not 5"),
    "--lora and --last-layers": (["--lora", "4", "--last-layers", "1"], 2, "not allowed with"),
    "--resume and --overwrite": (["--resume", "--overwrite"], 2, "not allowed with"),
    "--max-length 0": (["--max-length", "0"], 1, "max_length must be"),
    "--save-steps 0": (["--save-steps", "0"], 1, "save_steps must be"),
    "--accumulate -1": (["--accumulate", "-1"], 1, "gradient_accumulation_steps must be"),
    "--output ''": (["--output", ""], 1, "Give a folder"),
    "--output is a file": (["--output", "FILE"], 1, "a.jsonl is a file: give a folder"),
    "--output below a file": (["--output", "FILE/x"], 1, "NotADirectoryError: .*a.jsonl"),
    "--output is the model's": (["--output", "MODEL"], 1, "The model comes from"),
    "--output is the data's folder": (["--output", "FOLDER"], 1, r"holds something else \(a.jsonl\)"),
    "--eval-data is no file": (["--eval-data", "no.jsonl"], 1, "No such file or directory: 'no.jsonl'"),
    "--data ''": (["--data", ""], 1, "could not be read: give the path of a file"),
    "--data is a URL": (["--data", "http://127.0.0.1:9/chats"], 1, "could not be read"),
    "--data ~": (["--data", "~/no-such-file.jsonl"], 1, "No such file or directory: '/"),
    "--data is no file": (["--data", "no.jsonl"], 1, "No such file or directory: 'no.jsonl'"),
    "--model is no model": (["--model", "FOLDER"], 1, "holds no model"),
    "--model is unknown": (["--model", "nope"], 1, "Unknown model 'nope'"),
    "--learning-rate 1000": (["--learning-rate", "1000", "--batch-size", "2"], 1, "diverged: in step 2"),
}
