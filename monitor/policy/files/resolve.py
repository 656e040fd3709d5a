"""Resolves a policy file and its lock into a `Policy`, for one running model and dictionary.

Digests, examples, rule settings, feature indices and recorded maxima must agree. Every difference is a problem at the
line that causes it, with advice on what to do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from monitor.policy.files.lock import LockedEntry, LockedRule, LockModel, probe_of
from monitor.policy.files.lock_checks import disagreements, mend, wrong_width
from monitor.policy.files.source import Running, Source
from monitor.policy.files.yaml_document import Problem
from monitor.policy.policy import Check, Condition, Lengths, Policy, Rule, WeightedFeature
from monitor.policy.schema.expression import AnyExpression, names_in
from monitor.policy.schema.policy import (
    AskedRate,
    CheckModel,
    ConditionModel,
    Max,
    Pin,
    ProbeModel,
    RuleModel,
    fits,
    pooling_of,
)
from monitor.policy.schema.threshold import LengthThreshold, thresholds_by_length
from monitor.records import Clamp, Mode, Probe

_SAME = 1e-3
"""Largest relative difference between a recorded maximum and the lock's. Beyond it, readings are not comparable."""


def resolve(source: Source, running: Running, problems: list[Problem]) -> Policy | None:
    """Resolve the policy for what runs. Problems that are found are added to `problems`; the result is then None."""
    before = len(problems)
    problems.extend(disagreements(source, running))
    if len(problems) > before:
        return None
    policy = _policy(source)
    problems.extend(_bad_features(source, _named(policy), running))
    return policy if len(problems) == before else None


def unfit(source: Source, running: Running) -> list[Problem]:
    """Problems that keep a policy from being fitted: features that the dictionary lacks, a probe of another width."""
    checks = [*source.model.rules, *(source.model.conditions or {}).values()]
    pins = [*(source.model.features or []), *(pin for check in checks for pin in check.features or [])]
    clamped = source.model.suppress.features if source.model.suppress else None
    named = {pin.index for pin in pins} | set(clamped or [])
    return _bad_features(source, named, running) + wrong_width(source, running)


def applies(source: Source, running: Running) -> bool:
    """False where `match.models` binds the policy to models of other names."""
    patterns = source.model.match.models if source.model.match is not None else None
    return not running.names or any(fits(patterns, name) for name in running.names)


def _policy(source: Source) -> Policy:
    model, lock = source.model, source.lock
    meta = model.metadata
    conditions = conditions_of(source)
    card = lock.card if lock is not None and model.concept is not None else None
    return Policy(
        name=meta.name,
        title=meta.title,
        category=meta.category,
        severity=meta.severity,
        description=meta.description,
        maturity=meta.maturity or (card.maturity if card else "experimental"),
        rules=rules_of(source, conditions),
        conditions=conditions,
        match=model.match,
        clamps=_clamps(source),
        clamps_always=model.suppress is not None and model.suppress.when == "always",
        closed=model.on_error == "closed",
        deadline=model.deadline_seconds,
        hold=model.suppress.hold if model.suppress else None,
        release_below=model.suppress.release_below if model.suppress else 1.0,
        refusal=model.refusal or "",
        later=probe_of(lock.later_probe) if lock is not None and model.suppress else None,
        note=card.note if card else "",
    )


def _clamps(source: Source) -> tuple[Clamp, ...]:
    wish = source.model.suppress
    if wish is None:
        return ()
    if wish.features is not None:
        return tuple(Clamp(index, wish.target, wish.where, wish.error_term) for index in wish.features)
    assert source.lock is not None
    return tuple(Clamp(c.index, wish.target, wish.where, wish.error_term) for c in source.lock.suppress)


def _named(policy: Policy) -> set[int]:
    """Indices of the features that a policy reads or clamps."""
    checks: list[Check] = [*policy.rules, *policy.conditions]
    named = {feature.index for check in checks for feature in (*check.features, *check.explains)}
    return named | {clamp.feature for clamp in policy.clamps}


def _bad_features(source: Source, named: set[int], running: Running) -> list[Problem]:
    """Problems of features that the dictionary lacks, that were never active, or whose maximum has changed."""
    locked = _locked_maxima(source.lock) if source.lock else {}
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
                found.append(_at_feature(source, index, what, mend(source, running)))
    return found


def _locked_maxima(lock: LockModel) -> dict[int, float]:
    pins = [pin for part in (lock.rules, lock.conditions) for locked in part.values() for pin in locked.pins]
    entries: list[LockedEntry] = [*pins, *lock.features, *lock.explain, *lock.suppress]
    return {entry.index: entry.maximum for entry in entries}


def _at_feature(source: Source, index: int, message: str, hint: str) -> Problem:
    places: list[tuple[list[str | int], Sequence[Pin] | None]] = [(["features"], source.model.features)]
    places += [(["rules", i, "features"], rule.features) for i, rule in enumerate(source.model.rules)]
    parts = (source.model.conditions or {}).items()
    places += [(["conditions", name, "features"], part.features) for name, part in parts]
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
    parts = (("features", lock.features), ("explain", lock.explain), ("suppress", lock.suppress))
    for part, entries in parts:
        for i, entry in enumerate(entries):
            if entry.index == index:
                return document.problem([part, i, "index"], message, hint)
    return document.problem([], message, hint)


