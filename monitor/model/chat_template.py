"""`ChatTemplate`: a conversation through the model's chat template, with callers' text kept apart from the template's.

Every text that a caller wrote stands between marks that no caller can know while the template runs. What comes of it is
taken apart again, so that control tokens are looked for in the template's own text alone.
"""

from __future__ import annotations

import json
import re
import secrets
import string
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from itertools import pairwise
from typing import Any

from monitor.errors import InputError
from monitor.model.load.tokenizer import ControlToken, TextTokenizer

Turn = Mapping[str, Any]
"""`role`, and texts under other names, or lists and mappings that hold texts."""
_NOT_WRITTEN = frozenset({"role", "type"})
"""Fields that choose what a template does and that are no text."""
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_MARKUP = frozenset("<>[]{}|#:")
"""Characters of words that only a template writes, so that they are looked for wherever it writes them."""
_LEFT, _RIGHT = "\n \x1f", "\x1f \n"
"""White space around a marked text, by which is seen what of it a template takes away."""
_TRIMS = ((3, ""), (2, "\n"), (1, " \n"))
"""How much of that is left, and which characters were taken away accordingly."""
_FLAGS = ("", "-", "_", "0", "^", "#")
"""What may stand between `%` and a letter."""
_DIRECTIVES = "strftime_directives"
_CLOCK = (
    "{%- macro strftime_now(form) -%}{%- set said = namespace(text=form) -%}"
    f"{{%- for directive, written in {_DIRECTIVES}.items() -%}}"
    "{%- set said.text = said.text.replace(directive, written) -%}{%- endfor -%}{{- said.text -}}{%- endmacro %}\n"
)
"""A clock that is set, before a template: transformers gives templates its own and takes plain data alone."""
_LINE_BEGIN = r"(?:^|(?<=[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]))[^\w\n]{0,8}"


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive characters of a rendered conversation."""

    text: str
    written: bool
    """True where a caller wrote them, False where the template did."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as token ids."""

    ids: tuple[int, ...]
    left_out: int
    """How many of the callers' texts are not in it."""


