"""The fit of one policy to one model and dictionary: `fit_policy` makes its lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from monitor.errors import PolicyError
from monitor.policy.files.examples import Example, Label, examples_digest, texts_digest
from monitor.policy.files.lock import (
    DictionaryRef,
    LockedClamp,
    LockedFeature,
    LockedRule,
    LockModel,
    ModelRef,
)
from monitor.policy.files.pins import locked_pins, probe_digest
from monitor.policy.fit.card import make_card
from monitor.policy.fit.cross_validation import cross_validate
from monitor.policy.fit.detectors import (
    Detector,
    FeatureDetector,
    ProbeDetector,
    Recipe,
    learn_features,
    learn_probe,
    pinned_features,
)
from monitor.policy.fit.feature_selection import choose_clamps
from monitor.policy.fit.late_probe import LaterReader, fit_later
from monitor.policy.fit.readings import FitReader, Floats, TextReadings
from monitor.policy.fit.rows import FitRows, LabelledTexts, ReadTexts, read_rows
from monitor.policy.fit.thresholds import Leaf, LearntDetector, lock_thresholds, poolings
from monitor.policy.schema.policy import PolicyModel, ProbeModel

Asked = Literal["features", "probe", "auto"]
"""What scores tokens: features, a probe, or with `auto` the probe where it is clearly better."""


@dataclass(frozen=True)
class FitSettings:
    """What a fit may choose from, and how much work it does."""

    features: int = 48
    """Most features that detect, per policy."""
    rounds: int = 12
    """Random halves of the groups that vote on features."""
    seed: int = 0
    """Of folds, halves, resamples and random features."""
    signed: bool = True
    """Whether a feature may have a negative weight. If none has, no other content can keep a rule from firing."""
    detector: Asked = "features"


@dataclass(frozen=True)
class Inputs:
    """What a fit needs besides a policy and its examples; shared by all policies of a folder."""

    reader: FitReader
    model: ModelRef
    dictionary: DictionaryRef
    benign: Sequence[str]
    """Benign texts that detectors learn from."""
    benign_readings: TextReadings
    benign_density: Floats = field(repr=False)
    """`[features]`: share of benign tokens on which each feature is active."""
    later: LaterReader | None = None
    """Reads the residual stream behind the tapped layer; None where the model has no layer there."""
    aside: Sequence[str] = ()
    """Benign texts that only set thresholds; no detector learns from them."""
    aside_readings: TextReadings | None = None

    @property
    def calibration(self) -> list[TextReadings]:
        """Readings of all benign texts."""
        return [self.benign_readings] + ([self.aside_readings] if self.aside_readings is not None else [])


Store = Callable[[ProbeDetector], ProbeModel]
"""Stores the weights of a learnt probe, and returns the probe as the lock names it."""


def inline(probe: ProbeDetector) -> ProbeModel:
    """A `Store` that keeps the weights in the lock itself."""
    return ProbeModel(weights=[float(w) for w in probe.weights], bias=probe.bias, scale=probe.scale)


def fit_policy(
    policy: PolicyModel,
    examples: Sequence[Example],
    inputs: Inputs,
    extra: LabelledTexts | None = None,
    settings: FitSettings | None = None,
    *,
    store: Store = inline,
    pinned: ProbeDetector | None = None,
) -> LockModel:
    """The lock of a policy for one model and dictionary.

    Of a policy that pins its features or its probe, only thresholds are set; `pinned` is that probe. A policy with a
    concept goes through all steps below. PolicyError where its examples give nothing to learn from.
    """
    settings = settings or FitSettings()
    if policy.concept is None:
        named = pinned_features(policy.features) if policy.features else pinned
        return _lock(policy, examples, inputs, lock_thresholds(policy, inputs.calibration, pinned=named))
    name, extra = policy.metadata.name, extra or LabelledTexts()

    # 1. Read the examples, the benign texts and the extra texts.
    rows = read_rows(inputs.reader, examples, ReadTexts(inputs.benign, inputs.benign_readings), extra)
    recipe = Recipe(poolings(policy), settings.features, settings.rounds, settings.seed, settings.signed)

    # 2. Cross-validate features, probe and baselines; the card measures them, and chooses features or probe.
    held_out = cross_validate(rows, recipe)
    card = make_card(rows, held_out, policy.concept.detector or settings.detector, settings.seed)

    # 3. Learn the chosen detector again, from every row.
    detector = _learn(rows, recipe, card.detector, name)

    # 4. Set thresholds on benign texts that this detector did not learn from.
    fitted = LearntDetector(rows, recipe, detector, held_out.of(card.detector), inputs.aside_readings)
    thresholds = lock_thresholds(policy, inputs.calibration, fitted=fitted)

    # 5. Choose what suppression clamps, and learn the probe that checks it.
    clamps = _clamps(policy, examples, inputs, rows)
    later = fit_later(policy, examples, inputs.benign, inputs.later) if inputs.later is not None else None

    return _lock(
        policy,
        examples,
        inputs,
        thresholds,
        extra=texts_digest(extra.texts) if len(extra.texts) else None,
        detector=card.detector,
        features=_features(detector, inputs) if isinstance(detector, FeatureDetector) else [],
        probe=store(detector) if isinstance(detector, ProbeDetector) else None,
        suppress=clamps,
        later_probe=later,
        card=card,
    )


def _lock(
    policy: PolicyModel,
    examples: Sequence[Example],
    inputs: Inputs,
    thresholds: dict[Leaf, LockedRule],
    **learnt: object,
) -> LockModel:
    """The lock: what it is bound to, thresholds, and what was learnt."""
    maxima, checks = inputs.reader.maxima.tolist(), policy.leaves()
    sections: dict[str, dict[str, LockedRule]] = {"rules": {}, "conditions": {}}
    for (section, name), locked in thresholds.items():
        check = checks[section, name]
        # What the policy itself names for the check to read, so that a change of it is noticed.
        named = {"pins": locked_pins(policy, check, maxima), "probe": probe_digest(policy, check)}
        sections[section][name] = locked.model_copy(update=named)
    return LockModel.model_validate(
        {
            "apiVersion": "monitor/v1",
            "policy": policy.metadata.name,
            "model": inputs.model,
            "dictionary": inputs.dictionary,
            "examples": examples_digest(examples),
            "benign": texts_digest([*inputs.benign, *inputs.aside]),
            "features": [],
            "suppress": [],
            **learnt,
            **sections,
        }
    )


def _learn(rows: FitRows, recipe: Recipe, kind: str, policy: str) -> Detector:
    """The detector that will run, learnt from every row."""
    if kind == "probe":
        return learn_probe(rows, rows.everything, recipe)
    found = learn_features(rows, rows.everything, recipe)
    if not len(found.indices):
        raise PolicyError(
            f"no feature of this dictionary is more active on the positive examples of `{policy}` "
            "than on the negative ones; give other examples, or another dictionary"
        )
    return found


def _clamps(
    policy: PolicyModel, examples: Sequence[Example], inputs: Inputs, rows: FitRows
) -> list[LockedClamp]:
    """The features that suppression clamps; none where the policy does not suppress or names them itself."""
    wish = policy.suppress
    if wish is None or wish.features is not None:
        return []
    yes = rows.own_positive
    no = [e.text for e in examples if e.label is not Label.POSITIVE]
    effect = inputs.reader.attribution([rows.texts[int(i)] for i in yes]) - inputs.reader.attribution(no)
    density = rows.read.tokens.take(yes).density()
    return choose_clamps(effect, density, inputs.benign_density, inputs.reader.maxima, wish.target)


def _features(detector: FeatureDetector, inputs: Inputs) -> list[LockedFeature]:
    """The detector's features as a lock lists them, the greatest weight first."""
    order = np.argsort(-np.abs(detector.weights), kind="stable")
    return [
        LockedFeature(
            index=int(detector.indices[i]),
            weight=float(detector.weights[i]),
            maximum=float(inputs.reader.maxima[detector.indices[i]]),
            label=inputs.reader.label(int(detector.indices[i])),
            stability=float(detector.stability[i]),
        )
        for i in order
    ]
