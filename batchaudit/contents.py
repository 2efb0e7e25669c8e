"""The faults that a batch shows by itself, without a model."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch

from batchaudit.facts import Facts, stops, wider
from batchaudit.turns import Turn

MARK = 4  # tokens that all texts share: fewer may be chance


class Hit(NamedTuple):
    """A fault that was found.

    Attributes:
        code: A key of `batchaudit.FAULTS`.
        where: Bool of shape ``(rows, seq)``.
        detail: What more there is to say.
        severity: ``"note"`` if it may be meant so.
        variant: Which of the code's causes it is (a key of `batchaudit.report.VARIANTS`), if that is known.
    """

    code: str
    where: torch.Tensor
    detail: str = ""
    severity: Literal["fault", "note"] = "fault"
    variant: str = ""


def faults(facts: Facts) -> Iterator[Hit]:
    """Find what can be seen from the data alone; a fault that is nowhere is no fault."""
    checks = [_vocabulary]
    if not facts.out_of_vocabulary.any():  # such ids stand for nothing
        checks += [_mask, _chat, _packing]
        checks += _of_purpose(facts)
    for check in checks:
        yield from (hit for hit in check(facts) if hit.where.any())


def _of_purpose(facts: Facts) -> list[Callable[[Facts], Iterator[Hit]]]:
    if facts.purpose == "generate":
        return [_right_side, _prompts]
    return [] if facts.labels is None else [_labels, _supervision, _boundaries, _plain_text]


def _vocabulary(facts: Facts) -> Iterator[Hit]:
    if facts.purpose == "train" and facts.batch.labels_do_not_fit:
        shapes = tuple(facts.batch.inputs["labels"].shape), tuple(facts.ids.shape)
        yield Hit("labels.shape", torch.ones_like(facts.real), "labels {}, input_ids {}".format(*shapes))
    strange = facts.out_of_vocabulary
    yield Hit("input_ids.out_of_vocabulary", strange, _values(facts.ids, strange))
    if facts.labels is not None:
        invalid = facts.invalid_labels
        yield Hit("labels.out_of_vocabulary", invalid, _values(facts.labels, invalid))


def _values(tensor: torch.Tensor, where: torch.Tensor) -> str:
    values = tensor[where].unique().tolist()
    return "they are " + ", ".join(map(str, values[:5])) + (", …" if len(values) > 5 else "")


def _mask(facts: Facts) -> Iterator[Hit]:
    mask = facts.batch.mask
    if mask is None:
        return
    none = ~mask.any(dim=1, keepdim=True)
    yield Hit("mask.hides_row", none & facts.real)
    yield Hit("mask.hides_tokens", facts.real & ~mask & ~none)
    yield Hit("mask.shows_pads", facts.pads & mask)


def unmasked(facts: Facts) -> Iterator[Hit]:
    """Find padding before the text without any mask: seen by every model, unless positions tell it apart.

    Where the pad token ends no text, ``generate`` makes a mask of the ids; then only the model can tell.
    """
    if _pads_are_seen(facts):
        yield Hit("mask.missing", facts.pads_before_text)


def _pads_are_seen(facts: Facts) -> bool:
    """Tell if nothing in the batch hides padding, and ``generate`` makes no mask of the ids either."""
    batch = facts.batch
    told_apart = batch.mask is not None or batch.mask_4d is not None or batch.position_ids is not None
    return not told_apart and (facts.purpose == "train" or facts.pad_id in facts.ends)


def _right_side(facts: Facts) -> Iterator[Hit]:
    last = facts.pads & (facts.pads[:, -1:] & facts.real.any(dim=1, keepdim=True))
    last &= torch.arange(facts.seq) > facts.real.long().argmax(dim=1, keepdim=True)
    yield Hit("padding.right_side", last)
    if _pads_are_seen(facts) and not facts.pads_before_text.any():  # of those before it a model is asked
        yield Hit("mask.missing", last)


def _prompts(facts: Facts) -> Iterator[Hit]:
    """Find prompts that do not end where an answer begins."""
    rows = range(facts.rows)
    last = stops(facts.real).tolist()
    why: dict[str, list[int]] = {}
    for row, reading, stop in zip(rows, facts.readings, last):
        if not stop or (reading.unread and reading.unread[-1].stop >= stop):
            continue
        if not reading.turns:
            if facts.ids[row, stop - 1] == facts.special("eos"):
                why.setdefault("an end of text is its last token", []).append(row)
        elif reading.turns[-1].role != "assistant":
            why.setdefault("nothing announces the answer", []).append(row)
        elif reading.turns[-1].end:
            why.setdefault("its last answer has ended", []).append(row)
        elif not reading.turns[-1].blank and not facts.template.words(
            "".join(facts.template.text(facts.ids[row, reading.turns[-1].latest : stop].tolist()))
        ):
            why.setdefault("spaces come after what announces the answer", []).append(row)
    where = torch.zeros_like(facts.real)
    for row in sorted(row for rows in why.values() for row in rows):
        where[row, last[row] - 1] = True
    yield Hit(
        "prompt.not_open", where, "; ".join(f"{reason} (row {rows[0]})" for reason, rows in why.items())
    )


def _chat(facts: Facts) -> Iterator[Hit]:
    bos = facts.special("bos")
    meant = facts.template is not None and facts.template.writes_two_bos
    if bos is not None and not meant and bos not in facts.ends | {facts.pad_id}:
        twice = torch.zeros_like(facts.real)
        twice[:, 1:] = (facts.ids[:, 1:] == bos) & (facts.ids[:, :-1] == bos)
        twice[:, 1:] &= facts.real[:, :-1]
        yield Hit("chat.two_bos", twice & facts.real)
    inside = facts.bos_inside
    if inside.any():
        first = facts.ids.gather(1, facts.real.long().argmax(dim=1, keepdim=True))
        # Where no text begins with one, it may be what a pipeline writes between a prompt and its answer.
        separates = not any(facts.turns) and not (first[inside.any(dim=1)] == bos).any()
        yield Hit("chat.bos_inside", inside, severity="note" if separates else "fault")
    yield Hit("chat.forged_turn", facts.forged)


def _packing(facts: Facts) -> Iterator[Hit]:
    unmarked = facts.unmarked_starts
    if facts.batch.mask_4d is None:  # the mask can only hide columns, so that the positions must tell
        yield Hit("packing.positions_run_on", unmarked)
    first = facts.starts & facts.learned[:, : facts.seq]
    yield Hit("packing.first_label", facts.label_places(wider(first)))


def _labels(facts: Facts) -> Iterator[Hit]:
    other = facts.mismatched_labels & ~facts.label_places(wider(facts.pads))
    eos = facts.special("eos")
    if eos is not None and other.any() and bool((facts.labels[other] == eos).all()):
        # Under the token after an answer, as a target of its own: the text itself has another mark there.
        before = facts.learned & (facts.tokens == facts.named)
        after_answer = torch.zeros_like(facts.learned)
        after_answer[:, 1:] = before[:, :-1]
        if not (other & ~facts.label_places(after_answer)).any():
            yield Hit("labels.other_tokens", other, "each is an end of text after an answer", "note")
            other = torch.zeros_like(other)
    yield Hit("labels.other_tokens", other)
    yield Hit("labels.padding", facts.label_places(facts.learned & wider(facts.pads) & ~facts.beyond))


def _supervision(facts: Facts) -> Iterator[Hit]:
    nothing = ~facts.learned.any(dim=1, keepdim=True) & facts.real
    code = "labels.nothing_in_batch" if nothing.any(dim=1).all() else "labels.nothing_in_row"
    yield Hit(code, nothing)


def _boundaries(facts: Facts) -> Iterator[Hit]:
    """Compare what is learned with the turns of the assistant's."""
    names = ("labels.prompt", "labels.starts_early", "labels.starts_late", "labels.end_of_turn",
             "labels.end_cut_off", "labels.some_answers")  # fmt: skip
    where = {name: torch.zeros_like(facts.learned) for name in names}
    prompt, early, late, end_of_turn, cut_off, some = (places.numpy() for places in where.values())
    everything = (facts.learned & (~wider(facts.pads) | facts.beyond)).numpy()
    # What is named there is another token, and told as such: an EOS under the header after an answer.
    elsewhere = (wider(facts.starts) | facts.other_tokens).numpy()
    answers, last, by_one = 0, 0, np.zeros(len(everything), dtype=bool)
    for row, reading in enumerate(facts.readings):
        learned = everything[row]
        if not reading.turns or not learned.any():
            continue
        outside, silent, spoken = learned & ~elsewhere[row], [], []
        for turn in reading.turns:
            if turn.role != "assistant":
                continue
            outside[turn.start : turn.stop] = False
            if turn.end:
                outside[turn.end[-1]] = False
            said = np.flatnonzero(learned[turn.start : turn.stop]) + turn.start
            if not len(said):
                silent += [] if turn.blank else [range(turn.start, turn.stop)]
                continue
            spoken.append(turn)
            if _overlaps(turn, reading.unread):
                continue
            answers += 1
            last += not turn.followed
            if said[0] > turn.latest:
                late[row, turn.start : said[0]] = True
            if not turn.end and not turn.followed and facts.template.ends_last:
                if turn.stop < learned.size and facts.sliced_ends[row, turn.stop]:
                    continue
                if int(facts.tokens[row, said[-1]]) in facts.learned_ends:
                    continue  # it ends otherwise than the template writes it
                cut_off[row, turn.stop - 1] = True
            elif turn.end and not learned[list(turn.end)].any():
                end_of_turn[row, list(turn.end)] = True
        # Where each turn begins with a BOS, nobody can tell turns of one conversation from several.
        one_chat = not (facts.template.starts_each_time or reading.forged)
        for answer in silent if spoken and one_chat else ():
            some[row, answer.start : answer.stop] = True
        for unknown in (*reading.unread, *_before_the_turns(facts, row)):
            outside[unknown.start : unknown.stop] = False
        if outside.any():
            other = outside.copy()
            for turn in reading.turns:
                if turn.role == "assistant":
                    other[turn.header : turn.start] = False
            (prompt if other.any() else early)[row] = outside
            # All of it one token early, not only its beginning.
            before_words = [turn.start - 1 for turn in spoken]
            past_the_end = any(learned[turn.end[-1] + 1 : turn.stop].any() for turn in spoken if turn.end)
            by_one[row] = np.flatnonzero(outside).tolist() == before_words and not past_the_end
    if facts.may_be_of_predictions:
        early[:] = end_of_turn[:] = False
    variants = {"labels.end_cut_off": "split" if _are_split(facts, everything) else ""}
    if (early.any(axis=1) & end_of_turn.any(axis=1) & by_one).any():
        variants |= dict.fromkeys(("labels.starts_early", "labels.end_of_turn"), "shifted")
    # A limit cuts the longest rows. If each last answer lacks its end, also in short rows, none had one.
    lengths = facts.real.sum(dim=1)[where["labels.end_cut_off"].any(dim=1)]
    split = variants["labels.end_cut_off"] == "split"
    if not split and cut_off.sum() == last and (lengths < facts.real.sum(dim=1).max()).any():
        variants["labels.end_cut_off"] = "last"
        if last == answers:
            where["labels.no_end_written"] = where.pop("labels.end_cut_off")
    for name, places in where.items():
        severity = "note" if name == "labels.some_answers" else "fault"
        yield Hit(name, facts.label_places(places), "", severity, variants.get(name, ""))


