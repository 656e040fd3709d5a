"""What a policy resolves to for one model and one dictionary: `NAME.lock.yaml`.

Knows the lock's shape, and how it is written and compared with what runs. Does not know how its numbers
were found (`fit`). Holds numbers only, no text of any example.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from ruamel.yaml import YAML

from monitor.policy.schema.base import FieldCheck, Strict, Weight, refuse
from monitor.policy.schema.policy import DIGEST, FeatureIndex, Name, PoolingModel, ProbeModel
from monitor.policy.schema.threshold import FixedThreshold
from monitor.records import LaterProbe, Signal

Digest = Annotated[str, Field(pattern=DIGEST)]
Share = Annotated[float, Field(ge=0, le=1)]
Maturity = Literal["experimental", "beta", "stable"]
MAX_LOCK_BYTES = 1024 * 1024
HEADER = "# Written by `sae-monitor policy fit`; run it again instead of editing.\n"


class ModelRef(Strict):
    """The model that was fitted to."""

    name: str
    digest: Digest


class DictionaryRef(Strict):
    """The dictionary that was fitted to."""

    digest: Digest
    features: Annotated[int, Field(ge=1)]


class LockedEntry(Strict):
    """A feature, and the unit of its readings."""

    index: FeatureIndex
    maximum: Annotated[float, Field(gt=0)]
    """The recorded maximum that readings were divided by."""


class LockedFeature(LockedEntry):
    """A feature that the rules read."""

    weight: Weight
    label: str = ""
    stability: Share = 1.0
    """Share of the fits on half of the groups that chose this feature."""


class LockedClamp(LockedEntry):
    """A feature that suppression clamps, chosen by causal effect."""

    target: Annotated[float, Field(ge=-20, le=0)]
    """In units of the maximum."""
    attribution: float
    """Effect on the log-probability of the concept's texts minus that on the negatives, nats per token."""
    ratio: float
    """How much more often it fires on the concept's tokens than on benign ones."""


class LockedPin(LockedEntry):
    """A feature that the policy names itself, as it was when the threshold was set."""

    weight: float
    maximum: Annotated[float, Field(ge=0)]
    """As elsewhere; 0 of a feature that was never seen active, with which no policy is loaded."""


class LockedRule(Strict):
    """The threshold of a rule or condition, and the settings that it was calibrated for."""

    threshold: FixedThreshold
    """A number, or a list of `{up_to: TOKENS, threshold: NUMBER}` by tokens of the phase so far."""
    signal: Annotated[Signal, Field(strict=False)] | None = None
    pins: list[LockedPin] = Field(default_factory=list)
    """What it read where the policy pins features."""
    probe: Digest | None = None
    """Of the probe that it read where the policy brings one."""
    pooling: PoolingModel
    for_: Annotated[int, Field(alias="for", ge=1)] = 1
    asked_rate: Share | None = None
    """The false-positive rate that the policy asked for; null where it gives the threshold itself."""
    benign_rate: Share
    """Share of the calibration texts on which the rule fires."""
    benign_texts: int
    caught: Share | None = None
    """Share of the held-out positive examples on which the rule fires."""


class Separation(Strict):
    """How well a detector ranks held-out positives above held-out negatives, with 95 % intervals."""

    auroc: Share
    auroc_low: Share
    auroc_high: Share
    recall: Share
    """Share of positives that reach the score which 1 % of the benign texts reach."""
    recall_low: Share
    recall_high: Share
    hard_auroc: Share | None = None
    """AUROC against the benign look-alikes alone."""
    hard_auroc_low: Share | None = None
    hard_auroc_high: Share | None = None


class Difference(Strict):
    """One detector minus another on the same resamples, with 95 % intervals."""

    auroc: float
    auroc_low: float
    auroc_high: float
    recall: float
    recall_low: float
    recall_high: float


CURVE = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of benign texts that fire, at which a card's curves state the recall."""


class PolicyCard(Strict):
    """What was measured by cross-validation over groups; the policy's own examples only."""

    positive: int
    negative: int
    hard_negative: int
    groups: int
    extra: int = 0
    """Further rows that the fit learnt from; none of them is measured here."""
    detector: Literal["features", "probe"] = "features"
    """What scores tokens when the policy runs."""
    methods: dict[str, Separation]
    """`policy`: the rule as it runs. Beside it the other detector (`probe` or `features`) pooled as the rule pools,
    `linear_probe` and `difference_of_means` on mean residuals, `bag_of_words`, and `random_features`, as many."""
    curves: dict[str, list[Share]] = Field(default_factory=dict)
    """By method, recall where these shares of the benign texts fire: 0, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100 %."""
    probe_gain: Difference | None = None
    """The probe minus the features."""
    negative_rate: Share
    """Share of the own negatives, look-alikes included, that reach that score: how far it goes by topic alone."""
    hard_negative_auroc: Share | None = None
    """Positives against the benign look-alikes alone."""
    maturity: Maturity
    note: str
    """What the numbers mean for someone who wants to rely on this policy."""


