"""The command: ``python -m batchaudit checkpoint | chats | batches | loader``; see ``--help``."""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BatchEncoding

from batchaudit.auditor import audit
from batchaudit.chats import audit_chats, rows_of
from batchaudit.checkpoint import audit_checkpoint, load_tokenizer
from batchaudit.report import Report

CODES = """Exit code: 0 if there is no fault that is not allowed, 1 if there is one, 2 if nothing
could be audited."""
EXAMPLES = """Examples:
  python -m batchaudit checkpoint my-model
  python -m batchaudit chats chats.jsonl --model my-model --max-length 1024
  python -m batchaudit batches batches.pt --model my-model --allow labels.prompt
  python -m batchaudit loader my_training:make_loader --model my-model --json

"""


def parser() -> argparse.ArgumentParser:
    """Describe the command."""
    made = argparse.ArgumentParser(
        prog="python -m batchaudit",
        description="Find silent bugs in what a chat model is trained on.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLES + CODES,
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="write the report as JSON")
    common.add_argument(
        "--allow", metavar="CODE", action="append", default=[],
        help="a fault that is intended, such as labels.prompt; may be given several times",
    )  # fmt: skip
    options: dict[str, Any] = {"parents": [common], "epilog": CODES}
    one = commands.add_parser(
        "checkpoint", help="a model's folder: tokenizer, template, generation config", **options
    )
    one.add_argument("folder", metavar="FOLDER")
    one = commands.add_parser("chats", help="a file of chats: what it would become", **options)
    one.add_argument(
        "file",
        metavar="FILE",
        help="JSONL, JSON, CSV, TSV or Parquet: rows with messages, prompt and completion, ...",
    )
    one.add_argument("--model", metavar="FOLDER", required=True, help="where the tokenizer is")
    one.add_argument("--max-length", type=int, metavar="TOKENS", help="the length at which rows are cut")
    for name, what, argument in (
        ("batches", "batches that were saved", "FILE"),
        ("loader", "what a function of yours returns", "MODULE:FUNCTION"),
    ):  # fmt: skip
        one = commands.add_parser(name, help=what, **options)
        hint = {
            "batches": ".pt (a batch, or a list of them), or JSONL with input_ids, labels, attention_mask: "
            "each line a batch, or one row",
            "loader": "called without arguments, it returns a data loader, a list of batches or a Trainer",
        }[name]
        one.add_argument("source", metavar=argument, help=hint)
        one.add_argument("--model", metavar="FOLDER", help="tokenizer and model; without it less can be told")
        one.add_argument("--purpose", choices=["train", "generate"], default="train")
        one.add_argument(
            "--batches", type=int, metavar="N", help="how many; by default all of a file, 4 of a loader"
        )
    return made


def report_of(asked: argparse.Namespace) -> Report:
    """Audit what was asked for.

    Raises:
        ValueError: It cannot be audited.
    """
    if asked.command == "checkpoint":
        return audit_checkpoint(asked.folder)
    if asked.command == "chats":
        return audit_chats(asked.file, load_tokenizer(asked.model), asked.max_length)
    tokenizer, model = None, None
    if asked.model is not None:
        tokenizer = load_tokenizer(asked.model)
        try:
            model = AutoModelForCausalLM.from_pretrained(asked.model).eval()
        except OSError:  # a folder with a tokenizer only
            model = None
    source = _saved(Path(asked.source)) if asked.command == "batches" else _made(asked.source)
    return audit(source, tokenizer=tokenizer, model=model, purpose=asked.purpose, batches=asked.batches)


def _saved(path: Path) -> Any:
    """Load batches from a file."""
    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r}.")
    if path.suffix in (".pt", ".pth", ".bin"):
        try:
            with torch.serialization.safe_globals([BatchEncoding]):  # collators of transformers give one
                return torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:  # pickle raises what it likes
            holds = "is damaged, or holds more than tensors, lists and dictionaries"
            raise ValueError(f"{path} {holds}: {error!s:.200}") from error
    found = []
    for number, row in enumerate(rows_of(path)):
        ids = row.get("input_ids") if isinstance(row, dict) else None
        if not isinstance(ids, list) or not ids:
            raise ValueError(f"{path}, row {number} has no input_ids: a list of numbers, or of such lists.")
        nested = isinstance(ids[0], list)
        found.append(row if nested else {name: [value] for name, value in row.items()})
    return found


def _made(name: str) -> Any:
    """Call somebody's function."""
    module, separator, function = name.partition(":")
    if not separator:
        raise ValueError(f"{name!r} is no MODULE:FUNCTION.")
    sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name!r} cannot be called: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit, write the report, and return the exit code."""
    asked = parser().parse_args(arguments)
    try:
        report = report_of(asked)
        faults = report.not_allowed(asked.allow)
    except (Exception, SystemExit) as error:  # also of somebody's own function: exit code 1 means a fault
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        print(f"Nothing was audited. {kind}{error}", file=sys.stderr)
        return 2
    print(json.dumps(report.to_dict(), ensure_ascii=False, indent=1) if asked.json else report)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
