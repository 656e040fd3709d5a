"""Values that cross package borders: frozen dataclasses and enums, nothing else.

Knows the vocabulary (phase, action, detection, verdict, coverage, clamp, reading). Does not know where a
reading comes from, how a rule is evaluated or how any of it is sent. Imports nothing of this project but more words
of the same kind: `clamp`, `conditions`, `suppression` and `watching`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from monitor.clamp import Clamp as Clamp
from monitor.clamp import ErrorTerm as ErrorTerm
from monitor.clamp import Where as Where
from monitor.conditions import ConditionScore as ConditionScore
from monitor.suppression import Suppression
from monitor.watching import Probe as Probe
from monitor.watching import Signal as Signal
from monitor.watching import WatchPlan as WatchPlan

Readings = NDArray[np.float32]
"""`[tokens, watched]`, columns as in the `WatchPlan`: the activation of each watched feature in units of that feature's
recorded maximum, then probes and signals in their own units."""

TokenText = Callable[[int], str]
"""The text of one token id, for evidence."""


class Phase(enum.StrEnum):
    """Who wrote a token: the caller (`prompt`) or the model (`response`)."""

    PROMPT = "prompt"
    RESPONSE = "response"


class Severity(enum.StrEnum):
    """How bad it is when the policy's claim is true; never how sure the monitor is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Action(enum.IntEnum):
    """What a detection does. Ordered: the strongest action of a request is its verdict's action."""

    ALLOW = 0
    ALERT = 1
    SUPPRESS = 2
    BLOCK = 3


class Mode(enum.StrEnum):
    """`shadow` records what a rule would have done and does nothing."""

    ENFORCE = "enforce"
    SHADOW = "shadow"


class Status(enum.StrEnum):
    """Whether the request was checked at all; a separate question from whether a rule matched."""

    CHECKED = "checked"
    UNKNOWN = "unknown"


class FinishReason(enum.StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    """The model's end-of-text token, or a stop string."""
    LENGTH = "length"
    """`max_new_tokens`, or the end of the model's context."""
    POLICY = "policy"
    """A rule with action `block`, or a monitoring failure under `on_error: closed`."""
    CANCELLED = "cancelled"
    """The caller went away or its deadline passed."""
    ERROR = "error"
    """The engine failed."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen and when generation ends."""

    max_new_tokens: int = 64
    temperature: float = 0.0
    """0 is greedy."""
    top_k: int = 0
    """0 keeps all."""
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenBlock:
    """Consecutive tokens of one request, as one forward pass scored them."""

    phase: Phase
    start: int
    """Position of the first token in the whole sequence, BOS included."""
    token_ids: tuple[int, ...]
    readings: Readings
    """`[len(token_ids), watched]`, columns in the order of the watch plan."""


@dataclass(frozen=True, slots=True)
class FeatureReading:
    """One watched feature at one token."""

    feature: int
    reading: float
    """In units of the feature's recorded maximum, read from the residual before any clamp."""
    after: float | None = None
    """The same feature re-encoded after the clamps edited this token; None where nothing was clamped here."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A token that a detection rests on."""

    position: int
    token_id: int
    text: str
    score: float
    """The rule's score at this token, before pooling."""
    readings: tuple[FeatureReading, ...] = ()
    """The features that contributed most, strongest first."""
    condition: str = ""
    """The sub-condition whose score this is; empty for a rule without sub-conditions."""


@dataclass(frozen=True, slots=True)
class Detection:
    """A rule that fired. It fires at most once per request and phase."""

    policy: str
    rule: str
    category: str
    severity: Severity
    action: Action
    """What the rule asks for; in `shadow` mode nothing is done."""
    mode: Mode
    phase: Phase
    position: int
    """The token at which the threshold was crossed."""
    score: float
    """The pooled score at that token."""
    threshold: float
    evidence: tuple[Evidence, ...] = ()
    conditions: tuple[ConditionScore, ...] = ()
    """The sub-conditions of a composite rule. Its score is then how far beyond its threshold the deciding one was,
    and its threshold 0."""

    def shown_below(self, position: int) -> Detection:
        """The same, with neither text nor id of evidence in the response at or beyond a position."""
        if self.phase is Phase.PROMPT:
            return self
        evidence = tuple(
            e if e.position < position else replace(e, token_id=0, text="") for e in self.evidence
        )
        return replace(self, evidence=evidence)


@dataclass(frozen=True, slots=True)
class RuleScore:
    """How far a rule came in a request, fired or not."""

    policy: str
    rule: str
    phase: Phase
    score: float
    threshold: float
    conditions: tuple[ConditionScore, ...] = ()
    """The sub-conditions of a composite rule."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What rules say after seeing a block of tokens."""

    detections: tuple[Detection, ...] = ()
    """New detections of this block only."""
    action: Action = Action.ALLOW
    """The strongest *enforced* action of the request so far."""
    clamps: tuple[Clamp, ...] = ()
    """Clamps that policies hold in force from the next step on (all of them, not the difference)."""
    suppressing: tuple[str, ...] = ()
    """Names of the policies whose clamps these are."""
    lag: int = 0
    """Response tokens at the end that must not be released yet, because a policy may take them back."""
    restart: int | None = None
    """Run the sequence again from its start under these clamps, without the response tokens from this position on.
    The rules have forgotten those already."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was scored of what was run."""

    tokens_run: int = 0
    tokens_scored: int = 0
    tokens_truncated: int = 0
    """Tokens of the input that were dropped before the model ran, at the caller's request."""
    tokens_rewound: int = 0
    """Tokens among those run that were generated, scored and taken back before anybody saw them."""

    @property
    def complete(self) -> bool:
        """True where every token that the model ran was scored."""
        return self.tokens_scored == self.tokens_run


@dataclass(frozen=True, slots=True)
class Verdict:
    """All detections and the strongest action of a request, and whether it was checked."""

    status: Status
    action: Action
    coverage: Coverage
    detections: tuple[Detection, ...] = ()
    scores: tuple[RuleScore, ...] = ()
    failure: str = ""
    """The cause where the status is `unknown`: one of a fixed set of short words."""
    suppressions: tuple[Suppression, ...] = ()
    """What became of the clamps of every policy that suppressed."""

    @property
    def matched(self) -> bool:
        """True where a rule fired, enforced or in shadow. Says nothing about whether all was checked."""
        return bool(self.detections)


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token with the readings of the watched features, for callers who ask for them."""

    position: int
    token_id: int
    text: str
    phase: Phase
    readings: tuple[FeatureReading, ...] = ()
    """Watched and clamped features that are active here; empty where the caller did not ask."""


@dataclass(frozen=True, slots=True)
class Digests:
    """What ran, so that a verdict can be traced: `sha256:` and 64 hexadecimal digits each."""

    model: str
    dictionary: str
    policies: str


class Observer(Protocol):
    """What the engine and the scorer tell rules, for one request; implemented by `monitor.policy`.

    Called from one thread at a time, in token order.
    """

    def begin(self) -> Decision:
        """Before the first forward: clamps that are in force from the first token."""

    def observe(self, block: TokenBlock) -> Decision:
        """After each forward of the request, before any of its tokens is released."""

    def failed(self, cause: str) -> Decision:
        """Tokens could not be scored; `action` is BLOCK where a policy's `on_error` is `closed`."""
