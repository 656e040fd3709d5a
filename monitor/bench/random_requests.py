"""Requests whose observers decide at random, and the checks on what the engine scores and releases for them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from monitor.model.engine.requests import Finished, Released
from monitor.records import Action, Blocks, Clamp, Decision, FinishReason


@dataclass(eq=False)
class RandomObserver:
    """One request and its observer, which decides at random and records every token that it is given."""

    dice: random.Random
    clamps: tuple[Clamp, ...]
    slot: int = 0
    shown: dict[int, int] = field(default_factory=dict)
    """Token id by position."""
    suppressing: bool = False
    failures: list[str] = field(default_factory=list)

    @property
    def first(self) -> Decision:
        """Now and then clamps from the first token on."""
        self.suppressing = self.dice.random() < 0.15
        return self._decision()

    def observe_batch(self, blocks: Blocks) -> dict[int, Decision]:
        """Now and then blocks, clamps or lets go. Tokens that were not scored are what this run exists to find."""
        unscored = blocks.unscored()
        self.failures += [cause.value for cause in unscored.values()]
        said = {number: Decision(action=Action.BLOCK, failure=cause) for number, cause in unscored.items()}
        return {number: self._observed(blocks, number) for number in range(len(blocks))} | said

    def _observed(self, blocks: Blocks, number: int) -> Decision:
        block = blocks.block(number)
        if block.start != len(self.shown):
            self.failures.append(f"position {block.start} came after {len(self.shown) - 1}")
        self.shown.update(enumerate(block.token_ids, block.start))
        roll = self.dice.random()
        if 0.01 < roll < 0.04:
            self.suppressing = not self.suppressing
        return self._decision(Action.BLOCK if roll < 0.004 else Action.ALLOW)

    def _decision(self, action: Action = Action.ALLOW) -> Decision:
        return Decision((), action, self.clamps if self.suppressing else ())


@dataclass
class TrackedRequest:
    """One request, and what the engine did for it."""

    name: str
    prompt: tuple[int, ...]
    observer: RandomObserver
    cancel_after: int | None
    told: bool = True
    """Whether each token is told to the caller. Who is told every token shares no prefix with others on vLLM."""
    released: int = 0
    wrong: list[str] = field(default_factory=list)
    last: Finished | None = None

    def check_release(self, event: Released) -> None:
        """Check that the released tokens were scored before, and are those that were scored."""
        if event.tokens is None:
            return
        for position, token_id in enumerate(event.tokens.token_ids, event.tokens.start):
            if self.observer.shown.get(position) != token_id:
                self.wrong.append(f"position {position} was released and not scored")
            if position != self.released:
                self.wrong.append(f"position {position} was released after {self.released - 1}")
            self.released = position + 1

    def check_end(self, last: Finished) -> None:
        """Check that the engine's coverage counts agree with what the observer was given."""
        seen, coverage = self.observer, last.coverage
        if self.last is not None:
            self.wrong.append("ended twice")
        if not coverage.complete or coverage.tokens_run != len(seen.shown):
            self.wrong.append(
                f"{coverage.tokens_run} run, {coverage.tokens_scored} scored, {len(seen.shown)} shown"
            )
        ids = last.ids[: last.released]
        if any(seen.shown.get(position) != token for position, token in enumerate(ids)):
            self.wrong.append("a token was released at the end and not scored")
        whole = last.reason in (FinishReason.STOP, FinishReason.LENGTH)
        if self.told and whole and self.released < last.released:
            self.wrong.append("text was kept back at the end")
        self.wrong += seen.failures
        self.last = last