def conditions_of(source: Source) -> tuple[Condition, ...]:
    """The named conditions of a policy, in the order of writing."""
    return tuple(_condition(source, name, part) for name, part in (source.model.conditions or {}).items())


def rules_of(source: Source, conditions: Sequence[Condition]) -> tuple[Rule, ...]:
    """The rules of a policy."""
    by_name = {condition.name: condition for condition in conditions}
    return tuple(_rule(source, rule, by_name) for rule in source.model.rules)


def leaves_of(expression: AnyExpression, conditions: dict[str, Condition]) -> dict[str, Condition]:
    """The conditions with a threshold that an expression refers to, directly or through others, in order of writing."""
    found: dict[str, Condition] = {}
    seen: set[str] = set()
    waiting = [name for name, _ in names_in(expression)]
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        inner = conditions[name].when
        if inner is None:
            found[name] = conditions[name]
        else:
            waiting = [*(n for n, _ in names_in(inner)), *waiting]
    return found


def _rule(source: Source, rule: RuleModel, conditions: dict[str, Condition]) -> Rule:
    locked = source.lock.rules.get(rule.name) if source.lock is not None else None
    severity = rule.severity or source.model.metadata.severity
    mode = rule.mode or measured_mode(source)
    phases = tuple(rule.phases)
    if rule.when is not None:
        leaves = leaves_of(rule.when, conditions).values()
        features = {f.index: f for leaf in leaves for f in leaf.features}
        read = tuple(features.values())
        return Rule(rule.name, phases, read, Max(), rule.for_, 0.0, severity, rule.asks, mode, when=rule.when)
    lengths = _lengths(rule, locked)
    return Rule(
        name=rule.name,
        phases=phases,
        features=_features(source, rule),
        pooling=pooling_of(rule.pooling),
        hold=rule.for_,
        threshold=lengths[-1][1],
        severity=severity,
        action=rule.asks,
        mode=mode,
        benign_rate=locked.benign_rate if locked is not None else None,
        probe=_probe(source, rule),
        explains=_explains(source, rule),
        signal=rule.signal,
        lengths=lengths if len(lengths) > 1 else (),
        session=rule.scope == "session",
    )


def _condition(source: Source, name: str, part: ConditionModel) -> Condition:
    if part.when is not None:
        return Condition(name, when=part.when)
    lengths = _lengths(part, source.lock.conditions.get(name) if source.lock is not None else None)
    return Condition(
        name=name,
        phases=tuple(part.phases),
        features=_features(source, part),
        probe=_probe(source, part),
        explains=_explains(source, part),
        signal=part.signal,
        pooling=pooling_of(part.pooling),
        hold=part.for_,
        threshold=lengths[-1][1],
        lengths=lengths if len(lengths) > 1 else (),
        session=part.scope == "session",
        lasts=part.lasts,
    )


def _lengths(check: CheckModel, locked: LockedRule | None) -> Lengths:
    threshold: float | Sequence[LengthThreshold] | AskedRate | None = check.threshold
    if isinstance(threshold, AskedRate):
        assert locked is not None
        threshold = locked.threshold
    assert threshold is not None
    return thresholds_by_length(threshold)


def measured_mode(source: Source) -> Mode:
    """The mode of rules that set none: shadow where the card says `experimental`, else enforce."""
    card = source.lock.card if source.lock is not None else None
    return Mode.SHADOW if card is not None and card.maturity == "experimental" else Mode.ENFORCE


def _features(source: Source, check: CheckModel) -> tuple[WeightedFeature, ...]:
    pins: list[Pin] | None = check.features or source.model.features
    lock = source.lock
    beside = lock is not None and lock.detector == "combined" and source.model.concept is not None
    if check.signal is not None:
        return ()
    if check.features is None and _shared_probe(source) is not None and not beside:
        return ()
    if pins is not None:
        return tuple(WeightedFeature(pin.index, pin.weight, pin.label) for pin in pins)
    assert lock is not None
    return tuple(WeightedFeature(f.index, f.weight, f.label) for f in lock.features)


def _probe(source: Source, check: CheckModel) -> Probe | None:
    shared = _shared_probe(source)
    if check.own_columns or shared is None:
        return None
    assert source.weights is not None
    return Probe(source.model.metadata.name, source.weights, shared.bias, shared.scale)


def _explains(source: Source, check: CheckModel) -> tuple[WeightedFeature, ...]:
    """The features that explain the probe that a check reads, where the probe was learnt."""
    if check.own_columns or source.lock is None or source.model.probe is not None:
        return ()
    if _shared_probe(source) is None:
        return ()
    return tuple(WeightedFeature(f.index, f.weight, f.label) for f in source.lock.explain)


def _shared_probe(source: Source) -> ProbeModel | None:
    """The probe of the policy or its lock, read by rules and conditions that name nothing themselves; None without."""
    if source.model.probe is not None:
        return source.model.probe
    lock = source.lock
    learnt = source.model.concept is not None and lock is not None and lock.detector != "features"
    return lock.probe if lock is not None and learnt else None