class ChatTemplate:
    """Renders and tokenises conversations with the template of one tokenizer."""

    def __init__(self, tokenizer: Any, reader: TextTokenizer) -> None:
        self._tokenizer, self._reader = tokenizer, reader
        self._known: tuple[date | None, _Markers | None] | None = None

    @property
    def dated(self) -> bool:
        """Whether the template writes the date or the time, as that of Llama 3.2 does.

        `strftime_now` is the only clock that transformers gives to templates. A template that asks for a variable, as
        Llama 3.1's for `date_string`, writes what it writes without one, the same on every day.
        """
        return "strftime_now" in str(self._tokenizer.chat_template)

    def __call__(self, turns: Sequence[Turn], *, reply: bool, at: datetime | None = None) -> Rendered:
        """Token ids of a conversation; `reply` ends it with the header of the assistant's message.

        `at` is the local time that a dated template writes, by default now. Raises InputError where the template
        raises, or where a text cannot be told from what the template writes.
        """
        _check_roles(turns)
        at = at or datetime.now()
        pieces, left_out = self._pieces(turns, reply, at)
        ids = self._ids(pieces, reply, at)
        empty = sum(piece.written and not self._reader.keeps(piece.text) for piece in pieces)
        if empty and empty == sum(piece.written for piece in pieces):
            raise InputError("hold nothing that this model's tokenizer keeps; write other characters")
        return Rendered(tuple(ids), left_out + empty)

    @property
    def opening(self) -> str:
        """What the template writes before a first message of the user: often a system message of its own."""
        pieces, _ = self._pieces([{"role": "user", "content": "x"}], False, datetime.now())
        return pieces[0].text if pieces and not pieces[0].written else ""

    def _pieces(self, turns: Sequence[Turn], reply: bool, at: datetime) -> tuple[list[Piece], int]:
        """The conversation in pieces, and how many texts are missing: from the first way to render that keeps all."""
        best: tuple[list[Piece], int] | None = None
        refusal: Exception | None = None
        for in_parts in (False, True):
            for seen in (True, False):
                marked = _Marked(turns, in_parts=in_parts, seen=seen)
                try:
                    found = marked.read(self._render(marked.turns, reply, at))
                except Exception as error:  # noqa: BLE001  (a template may raise anything)
                    refusal = refusal or error
                    continue
                if found is not None and found[1] == 0:
                    return found
                if found is not None and not seen and (best is None or found[1] < best[1]):
                    best = found
        if best is None:
            raise InputError(f"are refused by the model's chat template: {refusal}")
        return best

    def _render(self, turns: Sequence[Turn], reply: bool, at: datetime) -> str:
        clock: dict[str, Any] = {}
        if self.dated:
            clock = {
                "chat_template": _CLOCK + self._tokenizer.get_chat_template(),
                _DIRECTIVES: _directives(at),
            }
        found = self._tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=reply, **clock
        )
        return str(found)

    def _ids(self, pieces: Sequence[Piece], reply: bool, at: datetime) -> list[int]:
        markers = self._markers(at)
        ids: list[int] = []
        last: int | None = None
        for section in _sections(pieces, self._controls):
            if isinstance(section, ControlToken):
                last = section.token_id
                ids.append(last)
            elif parts := _parts(section, markers):
                last = None
                ids += self._reader.joined(parts, continued=bool(ids) and self._reader.first_only)
        # Behind an end-of-text the model would write another text.
        if reply and last is not None and last == self._tokenizer.eos_token_id:
            ids.pop()
        return ids

    @cached_property
    def _controls(self) -> _Controls:
        return _Controls(self._reader)

    def _markers(self, at: datetime) -> _Markers | None:
        """The markers of a day: a dated template may write other words on the next one."""
        day = at.date() if self.dated else None
        known = self._known
        if known is None or known[0] != day:
            known = self._known = day, self._markers_at(at)
        return known[1]

    def _markers_at(self, at: datetime) -> _Markers | None:
        """Where to cut a text that spells words which the template writes between messages; None where it writes none.

        Behind a control token such words need no care: no caller's text becomes that token.
        """
        words: dict[str, bool] = {}
        for roles, reply in _TRIALS:
            turns = [{"role": role, "content": f"message {number}"} for number, role in enumerate(roles)]
            try:
                pieces, _ = self._pieces(turns, reply, at)
            except InputError:
                continue
            for piece, following in pairwise(pieces):
                if piece.written and not following.written:
                    words |= _words(self._controls.before_first(following.text))
                elif following.written and not piece.written:
                    headers = _words(self._controls.behind_last(piece.text))
                    words |= {word: True for word in headers if _MARKUP & set(word)} | words
        return _Markers(words, self._reader) if words else None


def _parts(section: Sequence[Piece], markers: _Markers | None) -> list[str]:
    """The text of a section, cut where a caller's text spells what the template writes between messages."""
    text = "".join(piece.text for piece in section)
    if markers is None:
        return [text] if text else []
    cuts, at = [0], 0
    for piece in section:
        if piece.written:
            cuts += [at + cut for cut in markers.cuts(piece.text)]
        at += len(piece.text)
    return [text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True) if a < b]


def _directives(at: datetime) -> dict[str, str]:
    """What a time is for every directive of `strftime`, in the order in which a format is to be filled in."""
    names = [flag + letter for flag in _FLAGS for letter in string.ascii_letters]
    return {"%%": "\0"} | {f"%{name}": at.strftime(f"%{name}") for name in names} | {"\0": "%"}


_TRIALS = (
    (("user",), True),
    (("user", "user"), False),
    (("user", "assistant", "user"), True),
    (("user", "assistant", "assistant"), False),
    (("system", "user"), True),
    (("system", "system", "user", "system"), False),
)


def _check_roles(turns: Sequence[Turn]) -> None:
    for turn in turns:
        if not _WORD.fullmatch(str(turn.get("role", ""))):
            raise InputError("have a role that is no word; write system, user or assistant")


