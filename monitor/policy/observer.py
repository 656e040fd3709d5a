"""Rules at work on one request: blocks of readings in, detections, actions and clamps out.

Knows the state of one request. Does not know who computes readings or who acts on the answer. Anything that
was not scored (a gap, a NaN, a failure reported by the engine) makes the verdict UNKNOWN for good.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monitor.policy.evidence import EvidenceBook, ScoredBlock
from monitor.policy.pooling import Scores
from monitor.policy.program import Program, merge_clamps, strongest
from monitor.records import (
    Action,
    Clamp,
    Coverage,
    Decision,
    Detection,
    Phase,
    Readings,
    RuleScore,
    Status,
    TokenBlock,
    TokenText,
    Verdict,
)

NON_FINITE = "non_finite"
"""A reading was NaN or infinite."""
SHAPE = "shape"
"""The readings do not have one row per token and one column per watched feature."""
GAP = "gap"
"""Tokens between two blocks were never shown."""
INCOMPLETE = "incomplete"
"""The model ran more tokens than were scored."""
MISCOUNTED = "miscounted"
"""Coverage claims more scored tokens than the rules were shown."""
NOT_RUN = "not_run"
"""No token was scored at all."""


class _PhaseState:
    """Pools, evidence and best scores of one phase."""

    def __init__(self, program: Program, phase: Phase) -> None:
        self.watching = program.watches(phase)
        self.pools = program.pools()
        self.book = EvidenceBook(program)
        self.best = np.full(len(program.rules), -np.inf)
        self.fired = np.zeros(len(program.rules), bool)

    def push(self, scores: Scores) -> Scores:
        """Pooled scores after each token, and the best so far."""
        pooled = self.pools.push(scores)
        self.best = np.maximum(self.best, pooled.max(axis=0))
        return pooled


class RequestObserver:
    """Implements `monitor.records.Observer` for one request. One thread at a time."""

    def __init__(self, program: Program, token_text: TokenText, special: frozenset[int]) -> None:
        self._program = program
        self._token_text = token_text
        self._special = special
        self._states: dict[Phase, _PhaseState] = {}
        self._next = 0
        self._detections: list[Detection] = []
        self._action = Action.ALLOW
        self._clamps = program.standing_clamps()
        self._failure = ""

    @property
    def status(self) -> Status:
        """UNKNOWN once anything could not be scored."""
        return Status.UNKNOWN if self._failure else Status.CHECKED

    def begin(self) -> Decision:
        """Clamps of policies that suppress always."""
        return self._decision()

    def observe(self, block: TokenBlock) -> Decision:
        """Score a block. Tokens that were seen before (a step that was run again) are not counted twice."""
        cause = self._fault(block)
        seen = max(0, self._next - block.start)
        self._next = max(self._next, block.start + len(block.token_ids))
        if cause:
            return self.failed(cause)
        skip = max(seen, 1 if block.start == 0 else 0)
        if skip >= len(block.token_ids) or not self._program.rules:
            return self._decision()
        return self._decision(self._score(block, skip))

    def failed(self, cause: str) -> Decision:
        """Tokens could not be scored; the first cause is kept."""
        self._failure = self._failure or cause
        if self._program.closed:
            self._action = Action.BLOCK
        return self._decision()

    def verdict(self, coverage: Coverage) -> Verdict:
        """Everything about the request; UNKNOWN unless every token that was run was scored."""
        failure = self._failure or self._shortfall(coverage)
        status = Status.UNKNOWN if failure else Status.CHECKED
        action = Action.BLOCK if failure and self._program.closed else self._action
        return Verdict(status, action, coverage, tuple(self._detections), self._scores(), failure)

    def _fault(self, block: TokenBlock) -> str:
        if block.readings.shape != (len(block.token_ids), len(self._program.watch)):
            return SHAPE
        if block.start > self._next:
            return GAP
        return "" if bool(np.isfinite(block.readings).all()) else NON_FINITE

    def _shortfall(self, coverage: Coverage) -> str:
        if not coverage.complete:
            return INCOMPLETE
        if coverage.tokens_run == 0:
            return NOT_RUN
        return MISCOUNTED if coverage.tokens_scored > self._next else ""

    def _score(self, block: TokenBlock, skip: int) -> tuple[Detection, ...]:
        """Detections that are new with this block; its first `skip` tokens are left out."""
        state = self._states.get(block.phase)
        if state is None:
            state = self._states[block.phase] = _PhaseState(self._program, block.phase)
        readings = self._without_special(block.readings[skip:], block.token_ids[skip:])
        scores = readings.astype(np.float64) @ self._program.weights
        scored = ScoredBlock(scores, block.start + skip, block.token_ids[skip:], readings)
        pooled = state.push(scores)
        reached = (pooled >= self._program.thresholds) & state.watching & ~state.fired
        new = np.flatnonzero(reached.any(axis=0))
        first = reached.argmax(axis=0)
        detections = tuple(
            self._detection(block.phase, scored, rule, int(first[rule]), float(pooled[first[rule], rule]))
            for rule in map(int, new)
        )
        state.fired[new] = True
        state.book.add(scored, state.fired | ~state.watching)
        self._apply(new)
        self._detections.extend(detections)
        return detections

    def _without_special(self, readings: Readings, token_ids: tuple[int, ...]) -> Readings:
        """Readings of special tokens as zero: turn markers carry large activations that say nothing of the text."""
        marks = [row for row, token_id in enumerate(token_ids) if token_id in self._special]
        if not marks:
            return readings
        readings = readings.copy()
        readings[marks] = 0
        return readings

    def _detection(self, phase: Phase, scored: ScoredBlock, rule: int, at: int, score: float) -> Detection:
        """The detection of a rule whose threshold was crossed at token `at` of the block."""
        spec, policy = self._program.rules[rule], self._program.owners[rule]
        return Detection(
            policy=policy.name,
            rule=spec.name,
            category=policy.category,
            severity=spec.severity,
            action=spec.action,
            mode=spec.mode,
            phase=phase,
            position=scored.start + at,
            score=score,
            threshold=spec.threshold,
            evidence=self._states[phase].book.until(scored, rule, at + 1, self._token_text),
        )

    def _apply(self, new: NDArray[np.intp]) -> None:
        rules = [self._program.rules[i] for i in new]
        self._action = max(self._action, strongest(rules))
        clamps: list[Clamp] = [
            clamp
            for i in new
            if self._program.rules[i].enforced and self._program.rules[i].action is Action.SUPPRESS
            for clamp in self._program.owners[i].clamps
        ]
        if clamps:
            self._clamps = merge_clamps([*self._clamps, *clamps])

    def _decision(self, detections: tuple[Detection, ...] = ()) -> Decision:
        return Decision(detections, self._action, self._clamps)

    def _scores(self) -> tuple[RuleScore, ...]:
        return tuple(
            RuleScore(owner.name, rule.name, phase, float(state.best[i]), rule.threshold)
            for phase, state in self._states.items()
            for i, (owner, rule) in enumerate(zip(self._program.owners, self._program.rules, strict=True))
            if state.watching[i] and np.isfinite(state.best[i])
        )
