"""The words that packages share: phases, actions, clamps, detections, verdicts, coverage, watch plans and readings.

Everything here is a frozen dataclass, an enum or a protocol, and imports nothing else of this project.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:  # a client and `policy check` run where numpy is not installed
    import numpy as np
    from numpy.typing import NDArray


class Signal(enum.StrEnum):
    """A number about a whole residual x at the tapped layer, read before any clamp."""

    RESIDUAL_NORM = "residual_norm"
    """‖x‖₂ / √d_model: the root mean square of the residual. Costs nothing to speak of."""
    RECONSTRUCTION_ERROR = "reconstruction_error"
    """‖x − x̂‖² / ‖x − x̂₀‖², x̂ the dictionary's reconstruction and x̂₀ that of no feature at all: the share of the
    token that no feature explains. Needs the whole dictionary: an encode and a decode of every token."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear probe of the residual stream: one more column, its value (x·weights + bias) / scale."""

    name: str
    """Unique in a watch plan; the policy that it belongs to."""
    weights: tuple[float, ...] = field(repr=False)
    """`[d_model]`"""
    bias: float = 0.0
    scale: float = 1.0
    """What counts as 1, as the recorded maximum does for a feature."""


@dataclass(frozen=True, slots=True)
class WatchPlan:
    """The columns of readings: features that policies name, then probes, then signals, each once."""

    features: tuple[int, ...]
    probes: tuple[Probe, ...] = ()
    signals: tuple[Signal, ...] = ()
    _columns: dict[int | str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Index the columns; refuses a feature, probe or signal named twice."""
        names: list[int | str] = list(self.features)
        names += [*(_key(probe) for probe in self.probes), *(_key(signal) for signal in self.signals)]
        self._columns.update({name: column for column, name in enumerate(names)})
        if len(self._columns) != len(self):
            raise ValueError("a watch plan names each feature, probe and signal once")

    def column(self, watched: int | Probe | Signal) -> int:
        """Column of a watched feature, probe or signal; KeyError where it is not watched."""
        return self._columns[watched if isinstance(watched, int) else _key(watched)]

    def __len__(self) -> int:
        return len(self.features) + len(self.probes) + len(self.signals)


def _key(watched: Probe | Signal) -> str:
    return f"probe {watched.name}" if isinstance(watched, Probe) else f"signal {watched.value}"


GONE = 0.9
"""Least share of the clamped features' reading that must be gone at the layer for a suppression to have held there."""


@dataclass(frozen=True, eq=False)
class LaterProbe:
    """A linear probe on the residual stream after a layer behind the tapped one: `score = weights · x + bias`.

    Scores of tokens are averaged by a moving average with this half-life, starting at zero; the concept is there
    again where the average reaches the threshold.
    """

    layer: int
    weights: NDArray[np.float32]
    """`[d_model]`"""
    bias: float
    threshold: float
    half_life: float


@dataclass(frozen=True, eq=False)
class SuppressionPlan:
    """What to look at while a policy suppresses."""

    policy: str
    features: tuple[int, ...]
    """Those that it clamps."""
    probe: LaterProbe | None = None


@dataclass(frozen=True, slots=True)
class Suppression:
    """What became of a policy's clamps in one request."""

    policy: str
    features: tuple[int, ...]
    tokens_edited: int
    """Tokens whose residual was changed."""
    before: float
    """Sum of the features' readings, mean over the edited tokens, from the residual before any clamp."""
    after: float
    """The same, encoded again after the clamps."""
    probe_score: float | None = None
    """The later probe's highest average over tokens that ran while the policy suppressed; None without a probe."""
    probe_threshold: float | None = None

    @property
    def held_at_layer(self) -> bool:
        """True where at least nine tenths of the reading were gone when it was encoded again."""
        return self.after <= (1 - GONE) * self.before

    @property
    def came_back(self) -> bool:
        """True where the later probe found the concept again."""
        if self.probe_score is None or self.probe_threshold is None:
            return False
        # Not `>=`: a score that is no number must not look as if the concept had stayed away.
        return not self.probe_score < self.probe_threshold

    @property
    def held(self) -> bool:
        """True where the reading was gone at the layer and the later probe, if there is one, stayed quiet."""
        return self.held_at_layer and not self.came_back


@dataclass(frozen=True, eq=False)
class SuppressionNeeds:
    """What a policy set needs of a running model besides columns."""

    plans: tuple[SuppressionPlan, ...] = ()
    whole: bool = False
    """True where a policy drops the error term, which takes the whole dictionary."""


@dataclass(frozen=True, slots=True)
class ConditionScore:
    """One named sub-condition of a rule, at the token that fired the rule or over the whole request."""

    name: str
    score: float
    """The pooled score nearest to its threshold, in the condition's own unit; minus infinity where no token counted."""
    threshold: float
    """The threshold that held at that token."""
    reached: bool


class Where(enum.StrEnum):
    """Which tokens a clamp edits: those on which the feature is active, or all; never attention sinks."""

    ACTIVE = "active"
    EVERYWHERE = "everywhere"

    @classmethod
    def by_default(cls, target: float) -> Where:
        """Where a request's clamp applies that does not say: amplifying, everywhere; else where the feature is active.

        A feature is amplified to bring up what the text is not about, so it is active nowhere yet.
        """
        return cls.EVERYWHERE if target > 0 else cls.ACTIVE


class ErrorTerm(enum.StrEnum):
    """What becomes of the part of the residual that the dictionary does not explain, on tokens that are edited.

    `keep` adds it back (x' = x + Σ (c_i − a_i) · W_dec[i]). `drop` leaves it out (x' = decode(edited a)): stronger,
    because part of a suppressed behaviour can hide there, and dearer, because it needs the whole dictionary.
    """

    KEEP = "keep"
    DROP = "drop"


LARGEST_TARGET = 100.0
"""Largest target of a clamp, up or down, in recorded maxima. Published useful values are within 5."""


@dataclass(frozen=True, slots=True)
class Clamp:
    """Set one feature's activation to a value at the tapped layer, on prompt and response tokens alike."""

    feature: int
    target: float
    """In units of the feature's recorded maximum; negative suppresses below zero, positive amplifies."""
    where: Where = Where.ACTIVE
    error_term: ErrorTerm = ErrorTerm.KEEP

    def __post_init__(self) -> None:
        """Raise ValueError where the target is no number, or so large that the model would compute infinities."""
        if not -LARGEST_TARGET <= self.target <= LARGEST_TARGET:
            raise ValueError(
                f"the target of feature {self.feature} is {self.target:g}; write a number from {-LARGEST_TARGET:g} to "
                f"{LARGEST_TARGET:g} (recorded maxima)"
            )

    def strengthened(self, other: Clamp | None) -> Clamp:
        """This clamp and another of the same feature as one: the lower target, without the error term if either says
        so, and everywhere if either says so. One that amplifies does not widen one that suppresses.
        """
        if other is None:
            return self
        counted = [clamp for clamp in (self, other) if clamp.target <= 0] or [self, other]
        wide = any(clamp.where is Where.EVERYWHERE for clamp in counted)
        where = Where.EVERYWHERE if wide else Where.ACTIVE
        drop = ErrorTerm.DROP in (self.error_term, other.error_term)
        error_term = ErrorTerm.DROP if drop else ErrorTerm.KEEP
        return Clamp(self.feature, min(self.target, other.target), where, error_term)


class CallerClamps(enum.StrEnum):
    """Which clamps the operator allows in requests. Those of policies can only ever be strengthened."""

    NONE = "none"
    SUPPRESS = "suppress"
    """Targets of 0 and below."""
    ANY = "any"
    """Amplifying as well: a caller can then make the model say what the policies were not measured on."""


Readings: TypeAlias = "NDArray[np.float32]"
"""`[tokens, watched]`, columns as in the `WatchPlan`: the activation of each watched feature in units of that feature's
recorded maximum, then probes and signals in their own units."""

TokenText = Callable[[int], str]
"""The text of one token id, for evidence."""

TokenTexts = Callable[[Sequence[int]], Sequence[str]]
"""The texts of consecutive tokens. Where a character spans tokens, the last of them has it and the others are empty."""


@dataclass(frozen=True, slots=True)
class TokenSpelling:
    """A token by itself."""

    text: str
    """Bytes that are no character are written as `\\xe2`."""
    data: bytes | None
    """What it adds to a text; None for tokens that end or fill one."""


TokenSpellings = Callable[[int], TokenSpelling]
"""The spelling of a token by its id."""


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


class Failure(enum.StrEnum):
    """Why tokens of a request were not scored."""

    GAP = "gap"
    """Tokens between two blocks were never shown to the rules."""
    INCOMPLETE = "incomplete"
    """The model ran more tokens than were scored."""
    LEFT_OUT = "left_out"
    """A text of the conversation is not in what the model ran: its chat template or its tokenizer drops it."""
    MISCOUNTED = "miscounted"
    """More tokens are said to be scored than the rules were shown."""
    NON_FINITE = "non_finite"
    """A reading was NaN or infinite."""
    NOT_CONCLUDED = "not_concluded"
    """The request ended before anybody asked for its verdict."""
    NOT_JUDGED = "not_judged"
    """Tokens were scored, and rules pass over all of them: there are only attention sinks and control tokens."""
    NOT_RUN = "not_run"
    """No token was scored at all."""
    PASS_FAILED = "pass_failed"
    """The forward pass ended with an error."""
    ROW_MISMATCH = "row_mismatch"
    """The rows that a pass reports for a request hold other tokens than the request's."""
    RULE_ERROR = "rule_error"
    """A rule crashed."""
    SESSION_LOST = "session_lost"
    """The conversation's earlier state was dropped, for want of room or after its time."""
    SHAPE = "shape"
    """The readings do not have one row per token and one column per watched feature."""
    TAP_MISSED = "tap_missed"
    """The pass ran and the tap wrote no reading."""


class Holding(enum.StrEnum):
    """When text that another server writes may leave."""

    HOLD = "hold"
    """Once it was scored."""
    SAMPLE = "sample"
    """Up to some tokens before they were scored."""
    END = "end"
    """At once; it is scored by the end."""

    @property
    def holds(self) -> bool:
        """True where nothing leaves before it was scored."""
        return self is Holding.HOLD

    @property
    def samples(self) -> bool:
        """True where some tokens may leave before they were scored."""
        return self is Holding.SAMPLE


class FinishReason(enum.StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    """The model's end-of-text token, or a stop string."""
    LENGTH = "length"
    """`max_new_tokens`, or the end of the model's context. Under `on_error: open` also where the model computed what
    is no number, so that nothing can follow; the verdict says so."""
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
    """Random numbers of the request's own. Its tokens repeat exactly where each pass runs one request; beside others
    the probabilities are rounded otherwise, which in bfloat16 often changes a token."""
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
    sinks: tuple[int, ...] = ()
    """Positions of attention sinks among the tokens; that of a sequence's first token need not be named."""


UNREAD = float("-inf")
"""Stands where a reading should be that no tap wrote. A tap writes NaN for what is not finite, never this."""


def _positions(block: TokenBlock) -> range:
    return range(block.start, block.start + len(block.token_ids))


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """What one pass read of several sequences: of each, consecutive tokens of one phase that are new to the rules.

    All arrays of a pass are shared by its blocks; block `i` is rows `firsts[i]` to `firsts[i] + counts[i]`, left out,
    of `token_ids` and `readings`. A sequence has one block at most.
    """

    slots: NDArray[np.intp]
    """`[blocks]` under which number the observer knows each sequence (`ObservedRequest.slot`)."""
    responses: NDArray[np.bool_]
    """`[blocks]` True where the model wrote the tokens, False where the caller did."""
    starts: NDArray[np.int64]
    """`[blocks]` position of the first token in its sequence, BOS included."""
    firsts: NDArray[np.intp]
    """`[blocks]` row of the first token."""
    counts: NDArray[np.intp]
    """`[blocks]` tokens."""
    token_ids: NDArray[np.int64]
    """`[rows]`"""
    readings: Readings
    """`[rows, watched]`, columns in the order of the watch plan; `UNREAD` where no tap wrote."""
    faults: Mapping[int, Failure] = field(default_factory=dict)
    """Blocks, by number, that the caller knows to be unscored, whatever their readings say."""
    sinks: NDArray[np.bool_] | None = None
    """`[rows]` True at attention sinks, whose readings mean nothing: nothing is judged by them. None where there
    are none but the first tokens of sequences."""

    def __len__(self) -> int:
        return len(self.slots)

    @classmethod
    def of(cls, blocks: Sequence[tuple[int, TokenBlock]]) -> Blocks:
        """Blocks of sequences that were read apart, each with its sequence's slot."""
        import numpy as np

        counts = np.asarray([len(block.token_ids) for _, block in blocks], np.intp)
        faults = {
            i: Failure.SHAPE
            for i, (_, block) in enumerate(blocks)
            if block.readings.ndim != 2 or len(block.readings) != counts[i]
        }
        whole = [block.readings for i, (_, block) in enumerate(blocks) if i not in faults]
        if len({rows.shape[1] for rows in whole}) > 1:
            raise ValueError(
                "blocks of one call have the same columns; observe others in a call of their own"
            )
        counts[list(faults)] = 0
        named = {i: block for i, (_, block) in enumerate(blocks) if i not in faults}
        kept = [block.token_ids for block in named.values()]
        sinks = [at in block.sinks for block in named.values() for at in _positions(block)]
        return cls(
            slots=np.asarray([slot for slot, _ in blocks], np.intp),
            responses=np.asarray([block.phase is Phase.RESPONSE for _, block in blocks], bool),
            starts=np.asarray([block.start for _, block in blocks], np.int64),
            firsts=np.cumsum(counts) - counts,
            counts=counts,
            token_ids=np.asarray([i for ids in kept for i in ids], np.int64),
            readings=np.concatenate(whole) if whole else np.zeros((0, 0), np.float32),
            faults=faults,
            sinks=np.asarray(sinks, bool) if any(sinks) else None,
        )

    def block(self, number: int) -> TokenBlock:
        """One of them on its own."""
        rows = self.rows(number)
        phase = Phase.RESPONSE if self.responses[number] else Phase.PROMPT
        ids, start = tuple(self.token_ids[rows].tolist()), int(self.starts[number])
        marks = () if self.sinks is None else tuple((start + self.sinks[rows].nonzero()[0]).tolist())
        return TokenBlock(phase, start, ids, self.readings[rows], marks)

    def rows(self, number: int) -> slice:
        """Its rows in `token_ids` and `readings`."""
        first = int(self.firsts[number])
        return slice(first, first + int(self.counts[number]))

    def scored(self, decisions: Mapping[int, Decision]) -> Blocks:
        """Those of them that were scored, by what an observer said of them."""
        import numpy as np

        failed = [number for number, decision in decisions.items() if decision.failure is not None]
        if not failed:
            return self
        kept = np.ones(len(self), bool)
        kept[failed] = False
        return Blocks(
            self.slots[kept],
            self.responses[kept],
            self.starts[kept],
            self.firsts[kept],
            self.counts[kept],
            self.token_ids,
            self.readings,
            sinks=self.sinks,
        )

    def in_order(self, firsts: NDArray[np.int64]) -> NDArray[np.int64]:
        """`[tokens]`: of all blocks one after the other, a number for each token, growing by 1 from the block's first.

        Of `firsts` these are rows, of `starts` positions.
        """
        import numpy as np

        if (self.counts == 1).all():
            return firsts
        before = np.cumsum(self.counts) - self.counts
        return np.asarray(np.arange(int(self.counts.sum())) + np.repeat(firsts - before, self.counts))

    def ordinary(self) -> NDArray[np.bool_]:
        """`[tokens]`: of all blocks one after the other, the tokens whose readings mean something.

        These are all but attention sinks, and so all but the first of a sequence.
        """
        found = self.in_order(self.starts) > 0
        return found if self.sinks is None else found & ~self.sinks[self.in_order(self.firsts)]

    def unscored(self) -> dict[int, Failure]:
        """Blocks that count as unscored, by number: those with a fault, and those with a reading that is no number."""
        import numpy as np

        found = dict(self.faults)
        # The sum of finite numbers may overflow, so only then are all of them looked at.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(self.readings.sum()):
                return found
        bad = np.asarray(~np.isfinite(self.readings).all(axis=1))
        for number in range(len(self)) if bad.any() else ():
            rows = self.rows(number)
            if number not in found and bad[rows].any():
                missed = np.isneginf(self.readings[rows]).any()
                found[number] = Failure.TAP_MISSED if missed else Failure.NON_FINITE
        return found


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
    """Where a request stands after the rules have seen its newest tokens."""

    detections: tuple[Detection, ...] = ()
    """New detections of this block only."""
    action: Action = Action.ALLOW
    """The strongest *enforced* action of the request so far."""
    clamps: tuple[Clamp, ...] = ()
    """Clamps that policies hold in force from the next step on (all of them, not the difference)."""
    suppressing: tuple[str, ...] = ()
    """Names of the policies whose clamps these are."""
    failure: Failure | None = None
    """Why this block counts as unscored; None where it was scored."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was scored of what was run."""

    tokens_run: int = 0
    tokens_scored: int = 0
    tokens_truncated: int = 0
    """Tokens of the input that were dropped before the model ran, at the caller's request. An estimate where most of
    the input was dropped before it was tokenised."""
    tokens_judged: int = 0
    """Scored tokens that rules judged. They pass over attention sinks and over control tokens, such as BOS and the
    marks between messages."""
    tokens_sinks: int = 0
    """Tokens among the scored ones that are attention sinks, the first of the text among them. No rule judges by them
    and no clamp edits them."""

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
    failure: Failure | None = None
    """The cause where the status is `unknown`."""
    suppressions: tuple[Suppression, ...] = ()
    """What became of the clamps of every policy that suppressed."""

    @property
    def matched(self) -> bool:
        """True where a rule fired, enforced or in shadow. Says nothing about whether all was checked."""
        return bool(self.detections)

    @property
    def rule_blocks(self) -> bool:
        """True where an enforced rule blocks, and not only that something was not scored."""
        return any(d.action is Action.BLOCK and d.mode is Mode.ENFORCE for d in self.detections)


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token with the readings of the watched features, for callers who ask for them."""

    position: int
    token_id: int
    text: str
    phase: Phase
    readings: tuple[FeatureReading, ...] = ()
    """Watched and clamped features that are active here; empty where the caller did not ask."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredTokens:
    """Consecutive tokens of one sequence with their readings, as arrays: for callers who ask for them."""

    phase: Phase
    start: int
    """Position of the first in the whole sequence, BOS included."""
    token_ids: tuple[int, ...]
    features: NDArray[np.int64]
    """`[columns]` watched and clamped features."""
    readings: Readings
    """`[tokens, columns]` in units of each feature's recorded maximum, before any clamp."""
    after: Readings | None = None
    """As `readings`, encoded again after the clamps; None where nothing was clamped."""
    edited: NDArray[np.bool_] | None = None
    """`[tokens]` which of them clamps edited; None where nothing was clamped."""

    def records(self, texts: Sequence[str]) -> list[ScoredToken]:
        """One record a token, with its text and the features that are active there before or after clamps."""
        import numpy as np

        active = self.readings != 0
        if self.after is not None and self.edited is not None:
            active |= (self.after != 0) & self.edited[:, None]
        found: list[list[FeatureReading]] = [[] for _ in self.token_ids]
        rows, columns = np.nonzero(active)
        values = self.readings[rows, columns].tolist()
        for row, feature, value, after in zip(
            rows.tolist(), self.features[columns].tolist(), values, self._after(rows, columns), strict=True
        ):
            found[row].append(FeatureReading(feature, value, after))
        return [
            ScoredToken(self.start + i, token_id, text, self.phase, tuple(found[i]))
            for i, (token_id, text) in enumerate(zip(self.token_ids, texts, strict=True))
        ]

    def _after(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> list[float | None]:
        if self.after is None or self.edited is None:
            return [None] * len(rows)
        values, edited = self.after[rows, columns].tolist(), self.edited[rows].tolist()
        return [value if changed else None for value, changed in zip(values, edited, strict=True)]


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """How likely the model held a token of a response at the step that drew it, and the likeliest ones beside it.

    Natural logarithms of the model's own distribution: clamps have changed it, settings of the sampling have not.
    """

    position: int
    """Of the token in the whole sequence, BOS included."""
    offset: int
    """Characters of the response before its text."""
    token_id: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...] = ()
    """Ids and values of as many tokens as were asked for, the likeliest first. The drawn one may not be among them."""


def token_records(parts: Iterable[ScoredTokens | None], token_texts: TokenTexts) -> list[ScoredToken]:
    """One record a token of consecutive parts of a sequence."""
    held = [part for part in parts if part is not None]
    texts = iter(token_texts([token_id for part in held for token_id in part.token_ids]))
    return [
        record
        for part in held
        for record in part.records([text for _, text in zip(part.token_ids, texts, strict=False)])
    ]


def joined(parts: Sequence[ScoredTokens]) -> ScoredTokens:
    """Consecutive stretches of tokens that no clamp edited, with the same columns, as one."""
    import numpy as np

    first = parts[0]
    if len(parts) == 1:
        return first
    ids = tuple(token for part in parts for token in part.token_ids)
    readings = np.concatenate([part.readings for part in parts])
    return ScoredTokens(first.phase, first.start, ids, first.features, readings)


@dataclass(frozen=True, slots=True)
class Digests:
    """What ran, so that a verdict can be traced: `sha256:` and 64 hexadecimal digits each."""

    model: str
    dictionary: str
    policies: str


class ObservedRequest(Protocol):
    """A request as its observer knows it. Whoever runs the request keeps this as long as it observes its tokens."""

    @property
    def slot(self) -> int:
        """Its number, which no other request of that observer has meanwhile."""

    @property
    def first(self) -> Decision:
        """What holds before its first token."""


class Observer(Protocol):
    """What scores the tokens of requests: the rules of a policy set, or what wraps them. Called from any thread."""

    def observe_batch(self, blocks: Blocks) -> Mapping[int, Decision]:
        """Score the blocks of a pass, before any of their tokens is released.

        Gives the decision of every block for whose sequence something is new: a detection, other clamps, another
        action, or that it could not be scored. For all others nothing has changed. A sequence is in one call at a time.
        """
