"""The command: ``python -m chattune --help``."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch

from chattune import runs
from chattune.train import fine_tune
from chattune.trainable import add_adapters, train_last_layers
from tinylib import models
from tinylib.data import load_chats
from tinylib.quiet import errors_in_one_line, library_warnings

OWN = ("data", "eval_data", "output", "model", "last_layers", "lora")  # the other options are fine_tune's


def main() -> None:
    """Fine-tune a chat model on chats of your own, and save it as a folder that transformers loads."""
    args = _parser().parse_args()
    if "RANK" not in os.environ:  # a launcher's own processes shall end at once
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, which nohup lets be ignored
    with errors_in_one_line(), _one_process_speaking():
        _run(args, {k: v for k, v in vars(args).items() if v is not None and k not in OWN})


def _is_first() -> bool:
    """Tell if this is the only process, or the first of those that a launcher has started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _one_process_speaking() -> Iterator[None]:
    """Let the first of several processes speak for all, and another only if it alone has failed."""
    if _is_first():
        yield
        return
    try:
        with (
            library_warnings(),
            open(os.devnull, "w") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
        ):
            yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        # What the first has met as well it says now, or has lost the connection to it: then the launcher ends
        # this process while it waits. If it spoke and ended first, the launcher might end the first unheard.
        time.sleep(10)
        raise


def _parser() -> argparse.ArgumentParser:
    several = "Several processes: torchrun --nproc-per-node 2 -m chattune ..., or accelerate launch."
    parser = argparse.ArgumentParser("python -m chattune", description=main.__doc__, epilog=several)
    chats = {"metavar": "CHATS"}
    whole, real = {"type": int, "metavar": "N"}, {"type": float, "metavar": "X"}
    add = parser.add_argument
    add("--data", **chats, required=True, help="JSONL, JSON, CSV, TSV or Parquet file, hub id or 'requests'")
    add("--eval-data", **chats, help="held-out chats, measured after each epoch (default: none)")
    add("--output", required=True, metavar="FOLDER", help="where the trained model and checkpoints go")
    add("--model", help="smollm2, tinyllama, a folder or a hub id (default: TINYLIB_MODEL, else smollm2)")
    add("--epochs", **real, dest="num_train_epochs", help="how often to go through the chats (default: 1)")
    add(
        "--batch-size", **whole, dest="per_device_train_batch_size",
        help="chats in a batch of a process (default: 8)",
    )  # fmt: skip
    add(
        "--accumulate", **whole, dest="gradient_accumulation_steps",
        help="batches in an optimizer step (default: 1)",
    )  # fmt: skip
    add("--learning-rate", **real, help="at first; falls to 0 (default: 2e-4)")
    add("--max-length", **whole, help="most tokens of a chat (default: the model's context)")
    add("--save-steps", **whole, help="write a checkpoint every N steps (default: none)")
    add("--seed", **whole, help="of the chats' order (default: 42)")
    earlier = parser.add_mutually_exclusive_group()
    earlier.add_argument("--resume", action="store_true", help="go on from FOLDER's last whole checkpoint")
    earlier.add_argument("--overwrite", action="store_true", help="begin anew in FOLDER, whatever is there")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--last-layers", **whole, help="train the last N layers only")
    part.add_argument("--lora", **whole, help="train adapters of rank N; merged, they go to FOLDER/merged")
    return parser


def _run(args: argparse.Namespace, settings: dict) -> None:
    output = Path(args.output).expanduser()
    for data in filter(None, (args.data, args.eval_data)):
        path = Path(data).expanduser()
        if args.overwrite and path.exists() and output.resolve() in path.resolve().parents:
            raise ValueError(f"{data} lies in {output}, and --overwrite might remove it: move it.")
    chats = load_chats(args.data)
    if args.eval_data is not None:
        settings["eval_chats"] = load_chats(args.eval_data, "test")
    # Weights that are trained stay in float32; those under adapters may be in 16 bits.
    half = models.best_dtype(torch.device(models.best_device()))
    model, tokenizer = models.load(args.model, dtype=torch.float32 if args.lora is None else half)
    if args.last_layers is not None:
        train_last_layers(model, args.last_layers)
    if args.lora is not None:
        model = add_adapters(model, args.lora)
    settings |= {"bf16": half == torch.bfloat16, "fp16": half == torch.float16}
    settings["save_strategy"] = "no" if args.save_steps is None else "steps"
    losses = fine_tune(model, tokenizer, chats, args.output, **settings)
    if _is_first():
        saved = args.output
        if args.lora is not None:
            with runs.merging(output) as merged:
                models.save(model.merge_and_unload(), tokenizer, merged)
            saved += f", merged into the model in {merged}"
        print(f"{len(losses)} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}; saved in {saved}")


if __name__ == "__main__":
    main()
