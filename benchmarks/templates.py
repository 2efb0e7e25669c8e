"""The auditor on every chat template that TRL brings along: what it finds of the faults planted with each.

``make frameworks`` runs it, and writes ``templates.json``; the book shows that as a table.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "batchaudit")]
import templates  # noqa: E402
from cases import llama, smol  # noqa: E402

TOKENIZERS = {"SmolLM2's": smol, "a Llama-2 type's": lambda: llama(prefix=True)}


def main() -> None:
    """Audit all of them with both tokenizers, and write down what came out."""
    found: dict[str, dict[str, dict[str, int] | None]] = {name: {} for name in templates.NAMES}
    for kind, make in TOKENIZERS.items():
        tokenizer = make()
        for name in tqdm(templates.NAMES, desc=kind):
            found[name][kind] = templates.counts(templates.result(tokenizer, name))
    written = {"trl": version("trl"), "templates": found}
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