class _Marked:
    """A conversation whose texts stand between marks."""

    def __init__(self, turns: Sequence[Turn], *, in_parts: bool, seen: bool) -> None:
        """`in_parts`: contents are lists of parts. `seen`: the template sees the texts, not the marks alone."""
        self._texts: list[str] = []
        self._in_parts, self._seen = in_parts, seen
        # Letters and digits, so that nothing escapes them.
        self._name = f"x{secrets.token_hex(12)}"
        self.turns = [self._turn(turn) for turn in turns]
        self._pair = re.compile(rf"{self._name}a(\d+)z(.*?){self._name}b\1z", re.DOTALL)
        self._mark = re.compile(rf"{self._name}[ab]\d+z")

    def read(self, rendering: str) -> tuple[list[Piece], int] | None:
        """Pieces of a rendering, and how many texts are missing; None where a text is there in part."""
        parts = self._pair.split(rendering)
        around, numbers, inner = parts[::3], parts[1::3], parts[2::3]
        if self._seen and any(self._mark.search(text) for text in around):
            return None
        pieces: list[Piece] = []
        behind = around[0]
        for place, number in enumerate(numbers):
            before, left, escaped = _without_left(behind)
            behind, right = _without_right(around[place + 1])
            text = self._texts[int(number)] if escaped is None else escaped(self._texts[int(number)])
            # A list of parts that is printed as Python prints it was meant to be a text.
            if inner[place] != (text if self._seen else "") or (self._in_parts and escaped is _in_python):
                return None
            pieces += [Piece(before, False), Piece(text.lstrip(left).rstrip(right), True)]
        pieces.append(Piece(behind, False))
        whole = [piece if piece.written else Piece(self._mark.sub("", piece.text), False) for piece in pieces]
        return [piece for piece in whole if piece.text], len(self._texts) - len(set(numbers))

    def _turn(self, turn: Turn) -> dict[str, Any]:
        found = self._fields(turn)
        if self._in_parts and isinstance(turn.get("content"), str):
            found["content"] = [{"type": "text", "text": found["content"]}]
        return found

    def _fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Fields with their texts between marks; a template looks for names that are words, and prints others."""
        return {
            name if _WORD.fullmatch(name) else self._text(name): (
                value
                if name in _NOT_WRITTEN and isinstance(value, str) and _WORD.fullmatch(value)
                else self._value(value)
            )
            for name, value in fields.items()
        }

    def _value(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return self._fields(value)
        if isinstance(value, str):
            return self._text(value) if value.strip() else value
        return [self._value(part) for part in value] if isinstance(value, list | tuple) else value

    def _text(self, text: str) -> str:
        if self._name in text:
            raise InputError("hold what marks texts while the chat template runs; send them again")
        number = len(self._texts)
        self._texts.append(text)
        return f"{_LEFT}{self._name}a{number}z{text if self._seen else ''}{self._name}b{number}z{_RIGHT}"


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _in_python(text: str) -> str:
    return repr(text)[1:-1]


_Escape = Callable[[str], str]


def _without_left(before: str) -> tuple[str, str | None, _Escape | None]:
    """Template text without the padding of the text behind it; what the template takes from that text's beginning
    (None: all white space); and how it writes it, where not as it is.
    """
    for left, taken in _TRIMS:
        if before.endswith(_LEFT[-left:]):
            return before[:-left], taken, None
    for escape in (_in_json, _in_python):
        if before.endswith(escape(_LEFT)):
            return before.removesuffix(escape(_LEFT)), "", escape
    return before, None, None


def _without_right(behind: str) -> tuple[str, str | None]:
    """Template text without the padding of the text before it, and what the template takes from that text's end."""
    for left, taken in _TRIMS:
        if behind.startswith(_RIGHT[:left]):
            return behind[left:], taken
    for escape in (_in_json, _in_python):
        if behind.startswith(escape(_RIGHT)):
            return behind.removeprefix(escape(_RIGHT)), ""
    return behind, None


