"""Scores texts that no fit has seen by one rule of a policy, and says on which of them the rule fires.

`LockedRuleScorer` takes a rule whose threshold is in a lock, and scores all texts at once. `RunningRuleScorer` takes a
rule that combines conditions or has no lock, and runs it as the server does, text by text. In both, each text is a
request of its own. All of it is prompt, or all of it response where the rule reads only responses. So a condition on
the other phase is never reached, and scores that add up over a conversation are not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from monitor.policy.files.lock import LockedRule, LockModel
from monitor.policy.fit.detectors import (
    CombinedDetector,
    Detector,
    FeatureDetector,
    own_detector,
    pinned_features,
    probe_detector,
)
from monitor.policy.fit.lengths import BucketMaxima, fires
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.readings import Floats, Indices, TextReadings
from monitor.policy.policy import Policy, Rule
from monitor.policy.rules.explain import Explanation, TokenShare, explain
from monitor.policy.rules.program import compile_program
from monitor.policy.schema.policy import PolicyModel
from monitor.policy.schema.threshold import thresholds_by_length
from monitor.records import Phase, WatchPlan

SILENT = -1e9
"""Score of a text that is too short to be scored by the rule."""


class RuleScorer(Protocol):
    """One rule of a policy, ready to score texts."""

    @property
    def policy(self) -> str:
        """The policy's name."""

    @property
    def rule(self) -> str:
        """The rule's name."""

    @property
    def asked(self) -> float | None:
        """The false-positive rate that the policy asks of the rule; None where it gives a threshold."""

    @property
    def how(self) -> RulePooling:
        """The rule's pooling. For a rule that combines conditions, the pooling of its baselines."""

    @property
    def features(self) -> int:
        """Number of features that a locked rule reads; 0 for a probe or a signal, and for a `RunningRuleScorer`."""

    def fired(self, read: TextReadings) -> Indices:
        """`[texts]`: 1 where the rule fires, else 0."""

    def score(self, read: TextReadings) -> Floats:
        """`[texts]`: a score that ranks the texts."""

    def tokens(self, read: TextReadings, text: int) -> Floats:
        """Token scores `[tokens]` of one text."""

    def course(self, read: TextReadings, text: int) -> Floats:
        """`[tokens]` of one text, highest where the rule comes closest to firing."""

    def share(self, read: TextReadings, text: int) -> float:
        """The highest score of one text as a share of the threshold. At 1 or more the rule fires."""


@dataclass(frozen=True)
class LockedRuleScorer:
    """A rule whose thresholds stand in a lock."""

    policy: str
    rule: str
    detector: Detector
    how: RulePooling
    locked: LockedRule

    @property
    def thresholds(self) -> Sequence[tuple[int | None, float]]:
        """Pairs of (last token, threshold) in growing order; the last pair has no last token."""
        return thresholds_by_length(self.locked.threshold)

    @property
    def asked(self) -> float | None:
        """The false-positive rate that its thresholds were set to; None where the policy gives them."""
        return self.locked.asked_rate

    @property
    def features(self) -> int:
        """How many features it reads; 0 where it reads a probe or a signal."""
        found = self.detector.features if isinstance(self.detector, CombinedDetector) else self.detector
        return len(found.indices) if isinstance(found, FeatureDetector) else 0

    def score(self, read: TextReadings) -> Floats:
        """`[texts]`: the highest pooled score of each text."""
        return self.how.score(self.detector.tokens(read, np.arange(len(read))))

    def bucket_maxima(self, read: TextReadings) -> BucketMaxima:
        """The highest pooled score of each text in each length bucket."""
        return self.how.bucket_maxima(self.detector.tokens(read, np.arange(len(read))))

    def fired(self, read: TextReadings) -> Indices:
        """`[texts]`: 1 where the rule fires."""
        return fires(self.bucket_maxima(read), self.thresholds)

    def tokens(self, read: TextReadings, text: int) -> Floats:
        """Token scores `[tokens]` of one text."""
        return self.detector.tokens(read, np.asarray([text]))[0]

    def course(self, read: TextReadings, text: int) -> Floats:
        """The pooled score after each token of one text, as a share of the threshold that holds there."""
        pooled = self.how.course(self.tokens(read, text))
        limits = [
            next(value for up_to, value in self.thresholds if up_to is None or n <= up_to)
            for n in range(1, len(pooled) + 1)
        ]
        # For a threshold above zero this equals pooled / limit. The threshold of a probe may be zero or negative.
        return np.asarray(1 + (pooled - limits) / np.maximum(np.abs(limits), 1e-12))

    def share(self, read: TextReadings, text: int) -> float:
        """The highest pooled score of one text as a share of the threshold; 1 or more fires."""
        return float(self.course(read, text).max(initial=-np.inf)) if read.lengths[text] else 0.0


