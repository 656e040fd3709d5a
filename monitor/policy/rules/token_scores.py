"""Scores of single tokens under every rule, as shares of the rules' thresholds: for shading, never for decisions.

A rule pools its tokens' scores before it compares them, so one token beyond the threshold need not fire it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monitor.policy.policy import Policy
from monitor.policy.rules.program import compile_program
from monitor.policy.rules.weights import active
from monitor.records import Phase, Readings, WatchPlan


class TokenScores:
    """The rules of some policies, ready to score tokens by themselves."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._program = compile_program(policies)
        self.rules = [
            (owner.name, rule.name)
            for owner, rule in zip(self._program.owners, self._program.rules, strict=True)
        ]
        """Policy and name of each rule, in the order of the columns of shares."""

    @property
    def watch(self) -> WatchPlan:
        """What the rules read, in the order of the columns of readings."""
        return self._program.watch

    def shares(self, readings: Readings, phase: Phase, before: int = 0) -> NDArray[np.float64]:
        """`[tokens, rules]`, at least 0: 1 where a token alone scores a rule's threshold; 0 for rules of another phase.

        `readings` `[tokens, watched]` follow `before` tokens of the phase, because thresholds may depend on the length.
        Of a rule that combines conditions it is the highest share of one of them.
        """
        program = self._program
        scores = program.weights.scored(active(readings)).scores
        numbers = np.arange(before + 1, before + 1 + len(readings))[:, None]
        limits = np.broadcast_to(program.thresholds.at(numbers), scores.shape)
        positive = limits > 0
        # A probe's threshold may be 0 or below: then its distance counts, in the probe's own unit.
        checks = np.where(positive, scores / np.where(positive, limits, 1.0), 1.0 + scores - limits).clip(
            min=0
        )
        out = np.zeros((len(readings), len(program.rules)))
        out[:, program.simple] = checks[:, : len(program.simple)]
        for rule, leaves in zip(program.combined, program.parts, strict=True):
            out[:, rule] = checks[:, program.leaves[list(leaves)]].max(axis=1, initial=0.0)
        out[:, ~program.watches(phase)] = 0.0
        return out