def _overlaps(turn: Turn, unread: list[range]) -> bool:
    return any(r.start < turn.stop and turn.header < r.stop for r in unread)


def _before_the_turns(facts: Facts, row: int) -> Iterator[range]:
    """Find samples that begin in the middle of a turn, nobody knows whose; up to their first header."""
    if facts.begins_with_a_turn[row]:
        return
    cuts = [0, *np.flatnonzero(facts.starts[row].numpy()).tolist(), facts.seq]
    for begin, stop in pairwise(cuts):
        header = next((t.header for t in facts.turns[row] if begin <= t.header < stop), stop)
        ids = facts.ids[row, begin:header][facts.real[row, begin:header]].tolist()
        if facts.ends & set(ids) or facts.template.words("".join(facts.template.text(ids))):
            yield range(begin, header)


def _are_split(facts: Facts, learned: np.ndarray) -> bool:
    """Tell if samples were cut in two, as some ways of packing do it: one begins in the middle of an answer.

    Args:
        learned: Which tokens are; bool of shape ``(rows, seq + 2)``.
    """
    for row, real in enumerate(facts.real.numpy()):
        text = np.flatnonzero(real)[1:]
        if facts.turns[row]:
            rests = [learned[row, rest.start : rest.stop] for rest in _before_the_turns(facts, row)]
        else:
            rests = [learned[row, text[:1]]] if not learned[row, text].all() else []
        if any(rest.any() for rest in rests):
            return True
    return False