@dataclass(frozen=True)
class RunningRuleScorer:
    """A rule run as the server runs it, alone in its policy."""

    owner: Policy
    named: Rule
    how: RulePooling
    """The pooling of the baselines that the rule is compared with."""

    @property
    def asked(self) -> None:
        """None: the rule has no fitted threshold of its own."""
        return

    @property
    def features(self) -> int:
        """0: a lock would say how many were chosen for it."""
        return 0

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
        """The phase that texts are read in."""
        return phase_of(self.named)

    def fired(self, read: TextReadings) -> Indices:
        """`[texts]`: 1 where the rule fires."""
        return np.asarray([self._seen(read, i).fired for i in range(len(read))], np.intp)

    def score(self, read: TextReadings) -> Floats:
        """`[texts]`: the highest pooled score of each text; with combined conditions, the margin of the combination.

        A condition's margin is its score less its threshold. `all` takes the least margin of its parts, `any` the
        greatest, `at_least` n the n-th greatest, and `not` the negative.
        """
        found = np.asarray([self._seen(read, i).score for i in range(len(read))], np.float64)
        return np.asarray(np.nan_to_num(found, nan=SILENT, posinf=-SILENT, neginf=SILENT))

    def tokens(self, read: TextReadings, text: int) -> Floats:
        """Scores `[tokens]` of the strongest few tokens of one text, and zero elsewhere.

        With combined conditions a token's score is its greatest share of any condition's threshold.
        """
        out = np.zeros(int(read.lengths[text]))
        seen = self._seen(read, text)
        for part in seen.parts:
            _strongest(out, part.tokens, max(abs(part.threshold), 1e-12))
        if not seen.parts:
            _strongest(out, seen.tokens, 1.0)
        return out

    def course(self, read: TextReadings, text: int) -> Floats:
        """Its token scores, which show where in the text the rule looks."""
        return self.tokens(read, text)

    def share(self, read: TextReadings, text: int) -> float:
        """1 + (score − threshold) / |threshold| of one text. It is 1 or more exactly where the rule fires.

        With combined conditions, the score is the margin of the combination, and the divisor is the mean of the
        conditions' absolute thresholds.
        """
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
        """The policy with this rule only, applied to every caller."""
        return replace(self.owner, rules=(self.named,), match=None)

    @cached_property
    def _plan(self) -> WatchPlan:
        return compile_program((self._alone,)).watch


def locked_scorers(policy: PolicyModel, lock: LockModel, folder: Path) -> list[LockedRuleScorer]:
    """A scorer for every rule with thresholds in the lock; `folder` holds the probe where that is a file."""
    found = locked_leaves(policy, lock, folder)
    return [scorer for (section, _), scorer in found.items() if section == "rules"]


def locked_leaves(
    policy: PolicyModel, lock: LockModel, folder: Path
) -> dict[tuple[str, str], LockedRuleScorer]:
    """A scorer for every rule and condition with thresholds in the lock, by its section there and its name.

    `folder` holds the probe where that is a file.
    """
    shared = _shared(policy, lock, folder)
    sections = {"rules": lock.rules, "conditions": lock.conditions}
    found = {}
    for (section, name), leaf in policy.leaves().items():
        locked = sections[section].get(name)
        detector = own_detector(leaf) or shared
        if locked is not None and detector is not None:
            how = RulePooling(locked.pooling, locked.for_)
            found[section, name] = LockedRuleScorer(policy.metadata.name, name, detector, how, locked)
    return found


def _shared(policy: PolicyModel, lock: LockModel, folder: Path) -> Detector | None:
    """The detector of rules that name neither features nor a signal."""
    if policy.features is not None:
        return pinned_features(policy.features)
    if policy.probe is not None:
        return probe_detector(policy.probe, folder)
    if policy.concept is None:
        return None
    probe = probe_detector(lock.probe, folder) if lock.probe is not None else None
    if lock.detector == "probe":
        return probe
    indices = np.asarray([f.index for f in lock.features], np.intp)
    features = FeatureDetector(indices, np.asarray([f.weight for f in lock.features]))
    return features if probe is None or lock.detector == "features" else CombinedDetector(features, probe)


def phase_of(rule: Rule) -> Phase:
    """The phase in which texts are put to a rule: prompt, or response where it looks at nothing else."""
    return Phase.PROMPT if Phase.PROMPT in rule.phases else Phase.RESPONSE


def columns(read: TextReadings, text: int, plan: WatchPlan) -> NDArray[np.float32]:
    """Readings `[1 + tokens, watched]` of one text as a running rule wants them, zero at the first position."""
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
