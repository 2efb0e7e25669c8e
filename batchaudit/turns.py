"""Find the turns of a chat in token ids, by the transitions that the tokenizer's chat template writes.

Rendered with stand-in words, a chat template is a list of *joints*: what it writes before the first words,
between a user's and an assistant's, after the last. A joint closes one turn and opens another. What they look
like is read off chats that the template itself renders; then other chats of one to four turns must parse
back to exactly their roles, answers and ends. A template that does not pass this is not used.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise, takewhile
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

_SPELLED = {"Ġ": " ", "▁": " ", "Ċ": "\n", "ĉ": "\t"}
_BYTES = {f"<0x{i:02X}>": chr(i) for i in range(128)}  # where a tokenizer has no token for a letter
_FIRST, _LAST = "\ue000", "\uf8ff"  # a special token is one private letter, so that no words can spell it
_SPECIAL = re.compile(f"[{_FIRST}-{_LAST}]")
_START, _END = "start", "end"
_NEEDED = {("start", "user"), ("user", "assistant"), ("assistant", "user"), ("start", "system")}
_WORDS = {"system": "Zsy", "user": "Zus", "assistant": "Zas", "tool": "Zto", "thought": "Zth"}
# Other words, to prove the reading with: a digit, a line break, more than one word.
_OTHERS = {
    "system": "Be kind.",
    "user": "How many days?\nSay it",
    "assistant": "7 days,\nno more",
    "tool": "1",
}


@dataclass(frozen=True)
class Joint:
    """What a template writes between two messages: ``close + opening + slack``.

    Attributes:
        before: The role that it follows, or ``"start"``; None if any.
        after: The role that it opens.
        close: What ends the message before; empty if nothing does.
        opening: What announces the next, up to where at the earliest its words may begin.
        slack: What may stand before the words, be it learned or not: an empty thought, a line break that the
            prompt for generation leaves to the model.
    """

    before: str | None
    after: str
    close: str
    opening: str
    slack: str = ""


@dataclass(frozen=True)
class Turn:
    """One turn in a row; all numbers are positions of tokens.

    Attributes:
        role: ``"assistant"``, ``"user"``, ``"system"`` or ``"tool"``.
        header: Where what announces it begins.
        start: Its first word's token, at the earliest.
        latest: The same at the latest: after a token that also holds the header's end, and after what a
            template may write before the words.
        end: The tokens that end it, in what closes it; empty if there are none.
        stop: Where the next turn, or nothing, begins.
        followed: Whether another turn follows in its sample.
        blank: Whether it has no words.
    """

    role: str
    header: int
    start: int
    latest: int
    end: tuple[int, ...]
    stop: int
    followed: bool
    blank: bool

    def moved(self, by: int) -> "Turn":
        """Count its columns from the row's beginning."""
        places = {name: getattr(self, name) + by for name in ("header", "start", "latest", "stop")}
        return replace(self, end=tuple(place + by for place in self.end), **places)


@dataclass
class Reading:
    """What a row, or one sample of a packed row, is read as.

    Attributes:
        turns: In order.
        forged: Tokens where turns are out of order, or words hold an end of turn.
        unread: Tokens of turns that hold marks of the template where it writes none: nobody knows whose
            words these are.
        begins: Tokens where another conversation begins.
        joints: Ranges of tokens that the template writes, from the first to the one after the last.
    """

    turns: list[Turn] = field(default_factory=list)
    forged: list[int] = field(default_factory=list)
    unread: list[range] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    joints: list[range] = field(default_factory=list)

    def add(self, other: "Reading", by: int) -> None:
        """Add what is read further right, from column ``by`` on."""
        self.turns += [turn.moved(by) for turn in other.turns] if by else other.turns
        self.forged += [place + by for place in other.forged]
        self.begins += [place + by for place in other.begins]
        self.unread += [range(r.start + by, r.stop + by) for r in other.unread]
        self.joints += [range(r.start + by, r.stop + by) for r in other.joints]


