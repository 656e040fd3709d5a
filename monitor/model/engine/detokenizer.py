"""The detokenizer: token ids become text as they come, and what is not settled is held back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import takewhile
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel, DecodeStream

from monitor.model.load.tokenizer import BYTE_PIECES
from monitor.records import Detection, Evidence, TokenSpelling

T = TypeVar("T")
_INCOMPLETE = "\ufffd"
"""What tokenizers give for bytes that are no character, or not yet."""
_LONGEST_CHARACTER = 4
"""Bytes, and so tokens."""
_CONTEXT = 8
"""Tokens before a new one from which a tokenizer in Python decodes it."""


class TextStream:
    """Text of one response, token by token.

    Held back are bytes of an incomplete character and any end of the text that a stop string may begin with. Control
    tokens that the model writes are shown as they are spelled, so that a stop string may name one; only those that end
    or fill a text have no text.
    """

    def __init__(
        self, vocabulary: Vocabulary, stop: tuple[str, ...] = (), prompt: Sequence[int] = ()
    ) -> None:
        """`prompt`: token ids before the response; without them its first token may lose the space it begins with."""
        self._vocabulary, self._alone = vocabulary, vocabulary.alone
        self._silent = vocabulary.silent
        self._decoder = vocabulary.decoder(prompt)
        self._stop = stop
        self._held = ""
        self.stopped = False
        """True once a stop string was found; the text ends before it."""

    @property
    def held(self) -> int:
        """Characters that are held back because a stop string may begin there."""
        return len(self._held)

    @property
    def pending(self) -> int:
        """How many of the last tokens have a text that is not settled yet."""
        return len(self._decoder.pending)

    def has_text(self, token_id: int) -> bool:
        """False for a token that ends or fills a text."""
        return token_id not in self._silent

    def push(self, token_id: int) -> str:
        """Text that is settled now that this token is known."""
        if token_id in self._silent:
            return self._end(token_id)
        piece = None if self._decoder.pending else self._alone(token_id)
        if piece is None:
            return self._up_to_stop(self._decoder.push(token_id))
        self._decoder.given = True
        return self._up_to_stop(piece) if self._stop else piece

    def finish(self) -> str:
        """What was held back, once no further token comes; bytes of an incomplete character are left out."""
        text = self._up_to_stop(self._decoder.rest().rstrip(_INCOMPLETE)) + self._held
        self._held = ""
        return text

    def _end(self, token_id: int) -> str:
        """What is settled by a token without text: all that came before it, where it is a stop string itself."""
        if self.stopped or self._vocabulary.text(token_id) not in self._stop:
            return ""
        text, self._held = self._up_to_stop(self._decoder.rest().rstrip(_INCOMPLETE)) + self._held, ""
        self.stopped = True
        return text

    def _up_to_stop(self, piece: str) -> str:
        """What of the text so far is sure to stand before a stop string."""
        if self.stopped or not piece:
            return ""
        if not self._stop:
            return piece
        self._held += piece
        found = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[: min(found)], ""
            return text
        keep = self._overlap()
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return text

    def _overlap(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0


class _Placed(NamedTuple, Generic[T]):
    """What is told of a token, and where its text stands among the characters of the response."""

    start: int
    end: int
    told: T


class Telling(Generic[T]):
    """What is told of each token of a `TextStream`, held back until the text of the token is released to its end.

    A stop string that begins within a token lets the token leave, since a part of it has; tokens behind do not.
    """

    def __init__(self, text: TextStream) -> None:
        self._text = text
        self._open: deque[tuple[bool, T]] = deque()
        """Of tokens whose text is not settled, or that stand behind such: whether they have one, and what is told."""
        self._held: deque[_Placed[T]] = deque()
        self._released = self._settled = 0
        """Characters."""

    def pushed(self, token_id: int, told: T, piece: str) -> list[tuple[int, T]]:
        """What is free now that pushing a token released this piece, each with the place of its first character."""
        self._open.append((self._text.has_text(token_id), told))
        self._released += len(piece)
        unsettled = self._text.pending
        with_text = sum(has_text for has_text, _ in self._open)
        start, self._settled = self._settled, self._released + self._text.held
        while self._open and (with_text > unsettled or not self._open[0][0]):
            has_text, told = self._open.popleft()
            with_text -= has_text
            self._held.append(_Placed(start, self._settled, told))
        return self._free()

    def finished(self, rest: str) -> list[tuple[int, T]]:
        """What is free now that the end of the text released the rest: all, but for what a stop string cut off."""
        self._released += len(rest)
        self._held.extend(_Placed(self._settled, self._released, told) for _, told in self._open)
        self._open.clear()
        return self._free()

    def _free(self) -> list[tuple[int, T]]:
        found = []
        while self._held and self._is_free(self._held[0]):
            placed = self._held.popleft()
            found.append((placed.start, placed.told))
        return found

    def _is_free(self, placed: _Placed[T]) -> bool:
        return placed.start < self._released if self._text.stopped else placed.end <= self._released


class _Decoder(Protocol):
    """Makes text of tokens in order; `pending` are those whose text was not given yet."""

    pending: list[int]
    given: bool
    """True once any text was given."""

    def push(self, token_id: int) -> str:
        """Text that is settled now that this token is known."""

    def rest(self) -> str:
        """Text of the tokens that are pending, which are no longer so."""


class _FastDecoder:
    """Decodes by the `tokenizers` library."""

    def __init__(self, core: Tokenizer, before: list[int]) -> None:
        self._core = core
        self._decode = DecodeStream(ids=before, skip_special_tokens=False)
        self.pending: list[int] = []
        self.given = False

    def push(self, token_id: int) -> str:
        """Text that is settled now that this token is known."""
        self.pending.append(token_id)
        try:
            piece = self._decode.step(self._core, token_id)
        except Exception:  # noqa: BLE001  (the decoder raises nothing more special)
            return self._anew()
        if not piece:
            return ""
        self.pending, self.given = [], True
        return str(piece)

    def rest(self) -> str:
        """Text of the tokens that are pending, which are no longer so."""
        waiting, self.pending = self.pending, []
        return self._core.decode(waiting, skip_special_tokens=False) if waiting else ""

    def _anew(self) -> str:
        """Bytes that are no character changed what the decoder makes of bytes before them, which were given already.

        Those stay as they were given; the others begin anew.
        """
        waiting, self.pending = self.pending, []
        self._decode = DecodeStream(skip_special_tokens=False)
        if not self.given:
            return _INCOMPLETE  # Not to be decoded at all.
        self.given = False
        return "".join(map(self.push, waiting))


class _SlowDecoder:
    """Decodes by a tokenizer in Python: what a token says may change with the next, so each waits for one."""

    def __init__(self, decode: Callable[[list[int]], str], before: list[int]) -> None:
        self._decode, self._ids = decode, before
        self._done = decode(before) if before else ""
        """Text of ids and pending tokens that was given, or that stood before."""
        self.pending: list[int] = []
        self.given = False

    def push(self, token_id: int) -> str:
        """Text that is settled now that this token is known."""
        before = self._decode([*self._ids, *self.pending])
        self.pending.append(token_id)
        after = self._decode([*self._ids, *self.pending])
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
        piece = self._give(before[:same].rstrip(_INCOMPLETE))
        if self._done == before:
            self._ids = [*self._ids, *self.pending[:-1]][-_CONTEXT:]
            self._done, self.pending = self._decode(self._ids), [token_id]
        return piece

    def rest(self) -> str:
        """Text of the tokens that are pending, which are no longer so."""
        text = self._decode([*self._ids, *self.pending])
        self._ids, self.pending = [*self._ids, *self.pending], []
        return self._give(text)

    def _give(self, text: str) -> str:
        """What of a text was not given yet."""
        if len(text) <= len(self._done):
            return ""
        piece, self._done = text[len(self._done) :], text
        self.given = True
        return piece


class Vocabulary:
    """Text of single tokens: for evidence and shading, and for responses where that is what they become."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        core = getattr(tokenizer, "_tokenizer", tokenizer)
        self._core: Tokenizer | None = core if isinstance(core, Tokenizer) else None
        self.text = lru_cache(maxsize=65536)(self._text)
        self.spelling = lru_cache(maxsize=65536)(self._spelling)
        # Bytes that are whole characters are these whatever stands around them.
        self._by_bytes = self._core is not None and isinstance(self._core.decoder, ByteLevel)
        self.alone: Callable[[int], str | None] = (
            lru_cache(maxsize=1 << 18)(self._alone) if self._by_bytes else _never
        )

    @cached_property
    def silent(self) -> frozenset[int]:
        """Tokens that end or fill a text, or stand for what is unknown: they have no text in a response."""
        tokenizer = self._tokenizer
        return frozenset({tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id} - {None})

    def _spelling(self, token_id: int) -> TokenSpelling:
        data = self._data(token_id)
        text = data.decode("utf-8", "backslashreplace")
        return TokenSpelling(text, None if token_id in self.silent else data)

    def _data(self, token_id: int) -> bytes:
        """The bytes that a token stands for."""
        piece = self._tokenizer.convert_ids_to_tokens(token_id)
        if not isinstance(piece, str):
            return b""
        if piece in BYTE_PIECES:
            return bytes([int(piece[3:5], 16)])
        if self._by_bytes and token_id not in self._tokenizer.added_tokens_decoder:
            return bytes(self._byte_of[character] for character in piece if character in self._byte_of)
        return self._text(token_id).encode("utf-8", "replace")

    @cached_property
    def _byte_of(self) -> dict[str, int]:
        """What the characters of pieces stand for, where pieces are bytes."""
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        return {character: byte for byte, character in bytes_to_unicode().items()}

    def decoder(self, prompt: Sequence[int]) -> _Decoder:
        """What makes text of the tokens behind a prompt."""
        last = [token_id for token_id in prompt[-1:] if token_id not in self._special]
        if last and self.decode(last).endswith(_INCOMPLETE):
            last = []
        return _SlowDecoder(self.decode, last) if self._core is None else _FastDecoder(self._core, last)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of consecutive tokens, control tokens as they are spelled."""
        if self._core is not None:
            return str(self._core.decode(list(ids), skip_special_tokens=False))
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def spelled(self, ids: Sequence[int], position: int) -> str:
        """Text of a token among others: where it is part of a character, that character."""
        alone = self.text(ids[position])
        if _INCOMPLETE not in alone:
            return alone
        for length in range(2, _LONGEST_CHARACTER + 1):
            for first in range(max(0, position - length + 1), min(position, len(ids) - length) + 1):
                found = self.decode(ids[first : first + length])
                if _INCOMPLETE not in found:
                    return found
        return alone

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Texts of consecutive tokens. Where a character spans tokens, the last of them has it and others are empty."""
        found = [self.text(token_id) for token_id in ids]
        at = 0
        while at < len(ids):
            end = self._character(ids, at) if _INCOMPLETE in found[at] else at + 1
            if end > at + 1:
                found[at:end] = [*("" for _ in range(end - at - 1)), self.decode(ids[at:end])]
            at = end
        return found

    def _character(self, ids: Sequence[int], first: int) -> int:
        """Behind which token the character ends that begins at one; the next, where none does."""
        for end in range(first + 2, min(len(ids), first + _LONGEST_CHARACTER) + 1):
            if _INCOMPLETE not in self.decode(ids[first:end]):
                return end
        return first + 1

    def respelled(self, found: Detection, ids: Sequence[int]) -> Detection:
        """A detection whose evidence shows whole characters where tokens are parts of them. `ids`: of the request."""
        if not any(_INCOMPLETE in token.text for token in found.evidence):
            return found
        return replace(found, evidence=tuple(self._respelled(token, ids) for token in found.evidence))

    def _respelled(self, token: Evidence, ids: Sequence[int]) -> Evidence:
        if _INCOMPLETE not in token.text or token.position >= len(ids):
            return token
        return replace(token, text=self.spelled(ids, token.position))

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(self._tokenizer.all_special_ids)

    def _alone(self, token_id: int) -> str | None:
        """The text of a token in any response; None where that depends on the tokens around it."""
        text = self.decode([token_id])
        return None if _INCOMPLETE in text else text

    def _text(self, token_id: int) -> str:
        piece = self._tokenizer.convert_ids_to_tokens(token_id)
        text: str = self._tokenizer.decode([token_id])
        # SentencePiece decoders drop the space that a word-initial piece stands for.
        return (
            f" {text}"
            if isinstance(piece, str) and piece.startswith("▁") and not text.startswith(" ")
            else text
        )


def _never(token_id: int) -> None:
    """No token has a text of its own."""
