"""What people give to a training, and what they see: so many examples, or a line that says what is wrong."""

import json
from typing import Any

from datasets import Dataset

PAIR = {"prompt": "Hi!", "completion": "Hello."}


USER, ANSWER = {"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}
TWO = [USER, ANSWER]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}


def lines(*rows: Any) -> bytes:
    """Write rows as JSONL."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


CHATS: dict[str, tuple[Any, int | str]] = {
    "a list of pairs": ([PAIR], 1),
    "a list of conversations": ([TWO, TWO], 2),
    "a generator": ((chat for chat in [PAIR, PAIR]), 2),
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
    "--data ~": (["--data", "~/no-such-file.jsonl"], 1, "There is no file /"),
    "--data is no file": (["--data", "no.jsonl"], 1, "There is no file no.jsonl"),
    "--model is no model": (["--model", "FOLDER"], 1, "holds no model"),
    "--model is unknown": (["--model", "nope"], 1, "Unknown model 'nope'"),
    "--learning-rate 1000": (["--learning-rate", "1000", "--batch-size", "2"], 1, "diverged: in step 2"),
}
