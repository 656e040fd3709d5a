"""Policies as the rest of the program sees them: resolved, frozen, with numbers for everything.

Knows what a policy and its rules are. Does not know files or how a rule is evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from monitor.policy.schema.expression import AnyExpression
from monitor.policy.schema.policy import AnyPooling, Match, Max
from monitor.records import Action, Clamp, LaterProbe, Mode, Phase, Probe, Severity, Signal

Pooling = AnyPooling

Lengths = tuple[tuple[int | None, float], ...]
"""(up to so many tokens, threshold) pairs in growing order, the last without a limit; empty: one threshold for all."""


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
    probe: Probe | None = None
    """Read instead of features."""
    signal: Signal | None = None
    """Read instead of features."""
    lengths: Lengths = ()
    """Thresholds by tokens of the phase so far; `threshold` is then the last of them."""
    session: bool = False
    """Pooled over all requests of a session."""
    when: AnyExpression | None = None
    """Conditions combined, instead of a score: `features` are then those of all conditions, `threshold` is 0."""

    @property
    def enforced(self) -> bool:
        """True where the rule acts."""
        return self.mode is Mode.ENFORCE


@dataclass(frozen=True, slots=True)
class Condition:
    """A named part of rules: a score and its threshold, or conditions combined. As in `Rule`, where the words agree."""

    name: str
    phases: tuple[Phase, ...] = (Phase.PROMPT, Phase.RESPONSE)
    features: tuple[WeightedFeature, ...] = ()
    probe: Probe | None = None
    signal: Signal | None = None
    pooling: Pooling = field(default_factory=Max)
    hold: int = 1
    threshold: float = 0.0
    lengths: Lengths = ()
    session: bool = False
    lasts: int | None = None
    """Tokens for which it holds once reached; None: to the end of the request."""
    when: AnyExpression | None = None


Check = Rule | Condition
"""What is read, pooled and compared, where it has no `when`."""


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
    conditions: tuple[Condition, ...] = ()
    """Each once; `when` of rules and conditions names them."""
    match: Match | None = None
    """Which requests it applies to; None: all."""
    clamps: tuple[Clamp, ...] = ()
    clamps_always: bool = False
    """True: the clamps hold from the first token. False: once an enforced rule with action suppress has fired."""
    closed: bool = True
    """`on_error: closed`: a request whose tokens could not be scored is blocked."""
    hold: int | None = None
    """Tokens for which clamps stay after the score was last at the release level; None: to the end."""
    release_below: float = 1.0
    """The release level, as a share of a rule's threshold."""
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