def _ends_in_a_mark(facts: Facts, ids: Sequence[int], marks: str = ">]") -> bool:
    """Tell if words end in something that may be a mark, such as ``<|end|>`` in plain tokens."""
    return facts.tokenizer.decode(list(ids)).rstrip().endswith(tuple(marks))


def _last_mark(facts: Facts, ids: Sequence[int]) -> str:
    """Return such a mark, from its bracket on; empty if there is none."""
    found = re.search(r"[<\[][^<\[\s]*[>\]]$", facts.tokenizer.decode(list(ids)).rstrip())
    return found[0] if found else ""


def _plain_text(facts: Facts) -> Iterator[Hit]:
    """Look for ends where no turn is known: an EOS in the text, and whether what is learned ends in one."""
    eos = facts.special("eos")
    if eos is None:
        return
    names = ("labels.end_of_turn", "labels.end_cut_off", "labels.no_end_written")
    where = {name: torch.zeros_like(facts.learned) for name in names}
    ended, endless, short, spelled = 0, [], False, {}
    known = facts.ends | facts.learned_ends
    lengths = facts.real.sum(dim=1)
    everything = (facts.learned & facts.text).numpy()
    prompts = _before_a_shared_mark(facts, (facts.learned & facts.text & ~facts.other_tokens).numpy())
    for row, reading in enumerate(facts.readings):
        learned = everything[row]
        if reading.turns or not learned.any():
            continue
        ids, text = facts.tokens[row].numpy(), np.flatnonzero(facts.text[row].numpy())
        after = text[1:][(ids[text[1:]] == eos) & learned[text[:-1]] & ~learned[text[1:]]]
        where["labels.end_of_turn"][row, after] = True
        said = np.flatnonzero(learned)
        ends = np.isin(ids[said], sorted(known))
        ended += int(ends.any())
        asked = bool((~learned[text[1:]] & (text[1:] < said[0])).any())
        guessed = not asked and bool(prompts[row].any())
        # A text without a prompt may be cut anywhere.
        if (asked or guessed) and said[-1] == text[-1] and facts.last_learned[row] not in known:
            if _ends_in_a_mark(facts, ids[said[-12:]].tolist()):
                spelled[row, int(said[-1])] = _last_mark(facts, ids[said[-12:]].tolist())
                continue
            endless.append((row, int(said[-1]), guessed))
            short |= bool(lengths[row] < lengths.max())
    for row, column, guessed in endless:
        if not (ended and guessed):
            where["labels.end_cut_off" if ended else "labels.no_end_written"][row, column] = True
    if not ended and not short:  # each may have been cut
        where["labels.no_end_written"][:] = False
    marks = set(spelled.values())
    if not (ended or endless) and len(spelled) > 1 and len(marks) == 1 and "" not in marks:
        places = torch.zeros_like(facts.learned)
        places[tuple(zip(*spelled))] = True
        detail = f"each ends in the letters {marks.pop()}"
        yield Hit("labels.no_end_written", facts.label_places(places), detail, "note", "spelled")
    split = "split" if _are_split(facts, everything) else ""
    for name, places in where.items():
        yield Hit(name, facts.label_places(places), variant=split if name == "labels.end_cut_off" else "")
    yield Hit("labels.prompt", facts.label_places(prompts), "", "note", "plain")


