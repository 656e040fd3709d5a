"""Turn token ids into text as they come, holding back what is not settled.

Knows a tokenizer and stop strings. Does not know requests.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from tokenizers.decoders import DecodeStream


class TextStream:
    """Text of one response, token by token.

    Held back are bytes of an incomplete character and any end of the text that a stop string may begin with.
    """

    def __init__(self, tokenizer: Any, stop: tuple[str, ...] = ()) -> None:
        self._tokenizer = getattr(tokenizer, "_tokenizer", tokenizer)
        self._decode = DecodeStream(skip_special_tokens=True)
        self._stop = stop
        self._held = ""
        self.stopped = False
        """True once a stop string was found; the text ends before it."""

    def push(self, token_id: int) -> str:
        """Text that is settled now that this token is known."""
        piece = self._decode.step(self._tokenizer, token_id)
        if self.stopped or not piece:
            return ""
        if not self._stop:
            return str(piece)
        self._held += piece
        found = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[: min(found)], ""
            return text
        keep = self._overlap()
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return text

    def finish(self) -> str:
        """What was held back, once no further token comes."""
        text, self._held = self._held, ""
        return "" if self.stopped else text

    def _overlap(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0


class Vocabulary:
    """Text of single tokens, for evidence and shading."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.text = lru_cache(maxsize=65536)(self._text)

    def _text(self, token_id: int) -> str:
        piece = self._tokenizer.convert_ids_to_tokens(token_id)
        text: str = self._tokenizer.decode([token_id])
        # SentencePiece decoders drop the space that a word-initial piece stands for.
        return (
            f" {text}"
            if isinstance(piece, str) and piece.startswith("▁") and not text.startswith(" ")
            else text
        )
