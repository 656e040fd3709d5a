"""A lock put to texts that no fit has seen: what its rules score, and where they fire.

Knows locks, readings and pooling. Does not know sources, files or models. Rules that combine conditions have no
threshold of their own in a lock: `observing` puts those to texts. What conversations add up to is left out: each text
is a request of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from monitor.policy.files.lock import LockedRule, LockModel
from monitor.policy.files.probe_weights import read_weights
from monitor.policy.fit.detectors import Detector, Features, Probe, Signal
from monitor.policy.fit.lengths import Reached, fires
from monitor.policy.fit.readings import Floats, Indices, TextReadings
from monitor.policy.fit.thresholds import pinned_features
from monitor.policy.fit.weights import Pooled
from monitor.policy.schema.policy import CheckModel, PolicyModel, ProbeModel
from monitor.policy.schema.threshold import buckets_of


class Tried(Protocol):
    """A rule that is put to texts."""

    @property
    def policy(self) -> str:
        """The policy's name."""

    @property
    def rule(self) -> str:
        """The rule's name."""

    @property
    def asked(self) -> float | None:
        """The false-positive rate that it was fitted to; None where it was not."""

    @property
    def how(self) -> Pooled:
        """How it pools; where it combines conditions, how what stands beside it does."""

    def fired(self, read: TextReadings) -> Indices:
        """`[texts]`: 1 where the rule fires."""

    def score(self, read: TextReadings) -> Floats:
        """`[texts]`: what ranks them."""

    def tokens(self, read: TextReadings, text: int) -> Floats:
        """Token scores `[tokens]` of one text."""

    def course(self, read: TextReadings, text: int) -> Floats:
        """`[tokens]`: where in a text the rule comes closest."""

    def share(self, read: TextReadings, text: int) -> float:
        """How far one text comes as a share of the threshold; 1 or more fires."""


@dataclass(frozen=True)
class Trial:
    """One rule of a lock, ready to score texts."""

    policy: str
    rule: str
    detector: Detector
    how: Pooled
    locked: LockedRule

    @property
    def thresholds(self) -> Sequence[tuple[int | None, float]]:
        """(up to so many tokens, threshold), the last without a limit."""
        return buckets_of(self.locked.threshold)

    @property
    def asked(self) -> float | None:
        """The false-positive rate that its threshold was set to."""
        return self.locked.asked_rate

    def score(self, read: TextReadings) -> Floats:
        """`[texts]`: the highest pooled score of each."""
        return self.how.score(self.detector.tokens(read, np.arange(len(read))))

    def reach(self, read: TextReadings) -> Reached:
        """Pooled scores of texts, by length."""
        return self.how.reach(self.detector.tokens(read, np.arange(len(read))))

    def fired(self, read: TextReadings) -> Indices:
        """`[texts]`: 1 where the rule fires."""
        return fires(self.reach(read), self.thresholds)

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
        # Of a threshold above zero this is pooled / limit; a probe may have one of zero or below.
        return np.asarray(1 + (pooled - limits) / np.maximum(np.abs(limits), 1e-12))

    def share(self, read: TextReadings, text: int) -> float:
        """The highest pooled score of one text as a share of the threshold; 1 or more fires."""
        return float(self.course(read, text).max(initial=-np.inf)) if read.lengths[text] else 0.0


def trials(policy: PolicyModel, lock: LockModel, folder: Path) -> list[Trial]:
    """Every rule of a policy that has thresholds of its own; `folder` holds its probe where that is a file."""
    taught = _taught(policy, lock, folder)
    found = []
    for (section, rule), leaf in policy.leaves().items():
        locked = lock.rules.get(rule) if section == "rules" else None
        detector = _own(leaf) or taught
        if locked is not None and detector is not None:
            how = Pooled(locked.pooling, locked.for_)
            found.append(Trial(policy.metadata.name, rule, detector, how, locked))
    return found


def probe_of(probe: ProbeModel, folder: Path) -> Probe:
    """A probe as a policy or a lock names it."""
    return Probe(np.asarray(read_weights(probe, folder)), probe.bias, probe.scale)


def _taught(policy: PolicyModel, lock: LockModel, folder: Path) -> Detector | None:
    """What rules read that name nothing of their own."""
    if policy.features is not None:
        return pinned_features(policy.features)
    if policy.probe is not None:
        return probe_of(policy.probe, folder)
    if policy.concept is None:
        return None
    if lock.detector == "probe":
        assert lock.probe is not None
        return probe_of(lock.probe, folder)
    indices = np.asarray([f.index for f in lock.features], np.intp)
    weights = np.asarray([f.weight for f in lock.features])
    return Features(indices, weights, np.ones(len(indices)))


def _own(leaf: CheckModel) -> Detector | None:
    if leaf.features is not None:
        return pinned_features(leaf.features)
    return Signal(str(leaf.signal)) if leaf.signal is not None else None
