"""Find the turns of a chat in rows of token ids, by the marks that the tokenizer's chat template writes."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

from transformers import PreTrainedTokenizerBase

_SPELLED = {"Ġ": " ", "▁": " ", "Ċ": "\n", "ĉ": "\t"}
_BYTES = {f"<0x{i:02X}>": chr(i) for i in range(128)}  # where a tokenizer has no token for a letter
_PRIVATE = "\ue000"  # a special token is one private letter, so that no words can spell it


@dataclass(frozen=True)
class Turn:
    """One turn in a row; all numbers are positions of tokens.

    Attributes:
        role: ``"assistant"``, ``"user"`` (or a tool) or ``"system"``.
        mark: What announces it, as it is written.
        header: Where that begins.
        start: Its first word's token.
        latest: The same, but if that token also holds the end of the header, the one after it; and after
            what a template may write by itself before the words, such as an empty thought.
        end: Its end-of-turn token; None if there is none.
        stop: Where the next turn, or nothing, begins.
        well_ended: Whether nothing but what the template writes stands between end and stop, be it cut off.
    """

    role: str
    mark: str
    header: int
    start: int
    latest: int
    end: int | None
    stop: int
    well_ended: bool


class Template:
    """What a chat template writes around the words.

    Raises:
        ValueError: There is no template, or none in which turns can be told apart.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if getattr(tokenizer, "chat_template", None) is None:
            raise ValueError("the tokenizer has no chat template")
        self.tokenizer = tokenizer
        self.special = {
            i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self._letters = {i: chr(ord(_PRIVATE) + n) for n, i in enumerate(sorted(self.special))}
        self._pieces: dict[int, str] = {}
        system, user, assistant, tool = ("Qs1", "Qu1", "Qa1", "Qt1")
        asked = [{"role": "user", "content": user}]
        answered = [*asked, {"role": "assistant", "content": assistant}]
        first = self._written(asked)
        whole = self._written(answered)
        if (
            not first
            or not whole
            or user not in first
            or not re.search(f"{user}.*{assistant}", whole, re.DOTALL)
        ):
            raise ValueError("its chat template could not be read")
        user_end = first.split(user)[1]
        between, tail = whole.split(user, 1)[1].split(assistant, 1)
        self.header = {_rest(between, user_end): "assistant"}
        prompt = self._written(asked, True)
        if prompt is not None and prompt.startswith(first) and prompt != first:
            self.header[prompt[len(first) :].lstrip()] = "assistant"
        tails = [tail]
        for role, words in (("user", user), ("tool", tool)):
            more = self._written([*answered, {"role": role, "content": words}])
            if more is not None and assistant in more and words in more.split(assistant)[1]:
                tails.append(more.split(assistant)[1].split(words)[0])
                self.header.setdefault(_rest(tails[-1], tail), "user")
        # The first special token after an answer, be it the last or not, ends it.
        ends = {next((letter for letter in text if letter >= _PRIVATE), "") for text in tails}
        self.ends = {i for i, letter in self._letters.items() if letter in ends}
        if not self.ends:
            raise ValueError("its chat template ends a turn without a special token")
        if any(not set(mark) - set(tail) - set(" \n") for mark in self.header):
            raise ValueError("its chat template writes nothing before a turn")
        self.closes_every_turn = bool(ends & set(user_end))
        instructed = self._written([{"role": "system", "content": system}, *asked])
        if instructed is not None and system in instructed:
            mark = instructed.split(system)[0]
            bos = self._encoded(tokenizer.bos_token or "")
            if not any(other.startswith(bos) for other in self.header):
                mark = mark.removeprefix(bos)  # in ChatML it may be what every header begins with
            self.header.setdefault(mark.lstrip(), "system")
        marks = sorted(filter(str.strip, self.header), key=len, reverse=True)
        self._mark = re.compile("|".join(map(re.escape, marks)))
        # Where one mark begins another, the longer holds what a template may write before the words.
        self._shortest = {mark: min(len(m) for m in marks if mark.startswith(m)) for mark in marks}
        if not self.turns(self._ids(answered)):
            raise ValueError("its tokens do not spell what its chat template writes")

    def _written(self, messages: list[dict[str, str]], prompt: bool = False) -> str | None:
        """Write messages with one letter for each special token; None if the template refuses them."""
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        except Exception:  # a template raises what it likes, for example on a system message
            return None
        return self._encoded(text)

    def _encoded(self, text: str) -> str:
        for i, content in sorted(self.special.items(), key=lambda item: -len(item[1])):
            text = text.replace(content, self._letters[i])
        return text

    def _ids(self, messages: list[dict[str, str]]) -> list[int]:
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def text(self, ids: Sequence[int]) -> list[str]:
        """Spell ids, token by token; special ones as private letters."""
        unknown = [i for i in set(ids) if i not in self._pieces]
        for i, token in zip(unknown, self.tokenizer.convert_ids_to_tokens(unknown)):
            token = _BYTES.get(token, token or "")  # an id that the tokenizer does not know has no letters
            for spelled, meant in _SPELLED.items():
                token = token.replace(spelled, meant)
            self._pieces[i] = self._letters.get(i, token)
        return [self._pieces[i] for i in ids]

    def turns(self, ids: Sequence[int]) -> list[Turn]:
        """Find the turns in a row, or in one sample of a packed row."""
        pieces = self.text(ids)
        text = "".join(pieces)
        marks = list(self._mark.finditer(text))
        if not marks:
            return []
        starts = list(accumulate(map(len, pieces), initial=0))  # of the tokens, in letters
        found = []
        for mark, following in zip(marks, [*marks[1:], None]):
            last = following.start() if following else len(text)
            begins = [mark.start() + self._shortest[mark[0]], mark.end()]
            start, latest, stop = (bisect_right(starts, place) - 1 for place in (*begins, last))
            # A token that began before the words do, if by more than a space, holds the header's end.
            shared = starts[latest] < mark.end() < len(text) and text[mark.end() - 1] != " "
            end = next((i for i in range(start, stop) if ids[i] in self.ends), None)
            after = "" if end is None else self.words("".join(pieces[end + 1 : stop]))
            cut = (
                bool(after)
                and following is None
                and any(self.words(m).startswith(after) for m in self.header)
            )
            found.append(
                Turn(
                    self.header[mark[0]],
                    mark[0],
                    bisect_right(starts, mark.start()) - 1,
                    start,
                    latest + shared,
                    end,
                    stop,
                    not after or cut,
                )
            )
        return found

    def begins(self, ids: Sequence[int]) -> bool:
        """Tell whether a turn begins right here, or after a BOS token."""
        text = "".join(self.text(ids))
        bos = self._encoded(self.tokenizer.bos_token or "")
        return bool(self._mark.match(text) or self._mark.match(text.removeprefix(bos)))

    @staticmethod
    def words(text: str) -> str:
        """Return what is left of a text without its special tokens and outer spaces."""
        return "".join(letter for letter in text if not _PRIVATE <= letter < "\uf900").strip()


def _rest(text: str, beginning: str) -> str:
    """Return what a text has beyond a common beginning; if that is nothing but spaces, the whole text."""
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, beginning)))
    rest = text[common:]
    return (rest if rest.strip() else text).lstrip()
