"""What a report shows.

Knows numbers and texts. Does not know how they were measured or how they are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monitor.policy.files.lock import LockModel
from monitor.policy.fit.evaluation import BenignRate, RuleOnSource
from monitor.policy.schema.policy import PolicyModel


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a text with what it scored for a rule."""

    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Heat:
    """A text under a rule, token by token."""

    source: str
    tokens: Sequence[Token]
    share: float
    """The highest pooled score as a share of the threshold that held there; 1 or more fires."""


@dataclass(frozen=True, slots=True)
class Group:
    """Texts of one kind: hits, misses, false alarms."""

    title: str
    note: str
    texts: Sequence[Heat]


@dataclass(frozen=True, slots=True)
class Scores:
    """How far texts of one kind came, as shares of the threshold."""

    name: str
    shares: Sequence[float]


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """One policy."""

    policy: PolicyModel
    lock: LockModel | None
    modes: dict[str, str]
    """By rule: enforce or shadow, as it runs."""
    maturity: str
    sources: Sequence[RuleOnSource] = ()
    rates: Sequence[BenignRate] = ()
    scores: Sequence[Scores] = ()
    groups: Sequence[Group] = ()


@dataclass(frozen=True, slots=True)
class PolicySetReport:
    """A policy set."""

    title: str
    digests: dict[str, str]
    policies: Sequence[PolicyReport]
    together: Sequence[BenignRate] = ()
    """How often any rule of the set fires on unseen benign texts."""
    measured: bool = False
    """Whether unseen labelled texts were at hand."""
    notes: Sequence[str] = ()
    """What has no numbers and why, and which numbers mean something else than the others."""
