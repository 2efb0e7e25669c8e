"""What the numbers of a batch say by themselves: what is padding, what is learned, where samples begin."""

from functools import cached_property
from itertools import pairwise
from typing import Literal

import torch
from torch.nn.functional import pad
from transformers import PreTrainedTokenizerBase

from batchaudit.batch import Batch
from batchaudit.offsets import OFFSETS
from batchaudit.turns import Reading, Template, Turn
from tinylib.labels import IGNORE_INDEX

Purpose = Literal["train", "generate"]


class Facts:
    """A batch, read with a tokenizer if there is one.

    Labels are turned back to the tokens that they name, whoever shifted them: a *column* is the place of a
    token. Shifted labels can name up to two tokens beyond a row's last one.

    Attributes:
        batch: As read.
        tokenizer: Or None.
        template: What its chat template writes, or None.
        vocabulary: How many ids there are, or None.
        out_of_vocabulary: Ids that no token has, bool of shape ``(rows, seq)``.
        invalid_labels: The same of labels.
        offset: Which token each row's labels hold at position i: token i + offset; None if they do not tell.
        shift: The same, and 0 where they do not tell; int64 of shape ``(rows,)``.
        mismatched_labels: Labels that are not that token; bool of shape ``(rows, seq)``.
        tokens: int64 of shape ``(rows, seq + 2)``, -1 beyond the row.
        named: The labels laid under these tokens; of the same shape, `IGNORE_INDEX` where there is none.
        learned: Whether a label names that token; bool of the same shape.
        other_tokens: Which of those are learned as another token than is there; of the same shape.
        beyond: Which of those are no column of the row, but named by its shifted labels; of the same shape.
        sliced_ends: Where, in place of the token that is there, a label names the end of the sample before,
            which was sliced off; of the same shape.
        pads: What is padding, as far as ids, mask and labels tell; bool of shape ``(rows, seq)``.
        real: What is a token of the text: the rest.
    """

    def __init__(
        self,
        batch: Batch,
        tokenizer: PreTrainedTokenizerBase | None,
        template: Template | None,
        vocabulary: int | None,
        purpose: Purpose,
    ) -> None:
        self.batch, self.tokenizer, self.template, self.purpose = batch, tokenizer, template, purpose
        self.ids = batch.input_ids
        self.rows, self.seq = self.ids.shape
        self.vocabulary = vocabulary
        most = vocabulary if vocabulary is not None else torch.iinfo(torch.int64).max
        self.out_of_vocabulary = (self.ids < 0) | (self.ids >= most)
        self.labels = batch.labels if purpose == "train" else None
        labels = torch.full_like(self.ids, IGNORE_INDEX) if self.labels is None else self.labels
        self.invalid_labels = (labels != IGNORE_INDEX) & ((labels < 0) | (labels >= most))
        valid = labels.masked_fill(self.invalid_labels, IGNORE_INDEX)
        self._find_edges()
        edges = self.hidden_edges | self._first | self._last
        self.offset, self._unfit = _offsets(self.ids, valid, edges)
        self.shift = torch.zeros(self.rows, dtype=torch.int64) if self.offset is None else self.offset
        self._align(valid)
        self.pads = self._pads()
        self.real = ~self.pads
        self._compare(valid)

    # Labels

    def _align(self, labels: torch.Tensor) -> None:
        """Lay the labels under the tokens that they name."""
        place = torch.arange(self.seq + 2) - self.shift[:, None]
        inside = (place >= 0) & (place < self.seq)
        self.named = labels.gather(1, place.clamp(0, self.seq - 1)).masked_fill(~inside, IGNORE_INDEX)
        self.learned = self.named >= 0
        if int(self.shift.max()) == 0:
            self.learned[:, 0] = False  # nothing comes before the first token that could predict it
        self.tokens = pad(self.ids, (0, 2), value=-1)

    def _compare(self, labels: torch.Tensor) -> None:
        """Tell labels that name a token beyond their row from those that name another than is there.

        ``ids[:-1]`` and ``labels[1:]``, padded afterwards: the last label of each row is right, though what
        stands in that column is a pad.
        """
        places = torch.arange(self.seq + 2)
        last = stops(self.real)
        after = (places >= last[:, None]) & (places < (last + self.shift.clamp(min=0))[:, None])
        self.beyond = self.learned & after & (self.named != self.tokens)
        if self.pad_id in self.ends:  # the same token as the text's own end, unless that came before it
            ended = (self.tokens.roll(1, dims=1) == self.pad_id) & (places == last[:, None])
            self.beyond |= self.learned & after & ~ended
        self.tokens = torch.where(self.beyond, self.named, self.tokens)
        wrong = (self.named != IGNORE_INDEX) & (self.named != self.tokens) & (self.tokens >= 0)
        wrong &= self._unfit[:, None] if self.offset is None else True
        # The same of samples in one row: the last label of each stands under the next one's first token.
        sliced = wrong & wider(self.starts) & (self.shift == 1)[:, None]
        wrong &= ~sliced
        self.learned &= ~sliced
        self.sliced_ends = sliced & torch.isin(self.named, torch.tensor(sorted(self.ends), dtype=torch.int64))
        self.other_tokens = self.learned & wrong
        self.mismatched_labels = self.label_places(wrong)

    @cached_property
    def may_be_of_predictions(self) -> bool:
        """Whether labels were made of a ``loss_mask`` that is one token early at each answer.

        So a mask looks that some trainers lay beside the logits, where position i predicts token i + 1.
        """
        starts = [
            (row, turn.start)
            for row, turns in enumerate(self.turns)
            for turn in turns
            if turn.role == "assistant" and self.learned[row, turn.start : turn.stop].any()
        ]
        return self.batch.labels_of == "loss_mask" and bool(starts) and all(
            start > 1 and self.learned[row, start - 1] and not self.learned[row, start - 2]
            for row, start in starts
        )  # fmt: skip

    def label_places(self, columns: torch.Tensor) -> torch.Tensor:
        """Return where the labels of these tokens are: from ``(rows, seq + 2)`` to ``(rows, seq)``, bool."""
        place = torch.arange(self.seq) + self.shift[:, None]
        inside = (place >= 0) & (place < self.seq + 2)
        return columns.gather(1, place.clamp(0, self.seq + 1)) & inside

    # Padding

    def special(self, name: str) -> int | None:
        """Return the id of a special token of the tokenizer, such as ``"eos"``."""
        return getattr(self.tokenizer, f"{name}_token_id", None)

    @cached_property
    def ends(self) -> set[int]:
        """The ids that end a turn or a text."""
        return ({self.special("eos")} | (self.template.ends if self.template else set())) - {None}

    def _find_edges(self) -> None:
        """Find what a mask hides at either edge of a row, and runs of the id that rows are padded with."""
        mask, own, bos = self.batch.mask, self.special("pad"), self.special("bos")
        nothing = torch.zeros_like(self.ids, dtype=torch.bool)
        self.hidden_edges = nothing if mask is None else _run(~mask) | _run(~mask, from_the_end=True)
        hidden = self.ids[self.hidden_edges].unique().tolist()
        self.pad_id = own
        if len(hidden) == 1 and own not in hidden:
            self.pad_id = None  # not the tokenizer's: then the mask tells
        learned = nothing if self.labels is None else self.labels != IGNORE_INDEX
        for other, but in ((bos, nothing), (self.special("unk"), learned)):
            if hidden or other is None:
                continue
            if (_run((self.ids == other) & ~but, from_the_end=True).sum(dim=1) > 1).any():
                self.pad_id = other  # no text ends so: rows are padded with it, whatever the tokenizer says
        fill = nothing if self.pad_id is None else self.ids == self.pad_id
        self._first, self._last = _run(fill), _run(fill, from_the_end=True)

    def _pads(self) -> torch.Tensor:
        """Tell padding from text: all runs of the pad token at an edge, where it means nothing else."""
        if self.pad_id is None:
            return self.hidden_edges & ~self.hidden_edges.all(dim=1, keepdim=True)
        first, last = self._first.clone(), self._last.clone()
        mask = self.batch.mask
        if self.pad_id == self.special("bos"):  # the last of those before a text begins it, if it is visible
            count = first.sum(dim=1)
            place = (count - 1).clamp(min=0)
            begins = (count > 0) & (mask is None or mask.gather(1, place[:, None])[:, 0])
            first[begins, place[begins]] = False
        if self.pad_id in self.ends:
            if int(first.sum(dim=1).max()) == 1:
                # One EOS before a text may be the end of another, as in blocks cut out of a long text.
                visible = first[:, 0] if mask is None else first[:, 0] & mask[:, 0]
                for row in visible.nonzero().flatten().tolist():
                    text = self.ids[row, 1:].tolist()
                    first[row, 0] = self.template is not None and self.template.begins(text)
            last[self._ends_of_texts(first, last)] = False
        elif mask is not None:  # shown, and alone learned: a script may write it as each answer's end
            learned = last & self.learned[:, : self.seq]
            own = learned & mask & (last.cumsum(dim=1) == 1) & (learned.sum(dim=1, keepdim=True) == 1)
            for row, place in own.nonzero().tolist():
                last[row, place] = self._has_ended(self.ids[row, :place].tolist())
        return first | last

    def _ends_of_texts(self, first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Find where the first of the pad tokens at a row's end is no padding, but the text's own end.

        Args:
            first: The pad tokens at the rows' beginnings, bool of shape ``(rows, seq)``.
            last: Those at the rows' ends.
        """
        found = torch.zeros_like(last)
        mask, positions = self.batch.mask, self.batch.position_ids
        counts = last.sum(dim=1)
        places = self.seq - counts
        longest = int(places.max())
        # Every row ends with one, the longest with just that one: no collator pads the longest row, unless to
        # a multiple. So the texts have an end.
        everywhere = int(counts.min()) >= 1
        tight = int(counts.min()) == 1 and self.seq % 8 != 0
        after_first = last & (torch.arange(self.seq) > places[:, None])
        one_learned = not (self.learned[:, : self.seq] & after_first).any()  # else all of the padding is
        closing = self.template is not None and self.pad_id in self.template.ends_of_last
        shown_somewhere = mask is not None and bool((mask & last).any())
        at = places.clamp(max=self.seq - 1)[:, None]
        learned_there = (self.learned.gather(1, at)[:, 0] & one_learned).tolist()
        # No row is padded on both sides; and who learns just the first pad of every row has written it.
        written = everywhere and (all(learned_there) or (first.any() and int(counts.max()) == 1))
        shown_there = mask.gather(1, at)[:, 0].tolist() if mask is not None else [None] * self.rows
        filled = (
            (positions.gather(1, at)[:, 0] == 0).tolist() if positions is not None else [False] * self.rows
        )
        shifts = self.shift.tolist()
        for row, place in enumerate(places.tolist()):
            if not 0 < place < self.seq or filled[row]:
                continue  # none; or the collator filled up a packed row
            shown, learned, shifted = shown_there[row], learned_there[row], shifts[row] > 0
            if written or (shown and learned):
                found[row, place] = True
                continue
            if not (shown or learned or (shown is None) or (place < longest and not shown_somewhere)):
                continue
            ids = self.ids[row, :place].tolist()
            if self.template is not None and self.template.ends_with_an_end(ids):
                turns, ended = True, True
            else:
                found_turns = self.template.read(ids).turns if self.template else []
                turns, ended = bool(found_turns), bool(found_turns and found_turns[-1].end)
            if shown is False and shifted:  # learned there is the end of a text that was cut, then padded
                text = False
            elif turns and not ended and closing and self.purpose == "train":
                # The template's own end, unless the row was cut: other rows then show theirs.
                text = shown is not False or learned or (place < longest and not shown_somewhere)
            elif turns or self.purpose == "generate":  # an EOS of the pipeline's own, after each text
                told = shown or ((tight or shown is None) and learned)
                text = everywhere and (told or (shown is None and (tight or self.purpose == "generate")))
            else:  # a mask is believed, unless labels and the longest row are both against it
                text = shown or (tight and (learned or shown is None)) or (shown is None and learned)
            found[row, place] = bool(text)
        return found

    def _has_ended(self, ids: list[int]) -> bool:
        """Tell if a text has its end already."""
        if self.template is not None:
            return self.template.ends_with_an_end(ids)
        return bool(ids) and ids[-1] in self.ends

    @cached_property
    def pads_before_text(self) -> torch.Tensor:
        """The pads on the left of a row that has any text; bool of shape ``(rows, seq)``."""
        return self.pads & (self.real.cumsum(dim=1) == 0) & self.real.any(dim=1, keepdim=True)

    # Samples and turns

    @cached_property
    def starts(self) -> torch.Tensor:
        """Where positions or a block mask begin another sample of a packed row; bool of ``(rows, seq)``."""
        found = torch.zeros_like(self.real)
        if self.batch.position_ids is not None:
            found |= self.batch.position_ids == 0
        if self.batch.mask_4d is not None:
            earlier = self.batch.mask_4d.tril(-1) & self.real[:, None, :]
            found |= ~earlier.any(dim=-1)
        return found & self.real & (self.real.cumsum(dim=1) > 1)

    @cached_property
    def text(self) -> torch.Tensor:
        """The tokens of the text, also those that only shifted labels name; bool of ``(rows, seq + 2)``."""
        return wider(self.real) | self.beyond

    @cached_property
    def readings(self) -> list[Reading]:
        """Each row as turns, in columns; nothing without a template."""
        if self.template is None:
            return [Reading() for _ in range(self.rows)]
        firsts, lasts = self.text.long().argmax(dim=1).tolist(), stops(self.text).tolist()
        packed = self.starts.any(dim=1).tolist()
        found = []
        for row, (ids, first, last) in enumerate(zip(self.tokens.tolist(), firsts, lasts)):
            whole = Reading()
            starts = self.starts[row].nonzero().flatten().tolist() if packed[row] else []
            for begin, stop in pairwise([first, *starts, last] if last else []):
                whole.add(self.template.read(ids[begin:stop]), begin)
            found.append(whole)
        return found

    @property
    def turns(self) -> list[list[Turn]]:
        """The turns of each row."""
        return [reading.turns for reading in self.readings]

    @cached_property
    def forged(self) -> torch.Tensor:
        """Where turns are out of order; bool of shape ``(rows, seq)``."""
        return self._columns([reading.forged for reading in self.readings])

    @cached_property
    def unmarked_starts(self) -> torch.Tensor:
        """Where another conversation begins, whatever the positions say; bool of shape ``(rows, seq)``.

        It shows by a system message after an answer, or by what the template writes at a beginning only.
        """
        found = self._columns([reading.begins for reading in self.readings])
        bos = self.special("bos")
        before = torch.zeros_like(found)
        if bos is not None and bos not in self.ends:  # the BOS before it begins it
            before[:, :-1] = found[:, 1:] & (self.ids[:, :-1] == bos)
            found[:, 1:] &= ~before[:, :-1]
        return (found | before) & ~self.starts

    @cached_property
    def bos_inside(self) -> torch.Tensor:
        """BOS tokens in the middle of a chat, or of a prompt and its answer; bool of shape ``(rows, seq)``.

        Not those that the template writes, nor where a sample begins, nor a second one at the beginning. In
        plain text not after an EOS either, nor where all is learned: so documents are joined.
        """
        bos = self.special("bos")
        of_headers = self.template is not None and self.template.begins_with_bos
        if bos is None or of_headers or bos in self.ends | {self.pad_id}:
            return torch.zeros_like(self.real)
        found = (self.ids == bos) & self.real & (self.real.cumsum(dim=1) > 1) & ~self.starts
        found[:, 1:] &= self.ids[:, :-1] != bos
        for row in found.any(dim=1).nonzero().flatten().tolist():
            if self.readings[row].turns:
                for joint in self.readings[row].joints:
                    found[row, joint.start : joint.stop] = False
                continue
            text = self.real[row].nonzero().flatten().tolist()
            if self.labels is None or self.learned[row, text[1:]].all() or not self.learned[row].any():
                found[row] = False
                continue
            for place in found[row].nonzero().flatten().tolist():
                before = self.ids[row, text[0] : place].tolist()
                words = [
                    i
                    for i, word in zip(before, self.tokenizer.convert_ids_to_tokens(before))
                    if word.strip("Ċ▁Ġ")
                ]
                found[row, place] = not words or words[-1] not in self.ends
        return found & ~self.unmarked_starts

    @cached_property
    def last_learned(self) -> list[int]:
        """The id that each row learns last, spaces after it left out; -1 if there is none."""
        found = []
        for tokens, learned in zip(self.tokens, self.learned & self.text):
            ids = tokens[learned][-8:].tolist() if self.tokenizer is not None else []
            words = [i for i in ids if (self.tokenizer.convert_ids_to_tokens(i) or "?").strip("Ċ▁Ġ\n ")]
            found.append(words[-1] if words else -1)
        return found

    @cached_property
    def learned_ends(self) -> set[int]:
        """The special tokens that are learned last, if most rows end in one; a BOS begins another text."""
        known = getattr(self.tokenizer, "added_tokens_decoder", {})
        begins = {self.special("bos")} - self.ends
        last = [i for i in self.last_learned if i >= 0]
        special = [i for i in last if i in known and known[i].special and i not in begins]
        return set(special) if 2 * len(special) > len(last) else set()

    @cached_property
    def joined(self) -> list[int]:
        """Rows without known turns in which something is learned, ended, and after other text learned again.

        These may be several samples, or several turns of one.
        """
        eos = self.special("eos")
        rows = []
        for row in range(self.rows):
            if eos is None or self.readings[row].turns or self.starts[row].any():
                continue
            learned = self.learned[row, : self.seq] & self.real[row]
            ended = (learned & (self.ids[row] == eos))[:-1] & ~learned[1:]
            if ended.any() and learned[int(ended.long().argmax()) + 1 :].any():
                rows.append(row)
        return rows

    @cached_property
    def begins_with_a_turn(self) -> list[bool]:
        """Whether a row is one sample, and begins with what announces a turn."""
        first, packed = self.real.long().argmax(dim=1).tolist(), self.starts.any(dim=1).tolist()
        return [
            not several and bool(reading.turns) and reading.turns[0].header <= column
            for reading, column, several in zip(self.readings, first, packed)
        ]

    def _columns(self, places: list[list[int]]) -> torch.Tensor:
        found = torch.zeros_like(self.real)
        for row, columns in enumerate(places):
            if columns:
                found[row, [min(column, self.seq - 1) for column in columns]] = True
        return found


def wider(columns: torch.Tensor) -> torch.Tensor:
    """Add the two columns beyond a row that shifted labels can name: from ``(rows, seq)`` to ``seq + 2``."""
    return pad(columns, (0, 2))


def stops(true: torch.Tensor) -> torch.Tensor:
    """Return the column after each row's last true one, 0 where there is none; int64 of shape ``(rows,)``."""
    return (true * torch.arange(1, true.shape[1] + 1)).amax(dim=1)


def _run(true: torch.Tensor, from_the_end: bool = False) -> torch.Tensor:
    """Keep what is true from a row's first column on, or up to its last, without a gap."""
    if from_the_end:
        return true.flip(1).long().cumprod(dim=1).bool().flip(1)
    return true.long().cumprod(dim=1).bool()


def _offsets(
    ids: torch.Tensor, labels: torch.Tensor, edges: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Tell for each row which token its labels hold at position i: token i + offset.

    Args:
        ids: Of shape ``(rows, seq)``.
        labels: Of the same shape, `IGNORE_INDEX` where there is none to compare.
        edges: What may be padding: no label there tells anything.

    Returns:
        The offset of each row, of shape ``(rows,)``; where a row's labels fit several or none it is the
        one of most rows, or None in place of the tensor if no row tells. And which rows fit none, bool.
    """
    seq, given = ids.shape[1], labels != IGNORE_INDEX
    shares = []
    for offset in OFFSETS:
        there = torch.arange(seq) + offset
        inside = given & (there >= 0) & (there < seq) & ~edges[:, there.clamp(0, seq - 1)]
        same = (ids[:, there.clamp(0, seq - 1)] == labels) & inside
        shares.append(same.sum(1) / inside.sum(1).clamp(min=1))
    share = torch.stack(shares, dim=1)
    best, place = share.max(dim=1)
    sure = ((share == best[:, None]).sum(dim=1) == 1) & (best >= 0.5)
    if not sure.any():
        return None, best < 1
    common = int(place[sure].mode().values)
    return torch.tensor(OFFSETS)[torch.where(sure, place, common)], best < 1
