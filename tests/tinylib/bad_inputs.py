"""What people give to a training, and what they see: so many examples, or a line that says what is wrong."""

import json
from typing import Any

PAIR = {"prompt": "Hi!", "completion": "Hello."}


def lines(*rows: Any) -> bytes:
    """Write rows as JSONL."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


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
