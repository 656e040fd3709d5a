"""Detections: what a rule that fires says, and how far rules came that did not fire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.policy.rules.evidence import TOKENS, EvidenceStore, Tokens, shown
from monitor.policy.rules.pooling import State
from monitor.policy.rules.program import Program
from monitor.policy.rules.step import Bools, Lanes, Step, nearest
from monitor.records import ConditionScore, Detection, Evidence, Phase, RuleScore, TokenText

Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Firing:
    """A rule that fires at a token of a step that is not settled yet."""

    program: Program
    lanes: Lanes
    taken: Step
    lane: int
    tokens: Tokens
    """Of the step."""
    own: Indices
    """`[tokens]` those of the lane, in order."""
    row: int
    """Of the lane's request in the store."""
    store: EvidenceStore
    phase: Phase
    token_text: TokenText

    def detection(self, rule: int, at: int) -> Detection:
        """What the rule, as a number in the program, says at the `at`-th token."""
        spec, policy = self.program.rules[rule], self.program.owners[rule]
        score, threshold, evidence, conditions = self._simple(rule, at)
        return Detection(
            policy=policy.name,
            rule=spec.name,
            category=policy.category,
            severity=spec.severity,
            action=spec.action,
            mode=spec.mode,
            phase=self.phase,
            position=int(self.tokens.positions[self.own[at]]),
            score=score,
            threshold=threshold,
            evidence=evidence,
            conditions=conditions,
        )

    def _simple(
        self, rule: int, at: int
    ) -> tuple[float, float, tuple[Evidence, ...], tuple[ConditionScore, ...]]:
        if self.program.rules[rule].when is not None:
            return self._combined(int(np.searchsorted(self.program.combined, rule)), at)
        check = int(np.searchsorted(self.program.simple, rule))
        score = float(self.taken.pooled[at, self.lane, check])
        evidence = self._evidence(check, at, "", counts=True)
        return score, self.taken.threshold(at, self.lane, check), evidence, ()

    def _combined(
        self, n: int, at: int
    ) -> tuple[float, float, tuple[Evidence, ...], tuple[ConditionScore, ...]]:
        """Of the n-th combined rule: evidence is the best of every condition that holds, conditions taking turns."""
        program, holds = self.program, self.taken.holds
        assert holds is not None
        held = holds[at, self.lane]
        came = [nearest(program, self.lanes, self.taken, self.lane, int(i), at + 1) for i in program.leaves]
        margin = program.gates.margins([score - limit for score, limit in came])[n]
        lists = []
        for leaf in program.parts[n]:
            if held[leaf]:
                check = int(program.leaves[leaf])
                counts = bool(self.lanes.reading[self.lane, check])
                lists.append(self._evidence(check, at, program.checks[check].name, counts=counts))
        turns = [entry for rank in range(TOKENS) for own in lists for entry in own[rank : rank + 1]]
        return margin, 0.0, tuple(turns[:TOKENS]), _condition_scores(program, n, came, held)

    def _evidence(self, check: int, at: int, name: str, *, counts: bool) -> tuple[Evidence, ...]:
        """`counts`: the check looks at this phase, so that tokens of the step are evidence too."""
        own = self.own[: at + 1 if counts else 0]
        return shown(self.program, self.store.best(self.row, check, self.tokens, own), self.token_text, name)


@dataclass(frozen=True, eq=False)
class Reach:
    """How far the checks of one request have come in a phase."""

    phase: Phase
    watching: Bools
    """`[rules]` that look at the phase."""
    best: NDArray[np.float64]
    """`[checks]`"""
    limits: NDArray[np.float64]
    """`[checks]` the threshold where each was best."""
    held: Bools
    """`[leaves]` conditions that hold."""

    @classmethod
    def of(cls, program: Program, phase: Phase, watching: Bools, state: State) -> Reach:
        """From the state of one lane, which may be written to afterwards."""
        vary = program.thresholds.vary
        limits = state["best_threshold"][0].copy() if vary else program.thresholds.fixed
        held = state["until"][0] >= state["clock"][0]
        return cls(phase, watching.copy(), state["best"][0].copy(), limits, held)

    def scores(self, program: Program) -> tuple[RuleScore, ...]:
        """Every rule, in the order of the program; none for rules that no token counted for."""
        found: dict[int, RuleScore] = {}
        for check, i in enumerate(program.simple.tolist()):
            if self.watching[i] and np.isfinite(self.best[check]):
                found[i] = self._score(program, i, float(self.best[check]), float(self.limits[check]))
        came = [(float(self.best[i]), float(self.limits[i])) for i in program.leaves]
        margins = program.gates.margins([score - limit for score, limit in came]) if came else []
        for n, i in enumerate(program.combined.tolist()):
            if self.watching[i] and np.isfinite(margins[n]):
                parts = _condition_scores(program, n, came, self.held)
                found[i] = self._score(program, i, margins[n], 0.0, parts)
        return tuple(found[i] for i in sorted(found))

    def _score(
        self, program: Program, rule: int, score: float, limit: float, parts: tuple[ConditionScore, ...] = ()
    ) -> RuleScore:
        return RuleScore(program.owners[rule].name, program.rules[rule].name, self.phase, score, limit, parts)


def _condition_scores(
    program: Program, n: int, leaves: Sequence[tuple[float, float]], held: Bools
) -> tuple[ConditionScore, ...]:
    """The leaves of the n-th combined rule; `leaves` holds score and threshold of all."""
    return tuple(
        ConditionScore(program.checks[program.leaves[i]].name, *leaves[i], bool(held[i]))
        for i in program.parts[n]
    )