def _before_a_shared_mark(facts: Facts, learned: np.ndarray) -> torch.Tensor:
    """Find prompts among texts that are learned whole: what comes before a mark that all of them hold.

    As before ``### Response:``. Texts that have nothing in common are no prompts and answers, as far as one
    can tell; nor is what they share at their very beginning a mark between the two.

    Args:
        learned: Which tokens of the texts are; bool of shape ``(rows, seq + 2)``.

    Returns:
        Bool of the same shape.
    """
    found = torch.zeros_like(facts.learned)
    texts = [np.flatnonzero(real) for real in facts.real.numpy()]
    texts = [text for text in texts if len(text)]
    whole = all(learned[row, text[1:]].all() for row, text in enumerate(texts))
    if any(facts.turns) or len(texts) < max(2, facts.rows) or not whole:
        return found
    ids = [facts.ids[row, text].tolist() for row, text in enumerate(texts)]
    alike = next((i for i, same in enumerate(zip(*ids)) if len(set(same)) > 1), None)
    if alike is None:  # the same texts
        return found
    runs = [{tuple(row[i : i + MARK]): i for i in range(alike, len(row) - MARK)} for row in ids]
    shared = {run for run in set(runs[0]).intersection(*runs[1:]) if _ends_in_a_mark(facts, run, ":>]")}
    for row, places in enumerate(runs if shared else ()):
        found[row, texts[row][: max(places[run] for run in shared) + MARK]] = True
    return found
