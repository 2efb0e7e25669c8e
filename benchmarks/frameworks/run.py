"""Fetch the wheels, let each framework make its batches, audit them, and write down what was found.

``make frameworks`` runs it (three minutes on two cores, and once some minutes to fetch). Each framework runs
in a process of its own; here its batches are only audited, and compared with ``truth.toml``.
"""

import argparse
import json
import os
import subprocess
import sys
import tomllib
from itertools import groupby
from typing import Any

import torch
from modes import FOLDER, HERE, MODES, Batch, Mode, Tokenizer
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from batchaudit import audit
from tinylib import show
from tinylib.labels import plain_loss, shifting_loss

RESULT = HERE.parent / "frameworks.json"
LOSSES = {"plain": plain_loss, "shifting": shifting_loss}
TURNS = "turns, answers and their ends"
SECONDS = 600  # for one framework


def main() -> None:
    """Read the arguments and run; the exit code is 1 if the auditor was wrong anywhere."""
    parser = argparse.ArgumentParser(prog="python benchmarks/frameworks/run.py", description=__doc__)
    parser.add_argument("--only", nargs="+", help="these wheels; then nothing is written down")
    parser.add_argument(
        "--rows", action="store_true", help="show each batch's tokens, [learned] and ~hidden~"
    )
    args = parser.parse_args()
    truth = tomllib.loads((HERE / "truth.toml").read_text(encoding="utf-8"))
    wheels = [w for w in pinned() if not args.only or w in args.only or w.split("==")[0] in args.only]
    results = []
    for wheel in tqdm(wheels, unit="framework"):
        fetch(wheel)
        batches = made_by(wheel)
        for mode in (mode for mode in MODES if mode.wheel == wheel):
            if args.rows:
                print(f"== {wheel}, {mode.name}\n{readable(*batches[mode.name])}")
            results.append(audited(mode, truth[wheel][mode.name], *batches[mode.name]))
            if args.only:
                print(json.dumps(results[-1], indent=1, ensure_ascii=False))
    wrong = [r for r in results if r["false"] or "missed" in r["outcomes"].values()]
    print(f"{len(results)} modes, {len(wrong)} of them audited wrongly")
    for result in wrong:
        print(f"{result['wheel']}, {result['mode']}: false {result['false']}, outcomes {result['outcomes']}")
    if not args.only:
        RESULT.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"wrote {RESULT.name}")
    sys.exit(bool(wrong))


def pinned() -> list[str]:
    """Return the wheels, as ``name==version``."""
    lines = (HERE / "wheels.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def fetch(wheel: str) -> None:
    """Install a wheel alone into a folder of its own, unless it is there."""
    folder = FOLDER / wheel
    if not folder.is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        command += ["--disable-pip-version-check", "--ignore-requires-python", "--target", str(folder)]
        subprocess.run([*command, wheel], check=True)


def made_by(wheel: str) -> dict[str, tuple[Batch, Tokenizer]]:
    """Let a framework make the batches of all its modes, each with the tokenizer that it used."""
    made = FOLDER / f"{wheel}.pt"
    paths = [str(FOLDER / wheel), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        [sys.executable, str(HERE / "modes.py"), wheel, str(made)],
        timeout=SECONDS, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if run.returncode:
        sys.exit(f"{wheel} failed:\n{run.stdout[-3000:]}")
    return torch.load(made, weights_only=False)


def readable(batch: Batch, tokenizer: Tokenizer) -> str:
    """Write rows as tokens: ``[learned]``, ``~hidden~``, ``|0|`` before a position 0, ``×n`` if repeated."""
    lines = []
    labels, mask, positions = (batch.get(name) for name in ("labels", "attention_mask", "position_ids"))
    for row, ids in enumerate(batch["input_ids"].tolist()):
        line = []
        for column, i in enumerate(ids):
            token = show.token_string(tokenizer, i)
            if mask is not None and mask.dim() == 2 and not mask[row, column]:
                token = f"~{token}~"
            if positions is not None and positions[row, column] == 0:
                token = f"|0|{token}"
            if labels is not None and labels[row, column] >= 0:
                named = int(labels[row, column])
                token = f"[{token}]" if named == i else f"{token}→[{show.token_string(tokenizer, named)}]"
            line.append(token)
        runs = [(token, len(list(same))) for token, same in groupby(line)]
        lines.append(f"  {row}: " + " ".join(token + f"×{n}" * (n > 1) for token, n in runs))
    return "\n".join(lines)


def audited(mode: Mode, truth: dict[str, Any], batch: Batch, tokenizer: Tokenizer) -> dict[str, Any]:
    """Audit a batch, and compare what was found with what is so."""
    model = small_model(len(tokenizer)) if mode.model else None
    report = audit(batch, tokenizer=tokenizer, model=model, loss=LOSSES[mode.loss])
    found = {finding.code: finding for finding in report.findings}
    so = truth.get("faults", {}) | truth.get("notes", {})
    outcomes = {}
    for code, rows in so.items():
        if code in found:
            outcomes[code] = "found" if found[code].rows == rows else "missed"
        else:
            unread = code.startswith("labels.") and TURNS in report.not_checked
            outcomes[code] = "not checked" if unread else "missed"
    return {
        "wheel": mode.wheel,
        "mode": mode.name,
        "shape": list(batch["input_ids"].shape),
        "findings": {
            code: {"severity": one.severity, "rows": one.rows, "detail": one.detail, "grid": one.grid}
            for code, one in found.items()
        },
        "not_checked": report.not_checked,
        "outcomes": outcomes,
        "false": [code for code in found if code not in so],
    }


def small_model(size: int) -> LlamaForCausalLM:
    """Make a small Llama with random weights: enough to see what it looks at."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


if __name__ == "__main__":
    main()
