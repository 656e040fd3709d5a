"""Resolved policies, which run: immutable records in which every threshold, feature and weight is given.

`monitor.policy.files.resolve` makes them from a policy file and its lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from monitor.policy.schema.expression import AnyExpression
from monitor.policy.schema.policy import AnyPooling, Match, Max
from monitor.records import Action, Clamp, LaterProbe, Mode, Phase, Probe, Severity, Signal

Pooling = AnyPooling

Lengths = tuple[tuple[int | None, float], ...]
"""Pairs of (last token, threshold) in growing order; the last pair has no last token. Empty: one threshold for all."""


@dataclass(frozen=True, slots=True)
class WeightedFeature:
    """A feature that a rule reads. A token's score is the sum of weight times reading over the rule's features."""

    index: int
    weight: float
    label: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what it reads, the score at which it fires, and its action."""

    name: str
    phases: tuple[Phase, ...]
    features: tuple[WeightedFeature, ...]
    pooling: Pooling
    hold: int
    """For how many tokens in a row the pooled score must stay at or above the threshold."""
    threshold: float
    severity: Severity
    action: Action
    mode: Mode
    benign_rate: float | None = None
    """Share of the calibration texts on which it fires; None where its lock has no threshold for it."""
    probe: Probe | None = None
    """A probe to read instead of features, or beside them: then a token's score is the sum of both."""
    explains: tuple[WeightedFeature, ...] = ()
    """Features that are watched to say what the probe's score comes from; they are no part of the score."""
    signal: Signal | None = None
    """An anomaly signal to read instead of features."""
    lengths: Lengths = ()
    """Thresholds by the number of tokens of the phase so far. Where given, `threshold` is the last of them."""
    session: bool = False
    """True where scores are pooled over all requests of a session."""
    when: AnyExpression | None = None
    """A combination of conditions instead of a score. Then `features` are those of all its conditions, and `threshold`
    is 0."""

    @property
    def enforced(self) -> bool:
        """True where the rule's action is taken; False in shadow mode, where the rule is only recorded."""
        return self.mode is Mode.ENFORCE


@dataclass(frozen=True, slots=True)
class Condition:
    """A named score with its threshold, or a named combination of conditions. Its fields are as in `Rule`."""

    name: str
    phases: tuple[Phase, ...] = (Phase.PROMPT, Phase.RESPONSE)
    features: tuple[WeightedFeature, ...] = ()
    probe: Probe | None = None
    explains: tuple[WeightedFeature, ...] = ()
    signal: Signal | None = None
    pooling: Pooling = field(default_factory=Max)
    hold: int = 1
    threshold: float = 0.0
    lengths: Lengths = ()
    session: bool = False
    lasts: int | None = None
    """For how many tokens it holds once it is reached; None for the rest of the request."""
    when: AnyExpression | None = None


Check = Rule | Condition
"""A rule or condition: a pooled score with a threshold, or, where `when` is given, a combination of conditions."""


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
    """The conditions that `when` of rules and conditions refers to by name."""
    match: Match | None = None
    """Which requests it applies to; None for all."""
    clamps: tuple[Clamp, ...] = ()
    """What suppression clamps."""
    clamps_always: bool = False
    """True where the clamps hold from the first token; False where an enforced rule starts them."""
    closed: bool = True
    """True where a request whose tokens could not be scored is blocked (`on_error: closed`)."""
    deadline: float | None = None
    """Longest time in seconds that text of another server waits to be scored; None for any."""
    hold: int | None = None
    """For how many tokens clamps stay after the score was last at the release level; None keeps them to the end."""
    release_below: float = 1.0
    """The release level, as a share of a rule's threshold."""
    refusal: str = ""
    """A text that a caller may be shown instead of the rest, where a rule blocks."""
    later: LaterProbe | None = None
    """The probe on a later layer by which suppression is checked."""
    note: str = ""
    """What the lock's card says about relying on this policy."""

    @property
    def enforced(self) -> bool:
        """True where one of its rules is enforced, or it has no rules and only clamps features."""
        return any(rule.enforced for rule in self.rules) or not self.rules
