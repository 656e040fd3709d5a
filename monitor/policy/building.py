"""Rules and conditions with numbers, from what a policy file and its lock say together.

Knows which of the two gives what. Does not check that they agree (`staleness`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from monitor.policy.lock import LockedRule
from monitor.policy.policy import Condition, Lengths, Rule, WeightedFeature
from monitor.policy.schema import (
    CheckModel,
    ConditionModel,
    Max,
    Pin,
    ProbeModel,
    Rate,
    RuleModel,
    pooling_of,
)
from monitor.policy.schema_threshold import Bucket, buckets_of
from monitor.policy.schema_when import AnyExpression, names_in
from monitor.records import Mode, Probe

if TYPE_CHECKING:
    from monitor.policy.loader import Source


def conditions_of(source: Source) -> tuple[Condition, ...]:
    """The named conditions of a policy, in the order of writing."""
    return tuple(_condition(source, name, part) for name, part in (source.model.conditions or {}).items())


def rules_of(source: Source, conditions: Sequence[Condition]) -> tuple[Rule, ...]:
    """The rules of a policy."""
    by_name = {condition.name: condition for condition in conditions}
    return tuple(_rule(source, rule, by_name) for rule in source.model.rules)


def leaves_of(expression: AnyExpression, conditions: dict[str, Condition]) -> dict[str, Condition]:
    """The conditions with a score of their own that an expression rests on, each once, in the order of writing."""
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
    mode = rule.mode or _measured_mode(source)
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
        signal=part.signal,
        pooling=pooling_of(part.pooling),
        hold=part.for_,
        threshold=lengths[-1][1],
        lengths=lengths if len(lengths) > 1 else (),
        session=part.scope == "session",
        lasts=part.lasts,
    )


def _lengths(check: CheckModel, locked: LockedRule | None) -> Lengths:
    threshold: float | Sequence[Bucket] | Rate | None = check.threshold
    if isinstance(threshold, Rate):
        assert locked is not None
        threshold = locked.threshold
    assert threshold is not None
    return buckets_of(threshold)


def _measured_mode(source: Source) -> Mode:
    """Where a policy leaves `mode` out: shadow if its card found that it does not separate."""
    card = source.lock.card if source.lock is not None else None
    return Mode.SHADOW if card is not None and card.maturity == "experimental" else Mode.ENFORCE


def _features(source: Source, check: CheckModel) -> tuple[WeightedFeature, ...]:
    pins: list[Pin] | None = check.features or source.model.features
    if check.signal is not None or (check.features is None and _shared_probe(source) is not None):
        return ()
    if pins is not None:
        return tuple(WeightedFeature(pin.index, pin.weight, pin.label) for pin in pins)
    assert source.lock is not None
    return tuple(WeightedFeature(f.index, f.weight, f.label) for f in source.lock.features)


def _probe(source: Source, check: CheckModel) -> Probe | None:
    shared = _shared_probe(source)
    if check.own_columns or shared is None:
        return None
    assert source.weights is not None
    return Probe(source.model.metadata.name, source.weights, shared.bias, shared.scale)


def _shared_probe(source: Source) -> ProbeModel | None:
    """What checks read that do not say themselves what they read, where that is a probe."""
    if source.model.probe is not None:
        return source.model.probe
    lock = source.lock
    learnt = source.model.concept is not None and lock is not None and lock.detector == "probe"
    return lock.probe if lock is not None and learnt else None
