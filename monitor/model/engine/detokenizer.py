"""The detokenizer: token ids become text as they come, and what is not settled is held back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel, DecodeStream

_INCOMPLETE = "\ufffd"
"""What tokenizers give for bytes that are no character, or not yet."""


class TextStream:
    """Text of one response, token by token.

    Held back are bytes of an incomplete character and any end of the text that a stop string may begin with.
    """

    def __init__(
        self, vocabulary: Vocabulary, stop: tuple[str, ...] = (), prompt: Sequence[int] = ()
    ) -> None:
        """`prompt`: token ids before the response; without them its first token may lose the space it begins with."""
        self._tokenizer, self._alone = vocabulary.core, vocabulary.alone
        self._decode = DecodeStream(ids=self._context(prompt), skip_special_tokens=True)
        self._pending: list[int] = []
        """Tokens since the last piece of text that the decoder gave."""
        self._given = False
        self._stop = stop
        self._held = ""
        self.stopped = False
        """True once a stop string was found; the text ends before it."""

    def push(self, token_id: int) -> str:
        """Text that is settled now that this token is known."""
        piece = None if self._pending else self._alone(token_id)
        if piece is None:
            return self._up_to_stop(self._decoded(token_id))
        self._given = True
        return self._up_to_stop(piece) if self._stop else piece

    def finish(self) -> str:
        """What was held back, once no further token comes; bytes of an incomplete character are left out."""
        rest = self._tokenizer.decode(self._pending, skip_special_tokens=True) if self._pending else ""
        self._pending = []
        text = self._up_to_stop(rest.rstrip(_INCOMPLETE)) + self._held
        self._held = ""
        return text

    def _decoded(self, token_id: int) -> str:
        self._pending.append(token_id)
        try:
            piece = self._decode.step(self._tokenizer, token_id)
        except Exception:  # noqa: BLE001  (the decoder raises nothing more special)
            return self._decoded_anew()
        if not piece:
            return ""
        self._pending, self._given = [], True
        return str(piece)

    def _decoded_anew(self) -> str:
        """Bytes that are no character changed what the decoder makes of bytes before them, which were given already.

        Those stay as they were given; the others begin anew.
        """
        waiting, self._pending = self._pending, []
        self._decode = DecodeStream(skip_special_tokens=True)
        if not self._given:
            return _INCOMPLETE  # Not to be decoded at all.
        self._given = False
        return "".join(map(self._decoded, waiting))

    def _context(self, prompt: Sequence[int]) -> list[int]:
        """The token before the response, where it is whole characters."""
        last = list(prompt[-1:])
        return [] if self._tokenizer.decode(last).endswith(_INCOMPLETE) else last

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


class Vocabulary:
    """Text of single tokens: for evidence and shading, and for responses where that is what they become."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.core: Tokenizer = getattr(tokenizer, "_tokenizer", tokenizer)
        """The tokenizer that decodes."""
        self.text = lru_cache(maxsize=65536)(self._text)
        # Bytes that are whole characters are these whatever stands around them.
        by_bytes = isinstance(self.core.decoder, ByteLevel)
        self.alone: Callable[[int], str | None] = (
            lru_cache(maxsize=1 << 18)(self._alone) if by_bytes else _never
        )

    def _alone(self, token_id: int) -> str | None:
        """The text of a token in any response; None where that depends on the tokens around it."""
        text = self.core.decode([token_id], skip_special_tokens=True)
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
