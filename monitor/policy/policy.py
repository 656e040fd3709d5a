"""Policies as the rest of the program sees them: resolved, frozen, with numbers for everything.

Knows what a policy and its rules are. Does not know files or how a rule is evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass

from monitor.policy.schema import AnyPooling
from monitor.records import Action, Clamp, Mode, Phase, Severity
from monitor.suppression import LaterProbe

Pooling = AnyPooling


@dataclass(frozen=True, slots=True)
class WeightedFeature:
    """A feature that a rule reads: a token's score is the sum of weight times reading."""

    index: int
    weight: float
    label: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """When a policy fires, and what happens then."""

    name: str
    phases: tuple[Phase, ...]
    features: tuple[WeightedFeature, ...]
    pooling: Pooling
    hold: int
    """Tokens in a row for which the pooled score must stay at or above the threshold."""
    threshold: float
    severity: Severity
    action: Action
    mode: Mode
    benign_rate: float | None = None
    """Share of its calibration's benign texts on which it fires; None where nothing was calibrated."""

    @property
    def enforced(self) -> bool:
        """True where the rule acts."""
        return self.mode is Mode.ENFORCE


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy, resolved for the running model and dictionary."""

    name: str
    title: str
    category: str
    severity: Severity
    description: str
    maturity: str
    rules: tuple[Rule, ...]
    clamps: tuple[Clamp, ...] = ()
    clamps_always: bool = False
    """True: the clamps hold from the first token. False: once an enforced rule with action suppress has fired."""
    closed: bool = True
    """`on_error: closed`: a request whose tokens could not be scored is blocked."""
    hold: int | None = None
    """Tokens for which clamps stay after the score was last at the release level; None: to the end."""
    release_below: float = 1.0
    """The release level, as a share of a rule's threshold."""
    rewind: int = 0
    """Response tokens that are taken back when a rule fires."""
    refusal: str = ""
    """What a caller may be shown instead of the rest, where a rule blocks."""
    later: LaterProbe | None = None
    """What suppression is checked with behind the tapped layer."""
    note: str = ""
    """What the lock's card says about relying on this policy."""

    @property
    def enforced(self) -> bool:
        """True where the policy acts: a rule is enforced, or it consists of clamps alone."""
        return any(rule.enforced for rule in self.rules) or not self.rules
