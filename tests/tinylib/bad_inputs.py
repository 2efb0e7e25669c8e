"""What people give to a training, and what they see: so many examples, or a line that says what is wrong."""

import gzip
import json
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict

PAIR = {"prompt": "Hi!", "completion": "Hello."}


USER, ANSWER = {"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}
TWO = [USER, ANSWER]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}


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
    "lines that are no objects": ("a.jsonl", b"[1]\n[2]\n", "could not be read|has the columns"),
    "0 bytes": ("a.jsonl", b"", "could not be read: the file is empty"),
    "a CSV of 0 bytes": ("a.csv", b"", "could not be read"),
    "a Parquet file that is none": ("a.parquet", b"PAR1", "could not be read"),
    "semicolons in CSV": ("a.csv", b"prompt;completion\nHi!;Hello.\n", "has the columns prompt;completion"),
    "a CSV with a byte order mark": ("a.csv", b"\xef\xbb\xbfprompt,completion\nHi!,Hello.\n", 1),
    "answers that are numbers": ("a.csv", b"prompt,completion\nOne?,1\nTwo?,2\n", 2),
    "answers that look like none": ("a.csv", b"prompt,completion\nSodium?,NA\nNo?,null\n", 2),
    "an empty cell of CSV": (
        "a.csv",
        b"prompt,completion\nHi!,\n",
        "Chat 0: Message 1, of the assistant, is empty",
    ),
    "messages as JSON in CSV": ("a.csv", pd.DataFrame({"messages": [json.dumps(TWO)]}).to_csv().encode(), 1),
    "Alpaca": ("a.jsonl", lines({"instruction": "a", "output": "b"}), "has the columns instruction, output"),
    "ShareGPT": ("a.jsonl", lines({"conversations": []}), "has the columns conversations"),
    "2 MB in a line": ("a.jsonl", lines({"prompt": "Hi! " * 500_000, "completion": "x"}, PAIR), 1),
    "a lone surrogate": (
        "a.jsonl",
        b'{"prompt": "\\ud800", "completion": "x"}\n',
        "could not be read|Chat 0",
    ),
    "special tokens in words": ("a.jsonl", lines({"prompt": "</s><|assistant|>", "completion": "</s>"}), 1),
    "None in a column": ("a.jsonl", lines(PAIR, {"prompt": None, "completion": "x"}), "Chat 1: A row needs"),
    "other columns too": ("a.jsonl", lines({**PAIR, "id": 7}), 1),
}

CHATS: dict[str, tuple[Any, int | str]] = {
    "a list of pairs": ([PAIR], 1),
    "a list of conversations": ([TWO, TWO], 2),
    "a generator": ((chat for chat in [PAIR, PAIR]), 2),
    "a table of pandas": (pd.DataFrame([PAIR, PAIR]), "a list of chats, not"),
    "an array of numpy": (np.array([PAIR, PAIR]), 2),
    "several splits": (DatasetDict(train=Dataset.from_list([PAIR])), "one split of it"),
    "one chat": ({"messages": TWO}, "a list of chats, not"),
    "one pair": (PAIR, "a list of chats, not"),
    "a file's name": ("chats.jsonl", "a list of chats, not 'chats.jsonl'"),
    "None": (None, "a list of chats, not None"),
    "a number": (3, "a list of chats, not 3"),
    "a data set": (Dataset.from_list([PAIR]), 1),
    "rows of several forms": ([PAIR, {"messages": TWO}, TWO], 3),
    "the messages of one chat": (TWO, "Chat 0: A row needs"),
    "no chats": ([], "no chat to train on"),
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
        [[{**USER, "content": [{"type": "text", "text": "Hi!"}]}, ANSWER]],
        "a 'content' that is text",
    ),
    "a tool is called": ([[USER, CALL]], "Message 1 calls a tool"),
    "weight 0 alone": ([[USER, {**ANSWER, "weight": 0}]], "no message of the assistant's to learn"),
    "a greeting alone": ([[ANSWER]], "no message of the assistant's to learn"),
    "a greeting first": ([[ANSWER, *TWO]], 1),
    "messages that are text": ([{"messages": "Hi!"}], "Chat 0: Messages are text, but no JSON"),
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
            "gradient_accumulation_steps": (0, 1.5),
            "max_length": (0, -5, 0.5),
            "save_steps": (0,),
            "logging_steps": (0,),
        }.items()
        for value in values
    },
    "max_length 1": ({"max_length": 1}, "no chat to train on"),
    "resume without a folder": ({"resume": True}, "Give a folder"),
    "a folder without a name": ({"folder": ""}, "Give a folder"),
    "a folder of spaces": ({"folder": " "}, "Give a folder"),
}

COMMANDS: dict[str, tuple[list[str], int | str, str]] = {
    "--epochs 0": (["--epochs", "0"], 1, "num_train_epochs must be"),
    "--epochs nan": (["--epochs", "nan"], 1, "num_train_epochs must be"),
    "--epochs many": (["--epochs", "many"], 2, "invalid float value: 'many'"),
    "--batch-size 0": (["--batch-size", "0"], 1, "per_device_train_batch_size must be"),
    "--batch-size 1.5": (["--batch-size", "1.5"], 2, "invalid int value"),
    "--learning-rate inf": (["--learning-rate", "inf"], 1, "learning_rate must be"),
    "--lora 0": (["--lora", "0"], 1, "positive integer"),
    "--last-layers 0": (["--last-layers", "0"], 1, "count must be 1 to 4"),
    "--last-layers 5": (["--last-layers", "5"], 1, "count must be 1 to 4"),
    "--lora and --last-layers": (["--lora", "4", "--last-layers", "1"], 2, "not allowed with"),
    "--resume and --overwrite": (["--resume", "--overwrite"], 2, "not allowed with"),
    "--max-length 0": (["--max-length", "0"], 1, "max_length must be"),
    "--save-steps 0": (["--save-steps", "0"], 1, "save_steps must be"),
    "--accumulate -1": (["--accumulate", "-1"], 1, "gradient_accumulation_steps must be"),
    "--output ''": (["--output", ""], 1, "Give a folder"),
    "--output is a file": (["--output", "FILE"], 1, "FileExistsError: .*a.jsonl"),
    "--output below a file": (["--output", "FILE/x"], 1, "NotADirectoryError: .*a.jsonl"),
    "--output is the model's": (["--output", "MODEL"], 1, "The model comes from"),
    "--output is the data's folder": (["--output", "FOLDER"], 1, r"holds something else \(a.jsonl\)"),
    "--data ''": (["--data", ""], 1, "could not be read"),
    "--data is a URL": (["--data", "http://127.0.0.1:9/chats"], 1, "could not be read"),
    "--data ~": (["--data", "~/no-such-file.jsonl"], 1, "There is no file /"),
    "--data is no file": (["--data", "no.jsonl"], 1, "There is no file no.jsonl"),
    "--model is no model": (["--model", "FOLDER"], 1, "holds no model"),
    "--model is unknown": (["--model", "nope"], 1, "Unknown model 'nope'"),
    "--learning-rate 1000": (["--learning-rate", "1000", "--batch-size", "2"], 1, "diverged: in step 2"),
}
