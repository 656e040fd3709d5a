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
"""The detector that was asked for; `auto` takes the probe where it is clearly better than features."""


@dataclass(frozen=True)
class FitSettings:
    """Options of a fit."""

    features: int = 48
    """Largest number of detecting features per policy."""
    rounds: int = 12
    """Number of random halves of the groups, in stability selection."""
    seed: int = 0
    """Seed for the folds, the random halves, the resamples and the random features."""
    signed: bool = True
    """Whether a feature may have a negative weight. If none has, no other content can keep a rule from firing."""
    detector: Asked = "features"


@dataclass(frozen=True)
class Inputs:
    """The model, the dictionary and the benign texts of a fit; the same for all policies of a folder."""

    reader: FitReader
    model: ModelRef
    dictionary: DictionaryRef
    benign: Sequence[str]
    """Benign texts that detectors learn from."""
    benign_readings: TextReadings
    benign_density: Floats = field(repr=False)
    """`[features]`: share of benign tokens on which each feature is active."""
    later: LaterReader | None = None
    """Reads the residual stream at a layer after the tapped one; None where the model has no later layer."""
    aside: Sequence[str] = ()
    """Further benign texts, which set thresholds and which no detector learns from."""
    aside_readings: TextReadings | None = None

    @property
    def calibration(self) -> list[TextReadings]:
        """Readings of all benign texts."""
        return [self.benign_readings] + ([self.aside_readings] if self.aside_readings is not None else [])


Store = Callable[[ProbeDetector], ProbeModel]
"""Stores the weights of a learnt probe, and returns the probe as the lock names it."""


def inline(probe: ProbeDetector) -> ProbeModel:
    """The `Store` that writes the weights into the lock."""
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
    """Fit a policy to one model and dictionary, and return its lock.

    For a policy without a concept, which names what it reads, this only sets thresholds; `pinned` is the policy's own
    probe. A policy with a concept goes through all steps below. Raises PolicyError where features
    are to be learnt and `learn_features` finds none.
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
        unlike = "tells" if recipe.signed else "is more active on"
        other = "from" if recipe.signed else "than on"
        raise PolicyError(
            f"no feature of this dictionary {unlike} the positive examples of `{policy}` {other} the negative ones; "
            "give other examples, or another dictionary"
        )
    return found


def _clamps(
    policy: PolicyModel, examples: Sequence[Example], inputs: Inputs, rows: FitRows
) -> list[LockedClamp]:
    """The features that suppression clamps; none where the policy does not suppress, or names its features."""
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