class LockedProbe(Strict):
    """A linear probe behind the tapped layer: what suppression is checked with."""

    layer: Annotated[int, Field(ge=0)]
    """It reads the residual stream after this decoder layer."""
    weights: Annotated[
        str, Field(pattern=r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")
    ]
    """`[d_model]` float32, little-endian, in base64."""
    bias: float
    threshold: float
    half_life: Annotated[float, Field(gt=0)]
    """Of the moving average over token scores, in tokens."""
    benign_rate: Annotated[float, Field(ge=0, le=1)]
    """Share of benign texts that reach the threshold."""
    auroc: Annotated[float, Field(ge=0, le=1)]
    """On the policy's own examples, by cross-validation over groups."""

    def checks(self) -> Iterable[FieldCheck]:
        """Its weights are numbers."""
        return (self._whole,)

    def _whole(self) -> None:
        raw = base64.b64decode(self.weights)
        if not raw or len(raw) % 4 or not np.isfinite(np.frombuffer(raw, "<f4")).all():
            raise refuse(["weights"], "these are not finite float32 numbers; run `policy fit` again")


class LockModel(Strict):
    """One lock file."""

    api_version: Annotated[Literal["monitor/v1"], Field(alias="apiVersion")] = "monitor/v1"
    kind: Literal["Lock"] = "Lock"
    policy: Name
    model: ModelRef
    dictionary: DictionaryRef
    examples: Digest
    """Of the concept's examples, wherever they stand; of nothing where features are pinned."""
    benign: Digest
    """Of the benign texts that set the thresholds."""
    extra: Digest | None = None
    """Of further labelled texts that taught as well; null where there were none."""
    detector: Literal["features", "probe"] = "features"
    """What the policy's checks read that name neither features nor a signal of their own."""
    features: list[LockedFeature]
    """Not read where the detector is the probe."""
    probe: ProbeModel | None = None
    rules: dict[str, LockedRule]
    """By name; those that combine conditions have no threshold and do not stand here."""
    conditions: dict[str, LockedRule] = Field(default_factory=dict)
    """By name; those with a threshold of their own."""
    suppress: list[LockedClamp]
    later_probe: LockedProbe | None = None
    """What suppression is checked with behind the tapped layer."""
    card: PolicyCard | None = None

    def checks(self) -> Iterable[FieldCheck]:
        """The detector that is named is there."""
        return (self._probe_given,)

    def _probe_given(self) -> None:
        if self.detector == "probe" and self.probe is None:
            raise refuse(["detector"], "`probe` as detector needs the section `probe:`")


def lock_path(policy: Path) -> Path:
    """`NAME.lock.yaml` beside `NAME.yaml`."""
    return policy.with_name(policy.stem + ".lock.yaml")


def lock_text(lock: LockModel) -> str:
    """The file's text: block style, numbers to five significant digits, stable from run to run."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 200
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    out = io.StringIO()
    yaml.dump(as_written(lock.model_dump(mode="json", by_alias=True)), out)
    return HEADER + out.getvalue()


def write_lock(policy: Path, lock: LockModel) -> Path:
    """Write the lock beside its policy in one step, so that a reader never sees half of it."""
    path = lock_path(policy)
    partial = path.with_suffix(".partial")
    partial.write_text(lock_text(lock), encoding="utf-8")
    partial.replace(path)
    return path


def as_written(value: Any) -> Any:
    """Plain data with its numbers as a lock has them: to five significant digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: as_written(item) for key, item in value.items()}
    return [as_written(item) for item in value] if isinstance(value, list) else value


def packed(weights: NDArray[np.float32]) -> str:
    """Weights as a lock writes them."""
    return base64.b64encode(weights.astype("<f4").tobytes()).decode()


def probe_of(locked: LockedProbe | None) -> LaterProbe | None:
    """The probe that runs."""
    if locked is None:
        return None
    weights = np.frombuffer(base64.b64decode(locked.weights), "<f4").astype(np.float32)
    return LaterProbe(locked.layer, weights, locked.bias, locked.threshold, locked.half_life)