class Template:
    """What a chat template writes around the words.

    Attributes:
        ends: The ids of special tokens with which it ends an answer.
        ends_of_last: Of those that it writes after the last one.
        writes_two_bos: Whether a chat begins with two BOS by its own doing.
        begins_with_bos: Whether the BOS is what every header begins with, as in ChatML.
        opens_answers: Whether a prompt for generation announces the answer.
        starts_each_time: Whether each of a user's turns begins with a BOS, as if it began another text.
        frame: Of all that it writes, but for a BOS at the beginning.
        ends_last: Whether anything ends the last answer.

    Raises:
        ValueError: There is no template, or it cannot be read for certain; the message says why.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if getattr(tokenizer, "chat_template", None) is None:
            raise ValueError("the tokenizer has no chat template")
        self.tokenizer = tokenizer
        special = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._letters = {i: chr(ord(_FIRST) + n) for n, i in enumerate(sorted(special))}
        self._pieces: dict[int, str] = {}
        self._bos = self._letters.get(tokenizer.bos_token_id, "")  # in ChatML every header may begin with it
        self._eos = self._letters.get(tokenizer.eos_token_id, "")
        found = self._transitions()
        self._end = found["assistant", _END][0]
        if self._bos and self._bos in found["user", "assistant"][0]:
            self._bos = ""
        self.joints = list(dict.fromkeys(self._joints(found)))
        self._after_thoughts = {j.close + j.opening + j.slack for j in self.joints if j.before == "thought"}
        closes = [self._end, *(joint.close for joint in self.joints if joint.before == "assistant")]
        self.ends_last = bool(self._end.strip())
        first_specials = {letters[0] for letters in map(_SPECIAL.findall, closes) if letters}
        self.ends = {i for i, letter in self._letters.items() if letter in first_specials}
        texts = "".join(joint.close + joint.opening + joint.slack for joint in self.joints)
        self.ends_of_last = {i for i, letter in self._letters.items() if letter in self._end}
        frame = set(_SPECIAL.findall(texts + self._end)) - {self._bos}
        self.frame = {i for i, letter in self._letters.items() if letter in frame}
        self._end_letters = first_specials | ({self._eos} - {""})
        self._marks = set(_SPECIAL.findall(texts)) - self._end_letters - {self._bos}
        # Whole ends first, so that one of two tokens is not taken for a part of the words.
        wholes = sorted({c.strip() for c in closes if c.strip()} | self._end_letters, key=len, reverse=True)
        self._ends = re.compile("|".join(map(_loosely, wholes)) or r"(?!)")
        joints = [*self.joints, *self._beginnings()]
        joints.sort(key=lambda j: (j.before == _START, len(j.close + j.opening + j.slack)), reverse=True)
        self._groups = joints
        self._pattern = re.compile("|".join(f"({self._regex(joint)})" for joint in joints))
        # What a joint may begin with: anything else need not be tried. (At a text's beginning all is tried.)
        firsts = {_first(joint.close + joint.opening) for joint in joints} | {self._bos}
        self._candidate = re.compile(f"[{re.escape(''.join(sorted(firsts)))}]")
        opening = found["user", "prompt"] or [""]
        last = list(self._segments("a" + opening[0]))
        self.opens_answers = bool(last) and last[-1].role == "assistant"
        bos = self._letters.get(tokenizer.bos_token_id, "")
        self.writes_two_bos = bool(bos) and any(2 * bos in joint.opening for joint in self.joints)
        self.begins_with_bos = not self._bos and bool(bos)
        self.starts_each_time = bool(self._bos) and any(
            self._bos in joint.close + joint.opening for joint in self.joints if joint.before == "assistant"
        )
        self._prove()

    # Reading the template

    def _spelled(self, chats: Sequence[list[dict[str, Any]]], prompt: bool = False) -> list[str | None]:
        """Render chats, tokenize that, and spell it; None where the template refuses one.

        By way of the tokens, since some tokenizers write a space of their own after a special token.
        """
        texts: list[str | None] = []
        for chat in chats:
            try:
                text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt)
            except Exception:  # a template raises what it likes, for example on a system message
                text = None
            texts.append(text or None)
        written = [text for text in texts if text is not None]
        if not written:
            return texts
        ids = iter(self.tokenizer(written, add_special_tokens=False, verbose=False)["input_ids"])
        return [text and "".join(self.text(next(ids))) for text in texts]

    def _between(self, chats: Sequence[Sequence[str]], prompt: bool = False) -> Iterator[list[str] | None]:
        """Yield what is written around the words of each chat; None if it cannot be told."""
        rendered = self._spelled([_messages(roles, _WORDS) for roles in chats], prompt)
        for roles, text in zip(chats, rendered):
            parts = []
            for role in roles:
                before, word, text = (text or "").partition(_WORDS[role])
                parts.append(before)
                text = text if word else None
            whole = text is not None and not any(
                word in part for word in _WORDS.values() for part in (*parts, text)
            )
            yield [*parts, text] if whole else None

    def _transitions(self) -> dict[tuple[str, str], list[str]]:
        """Render chats with stand-in words; return what is written between each pair of roles."""
        turn = ["user", "assistant"]
        chats = [turn, turn * 2, turn * 3, ["system", *turn], ["system", *turn * 2],
                 [*turn, "tool", "assistant"], [*turn, "tool", "assistant", *turn],
                 [*turn, "assistant"], ["user", *turn], [*turn, "system", *turn],
                 ["user", "thought", "assistant"], [*turn, "user", "thought", "assistant"]]  # fmt: skip
        between = list(self._between(chats))
        if None in between[:2]:
            raise ValueError("its chat template does not write the words of a chat as they are")
        # Some write the system's words into the user's turn, as Gemma's: they have no turn of their own.
        self._folds_system = between[3] is not None and not between[3][1].strip()
        found: dict[tuple[str, str], list[str]] = {}
        for roles, parts in zip(chats, between):
            for pair, text in zip(pairwise([_START, *roles, _END]), parts or ()):
                if self._folds_system and pair == ("system", "user"):
                    continue
                pair = (_START, "user") if self._folds_system and pair == (_START, "system") else pair
                if text not in found.setdefault(pair, []):
                    found[pair].append(text)
        asked = [["user"], [*turn, "user"]]
        for prompt, after in ((False, _END), (True, "prompt")):
            found["user", after] = [parts[-1] for parts in self._between(asked, prompt) if parts is not None]
        return found

    def _joints(self, found: dict[tuple[str, str], list[str]]) -> Iterator[Joint]:
        """Cut what is written between two messages into what closes the first and what opens the second."""
        asked = next(iter(found["user", _END]), "")
        if set(found["user", "assistant"]) & set(found["assistant", "user"]):
            raise ValueError("its chat template writes the same before a user's turn as before an answer")
        openings = [text for pair in (("user", "assistant"), ("user", "thought"), ("user", "prompt"))
                    for text in found.get(pair, ()) if text.strip()]  # fmt: skip
        for (before, after), texts in found.items():
            for text in texts:
                if after == _END or (after == "prompt" and text == asked):
                    continue
                if (before, after) not in _NEEDED and text.strip() in ("", self._end.strip()):
                    continue  # it joins two messages of one role, or writes no other role
                if not text.strip() and before != _START:
                    raise ValueError("its chat template writes nothing before a turn")
                close = {
                    "assistant": lambda text: _closing(text, self._end, whole=True) or _closing(text, asked),
                    "user": lambda text: _closing(text, asked),
                    "system": lambda text: min(_closing(text, asked), _closing(text, self._end), key=len),
                    "tool": lambda text: _closing(text, asked),
                }.get(before, lambda text: "")(text)
                after = "assistant" if after == "prompt" else after
                shorter = [o for o in openings if after in ("assistant", "thought") and text.startswith(o)]
                cut = max(len(min(shorter, key=len, default=text)), len(close))
                yield Joint(before, after, close, text[len(close) : cut], text[cut:])

    def _beginnings(self) -> Iterator[Joint]:
        """Add what opens a turn without what closes the one before it: some pipelines leave that out."""
        known = set()
        for joint in self.joints:
            bare = Joint(None, joint.after, "", joint.opening.removeprefix(self._bos), joint.slack)
            if joint.before != _START and joint.close.strip() and bare.opening.strip() and bare not in known:
                known.add(bare)
                yield bare

    def _regex(self, joint: Joint) -> str:
        """Match a joint, whatever spaces a tokenizer or a pipeline puts at its edges; three groups inside."""
        close, opening, slack = joint.close, joint.opening, joint.slack
        if joint.before == _START:
            whole = opening + slack
            anywhere = joint.after != "system" and self._starts_anew(whole)
            text = whole if anywhere else whole.removeprefix(self._bos)
            optional = f"(?:{self._bos} ?)*" if self._bos else ""
            start = rf"\A *{optional} *" + _loosely(whole.removeprefix(self._bos).lstrip())
            if not whole.removeprefix(self._bos).strip():
                return rf"()(\A(?:{re.escape(self._bos)} ?)+)" if self._bos else r"()(\A)"
            return f"()({start}|{_loosely(text)})" if anywhere else f"()({start})"
        slack_regex = _loosely(slack, edge=True, lead=False) if slack.strip() else f"(?:{re.escape(slack)})?"
        last = not slack
        if close.strip():
            return f"({_loosely(close)})({_loosely(opening, edge=last, lead=False)}){slack_regex}"
        return f"()({_loosely(opening, edge=last)}){slack_regex}"

    def _starts_anew(self, whole: str) -> bool:
        """Tell if the beginning of a chat can be told from that of a turn within one."""
        within = [joint.opening for joint in self.joints if joint.before not in (_START, None)]
        distinct = bool(_SPECIAL.search(whole))
        return distinct and not any(whole.strip() == text.strip() for text in within) and (
            (bool(self._bos) and whole.startswith(self._bos) and not any(self._bos in t for t in within))
            or any(joint.after == "system" and joint.opening.strip() and joint.opening.removeprefix(
                self._bos).strip() in whole for joint in self.joints)
        )  # fmt: skip

    def _prove(self) -> None:
        """Let chats of one to four turns, rendered with other words, parse back to themselves."""
        chats = [
            ["system"] * system + ["user", "assistant"] * count for system in (0, 1) for count in range(1, 5)
        ]
        for roles, text in zip(chats, self._spelled([_messages(roles, _OTHERS) for roles in chats])):
            if text is None or ("system" in roles and _OTHERS["system"] not in text):
                continue  # it refuses such a chat, or leaves the system's words out
            read = list(self._segments(text))
            if [s.role for s in read] != [r for r in roles if r != "system" or not self._folds_system]:
                raise ValueError("its own chats do not parse back to their roles")
            answers = [segment for segment in read if segment.role == "assistant"]
            words = {text[answer.latest : answer.until].strip() for answer in answers}
            ended = [bool(answer.close.strip()) for answer in answers]
            if words != {_OTHERS["assistant"]} or ended != [*[ended[0]] * (len(ended) - 1), self.ends_last]:
                raise ValueError("its own chats do not parse back to their answers and ends")

    # Reading rows

    def text(self, ids: Sequence[int]) -> list[str]:
        """Spell ids, token by token; special ones as private letters."""
        unknown = [i for i in set(ids) if i not in self._pieces]
        for i, token in zip(unknown, self.tokenizer.convert_ids_to_tokens(unknown)):
            token = _BYTES.get(token, token or "")  # an id that the tokenizer does not know has no letters
            for spelled, meant in _SPELLED.items():
                token = token.replace(spelled, meant)
            self._pieces[i] = self._letters.get(i, token)
        return [self._pieces[i] for i in ids]

    def _matches(self, text: str) -> Iterator[re.Match[str]]:
        place = 0
        while True:
            match = self._pattern.match(text, place)
            if match is not None and (match.end() > place or place == 0):
                yield match
                place = max(match.end(), place + 1)
            else:
                place += 1
            if (candidate := self._candidate.search(text, place)) is None:
                return
            place = candidate.start()

    def _segments(self, text: str) -> "Iterator[_Segment]":
        """Cut a text at the joints."""
        current = None
        for match in self._matches(text):
            place = match.lastindex
            joint = self._groups[(place - 1) // 3]
            if joint.before == "thought" or match[0] in self._after_thoughts:
                if current is not None and current.joint.after == "thought":
                    current.latest = match.end()  # within an answer: its thought ends here
                    continue
                if joint.before == "thought":
                    continue
            ends = current is not None and current.role == joint.before == "assistant"
            if ends and not text[match.end() :].strip():
                # Nothing follows: then it only ends the answer. In some templates one mark does both.
                closed = match.end(place + 1) if joint.close.strip() else match.end()
                self._end_segment(current, text, match.start(), closed, None)
                yield current
                return
            if current is not None:
                self._end_segment(current, text, match.start(), match.end(place + 1), joint)
                yield current
            role = "assistant" if joint.after == "thought" else joint.after
            current = _Segment(
                role, match.start(), match.end(place + 1), match.end(place + 2), match.end(), joint
            )
        if current is not None:
            self._end_segment(current, text, len(text), len(text), None)
            yield current

    def _end_segment(self, segment: "_Segment", text: str, until: int, stop: int, by: Joint | None) -> None:
        """Say where a turn's words end and what closes it: the next joint, else the first end in it."""
        segment.written = until
        until = max(segment.latest, len(text[:until].rstrip()))
        segment.until, segment.stop, segment.by = until, stop, by
        segment.close = text[until:stop]
        if not segment.close.strip():
            segment.stop = segment.written
            if end := self._ends.search(text, segment.start, until):
                segment.until, segment.close = end.start(), end[0]

    def read(self, ids: Sequence[int]) -> Reading:
        """Find the turns in a row, or in one sample of a packed row."""
        pieces = self.text(ids)
        text = "".join(pieces)
        segments = list(self._segments(text))
        reading = Reading()
        if not segments:
            return reading
        starts = list(accumulate(map(len, pieces), initial=0))  # of the tokens, in letters

        def token(place: int) -> int:
            return bisect_right(starts, place) - 1 if place < len(text) else len(ids)

        def after(place: int) -> int:
            return bisect_left(starts, place, hi=len(ids))

        for segment, following in zip(segments, [*segments[1:], None]):
            start, latest, stop = token(segment.start), token(segment.latest), after(segment.stop)
            # A token that began before the words do, if by more than a space, holds the header's end.
            shared = segment.latest < len(text) and starts[latest] < segment.latest
            shared = shared and text[segment.latest - 1] != " "
            close = range(after(segment.until), after(segment.until + len(segment.close)))
            end = tuple(i for i in close if pieces[i].strip())
            words = text[segment.latest : segment.until]
            turn = Turn(
                segment.role, token(segment.opens), start, latest + shared, end, stop,
                following is not None,
                segment.latest == segment.written,
            )  # fmt: skip
            reading.turns.append(turn)
            reading.joints.append(range(token(segment.begin), latest))
            if not self._marks.isdisjoint(words):
                reading.unread.append(range(turn.header, stop))
            elif segment.by is not None and segment.by.close.strip() and segment.by.before != _START:
                inside = self._ends.search(words)
                if (
                    inside
                    and self._end_letters & set(inside[0])
                    and _SPECIAL.sub("", words[inside.end() :]).strip()
                ):
                    reading.forged += [token(segment.latest + inside.start()), token(segment.until)]
        for before, turn, segment in zip(reading.turns, reading.turns[1:], segments[1:]):
            if segment.joint.before == _START or (turn.role == "system" and before.role == "assistant"):
                reading.begins.append(turn.header if segment.joint.before != _START else token(segment.begin))
            elif any(before.header == unknown.start for unknown in reading.unread):
                continue  # it holds another turn, of a role that the template does not write
            elif before.role == turn.role == "assistant" or (before.role, turn.role) == ("user", "system"):
                reading.forged += [before.header, turn.header]
        return reading

    def ends_with_an_end(self, ids: Sequence[int]) -> bool:
        """Tell whether a special token that ends an answer comes last, but for spaces."""
        last = next((i for i in reversed(ids) if not self.text([i])[0].isspace()), None)
        return last in self.ends

    def begins(self, ids: Sequence[int]) -> bool:
        """Tell whether a chat or a turn begins right here, or after a BOS token."""
        text = "".join(self.text(ids))
        first = next(self._segments(text), None)
        return first is not None and not text[: first.opens].removeprefix(self._bos)

    @staticmethod
    def words(text: str) -> str:
        """Return what is left of a text without its special tokens and outer spaces."""
        return _SPECIAL.sub("", text).strip()


