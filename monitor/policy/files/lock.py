"""The lock of a policy, `NAME.lock.yaml`: the numbers that it resolves to for one model and one dictionary.

A lock is bound to both by digest. It holds numbers only, and no text of any example. Where it lies says `lock_folders`.
"""

from __future__ import annotations

import base64
import io
import math
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from ruamel.yaml import YAML

from monitor.policy.files.lock_folders import lock_path
from monitor.policy.schema.base import FieldCheck, Strict, Weight, refuse
from monitor.policy.schema.policy import DIGEST, FeatureIndex, Name, PoolingModel, ProbeModel
from monitor.policy.schema.threshold import FixedThreshold
from monitor.records import LaterProbe, Signal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Digest = Annotated[str, Field(pattern=DIGEST)]
Share = Annotated[float, Field(ge=0, le=1)]
Detector = Literal["features", "probe", "combined"]
Base64 = Annotated[str, Field(pattern=r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")]
Maturity = Literal["experimental", "beta", "stable"]
MAX_LOCK_BYTES = 1024 * 1024
HEADER = "# Written by `sae-monitor policy fit`; run it again instead of editing.\n"


class ModelRef(Strict):
    """The model that a lock was fitted to."""

    name: str
    digest: Digest


class DictionaryRef(Strict):
    """The dictionary that a lock was fitted to, and how many features it has."""

    digest: Digest
    features: Annotated[int, Field(ge=1)]


class LockedEntry(Strict):
    """A feature with the unit of its readings."""

    index: FeatureIndex
    maximum: Annotated[float, Field(gt=0)]
    """The recorded maximum that readings were divided by."""


class LockedFeature(LockedEntry):
    """A feature that the rules read."""

    weight: Weight
    label: str = ""
    stability: Share = 1.0
    """Share of the parts of the examples, of cross-validation, that chose this feature too."""


class LockedExplanation(LockedEntry):
    """A feature by which a probe's scores are explained: where a probe detects, it is named as evidence."""

    weight: Weight
    """What a reading of 1 adds to the probe's score, as the dictionary has it: decoder direction · weights / scale."""
    label: str = ""


class LockedClamp(LockedEntry):
    """A feature that suppression clamps, chosen by its causal effect."""

    target: Annotated[float, Field(ge=-20, le=0)]
    """`suppress.target` when the lock was fitted, in units of the maximum. What runs is the policy's present target."""
    attribution: float
    """Effect on the log-probability of the concept's texts minus that on the negatives, in nats per token."""
    ratio: float
    """How many times as often it is active on the concept's tokens as on benign ones."""


class LockedPin(LockedEntry):
    """A feature that the policy pins, as it was when the threshold was set."""

    weight: float
    maximum: Annotated[float, Field(ge=0)]
    """The recorded maximum; 0 for a feature that was never active, with which no policy is loaded."""


class LockedRule(Strict):
    """The threshold of a rule or condition, and the settings that it was set for."""

    threshold: FixedThreshold
    """A number, or a list of `{up_to: TOKENS, threshold: NUMBER}` by tokens of the phase so far."""
    signal: Annotated[Signal, Field(strict=False)] | None = None
    pins: list[LockedPin] = Field(default_factory=list)
    """The pinned features that the threshold was set for; empty where none are pinned."""
    probe: Digest | None = None
    """Digest of the policy's own probe that the threshold was set for; null where the rule reads no such probe."""
    pooling: PoolingModel
    for_: Annotated[int, Field(alias="for", ge=1)] = 1
    asked_rate: Share | None = None
    """The false-positive rate that the policy asks for; null where it gives the threshold itself."""
    benign_rate: Share
    """Share of the calibration texts on which the rule fires."""
    benign_texts: int
    """Number of calibration texts."""
    caught: Share | None = None
    """Share of the held-out positive examples on which the rule fires; null where nothing was learnt."""
    held_out: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/=]*$")] | None = None
    """`[positive examples, lengths]` float32, little-endian, in base64: the highest held-out score of each at each
    length, which tells what a rule catches at any threshold; null where nothing was learnt."""


class Separation(Strict):
    """How well held-out scores separate positives from negatives, with 95 % intervals."""

    auroc: Share
    auroc_low: Share
    auroc_high: Share
    recall: Share
    """Share of positives that reach the threshold which 1 % of the benign texts reach."""
    recall_low: Share
    recall_high: Share
    hard_auroc: Share | None = None
    """AUROC against the benign look-alikes alone."""
    hard_auroc_low: Share | None = None
    hard_auroc_high: Share | None = None


class Difference(Strict):
    """One method minus another on the same resamples, with 95 % intervals."""

    auroc: float
    auroc_low: float
    auroc_high: float
    recall: float
    recall_low: float
    recall_high: float


class Explained(Strict):
    """How far features of the dictionary account for the scores of a probe."""

    named: Share
    """The share that the features of the lock have in what all features add to the scores of positives' strongest
    tokens."""
    correlation: Annotated[float, Field(ge=-1, le=1)]
    """Between the probe's token scores and what all features together add to them."""


CURVE = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The false-positive rates at which a card's curves state the recall."""


class PolicyCard(Strict):
    """What cross-validation over groups measured on the policy's own examples."""

    positive: int
    """Number of positive examples."""
    negative: int
    """Number of negative examples."""
    hard_negative: int
    """Number of hard negatives: benign look-alikes."""
    groups: int
    """Number of groups among the examples."""
    extra: int = 0
    """Number of extra texts that the fit learnt from; none of them is measured."""
    detector: Detector = "features"
    """What scores tokens when the policy runs."""
    methods: dict[str, Separation]
    """`policy` is the rule's pooling with what was chosen: `features`, a `probe` or both `combined`. Each text is
    scored by a detector that was both learnt and chosen without it. Beside it stand those three with the same pooling,
    `linear_probe` and `difference_of_means` on mean residuals, `bag_of_words`, and `random_features`, as many as the
    policy would have."""
    sizes: dict[str, Separation] = Field(default_factory=dict)
    """By number of features, what these do alone, with the same pooling. `all` are all that are ever active."""
    aggregates: dict[str, Separation] = Field(default_factory=dict)
    """What the chosen detector does where a text's token scores become one number otherwise: `mean`, `max`, `last`, and
    `top_k_mean` of the 8 strongest tokens."""
    explained: Explained | None = None
    """How far features account for the probe's scores; null where no probe detects."""
    curves: dict[str, list[Share]] = Field(default_factory=dict)
    """For each method, its recall where 0, 0.2, 0.5, 1, 2, 5, 10, 20, 50 and 100 % of the benign texts fire."""
    probe_gain: Difference | None = None
    """The probe minus the features."""
    gain: Difference | None = None
    """What was chosen minus the bag of words."""
    negative_rate: Share
    """Share of the own negatives, look-alikes included, that reach the threshold which 1 % of the benign texts reach. A
    high share means that the policy sees the topic rather than the concept."""
    hard_negative_auroc: Share | None = None
    """AUROC of the positives against the benign look-alikes alone."""
    maturity: Maturity
    """The maturity that the measurements support."""
    note: str
    """What the numbers mean for someone who wants to rely on this policy."""


class LockedProbe(Strict):
    """The linear probe on a later layer by which suppression is checked."""

    layer: Annotated[int, Field(ge=0)]
    """The decoder layer whose output it reads."""
    weights: Base64
    """`[d_model]` float32, little-endian, in base64."""
    bias: float
    threshold: float
    half_life: Annotated[float, Field(gt=0)]
    """Half-life of the moving average over token scores, in tokens."""
    benign_rate: Annotated[float, Field(ge=0, le=1)]
    """Share of benign texts that reach the threshold."""
    auroc: Annotated[float, Field(ge=0, le=1)]
    """AUROC on the policy's own examples, by cross-validation over groups."""

    def checks(self) -> Iterable[FieldCheck]:
        """The weights are finite numbers."""
        return (self._whole,)

    def _whole(self) -> None:
        raw = base64.b64decode(self.weights)
        if not raw or len(raw) % 4 or not all(math.isfinite(w) for (w,) in struct.iter_unpack("<f", raw)):
            raise refuse(["weights"], "these are not finite float32 numbers; run `policy fit` again")


class UncalibratedTexts(Strict):
    """A length or kind of text of which too few were there to promise anything for it."""

    phase: Literal["prompt", "response", "request"]
    kind: str
    """The kind of text; `any` for all kinds together."""
    longer_than: Annotated[int, Field(ge=0)]
    up_to: Annotated[int, Field(ge=1)] | None
    """The texts are at most so long, in tokens; null for no limit."""
    texts: Annotated[int, Field(ge=0)]
    """How many there were."""


class BudgetShare(Strict):
    """What a policy spends on benign texts of one phase, beside what the whole set spends."""

    phase: Literal["prompt", "response", "request"]
    texts: Annotated[int, Field(ge=0)]
    fired: Share
    """Share of the texts on which an enforced rule of this policy fires."""
    low: Share
    """Lower end of its 95 % interval."""
    high: Share
    """Upper end of its 95 % interval."""
    alone: Share
    """Share of the texts on which no other policy's rule fires."""
    set: Share
    """Share of the texts on which an enforced rule of any policy fires."""


class LockedBudget(Strict):
    """The policy's part in the budget of its set; `budget.json` beside the locks has the whole."""

    rate: Share
    """The share of benign texts of any length and kind on which the rules of the set may fire, all together."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """The policy's part in it, beside 1 for an ordinary policy."""
    sufficient: Annotated[int, Field(ge=1)]
    """How many texts a length or kind needs."""
    shares: list[BudgetShare]
    uncalibrated: list[UncalibratedTexts]
    """Lengths and kinds for which nothing is promised."""


class LockedReference(Strict):
    """What the rules score with the pair that they were fitted to, on texts that lie beside the policy.

    A recheck reads the same texts with another pair, and compares text by text. `monitor.lab.recheck.scores` packs and
    unpacks it.
    """

    dtype: str
    """Number type in which the model ran, such as `float32`."""
    edges: list[int]
    """Last token of each range of lengths that scores are given for; one more range has no end."""
    texts: Base64
    """`[texts]` uint32, little-endian: the beginning of each text's SHA-256, by which it is known again."""
    rules: dict[str, Base64]
    """By rule, the highest pooled scores `[texts, ranges]`: float32, little-endian, packed by zlib. A score is minus
    infinity where the text ends before the range."""
    conditions: dict[str, Base64] = Field(default_factory=dict)
    """The same by condition."""


class LockModel(Strict):
    """A lock file."""

    api_version: Annotated[Literal["monitor/v1"], Field(alias="apiVersion")] = "monitor/v1"
    kind: Literal["Lock"] = "Lock"
    policy: Name
    """Name of the policy that it belongs to."""
    model: ModelRef
    dictionary: DictionaryRef
    examples: Digest
    """Digest of the concept's examples; of an empty list where the policy has no concept."""
    benign: Digest
    """Digest of the benign texts that set the thresholds."""
    extra: Digest | None = None
    """Digest of the extra labelled texts that were learnt from; null where there were none."""
    detector: Detector = "features"
    """What a rule or condition reads where it names neither features nor a signal. `combined` is the sum of the
    weighted features and the probe."""
    features: list[LockedFeature]
    """The features that detect; empty where the detector is the probe."""
    probe: ProbeModel | None = None
    """The probe that detects, or detects beside features; null where features alone do."""
    explain: list[LockedExplanation] = Field(default_factory=list)
    """The features that are watched to say what a probe's score comes from; empty where no probe detects."""
    rules: dict[str, LockedRule]
    """The rules with a threshold of their own, by name. Rules that combine conditions have none."""
    conditions: dict[str, LockedRule] = Field(default_factory=dict)
    """The conditions with a threshold of their own, by name."""
    suppress: list[LockedClamp]
    """The features that suppression clamps, unless the policy names them."""
    later_probe: LockedProbe | None = None
    """The probe on a later layer by which suppression is checked."""
    card: PolicyCard | None = None
    """What was measured; null for a policy without a concept."""
    budget: LockedBudget | None = None
    """The policy's part in the budget of its set; null where its rules take what each asks for."""
    reference: LockedReference | None = None
    """What `policy recheck` compares with; null where nobody has recorded it."""

    def checks(self) -> Iterable[FieldCheck]:
        """Where the detector has a probe, the section `probe:` is there."""
        return (self._probe_given,)

    def _probe_given(self) -> None:
        if self.detector != "features" and self.probe is None:
            raise refuse(["detector"], f"`{self.detector}` as detector needs the section `probe:`")


def lock_text(lock: LockModel) -> str:
    """The text of a lock file, with numbers to five significant digits. The same lock always gives the same text."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 200
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    out = io.StringIO()
    yaml.dump(as_written(lock.model_dump(mode="json", by_alias=True)), out)
    return HEADER + out.getvalue()


def write_lock(policy: Path, lock: LockModel, pair: str) -> Path:
    """Write the lock of a policy into the folder of a pair and return its path; see `lock_folders`."""
    path = lock_path(policy, pair)
    put(path, lock_text(lock).encode())
    return path


def put(path: Path, content: bytes) -> None:
    """Write a file that belongs to a lock, and its folder where it is missing. A reader never sees half of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)


def as_written(value: Any) -> Any:
    """Plain data with its numbers rounded as in a lock, to five significant digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: as_written(item) for key, item in value.items()}
    return [as_written(item) for item in value] if isinstance(value, list) else value


def packed(weights: NDArray[np.float32]) -> str:
    """Weights `[d_model]` as a lock writes them: float32, little-endian, in base64."""
    return base64.b64encode(weights.astype("<f4").tobytes()).decode()


def probe_of(locked: LockedProbe | None) -> LaterProbe | None:
    """The later probe of a lock, with its weights as an array; None for None."""
    if locked is None:
        return None
    import numpy as np

    weights = np.frombuffer(base64.b64decode(locked.weights), "<f4").astype(np.float32)
    return LaterProbe(locked.layer, weights, locked.bias, locked.threshold, locked.half_life)
