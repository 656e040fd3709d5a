"""A rule as it runs, put to texts: for rules that combine conditions, and for those that no lock knows.

Knows the running rules and batch readings. Does not know how anything was fitted. Each text is a request of its own,
all of it prompt, or all of it response where the rule looks at nothing else; so conditions that wait for the other
phase are never reached, and what conversations add up to is not measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from monitor.policy.fit.readings import Floats, Indices, TextReadings
from monitor.policy.fit.weights import Pooled
from monitor.policy.policy import Policy, Rule
from monitor.policy.rules.explain import Explanation, TokenShare, explain
from monitor.policy.rules.program import compile_program
from monitor.records import Phase, WatchPlan

SILENT = -1e9
"""Score of a text that is too short for the rule to look at."""


@dataclass(frozen=True)
class Observed:
    """One rule of a resolved policy, ready to score texts."""

    owner: Policy
    named: Rule
    how: Pooled
    """How what stands beside it in a table pools its tokens."""
    asked: float | None = None
    """The false-positive rate that it was fitted to; None where it was not."""

    @property
    def policy(self) -> str:
        """The policy's name."""
        return self.owner.name

    @property
    def rule(self) -> str:
        """The rule's name."""
        return self.named.name

    @property
    def phase(self) -> Phase:
        """What a text is taken for."""
        return phase_of(self.named)

    def fired(self, read: TextReadings) -> Indices:
        """`[texts]`: 1 where the rule fires."""
        return np.asarray([self._seen(read, i).fired for i in range(len(read))], np.intp)

    def score(self, read: TextReadings) -> Floats:
        """`[texts]`: how far each comes. Of combined conditions the margin: `all` takes the least of how far its parts
        are beyond their thresholds, `any` the greatest, `at_least` n the n-th greatest, `not` the opposite.
        """
        found = np.asarray([self._seen(read, i).score for i in range(len(read))], np.float64)
        return np.asarray(np.nan_to_num(found, nan=SILENT, posinf=-SILENT, neginf=SILENT))

    def tokens(self, read: TextReadings, text: int) -> Floats:
        """Token scores `[tokens]` of one text, of the strongest few and zero elsewhere; of combined conditions as
        shares of the threshold of the condition that each is strongest for.
        """
        out = np.zeros(int(read.lengths[text]))
        seen = self._seen(read, text)
        for part in seen.parts:
            _strongest(out, part.tokens, max(abs(part.threshold), 1e-12))
        if not seen.parts:
            _strongest(out, seen.tokens, 1.0)
        return out

    def course(self, read: TextReadings, text: int) -> Floats:
        """What says where in a text the rule looks; its tokens."""
        return self.tokens(read, text)

    def share(self, read: TextReadings, text: int) -> float:
        """How far a text comes, as a share of the way: 1 or more exactly where the rule fires."""
        if not read.lengths[text]:
            return 0.0
        seen = self._seen(read, text)
        limits = [abs(part.threshold) for part in seen.parts] or [abs(seen.threshold)]
        way = 1 + (seen.score - seen.threshold) / max(float(np.mean(limits)), 1e-12)
        far = float(np.clip(np.nan_to_num(way, nan=0.0), -1e3, 1e3))
        return max(far, 1.0) if seen.fired else min(far, float(np.nextafter(1.0, 0.0)))

    def _seen(self, read: TextReadings, text: int) -> Explanation:
        rows = columns(read, text, self._plan)
        return next(
            one for one in explain((self._alone,), rows, self.phase) if one.rule.name == self.named.name
        )

    @cached_property
    def _alone(self) -> Policy:
        """The policy with this rule only, whoever it is bound to."""
        return replace(self.owner, rules=(self.named,), match=None)

    @cached_property
    def _plan(self) -> WatchPlan:
        return compile_program((self._alone,)).watch


def phase_of(rule: Rule) -> Phase:
    """Prompt, or response where a rule looks at nothing else."""
    return Phase.PROMPT if Phase.PROMPT in rule.phases else Phase.RESPONSE


def columns(read: TextReadings, text: int, plan: WatchPlan) -> NDArray[np.float32]:
    """Readings `[tokens, watched]` of one text; the first position, which rules pass over, is zero."""
    residual = read.residual(text).astype(np.float64)
    parts = [read.tokens.of(text)[:, list(plan.features)].toarray()]
    parts += [((residual @ np.asarray(p.weights) + p.bias) / p.scale)[:, None] for p in plan.probes]
    parts += [read.signal(str(s), np.asarray([text]))[0][:, None] for s in plan.signals]
    rows = np.concatenate(parts, axis=1).astype(np.float32)
    return np.concatenate([np.zeros((1, rows.shape[1]), np.float32), rows])


def _strongest(out: Floats, tokens: tuple[TokenShare, ...], unit: float) -> None:
    for token in tokens:
        place = token.position - 1
        out[place] = max(out[place], token.score / unit)
