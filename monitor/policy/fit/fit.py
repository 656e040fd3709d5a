"""One policy and a reader become a lock.

Knows the order of the work: read, cross-validate, learn from everything, set thresholds, choose clamps, write the
card. Does not know files, folders or models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from monitor.errors import PolicyError
from monitor.policy.files.examples import Example, Label, examples_digest, texts_digest
from monitor.policy.files.lock import (
    Card,
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
from monitor.policy.fit.detectors import Detector, Features, Probe, Rows
from monitor.policy.fit.late_probe import LaterReader, fit_later
from monitor.policy.fit.learner import Recipe, learn_features, learn_probe
from monitor.policy.fit.readings import Floats, Reader, TextReadings
from monitor.policy.fit.rows import LabelledTexts, ReadTexts, assemble
from monitor.policy.fit.steering_features import choose_clamps
from monitor.policy.fit.thresholds import Fitted, Leaf, lock_leaves, pinned_features, ways
from monitor.policy.schema.policy import PolicyModel, ProbeModel

Asked = Literal["features", "probe", "auto"]
"""What scores tokens; `auto`: the probe where it is clearly better."""


@dataclass(frozen=True)
class FitSettings:
    """How much work a fit does."""

    features: int = 48
    """Most detection features per policy."""
    rounds: int = 12
    """Halves of the groups that vote on features."""
    seed: int = 0
    signed: bool = True
    """Whether features may speak against the concept; without, no content can talk a rule out of firing."""
    detector: Asked = "features"


@dataclass(frozen=True)
class Inputs:
    """What a fit learns from, besides the policy."""

    reader: Reader
    model: ModelRef
    dictionary: DictionaryRef
    benign: Sequence[str]
    benign_readings: TextReadings
    """Of the benign texts; read once for all policies."""
    benign_density: Floats = field(repr=False)
    """`[features]` share of benign tokens."""
    later: LaterReader | None = None
    """The residual stream behind the tapped layer; None where the model has no layer there."""
    aside: Sequence[str] = ()
    """Further benign texts that set thresholds and teach nothing."""
    aside_readings: TextReadings | None = None

    @property
    def calibration(self) -> list[TextReadings]:
        """Readings of all benign texts."""
        return [self.benign_readings] + ([self.aside_readings] if self.aside_readings is not None else [])


Store = Callable[[Probe], ProbeModel]
"""Puts a probe where the lock can name it."""


def inline(probe: Probe) -> ProbeModel:
    """A probe with its weights in the lock itself."""
    return ProbeModel(weights=[float(w) for w in probe.weights], bias=probe.bias, scale=probe.scale)


def fit_policy(
    policy: PolicyModel,
    examples: Sequence[Example],
    inputs: Inputs,
    extra: LabelledTexts | None = None,
    settings: FitSettings | None = None,
    *,
    store: Store = inline,
    pinned: Probe | None = None,
) -> LockModel:
    """The lock of a policy; PolicyError where its examples give nothing to learn from.

    `pinned` is the probe that the policy names itself, where it does.
    """
    settings = settings or FitSettings()
    start = {
        "apiVersion": "monitor/v1",
        "policy": policy.metadata.name,
        "model": inputs.model,
        "dictionary": inputs.dictionary,
        "examples": examples_digest(examples),
        "benign": texts_digest([*inputs.benign, *inputs.aside]),
        "features": [],
        "suppress": [],
    }
    if policy.concept is None:
        named = pinned_features(policy.features) if policy.features else pinned
        leaves = lock_leaves(policy, None, named, inputs.calibration)
        return _lock(start, _with_pins(policy, leaves, inputs))
    benign = ReadTexts(inputs.benign, inputs.benign_readings)
    rows = assemble(inputs.reader, examples, benign, extra or LabelledTexts())
    recipe = Recipe(ways(policy), settings.features, settings.rounds, settings.seed, settings.signed)
    crossed = cross_validate(rows, recipe)
    card = make_card(rows, crossed, policy.concept.detector or settings.detector, settings.seed)
    detector = _learn(rows, recipe, card, policy.metadata.name)
    fitted = Fitted(rows, recipe, detector, crossed.of(card.detector), inputs.aside_readings)
    return _lock(
        {
            **start,
            "extra": texts_digest(extra.texts) if extra is not None and len(extra.texts) else None,
            "detector": card.detector,
            "features": _features(detector, inputs) if isinstance(detector, Features) else [],
            "probe": store(detector) if isinstance(detector, Probe) else None,
            "suppress": _clamps(policy, examples, inputs, rows),
            "later_probe": inputs.later and fit_later(policy, examples, inputs.benign, inputs.later),
            "card": card,
        },
        _with_pins(policy, lock_leaves(policy, fitted, None, inputs.calibration), inputs),
    )


def _with_pins(policy: PolicyModel, leaves: dict[Leaf, LockedRule], inputs: Inputs) -> dict[Leaf, LockedRule]:
    """With what the policy itself names for each check to read, so that a change of it is noticed."""
    maxima, checks = inputs.reader.maxima.tolist(), policy.leaves()
    return {
        key: locked.model_copy(
            update={
                "pins": locked_pins(policy, checks[key], maxima),
                "probe": probe_digest(policy, checks[key]),
            }
        )
        for key, locked in leaves.items()
    }


def _lock(fields: dict[str, object], leaves: dict[Leaf, LockedRule]) -> LockModel:
    sections: dict[str, dict[str, LockedRule]] = {"rules": {}, "conditions": {}}
    for (section, name), locked in leaves.items():
        sections[section][name] = locked
    return LockModel.model_validate({**fields, **sections})


def _learn(rows: Rows, recipe: Recipe, card: Card, name: str) -> Detector:
    """The detector that will run, from every row."""
    if card.detector == "probe":
        return learn_probe(rows, rows.everything, recipe)
    found = learn_features(rows, rows.everything, recipe)
    if not len(found.indices):
        raise PolicyError(
            f"no feature of this dictionary is more active on the positive examples of `{name}` "
            "than on the negative ones; give other examples, or another dictionary"
        )
    return found


def _clamps(
    policy: PolicyModel, examples: Sequence[Example], inputs: Inputs, rows: Rows
) -> list[LockedClamp]:
    wish = policy.suppress
    if wish is None or wish.features is not None:
        return []
    yes = np.flatnonzero((rows.own == 1) & (rows.positive == 1))
    no = [e.text for e in examples if e.label is not Label.POSITIVE]
    effect = inputs.reader.attribution([rows.texts[int(i)] for i in yes]) - inputs.reader.attribution(no)
    density = rows.read.tokens.take(yes).density()
    return choose_clamps(effect, density, inputs.benign_density, inputs.reader.maxima, wish.target)


def _features(detector: Features, inputs: Inputs) -> list[LockedFeature]:
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
