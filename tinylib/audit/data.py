"""The faults that a batch shows by itself, without a model."""

from collections.abc import Iterator

import torch

from tinylib.audit.facts import Facts

Spot = tuple[str, torch.Tensor, str]
"""A fault's code, where it is (bool of shape ``(rows, seq)``), and what more there is to say."""


def faults(facts: Facts) -> Iterator[Spot]:
    """Find what can be seen from the data alone; a fault that is nowhere is no fault."""
    checks = [_vocabulary, _mask, _bos, _turns, _packing]
    if facts.purpose == "generate":
        checks.append(_right_side)
    elif facts.labels is not None:
        checks += [_labels, _supervision, _boundaries]
    for check in checks:
        yield from ((code, where, detail) for code, where, detail in check(facts) if where.any())


def _vocabulary(facts: Facts) -> Iterator[Spot]:
    yield "input_ids.out_of_vocabulary", facts.out_of_vocabulary, _values(facts.ids, facts.out_of_vocabulary)
    if facts.labels is not None:
        strange = facts.strange_labels
        yield "labels.out_of_vocabulary", strange, _values(facts.labels, strange)


def _values(tensor: torch.Tensor, where: torch.Tensor) -> str:
    values = tensor[where].unique().tolist()
    return "they are " + ", ".join(map(str, values[:5])) + (", …" if len(values) > 5 else "")


def _mask(facts: Facts) -> Iterator[Spot]:
    mask = facts.batch.mask
    if mask is None:
        return
    none = ~mask.any(dim=1, keepdim=True)
    yield "mask.hides_row", none & facts.real, ""
    # Labels on a hidden token that is no padding: found by facts.pads; by themselves they say nothing.
    yield "mask.hides_tokens", facts.real & ~mask & ~none, ""
    yield "mask.shows_pads", facts.pads & mask, ""


def _right_side(facts: Facts) -> Iterator[Spot]:
    last = facts.pads & (facts.pads[:, -1:] & facts.real.any(dim=1, keepdim=True))
    first_real = facts.real.long().argmax(dim=1, keepdim=True)
    yield "padding.right_side", last & (torch.arange(facts.seq) > first_real), ""


def _bos(facts: Facts) -> Iterator[Spot]:
    bos = facts.special("bos")
    if bos is not None and bos not in facts.ends | {facts.pad_id}:
        twice = torch.zeros_like(facts.real)
        twice[:, 1:] = (facts.ids[:, 1:] == bos) & (facts.ids[:, :-1] == bos)
        yield "chat.two_bos", twice & facts.real, ""


def _turns(facts: Facts) -> Iterator[Spot]:
    forged = torch.zeros_like(facts.real)
    for row, turns in enumerate(facts.turns):
        new = facts.starts[row] | facts.unmarked_starts[row]
        for turn, following in zip(turns, [*turns[1:], None]):
            places = [] if turn.well_ended else [turn.end]
            if following is not None and not new[turn.stop : following.start].any():
                unended = turn.end is None and facts.template.closes_every_turn
                same = turn.role == following.role == "assistant"
                if unended or same or (turn.role == "user" and following.role == "system"):
                    places += [turn.header, following.header]
            forged[row, [min(place, facts.seq - 1) for place in places]] = True
    yield "chat.forged_turn", forged, ""


def _packing(facts: Facts) -> Iterator[Spot]:
    unmarked = facts.unmarked_starts
    if facts.batch.blocks is None:  # the mask can only hide columns, so that the positions must tell
        yield "packing.positions_run_on", unmarked, ""
    first = facts.starts & facts.learned[:, : facts.seq]
    yield "packing.first_label", facts.label_places(_wider(first)), ""


def _wider(columns: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(columns, (0, 2))


def _labels(facts: Facts) -> Iterator[Spot]:
    yield "labels.other_tokens", facts.foreign_labels, ""
    yield "labels.padding", facts.label_places(facts.learned & _wider(facts.pads)), ""


def _supervision(facts: Facts) -> Iterator[Spot]:
    nothing = ~facts.learned.any(dim=1, keepdim=True) & facts.real
    if nothing.any(dim=1).all():
        yield "labels.nothing_in_batch", nothing, ""
    else:
        yield "labels.nothing_in_row", nothing, ""


def _boundaries(facts: Facts) -> Iterator[Spot]:
    """Compare what is learned with the turns of the assistant's; without turns, look at the last token."""
    names = ("labels.prompt", "labels.starts_early", "labels.starts_late", "labels.end_of_turn",
             "labels.end_cut_off")  # fmt: skip
    where = {name: torch.zeros_like(facts.learned) for name in names}
    width = facts.learned.shape[1]
    columns = torch.arange(width)
    forged = next((where for code, where, _ in _turns(facts)), None)
    starts = _wider(facts.starts)
    for row, turns in enumerate(facts.turns):
        learned = facts.learned[row] & ~_wider(facts.pads)[row]
        if not learned.any() or forged[row].any():
            continue
        if not turns:
            _end_of_text(facts, row, learned, where["labels.end_of_turn"])
            continue
        outside = learned & ~starts[row]
        headers = torch.zeros_like(learned)
        if facts.template.words("".join(facts.template.text(facts.ids[row, : turns[0].header].tolist()))):
            outside[: turns[0].header] = False  # the row begins in the middle of a turn: nobody knows whose
        for turn in turns:
            if turn.role != "assistant":
                continue
            headers |= (columns >= turn.header) & (columns < turn.start)
            own = (columns >= turn.start) & (columns < turn.stop)
            outside &= ~own
            said = (learned & own).nonzero().flatten().tolist()
            if not said:
                continue
            if said[0] > turn.latest:
                where["labels.starts_late"][row, turn.start : said[0]] = True
            if turn.end is None:
                where["labels.end_cut_off"][row, turn.stop - 1] = True
            elif not learned[turn.end]:
                where["labels.end_of_turn"][row, turn.end] = True
        if outside.any():
            early = not (outside & ~headers).any()
            where["labels.starts_early" if early else "labels.prompt"][row] = outside
    for name, places in where.items():
        yield name, facts.label_places(places), ""


def _end_of_text(facts: Facts, row: int, learned: torch.Tensor, where: torch.Tensor) -> None:
    """Mark an EOS at the end of a text that is not learned although what comes before it is."""
    real = facts.real[row].nonzero().flatten().tolist()
    eos = facts.special("eos")
    if len(real) > 1 and facts.ids[row, real[-1]] == eos and learned[real[-2]] and not learned[real[-1]]:
        where[row, real[-1]] = True
