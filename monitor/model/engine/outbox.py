"""Scored tokens of one request on their way to the caller: held back as long as a policy may take them back.

Knows tokens, text and positions. Does not know rules, clamps or passes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from monitor.model.engine.detokenizer import TextStream
from monitor.model.engine.requests import Emit, Released
from monitor.model.engine.rows import Rows
from monitor.records import Detection, Phase, ScoredToken, TokenText


@dataclass(frozen=True, slots=True)
class _Block:
    """Scored tokens that nobody has seen."""

    phase: Phase
    rows: Rows
    ids: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.rows.position + len(self.ids)

    def split(self, position: int) -> tuple[_Block, _Block]:
        """Tokens before a position inside the block, and the others."""
        count, start = position - self.rows.position, self.rows.position
        return (
            _Block(self.phase, self.rows.part(start, position), self.ids[:count]),
            _Block(self.phase, self.rows.part(position, self.end), self.ids[count:]),
        )


class Outbox:
    """Releases tokens in order. Methods run on the engine thread."""

    def __init__(self, emit: Emit, text: TextStream, token_text: TokenText, *, tokens: bool) -> None:
        self._emit, self._text, self._token_text = emit, text, token_text
        self._tokens = tokens
        self._waiting: deque[_Block] = deque()
        self.released = 0
        """Positions below this one were released."""

    @property
    def stopped(self) -> bool:
        """True where the text has reached a stop string."""
        return self._text.stopped

    def put(self, phase: Phase, rows: Rows, ids: tuple[int, ...]) -> None:
        """Take tokens that were just scored."""
        self._waiting.append(_Block(phase, rows, ids))

    def release(self, limit: int, detections: tuple[Detection, ...] = ()) -> None:
        """Emit what stands before position `limit`, with new detections; those never show text that still waits."""
        ready: list[_Block] = []
        while self._waiting and self._waiting[0].end <= limit:
            ready.append(self._waiting.popleft())
        if self._waiting and self._waiting[0].rows.position < limit:
            first, rest = self._waiting[0].split(limit)
            ready.append(first)
            self._waiting[0] = rest
        text, ready, cut = self._read(ready)
        tokens = tuple(token for block in ready for token in self._scored(block)) if self._tokens else ()
        if ready:
            self.released = ready[-1].end
        if text or tokens or detections:
            shown = tuple(found.shown_below(self.released) for found in detections)
            self._emit(Released(text, tokens, shown if self._waiting or cut else detections))

    def take_back(self, position: int) -> None:
        """Forget what waits at or beyond a position."""
        while self._waiting and self._waiting[-1].rows.position >= position:
            self._waiting.pop()
        if self._waiting and self._waiting[-1].end > position:
            self._waiting[-1] = self._waiting[-1].split(position)[0]

    def withhold(self, detections: tuple[Detection, ...]) -> None:
        """Forget all that waits; detections without the text that nobody saw."""
        self._waiting.clear()
        if detections:
            self._emit(Released("", (), tuple(found.shown_below(self.released) for found in detections)))

    def finish(self) -> None:
        """Emit all that waits, and text that was held for an incomplete character or stop string."""
        if self._waiting:
            self.release(self._waiting[-1].end)
        if rest := self._text.finish():
            self._emit(Released(rest))

    def _read(self, blocks: list[_Block]) -> tuple[str, list[_Block], bool]:
        """Text of these blocks up to a stop string, and the tokens that it took.

        True where there was one and others follow: nobody is shown those, here or waiting.
        """
        text, behind = "", sum(len(block.ids) for block in (*blocks, *self._waiting))
        for number, block in enumerate(blocks):
            for place, token_id in enumerate(block.ids, block.rows.position + 1):
                text += self._text.push(token_id) if block.phase is Phase.RESPONSE else ""
                behind -= 1
                if self.stopped:
                    self._waiting.clear()
                    return text, [*blocks[:number], block.split(place)[0]], behind > 0
        return text, blocks, False

    def _scored(self, block: _Block) -> list[ScoredToken]:
        active = block.rows.active or [()] * len(block.ids)
        first = block.rows.position
        return [
            ScoredToken(first + i, token_id, self._token_text(token_id), block.phase, active[i])
            for i, token_id in enumerate(block.ids)
        ]