class _Controls:
    """Finds control tokens in what a template writes."""

    def __init__(self, reader: TextTokenizer) -> None:
        self._named = {token.text: token for token in reader.control.values() if token.text}
        longest_first = sorted(self._named, key=len, reverse=True)
        self._any = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None

    def split(self, text: str) -> Iterator[ControlToken | str]:
        """Control tokens and the text between them, in order."""
        parts = [text] if self._any is None else self._any.split(text)
        for place, part in enumerate(parts):
            if place % 2:
                yield self._named[part]
            elif part:
                yield part

    def behind_last(self, text: str) -> str:
        """What stands behind the last control token."""
        last = next(reversed(list(self.split(text))), "")
        return last if isinstance(last, str) else ""

    def before_first(self, text: str) -> str:
        """What stands before the first control token."""
        first = next(self.split(text), "")
        return first if isinstance(first, str) else ""


def _sections(pieces: Sequence[Piece], controls: _Controls) -> Iterator[ControlToken | list[Piece]]:
    """Control tokens of the template, and the text between them, in order."""
    held: list[Piece] = []
    eats = False
    for piece in pieces:
        for part in (piece.text,) if piece.written else controls.split(piece.text):
            if isinstance(part, ControlToken):
                yield _stripped(held) if part.eats_before else held
                yield part
                held, eats = [], part.eats_behind
            elif text := part.lstrip() if eats else part:
                held.append(Piece(text, piece.written))
                eats = False
    yield held


def _stripped(pieces: list[Piece]) -> list[Piece]:
    """Pieces without the white space at their end."""
    kept = list(pieces)
    while kept:
        last = kept.pop()
        if text := last.text.rstrip():
            return [*kept, Piece(text, last.written)]
    return []


def _words(text: str) -> dict[str, bool]:
    """The lines of a template's text that hold a letter or digit, each with whether a line break stands before it."""
    lines = {}
    for number, line in enumerate(re.split(r"[\n\r]", text)):
        if len(line.strip()) > 1 and re.search(r"\w", line):
            lines[line.strip()] = number > 0
    return lines


class _Markers:
    """Words that a template writes between messages, where no control token says that it does."""

    def __init__(self, words: Mapping[str, bool], reader: TextTokenizer) -> None:
        self._reader = reader
        self._cuts = {_folded(word, reader)[0]: (word, self._cut(word)) for word in words}
        parts = [
            (_LINE_BEGIN if led and word[0] not in _MARKUP else r"(?<!\w)")
            + f"({re.escape(_folded(word, reader)[0])})"
            for word, led in words.items()
        ]
        self._any = re.compile("|".join(parts))

    def cuts(self, text: str) -> list[int]:
        """Where to cut a text so that other tokens come of those words. InputError where none do."""
        folded, places = _folded(text, self._reader)
        found = []
        for match in self._any.finditer(folded):
            word, at = self._cuts[match[match.lastindex or 0]]
            if at is None:
                raise InputError(
                    f"hold `{word}` as this model's chat template writes it between messages, and its tokenizer has no "
                    "other way to read that; write it otherwise"
                )
            found.append(places[match.start(match.lastindex or 0) + at])
        return found

    def _cut(self, word: str) -> int | None:
        """After how many characters to cut a word so that other tokens come of it; None where the same always do."""
        whole = self._reader.inner(word, continued=True)
        for at in range(1, len(word)):
            if self._reader.joined([word[:at], word[at:]], continued=True) != whole:
                return at
        return None


def _folded(text: str, reader: TextTokenizer) -> tuple[str, Sequence[int]]:
    """A text with look-alikes made alike, and where each of its characters stood."""
    if text.isascii():
        return text.lower(), range(len(text))
    alike = {
        character: unicodedata.normalize("NFKC", reader.normalised(character)).casefold()
        for character in set(text)
    }
    folded = text.translate({ord(character): one for character, one in alike.items()})
    if all(len(one) == 1 for one in alike.values()):
        return folded, range(len(text))
    return folded, [at for at, character in enumerate(text) for _ in alike[character]]
