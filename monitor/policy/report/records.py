"""The content of a report page as plain records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monitor.policy.files.lock import LockModel
from monitor.policy.fit.evaluation import BenignRate, RuleOnSource
from monitor.policy.schema.policy import PolicyModel


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a text with its score for a rule."""

    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Heat:
    """A text with its token scores under one rule."""

    source: str
    """Where the text comes from."""
    tokens: Sequence[Token]
    share: float
    """The highest pooled score as a share of the threshold that held there; the rule fires from 1 on."""


@dataclass(frozen=True, slots=True)
class Group:
    """Texts of one kind, such as hits, misses or false alarms, under a heading."""

    title: str
    note: str
    texts: Sequence[Heat]


@dataclass(frozen=True, slots=True)
class Scores:
    """The highest score of each text of one kind, as a share of the threshold."""

    name: str
    shares: Sequence[float]


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """What the page shows of one policy."""

    policy: PolicyModel
    lock: LockModel | None
    modes: dict[str, str]
    """For each rule, the mode in which it runs: `enforce` or `shadow`."""
    maturity: str
    sources: Sequence[RuleOnSource] = ()
    rates: Sequence[BenignRate] = ()
    scores: Sequence[Scores] = ()
    groups: Sequence[Group] = ()


@dataclass(frozen=True, slots=True)
class PolicySetReport:
    """What the page shows: a policy set with its measurements."""

    title: str
    digests: dict[str, str]
    """Digests of the model, the dictionary and the policy set."""
    policies: Sequence[PolicyReport]
    together: Sequence[BenignRate] = ()
    """How often any rule of the set fires on unseen benign texts."""
    measured: bool = False
    """True where unseen labelled texts were measured; False where the page shows cards and own examples only."""
    notes: Sequence[str] = ()
    """Notes for the reader: what was not measured and why, and which numbers are not comparable with the others."""
