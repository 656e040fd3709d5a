"""The fit of one policy to one model and dictionary: `fit_policy` makes its lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from monitor.errors import PolicyError
from monitor.policy.files.examples import Example, documents_digest, examples_digest, texts_digest
from monitor.policy.files.lock import (
    DictionaryRef,
    Explained,
    LockedClamp,
    LockedExplanation,
    LockedFeature,
    LockedRule,
    LockModel,
    ModelRef,
)
from monitor.policy.files.occurrences import Document
from monitor.policy.files.pins import locked_pins, probe_digest
from monitor.policy.fit.card import make_card
from monitor.policy.fit.choice import DetectorChoice
from monitor.policy.fit.cross_validation import cross_validate
from monitor.policy.fit.detectors import (
    CombinedDetector,
    FeatureDetector,
    LearntKind,
    ProbeDetector,
    Recipe,
    learn,
    pinned_features,
)
from monitor.policy.fit.feature_selection import choose_clamps
from monitor.policy.fit.late_probe import LaterReader, fit_later
from monitor.policy.fit.readings import FitReader, Floats, TextReadings
from monitor.policy.fit.rows import FitRows, LabelledTexts, ReadTexts, read_rows
from monitor.policy.fit.thresholds import Leaf, LearntDetector, lock_thresholds, poolings
from monitor.policy.schema.policy import PolicyModel, ProbeModel

Asked = Literal["features", "probe", "combined", "auto"]
"""The detector that was asked for; `auto` takes what detects best on held-out groups."""
EXPLAINING = 32
"""Largest number of features that are watched to explain a probe's scores."""
STRONGEST = 5
"""Tokens of each positive text by which these features are chosen: so many are evidence of a detection."""


@dataclass(frozen=True)
class FitSettings:
    """Options of a fit."""

    features: int = 64
    """Largest number of detecting features per policy."""
    seed: int = 0
    """Seed for the folds, the resamples and the random features."""
    signed: bool = True
    """Whether a feature may have a negative weight. If none has, no other content can keep a rule from firing."""
    detector: Asked = "auto"


@dataclass(frozen=True)
class Inputs:
    """The model, the dictionary and the benign texts of a fit; the same for all policies of a folder."""

    reader: FitReader
    model: ModelRef
    dictionary: DictionaryRef
    benign: Sequence[Document]
    """Benign texts, each where it may occur, that detectors learn from as negatives."""
    benign_readings: TextReadings
    benign_density: Floats = field(repr=False)
    """`[features]`: share of benign tokens on which each feature is active."""
    later: LaterReader | None = None
    """Reads the residual stream at a layer after the tapped one; None where the model has no later layer."""
    aside: Sequence[Document] = ()
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
    recipe = Recipe(poolings(policy), settings.features, settings.seed, settings.signed)

    # 2. Cross-validate features, probe and baselines; this also chooses what detects.
    asked = policy.concept.detector or (None if settings.detector == "auto" else settings.detector)
    held_out = cross_validate(rows, recipe, asked)

    # 3. Learn the chosen detector again, from every row.
    detector = _learn(rows, recipe, held_out.choice, name)
    probe = _probe_in(detector)
    explain, explained = _explain(probe, inputs, rows) if probe is not None else ([], None)
    card = make_card(rows, held_out, settings.seed, explained)

    # 4. Set thresholds on benign texts that this detector did not learn from.
    fitted = LearntDetector(rows, recipe, detector, held_out.rules, inputs.aside_readings)
    thresholds = lock_thresholds(policy, inputs.calibration, fitted=fitted)

    # 5. Choose what suppression clamps, and learn the probe that checks it.
    clamps = _clamps(policy, inputs, rows)
    later = fit_later(policy, rows, inputs.later) if inputs.later is not None else None

    return _lock(
        policy,
        examples,
        inputs,
        thresholds,
        extra=texts_digest(extra.texts) if len(extra.texts) else None,
        detector=card.detector,
        features=_features(detector, inputs, held_out.stability),
        probe=store(probe) if probe is not None else None,
        explain=explain,
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
            "benign": documents_digest([*inputs.benign, *inputs.aside]),
            "features": [],
            "suppress": [],
            **learnt,
            **sections,
        }
    )