_READ: "WeakKeyDictionary[PreTrainedTokenizerBase, tuple[Any, Template | None, str]]" = WeakKeyDictionary()


def read_template(tokenizer: PreTrainedTokenizerBase | None) -> tuple[Template | None, str]:
    """Read what a chat template writes, once for each tokenizer as it is; without one, say why."""
    if tokenizer is None:
        return None, "there is no tokenizer"
    state = (str(tokenizer.chat_template), len(tokenizer), str(tokenizer.special_tokens_map))
    if tokenizer not in _READ or _READ[tokenizer][0] != state:
        try:
            _READ[tokenizer] = state, Template(tokenizer), ""
        except ValueError as error:
            _READ[tokenizer] = state, None, str(error)
    return _READ[tokenizer][1:]


@dataclass
class _Segment:
    """A turn in a text, in letters: see `Turn`. ``begin`` is that of the joint before it."""

    role: str
    begin: int
    opens: int
    start: int
    latest: int
    joint: Joint
    until: int = 0
    written: int = 0
    stop: int = 0
    close: str = ""
    by: Joint | None = None


def _messages(roles: Sequence[str], words: dict[str, str]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [
        {"role": role, "content": words[role]} for role in roles if role != "thought"
    ]
    if "thought" in roles:  # templates read one or the other
        messages[-1] |= {"reasoning_content": words["thought"], "thinking": words["thought"]}
    return messages


def _first(text: str) -> str:
    """Return the letter that `_loosely` begins with."""
    core = text.lstrip()
    plain = "\n" in text[: len(text) - len(core)] and not _SPECIAL.match(core[:1])
    return "\n" if plain else core[:1]


def _closing(text: str, end: str, whole: bool = False) -> str:
    """Return with what a joint closes the message before it; empty if nothing in it does.

    Args:
        text: The joint.
        end: What is written where nothing follows.
        whole: Whether the joint may be nothing else.
    """
    common = text[: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, end)))]
    while common and common != end and not (common[-1].isspace() or _SPECIAL.match(common[-1])):
        common = common[:-1]  # two marks may begin alike: "<|end|>" and "<|return|>"
    if common.strip() and (text[len(common) :].strip() or (whole and common == end)):
        return common
    first = re.match(rf"\s*[{_FIRST}-{_LAST}]\s*(?=\S)", text)
    return first[0] if first else ""


def _loosely(text: str, edge: bool = False, lead: bool = True) -> str:
    """Match a text with or without a space after its special tokens, and with fewer spaces at its edges.

    Args:
        text: What is written.
        edge: Whether words follow: then the spaces at its end may be missing, but no others be there.
        lead: Whether words or nothing come before it.
    """
    core, tail = text.rstrip(), text[len(text.rstrip()) :]
    leading, core = core[: len(core) - len(core.lstrip())], core.lstrip()
    core = re.sub(f"([{_FIRST}-{_LAST}]) (?=\\S)", r"\1", core)
    regex = re.sub(f"([{_FIRST}-{_LAST}])(?!$)", r"\1 ?", re.escape(core))
    if leading and not lead:
        regex = r"\s*" + regex
    elif "\n" in leading and not _SPECIAL.match(core[:1]):
        regex = r"\n\s*" + regex  # nothing but a line's beginning tells it from words
    if not edge:
        return regex + (r"\s*" if tail else " ?" if core and _SPECIAL.match(core[-1]) else "")
    return regex + (f"(?:{re.escape(tail)})?" if tail else "")
