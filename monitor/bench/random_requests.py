"""Requests whose observers decide at random, and the checks on what the engine scores and releases for them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from monitor.model.engine.requests import Finished, Released
from monitor.records import Action, Clamp, Decision, FinishReason, Phase, TokenBlock

LAG = 6
"""Number of tokens that a rewind takes back."""


@dataclass
class RandomObserver:
    """An observer that decides at random, and records every token that it is given."""

    dice: random.Random
    clamps: tuple[Clamp, ...]
    rewinds: bool
    shown: dict[int, int] = field(default_factory=dict)
    """Token id by position, as last given."""
    scored: int = 0
    forgotten: int = 0
    first: int | None = None
    """Position of the first response token."""
    suppressing: bool = False
    blocked: bool = False
    failures: list[str] = field(default_factory=list)

    def begin(self) -> Decision:
        """Decide at random whether to suppress from the beginning."""
        self.suppressing = self.dice.random() < 0.15
        return self._decision()

    def observe(self, block: TokenBlock) -> Decision:
        """Record the tokens; rarely block, begin or end suppressing, or rewind."""
        if block.start > len(self.shown):
            self.failures.append(f"gap before {block.start}")
        end = block.start + len(block.token_ids)
        if block.phase is Phase.RESPONSE and self.first is None:
            self.first = block.start
        self.shown.update(zip(range(block.start, end), block.token_ids, strict=True))
        self.scored += len(block.token_ids)
        roll = self.dice.random()
        self.blocked = roll < 0.004
        if 0.01 < roll < 0.04:
            self.suppressing = not self.suppressing
        if self.rewinds and roll > 0.97:
            return self._take_back(end)
        return self._decision()

    def failed(self, cause: str) -> Decision:
        """Record that tokens were not scored, which is the error that this run looks for."""
        self.failures.append(cause)
        return Decision(action=Action.BLOCK)

    def _take_back(self, end: int) -> Decision:
        self.rewinds, self.suppressing = False, True
        position = end if self.first is None else max(self.first, end - LAG)
        for place in range(position, end):
            del self.shown[place]
        self.forgotten += end - position
        return self._decision(position)

    def _decision(self, restart: int | None = None) -> Decision:
        action = Action.BLOCK if self.blocked else Action.ALLOW
        clamps = self.clamps if self.suppressing else ()
        return Decision((), action, clamps, (), LAG if self.rewinds or restart is not None else 0, restart)


@dataclass
class TrackedRequest:
    """One request, and what the engine did for it."""

    name: str
    prompt: tuple[int, ...]
    observer: RandomObserver
    cancel_after: int | None
    released: int = 0
    wrong: list[str] = field(default_factory=list)
    last: Finished | None = None

    def check_release(self, event: Released) -> None:
        """Check that the released tokens were scored before, and are those that were scored."""
        for token in event.tokens:
            if self.observer.shown.get(token.position) != token.token_id:
                self.wrong.append(f"position {token.position} was released and not scored")
            if token.position != self.released:
                self.wrong.append(f"position {token.position} was released after {self.released - 1}")
            self.released = token.position + 1

    def check_end(self, last: Finished) -> None:
        """Check that the engine's coverage counts agree with what the observer was given."""
        seen, coverage = self.observer, last.coverage
        if self.last is not None:
            self.wrong.append("ended twice")
        if not coverage.complete or coverage.tokens_run != seen.scored:
            self.wrong.append(
                f"{coverage.tokens_run} run, {coverage.tokens_scored} scored, {seen.scored} shown"
            )
        if coverage.tokens_rewound != seen.forgotten:
            self.wrong.append(f"{coverage.tokens_rewound} taken back, {seen.forgotten} forgotten")
        if last.reason in (FinishReason.STOP, FinishReason.LENGTH) and self.released < last.released:
            self.wrong.append("text was kept back at the end")
        self.wrong += seen.failures
        self.last = last
