"""What the numbers of a batch say by themselves: what is padding, what is learned, where samples begin."""

from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase

from batchaudit.batch import Batch
from batchaudit.offsets import OFFSETS
from batchaudit.turns import Template, Turn
from tinylib.labels import IGNORE_INDEX

Purpose = Literal["train", "generate"]


class Facts:
    """A batch, read with a tokenizer if there is one.

    Labels are turned back to the tokens that they name, whoever shifted them: a *column* is the place of a
    token. Shifted labels can name up to two tokens beyond the last column.

    Attributes:
        batch: As read.
        tokenizer: Or None.
        template: The marks of its chat template, or None.
        vocabulary: How many ids there are, or None.
        out_of_vocabulary: Ids that no token has, bool of shape ``(rows, seq)``.
        invalid_labels: The same of labels.
        offset: Which token each row's labels hold at position i: token i + offset; None if they do not tell.
        mismatched_labels: Labels that are not that token; bool of shape ``(rows, seq)``.
        tokens: int64 of shape ``(rows, seq + 2)``, -1 beyond the row.
        learned: Whether a label names that token; bool of the same shape.
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
        self.offset, self.mismatched_labels = _offsets(
            self.ids, labels.masked_fill(self.invalid_labels, IGNORE_INDEX)
        )
        self._align(labels)

    def _align(self, labels: torch.Tensor) -> None:
        """Lay the labels under the tokens that they name."""
        shift = torch.zeros(self.rows, dtype=torch.int64) if self.offset is None else self.offset
        place = torch.arange(self.seq + 2) - shift[:, None]
        inside = (place >= 0) & (place < self.seq)
        named = labels.gather(1, place.clamp(0, self.seq - 1))
        self.learned = inside & (named >= 0)
        if self.offset is None or int(shift.max()) == 0:
            self.learned[:, 0] = False  # nothing comes before the first token that could predict it
        self.tokens = torch.nn.functional.pad(self.ids, (0, 2), value=-1)
        beyond = self.learned[:, self.seq :]
        self.tokens[:, self.seq :] = torch.where(beyond, named[:, self.seq :], -1)

    def label_places(self, columns: torch.Tensor) -> torch.Tensor:
        """Return where the labels of these tokens are: from ``(rows, seq + 2)`` to ``(rows, seq)``, bool."""
        if self.offset is None:
            return columns[:, : self.seq]
        place = torch.arange(self.seq) + self.offset[:, None]
        inside = (place >= 0) & (place < self.seq + 2)
        return columns.gather(1, place.clamp(0, self.seq + 1)) & inside

    def special(self, name: str) -> int | None:
        """Return the id of a special token of the tokenizer, such as ``"eos"``."""
        return getattr(self.tokenizer, f"{name}_token_id", None)

    @cached_property
    def ends(self) -> set[int]:
        """The ids that end a turn or a text."""
        ends = {self.special("eos")} | (self.template.ends if self.template else set())
        return ends - {None}

    @cached_property
    def hidden_edges(self) -> torch.Tensor:
        """What a mask hides at either edge of a row; bool of shape ``(rows, seq)``."""
        if self.batch.mask is None:
            return torch.zeros_like(self.ids, dtype=torch.bool)
        return _run(~self.batch.mask) | _run(~self.batch.mask, from_the_end=True)

    @cached_property
    def pad_id(self) -> int | None:
        """The id that this batch is padded with; None if it is not the tokenizer's: then the mask tells."""
        hidden = self.ids[self.hidden_edges].unique().tolist()
        own = self.special("pad")
        return None if len(hidden) == 1 and own not in hidden else own

    @cached_property
    def pads(self) -> torch.Tensor:
        """What is padding, as far as ids, mask and labels tell; bool of shape ``(rows, seq)``."""
        if self.pad_id is None:
            return self.hidden_edges & ~self.hidden_edges.all(dim=1, keepdim=True)
        fill = self.ids == self.pad_id
        first, last = _run(fill), _run(fill, from_the_end=True)
        if self.pad_id == self.special("bos"):  # then the last of them may begin the text
            count = first.sum(dim=1)
            place = (count - 1).clamp(min=0)
            begins = (count > 0) & (
                self.batch.mask is None or self.batch.mask.gather(1, place[:, None])[:, 0]
            )
            first[begins, place[begins]] = False
        if self.pad_id in self.ends:
            if int(first.sum(dim=1).max()) == 1:
                # One EOS before a text may be the end of another, as in blocks cut out of a long text.
                visible = first[:, 0] if self.batch.mask is None else first[:, 0] & self.batch.mask[:, 0]
                for row in visible.nonzero().flatten().tolist():
                    text = self.ids[row, 1:].tolist()
                    first[row, 0] = self.template is not None and self.template.begins(text)
            last[self._ends_among_pads(last, self.seq - (first | last).sum(dim=1))] = False
        return first | last

    def _ends_among_pads(self, last: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Find where the first of the pad tokens at a row's end is no padding, but the row's end.

        Args:
            last: The pad tokens at the rows' ends, bool of shape ``(rows, seq)``.
            lengths: Of the rows without any pad token at either end.
        """
        found = torch.zeros_like(last)
        mask, positions = self.batch.mask, self.batch.position_ids
        everywhere, longest = bool(last.any(dim=1).all()), int(lengths.max())
        for row, place in enumerate((self.seq - last.sum(dim=1)).tolist()):
            if not 0 < place < self.seq or (positions is not None and positions[row, place] == 0):
                continue  # none; or the collator filled up a packed row
            turns = self.template.turns(self.ids[row, :place].tolist()) if self.template else []
            if (turns and turns[-1].end is not None) or self.purpose == "generate":
                # as of a pipeline that ends every text with an EOS of its own
                found[row, place] = everywhere and (mask is None or bool(mask[row, place]))
            elif mask is None or mask[row, place] or self.learned[row, place]:
                found[row, place] = True
            else:  # a cut row would be as long as any
                found[row, place] = bool(turns) and int(lengths[row]) < longest
        return found

    @cached_property
    def real(self) -> torch.Tensor:
        """What is a token of the text; bool of shape ``(rows, seq)``."""
        return ~self.pads

    @cached_property
    def pads_before_text(self) -> torch.Tensor:
        """The pads on the left of a row that has any text; bool of shape ``(rows, seq)``."""
        return self.pads & (self.real.cumsum(dim=1) == 0) & self.real.any(dim=1, keepdim=True)

    @cached_property
    def starts(self) -> torch.Tensor:
        """Where positions or a block mask begin another sample of a packed row; bool of ``(rows, seq)``."""
        found = torch.zeros_like(self.real)
        if self.batch.position_ids is not None:
            found |= self.batch.position_ids == 0
        if self.batch.mask_4d is not None:
            earlier = self.batch.mask_4d.tril(-1) & self.real[:, None, :]
            found |= ~earlier.any(dim=-1)
        after_another = self.real.cumsum(dim=1) > 1
        return found & self.real & after_another

    @cached_property
    def turns(self) -> list[list[Turn]]:
        """The turns of each row; none without a template."""
        if self.template is None:
            return [[] for _ in range(self.rows)]
        text = torch.nn.functional.pad(self.real, (0, 2)) | (self.learned & (self.tokens >= 0))
        text[:, : self.seq] &= self.real
        found = []
        for row in range(self.rows):
            columns = text[row].nonzero().flatten().tolist()
            if not columns:
                found.append([])
                continue
            first, last = columns[0], columns[-1] + 1
            cuts = [first, *self.starts[row].nonzero().flatten().tolist(), last]
            ids = self.tokens[row].tolist()
            found.append(
                [
                    _moved(turn, begin) if begin else turn
                    for begin, stop in pairwise(cuts)
                    for turn in self.template.turns(ids[begin:stop])
                ]
            )
        return found

    @cached_property
    def forged(self) -> torch.Tensor:
        """Where turns are out of order; bool of shape ``(rows, seq)``."""
        found = torch.zeros_like(self.real)
        new = self.starts | self.unmarked_starts
        for row, turns in enumerate(self.turns):
            for turn, following in zip(turns, [*turns[1:], None]):
                places = [] if turn.well_ended else [turn.end]
                if following is not None:
                    unended = turn.end is None and self.template.closes_every_turn
                    same = turn.role == following.role == "assistant" and turn.mark == following.mark
                    odd = unended or same or (turn.role == "user" and following.role == "system")
                    if odd and not new[row, turn.stop : following.start].any():
                        places += [turn.header, following.header]
                if places:
                    found[row, [min(place, self.seq - 1) for place in places]] = True
        return found

    @cached_property
    def unmarked_starts(self) -> torch.Tensor:
        """Where the tokens begin another sample, whatever the positions say; bool of shape ``(rows, seq)``.

        A new conversation shows by a BOS token, or by a system message after an ended answer. (Plain texts
        one after another, each with its BOS, are how pre-training reads them.)
        """
        found = torch.zeros_like(self.real)
        bos = self.special("bos")
        within_headers = self.template is not None and any(
            self.template.text([bos])[0] in mark for mark in self.template.header if bos is not None
        )
        if bos is not None and bos not in self.ends | {self.pad_id} and not within_headers:
            begins = self.ids == bos
            begins[:, 1:] &= ~begins[:, :-1].clone()
            chats = torch.tensor([bool(turns) for turns in self.turns])
            found |= begins & self.real & (self.real.cumsum(dim=1) > 1) & chats[:, None]
        for row, turns in enumerate(self.turns):
            for before, turn in pairwise(turns):
                if turn.role == "system" and before.role == "assistant" and before.end is not None:
                    header = turn.header
                    if header and bos is not None and self.ids[row, header - 1] == bos:
                        header -= 1
                    found[row, header] = True
        return found & ~self.starts


def _run(true: torch.Tensor, from_the_end: bool = False) -> torch.Tensor:
    """Keep what is true from a row's first column on, or up to its last, without a gap."""
    if from_the_end:
        return true.flip(1).long().cumprod(dim=1).bool().flip(1)
    return true.long().cumprod(dim=1).bool()


def _moved(turn: Turn, by: int) -> Turn:
    """Count a turn's columns from the row's beginning."""
    places = {name: getattr(turn, name) for name in ("header", "start", "latest", "end", "stop")}
    return replace(turn, **{name: place if place is None else place + by for name, place in places.items()})


def _offsets(ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tell for each row which token its labels hold at position i: token i + offset.

    Args:
        ids: Of shape ``(rows, seq)``.
        labels: Of the same shape, `IGNORE_INDEX` where there is none to compare.

    Returns:
        The offset of each row, of shape ``(rows,)``; where a row's labels fit several or none it is the
        one of most rows, or None in place of the tensor if no row tells. And the labels that are not the
        token there, bool of shape ``(rows, seq)``.
    """
    seq, given = ids.shape[1], labels != IGNORE_INDEX
    fits = {}
    for offset in OFFSETS:
        there = torch.arange(seq) + offset
        inside = given & (there >= 0) & (there < seq)
        fits[offset] = inside, (ids[:, there.clamp(0, seq - 1)] == labels) & inside
    share = torch.stack([same.sum(1) / inside.sum(1).clamp(min=1) for inside, same in fits.values()], dim=1)
    best, place = share.max(dim=1)
    sure = ((share == best[:, None]).sum(dim=1) == 1) & (best >= 0.5)
    common = int(place[sure].mode().values) if sure.any() else OFFSETS.index(0)
    found = torch.tensor(OFFSETS)[torch.where(sure, place, common)]
    mismatched = torch.zeros_like(given)
    for offset, (inside, same) in fits.items():
        mismatched |= inside & ~same & (found == offset)[:, None]
    return (found if sure.any() else None), mismatched
