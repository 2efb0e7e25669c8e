"""The faults that a batch shows by itself, without a model."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch

from batchaudit.facts import Facts

Hit = tuple[str, torch.Tensor, str]
"""A fault's code, where it is (bool of shape ``(rows, seq)``), and what more there is to say."""


def faults(facts: Facts) -> Iterator[Hit]:
    """Find what can be seen from the data alone; a fault that is nowhere is no fault."""
    checks = [_vocabulary]
    if not facts.out_of_vocabulary.any():  # such ids stand for nothing
        checks += [_mask, _bos, _turns, _packing]
        checks += _of_purpose(facts)
    for check in checks:
        yield from ((code, where, detail) for code, where, detail in check(facts) if where.any())


def _of_purpose(facts: Facts) -> list[Callable[[Facts], Iterator[Hit]]]:
    if facts.purpose == "generate":
        return [_right_side]
    return [] if facts.labels is None else [_labels, _supervision, _boundaries]


def _vocabulary(facts: Facts) -> Iterator[Hit]:
    if facts.purpose == "train" and facts.batch.labels_do_not_fit:
        shapes = tuple(facts.batch.inputs["labels"].shape), tuple(facts.ids.shape)
        yield "labels.shape", torch.ones_like(facts.real), "labels {}, input_ids {}".format(*shapes)
    yield "input_ids.out_of_vocabulary", facts.out_of_vocabulary, _values(facts.ids, facts.out_of_vocabulary)
    if facts.labels is not None:
        invalid = facts.invalid_labels
        yield "labels.out_of_vocabulary", invalid, _values(facts.labels, invalid)


def _values(tensor: torch.Tensor, where: torch.Tensor) -> str:
    values = tensor[where].unique().tolist()
    return "they are " + ", ".join(map(str, values[:5])) + (", …" if len(values) > 5 else "")


def _mask(facts: Facts) -> Iterator[Hit]:
    mask = facts.batch.mask
    if mask is None:
        return
    none = ~mask.any(dim=1, keepdim=True)
    yield "mask.hides_row", none & facts.real, ""
    yield "mask.hides_tokens", facts.real & ~mask & ~none, ""
    yield "mask.shows_pads", facts.pads & mask, ""


def unmasked(facts: Facts) -> Iterator[Hit]:
    """Find padding before the text without any mask: seen by every model, unless positions tell it apart.

    Where the pad token ends no text, ``generate`` makes a mask of the ids; then only the model can tell.
    """
    batch = facts.batch
    told_apart = batch.mask is not None or batch.mask_4d is not None or batch.position_ids is not None
    if not told_apart and (facts.purpose == "train" or facts.pad_id in facts.ends):
        yield "mask.missing", facts.pads_before_text, ""


def _right_side(facts: Facts) -> Iterator[Hit]:
    last = facts.pads & (facts.pads[:, -1:] & facts.real.any(dim=1, keepdim=True))
    first_real = facts.real.long().argmax(dim=1, keepdim=True)
    yield "padding.right_side", last & (torch.arange(facts.seq) > first_real), ""


def _bos(facts: Facts) -> Iterator[Hit]:
    bos = facts.special("bos")
    if bos is not None and bos not in facts.ends | {facts.pad_id}:
        twice = torch.zeros_like(facts.real)
        twice[:, 1:] = (facts.ids[:, 1:] == bos) & (facts.ids[:, :-1] == bos)
        yield "chat.two_bos", twice & facts.real, ""


def _turns(facts: Facts) -> Iterator[Hit]:
    yield "chat.forged_turn", facts.forged, ""


def _packing(facts: Facts) -> Iterator[Hit]:
    unmarked = facts.unmarked_starts
    if facts.batch.mask_4d is None:  # the mask can only hide columns, so that the positions must tell
        yield "packing.positions_run_on", unmarked, ""
    first = facts.starts & facts.learned[:, : facts.seq]
    yield "packing.first_label", facts.label_places(_wider(first)), ""


def _wider(columns: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(columns, (0, 2))


def _labels(facts: Facts) -> Iterator[Hit]:
    yield "labels.other_tokens", facts.mismatched_labels, ""
    yield "labels.padding", facts.label_places(facts.learned & _wider(facts.pads)), ""


def _supervision(facts: Facts) -> Iterator[Hit]:
    nothing = ~facts.learned.any(dim=1, keepdim=True) & facts.real
    if nothing.any(dim=1).all():
        yield "labels.nothing_in_batch", nothing, ""
    else:
        yield "labels.nothing_in_row", nothing, ""


def _boundaries(facts: Facts) -> Iterator[Hit]:
    """Compare what is learned with the turns of the assistant's; without turns, look at the last token."""
    names = ("labels.prompt", "labels.starts_early", "labels.starts_late", "labels.end_of_turn",
             "labels.end_cut_off")  # fmt: skip
    where = {name: torch.zeros_like(facts.learned) for name in names}
    prompt, early, late, end_of_turn, cut_off = (places.numpy() for places in where.values())
    everything = (facts.learned & ~_wider(facts.pads)).numpy()
    forged, starts = facts.forged.any(dim=1).tolist(), _wider(facts.starts).numpy()
    for row, turns in enumerate(facts.turns):
        learned = everything[row]
        if forged[row] or not learned.any():
            continue
        if not turns:
            _end_of_text(facts, row, learned, end_of_turn)
            continue
        outside = learned & ~starts[row]
        for turn in turns:
            if turn.role != "assistant":
                continue
            outside[turn.start : turn.stop] = False
            said = np.flatnonzero(learned[turn.start : turn.stop]) + turn.start
            if not len(said):
                continue
            if said[0] > turn.latest:
                late[row, turn.start : said[0]] = True
            if turn.end is None:
                cut_off[row, turn.stop - 1] = True
            elif not learned[turn.end]:
                end_of_turn[row, turn.end] = True
        if outside.any():
            for first, last in _before_the_turns(facts, row):
                outside[first:last] = False
        if outside.any():
            other = outside.copy()
            for turn in turns:
                if turn.role == "assistant":
                    other[turn.header : turn.start] = False
            (prompt if other.any() else early)[row] = outside
    for name, places in where.items():
        yield name, facts.label_places(places), ""


def _before_the_turns(facts: Facts, row: int) -> Iterator[tuple[int, int]]:
    """Find samples that begin in the middle of a turn, nobody knows whose; up to their first header."""
    cuts = [0, *np.flatnonzero(facts.starts[row].numpy()).tolist(), facts.seq]
    for begin, stop in pairwise(cuts):
        header = next((turn.header for turn in facts.turns[row] if begin <= turn.header < stop), stop)
        ids = facts.ids[row, begin:header][facts.real[row, begin:header]].tolist()
        if facts.template.ends & set(ids) or facts.template.words("".join(facts.template.text(ids))):
            yield begin, header


def _end_of_text(facts: Facts, row: int, learned: np.ndarray, where: np.ndarray) -> None:
    """Mark an EOS at the end of a text that is not learned although what comes before it is."""
    real = facts.real[row].nonzero().flatten().tolist()
    eos = facts.special("eos")
    if len(real) > 1 and facts.ids[row, real[-1]] == eos and learned[real[-2]] and not learned[real[-1]]:
        where[row, real[-1]] = True
