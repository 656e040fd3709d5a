"""A policy file and its lock become a policy with numbers, for one running model and dictionary.

Knows what must agree: digests, examples, rule settings, feature indices, maxima. Every disagreement is a
problem at the line that causes it, with the command that mends it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from monitor.policy.document import Problem
from monitor.policy.examples import examples_digest
from monitor.policy.later import probe_of
from monitor.policy.lock import LockedEntry, LockedRule, LockModel, lock_path
from monitor.policy.policy import Policy, Rule, WeightedFeature
from monitor.policy.schema import Pin, Rate, RuleModel, pooling_of
from monitor.records import Clamp, Mode

if TYPE_CHECKING:
    from monitor.policy.loader import Source

FIT = "run `sae-monitor policy fit {folder} --model MODEL --dictionary DICTIONARY`"
_SAME = 1e-3
"""Relative difference of maxima beyond which readings would mean something else."""


@dataclass(frozen=True)
class Running:
    """What the policies will run on."""

    model: str
    """Digest."""
    dictionary: str
    """Digest."""
    features: int
    maxima: Sequence[float] | None = None
    """`[features]`, recorded maxima that readings are divided by; None where nobody asks."""


def resolve(source: Source, running: Running, problems: list[Problem]) -> Policy | None:
    """The policy with its numbers; None after adding what is wrong to `problems`."""
    before = len(problems)
    problems.extend(_disagreements(source, running))
    if len(problems) > before:
        return None
    policy = _policy(source)
    problems.extend(_bad_features(source, policy, running))
    return policy if len(problems) == before else None


def _disagreements(source: Source, running: Running) -> list[Problem]:
    """Whatever about the policy and its lock does not fit what runs."""
    found = []
    pinned = source.model.dictionary
    if pinned is not None and pinned != running.dictionary:
        message = f"the features are pinned to another dictionary than the running {running.dictionary[:19]}…"
        found.append(
            source.document.problem(["dictionary"], message, "pin features of the running dictionary")
        )
    if source.model.needs_lock and source.lock is None:
        message = f"{lock_path(source.path).name} is missing: the policy was never fitted"
        found.append(source.document.problem(["metadata", "name"], message, _mend(source)))
    if source.lock is not None and source.lock_document is not None and source.model.needs_lock:
        found.extend(_stale(source, source.lock, running))
    return found


def _stale(source: Source, lock: LockModel, running: Running) -> list[Problem]:
    document = source.lock_document
    assert document is not None
    claims = [
        (["policy"], lock.policy, source.model.metadata.name, "is the lock of another policy"),
        (["model", "digest"], lock.model.digest, running.model, "was fitted to another model"),
        (
            ["dictionary", "digest"],
            lock.dictionary.digest,
            running.dictionary,
            "was fitted to another dictionary",
        ),
    ]
    if source.model.concept is not None:
        now = examples_digest(source.examples)
        claims.append((["examples"], lock.examples, now, "was fitted to other examples"))
    found = [
        document.problem(
            path,
            f"the lock of `{source.model.metadata.name}` {what}: {then[:19]}…, not {now[:19]}…",
            _mend(source),
        )
        for path, then, now, what in claims
        if then != now
    ]
    return found + [
        p for i, rule in enumerate(source.model.rules) for p in _stale_rule(source, lock, i, rule)
    ]


def _stale_rule(source: Source, lock: LockModel, i: int, rule: RuleModel) -> list[Problem]:
    if not isinstance(rule.threshold, Rate):
        return []
    locked = lock.rules.get(rule.name)
    if locked is None:
        message = f"the lock has no threshold for the rule `{rule.name}`"
        return [source.document.problem(["rules", i, "name"], message, _mend(source))]
    if _settings(rule) != (locked.pooling, locked.for_, locked.asked_rate):
        message = f"`{rule.name}` changed its pooling, `for` or rate since it was fitted"
        return [source.document.problem(["rules", i, "name"], message, _mend(source))]
    return []


def _settings(rule: RuleModel) -> tuple[object, int, float | None]:
    rate = rule.threshold.false_positive_rate if isinstance(rule.threshold, Rate) else None
    return pooling_of(rule.pooling), rule.for_, rate


def _policy(source: Source) -> Policy:
    model, lock = source.model, source.lock
    meta = model.metadata
    card = lock.card if lock is not None and model.concept is not None else None
    return Policy(
        name=meta.name,
        title=meta.title,
        category=meta.category,
        severity=meta.severity,
        description=meta.description,
        maturity=meta.maturity or (card.maturity if card else "experimental"),
        rules=tuple(_rule(source, rule) for rule in model.rules),
        clamps=_clamps(source),
        clamps_always=model.suppress is not None and model.suppress.when == "always",
        closed=model.on_error == "closed",
        hold=model.suppress.hold if model.suppress else None,
        release_below=model.suppress.release_below if model.suppress else 1.0,
        rewind=(model.suppress.rewind or 0) if model.suppress else 0,
        refusal=model.refusal or "",
        later=probe_of(lock.later_probe) if lock is not None and model.suppress else None,
        note=card.note if card else "",
    )


def _rule(source: Source, rule: RuleModel) -> Rule:
    lock = source.lock
    locked: LockedRule | None = lock.rules.get(rule.name) if lock else None
    threshold = rule.threshold
    if isinstance(threshold, Rate):
        assert locked is not None
        threshold = locked.threshold
    assert isinstance(threshold, int | float)
    return Rule(
        name=rule.name,
        phases=tuple(rule.phases),
        features=_weighted(source, rule.features),
        pooling=pooling_of(rule.pooling),
        hold=rule.for_,
        threshold=float(threshold),
        severity=rule.severity or source.model.metadata.severity,
        action=rule.asks,
        mode=rule.mode or _measured_mode(source),
        benign_rate=locked.benign_rate if locked is not None else None,
    )


def _measured_mode(source: Source) -> Mode:
    """Where a policy leaves `mode` out: shadow if its card found that it does not separate."""
    card = source.lock.card if source.lock is not None else None
    return Mode.SHADOW if card is not None and card.maturity == "experimental" else Mode.ENFORCE


def _weighted(source: Source, own: Sequence[Pin] | None) -> tuple[WeightedFeature, ...]:
    pins = own or source.model.features
    if pins is not None:
        return tuple(WeightedFeature(pin.index, pin.weight, pin.label) for pin in pins)
    assert source.lock is not None
    return tuple(WeightedFeature(f.index, f.weight, f.label) for f in source.lock.features)


def _clamps(source: Source) -> tuple[Clamp, ...]:
    wish = source.model.suppress
    if wish is None:
        return ()
    if wish.features is not None:
        return tuple(Clamp(index, wish.target, wish.where, wish.error_term) for index in wish.features)
    assert source.lock is not None
    return tuple(Clamp(c.index, wish.target, wish.where, wish.error_term) for c in source.lock.suppress)


def _bad_features(source: Source, policy: Policy, running: Running) -> list[Problem]:
    """Features that the dictionary does not have, that were never active, or whose unit has changed."""
    named = {f.index for rule in policy.rules for f in rule.features} | {c.feature for c in policy.clamps}
    locked = (
        {f.index: f.maximum for f in [*source.lock.features, *source.lock.suppress]} if source.lock else {}
    )
    found = []
    for index in sorted(named):
        if index >= running.features:
            what = f"feature {index} does not exist; the dictionary has 0 to {running.features - 1}"
            found.append(_at_feature(source, index, what, "name a feature of this dictionary"))
        elif running.maxima is not None:
            now = float(running.maxima[index])
            if not now > 0:
                what = f"feature {index} was never seen active, so it has no unit to be read in"
                found.append(
                    _at_feature(source, index, what, "name another feature, or measure the dictionary again")
                )
            elif source.model.needs_lock and not math.isclose(locked.get(index, now), now, rel_tol=_SAME):
                what = f"feature {index} was fitted with the maximum {locked[index]:.5g}; it is {now:.5g} now"
                found.append(_at_feature(source, index, what, _mend(source)))
    return found


def _at_feature(source: Source, index: int, message: str, hint: str) -> Problem:
    places: list[tuple[list[str | int], Sequence[Pin] | None]] = [(["features"], source.model.features)]
    places += [(["rules", i, "features"], rule.features) for i, rule in enumerate(source.model.rules)]
    for path, pins in places:
        for i, pin in enumerate(pins or []):
            if pin.index == index:
                return source.document.problem([*path, i, "index"], message, hint)
    clamped = source.model.suppress.features if source.model.suppress else None
    if clamped and index in clamped:
        return source.document.problem(["suppress", "features", clamped.index(index)], message, hint)
    return _at_locked(source, index, message, hint)


def _at_locked(source: Source, index: int, message: str, hint: str) -> Problem:
    document, lock = source.lock_document, source.lock
    assert document is not None
    assert lock is not None
    parts: tuple[tuple[str, Sequence[LockedEntry]], ...]
    parts = (("features", lock.features), ("suppress", lock.suppress))
    for part, entries in parts:
        for i, entry in enumerate(entries):
            if entry.index == index:
                return document.problem([part, i, "index"], message, hint)
    return document.problem([], message, hint)


def _entries(lock: LockModel | None) -> list[LockedEntry]:
    return [*lock.features, *lock.suppress] if lock is not None else []


def _mend(source: Source) -> str:
    return FIT.format(folder=source.path.parent)
