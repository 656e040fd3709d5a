"""One policy and a reader become a lock.

Knows the order of the work: read, cross-validate, learn from everything, set thresholds, choose clamps, write the
card. Does not know files, folders or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from monitor.errors import PolicyError
from monitor.policy.examples import Example, Label, examples_digest, texts_digest
from monitor.policy.fit.carding import make_card
from monitor.policy.fit.crossing import Recipe, Rows, cross_validate, learn
from monitor.policy.fit.later import LaterReader, fit_later
from monitor.policy.fit.readings import Floats, Reader, TextReadings, join
from monitor.policy.fit.suppressing import choose_clamps
from monitor.policy.fit.thresholds import Fitted, lock_rules, ways
from monitor.policy.fit.weighing import Detector
from monitor.policy.lock import (
    Card,
    DictionaryRef,
    LockedClamp,
    LockedFeature,
    LockedRule,
    LockModel,
    ModelRef,
)
from monitor.policy.schema import PolicyModel

BENIGN_IMPORTANCE = 1.0
EXTRA_IMPORTANCE = 0.5


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


@dataclass(frozen=True)
class LabelledTexts:
    """Further rows to learn from: text, whether the concept is there, and what ties rows together."""

    texts: Sequence[str] = ()
    positive: Sequence[bool] = ()
    groups: Sequence[str] = ()


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


def fit_policy(
    policy: PolicyModel,
    examples: Sequence[Example],
    inputs: Inputs,
    extra: LabelledTexts | None = None,
    settings: FitSettings | None = None,
) -> LockModel:
    """The lock of a policy; PolicyError where its examples give nothing to learn from."""
    settings = settings or FitSettings()
    if policy.concept is None:
        rules = lock_rules(policy, None, inputs.benign_readings.tokens)
        return _lock(policy, examples, inputs, [], rules, [], None)
    extra = extra or LabelledTexts()
    rows, read = _rows(examples, inputs, extra)
    recipe = Recipe(ways(policy), settings.features, settings.rounds, settings.seed, settings.signed)
    crossed = cross_validate(rows, recipe)
    detector = learn(rows, np.arange(len(rows.texts)), recipe)
    if not len(detector.features):
        raise PolicyError(
            f"no feature of this dictionary is more active on the positive examples of `{policy.metadata.name}` "
            "than on the negative ones; give other examples, or another dictionary"
        )
    rules = lock_rules(policy, Fitted(rows, recipe, detector, crossed), inputs.benign_readings.tokens)
    card = make_card(rows, crossed, [e.label for e in examples], settings.seed)
    clamps = _clamps(policy, examples, inputs, read)
    return _lock(policy, examples, inputs, _features(detector, inputs), rules, clamps, card)


def _rows(examples: Sequence[Example], inputs: Inputs, extra: LabelledTexts) -> tuple[Rows, TextReadings]:
    """Own, benign and extra texts, in that order, and what was read of the own ones."""
    own = inputs.reader.read([e.text for e in examples])
    parts = [own, inputs.benign_readings]
    if len(extra.texts):
        parts.append(inputs.reader.read(extra.texts))
    counts = (len(examples), len(inputs.benign), len(extra.texts))
    positive = [e.label is Label.POSITIVE for e in examples] + [False] * counts[1] + list(extra.positive)
    names = [f"own {e.group}" for e in examples] + [f"benign {i}" for i in range(counts[1])]
    names += [f"extra {g}" for g in extra.groups]
    rows = Rows(
        texts=[*(e.text for e in examples), *inputs.benign, *extra.texts],
        tokens=join([part.tokens for part in parts]),
        means=np.concatenate([part.means for part in parts]),
        positive=np.asarray(positive, np.intp),
        groups=np.unique(names, return_inverse=True)[1].astype(np.intp),
        measured=np.repeat([1, 1, 0], counts),
        own=np.repeat([1, 0, 0], counts),
        importance=np.repeat([1.0, BENIGN_IMPORTANCE, EXTRA_IMPORTANCE], counts),
    )
    return rows, own


def _clamps(
    policy: PolicyModel, examples: Sequence[Example], inputs: Inputs, read: TextReadings
) -> list[LockedClamp]:
    wish = policy.suppress
    if wish is None or wish.features is not None:
        return []
    yes = [i for i, e in enumerate(examples) if e.label is Label.POSITIVE]
    no = [e.text for e in examples if e.label is not Label.POSITIVE]
    effect = inputs.reader.attribution([examples[i].text for i in yes]) - inputs.reader.attribution(no)
    density = read.tokens.take(yes).density()
    return choose_clamps(effect, density, inputs.benign_density, inputs.reader.maxima, wish.target)


def _features(detector: Detector, inputs: Inputs) -> list[LockedFeature]:
    order = np.argsort(-np.abs(detector.weights), kind="stable")
    return [
        LockedFeature(
            index=int(detector.features[i]),
            weight=float(detector.weights[i]),
            maximum=float(inputs.reader.maxima[detector.features[i]]),
            label=inputs.reader.label(int(detector.features[i])),
            stability=float(detector.stability[i]),
        )
        for i in order
    ]


def _lock(
    policy: PolicyModel,
    examples: Sequence[Example],
    inputs: Inputs,
    features: list[LockedFeature],
    rules: dict[str, LockedRule],
    clamps: list[LockedClamp],
    card: Card | None,
) -> LockModel:
    return LockModel.model_validate(
        {
            "apiVersion": "monitor/v1",
            "policy": policy.metadata.name,
            "model": inputs.model,
            "dictionary": inputs.dictionary,
            "examples": examples_digest(examples),
            "benign": texts_digest(inputs.benign),
            "features": features,
            "rules": rules,
            "suppress": clamps,
            "later_probe": inputs.later and fit_later(policy, examples, inputs.benign, inputs.later),
            "card": card,
        }
    )
