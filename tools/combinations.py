"""Run lesson 03's four combinations and store what the page's switches show: ``make states``.

The lesson's own cells are run, those that train: labels as they are or shifted, with a loss that shifts or
does not. ``book/combinations.json`` holds each one's losses and what was said afterwards; the pages show that
file, and train nothing. Some two minutes on one core.
"""

import json
from collections.abc import Sequence
from typing import Any

from lessons import NOTEBOOKS, ROOT, cells

COMBINATIONS = ROOT / "book" / "combinations.json"
LESSON = NOTEBOOKS / "03_label_misalignment.ipynb"
COUNTING = ["cell-02", "cell-06", "cell-08", "cell-14", "shifting-loss", "cell-18", "cell-19"]
"""The cells that the training on counting needs."""
REAL = ["read-and-say", "cell-31", "cell-32"]
"""The further ones that train the real model."""
SHOWN = 7
"""How many tokens the arrows are drawn for, as in the lesson: two of the prompt, the others of the answer."""


def run(ids: Sequence[str], names: dict[str, Any]) -> None:
    """Run the lesson's cells with these ids, in its own order, on the names that they define."""
    for cell in cells(LESSON, "code"):
        if cell.id in ids:
            exec(compile(cell.source, cell.id, "exec"), names)


def count(names: dict[str, Any], name: str) -> dict[str, Any]:
    """Train the lesson's tiny model to count, with one of its combinations.

    Returns:
        ``losses``, one for each of the 60 steps, and ``says``, four numbers after 3, 4, 5.
    """
    make_labels, loss_of = names["COMBINATIONS"][name]
    toy = names["tiny_llama"]()
    losses = names["train"](toy, names["counting"], make_labels, loss_of, 3e-3)
    (says,) = names["greedy_generate"](toy.eval(), names["torch"].tensor([[3, 4, 5]]), 4)
    return {"losses": [round(loss, 3) for loss in losses], "says": says}


def stored() -> dict[str, Any]:
    """Return what is stored.

    Returns:
        ``tokens``, those of a row, of which the first two are the prompt's; ``asked``, the real model's
        prompt; and ``combinations``, for each by its name in the lesson the offsets ``data`` and ``loss``,
        and what ``counting`` and the ``real`` model came to: ``losses`` and ``says``.
    """
    return json.loads(COMBINATIONS.read_text(encoding="utf-8"))


def main() -> None:
    """Train all of them and write the file."""
    names: dict[str, Any] = {}
    run(COUNTING, names)
    counted = {name: count(names, name) for name in names["COMBINATIONS"]}
    run(REAL, names)
    first = names["first"] - 2
    found = {"tokens": names["tokens"][first : first + SHOWN], "asked": names["question"], "combinations": {}}
    for name, (make_labels, loss_of) in names["COMBINATIONS"].items():
        real = {"losses": [round(loss, 3) for loss in names["curves"][name]], "says": names["texts"][name][0]}
        offsets = {"data": int(make_labels is names["shift"]), "loss": int(loss_of is names["shifting_loss"])}
        found["combinations"][name] = offsets | {"counting": counted[name], "real": real}
    COMBINATIONS.write_text(json.dumps(found, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