def _learn(rows: FitRows, recipe: Recipe, choice: DetectorChoice, policy: str) -> LearntKind:
    """The detector that will run, learnt from every row."""
    found = learn(rows, rows.everything, recipe, recipe.sizes).detector(choice)
    if choice.kind != "probe" and isinstance(found, FeatureDetector) and not len(found.indices):
        unlike = "tells" if recipe.signed else "is more active on"
        other = "from" if recipe.signed else "than on"
        raise PolicyError(
            f"no feature of this dictionary {unlike} the positive examples of `{policy}` {other} the negative ones; "
            "give other examples, or another dictionary"
        )
    return found


def _probe_in(detector: LearntKind) -> ProbeDetector | None:
    """The probe that a detector is, or has; None where it is features alone."""
    if isinstance(detector, CombinedDetector):
        return detector.probe
    return detector if isinstance(detector, ProbeDetector) else None


def _explain(
    probe: ProbeDetector, inputs: Inputs, rows: FitRows
) -> tuple[list[LockedExplanation], Explained]:
    """The features that add most to a probe's scores of positives' strongest tokens, and what they account for."""
    reader, tokens = inputs.reader, rows.read.tokens
    adds = reader.reach(probe.weights) / probe.scale
    scores = probe.tokens(rows.read, rows.everything)
    strongest = [
        int(tokens.starts[i]) + np.argsort(-scores[i], kind="stable")[:STRONGEST] for i in rows.own_positive
    ]
    read = np.asarray(tokens.matrix[np.concatenate(strongest)].sum(axis=0)).ravel()
    added = np.where(reader.maxima > 0, np.maximum(adds * read, 0.0), 0.0)
    best = [int(i) for i in np.argsort(-added, kind="stable")[:EXPLAINING] if added[i] > 0]
    known = np.corrcoef(tokens.matrix @ adds, np.concatenate(scores))[0, 1]
    explained = Explained(
        named=float(added[best].sum() / max(added.sum(), 1e-12)), correlation=float(np.nan_to_num(known))
    )
    named = [
        LockedExplanation(
            index=i, weight=float(adds[i]), maximum=float(reader.maxima[i]), label=reader.label(i)
        )
        for i in best
    ]
    return named, explained


def _clamps(policy: PolicyModel, inputs: Inputs, rows: FitRows) -> list[LockedClamp]:
    """The features that suppression clamps; none where the policy does not suppress, or names its features."""
    wish = policy.suppress
    if wish is None or wish.features is not None:
        return []
    yes, no = rows.own_positive, rows.own_negative
    effect = inputs.reader.attribution([rows.documents[int(i)] for i in yes]) - inputs.reader.attribution(
        [rows.documents[int(i)] for i in no]
    )
    density = rows.read.tokens.take(yes).density()
    return choose_clamps(effect, density, inputs.benign_density, inputs.reader.maxima, wish.target)


def _features(detector: LearntKind, inputs: Inputs, stability: Mapping[int, float]) -> list[LockedFeature]:
    """The detector's features as a lock lists them, the greatest weight first; none of a probe."""
    if isinstance(detector, ProbeDetector):
        return []
    found = detector.features if isinstance(detector, CombinedDetector) else detector
    order = np.argsort(-np.abs(found.weights), kind="stable")
    return [
        LockedFeature(
            index=int(found.indices[i]),
            weight=float(found.weights[i]),
            maximum=float(inputs.reader.maxima[found.indices[i]]),
            label=inputs.reader.label(int(found.indices[i])),
            stability=stability.get(int(found.indices[i]), 0.0),
        )
        for i in order
    ]
