"""A policy file and its lock become a policy with numbers, for one running model and dictionary.

Knows what must agree: digests, examples, rule settings, feature indices, maxima. Every disagreement is a
problem at the line that causes it, with the command that mends it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from monitor.policy.building import conditions_of, rules_of
from monitor.policy.document import Problem
from monitor.policy.later import probe_of
from monitor.policy.lock import LockedEntry, LockModel
from monitor.policy.policy import Check, Policy
from monitor.policy.schema import Pin
from monitor.policy.schema_match import fits
from monitor.policy.staleness import disagreements, mend, wrong_width
from monitor.records import Clamp

if TYPE_CHECKING:
    from monitor.policy.loader import Source

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
    width: int | None = None
    """Of the residual stream; None where nobody asks."""
    names: tuple[str, ...] = ()
    """What the model is called; empty where nobody asks."""


def resolve(source: Source, running: Running, problems: list[Problem]) -> Policy | None:
    """The policy with its numbers; None after adding what is wrong to `problems`."""
    before = len(problems)
    problems.extend(disagreements(source, running))
    if len(problems) > before:
        return None
    policy = _policy(source)
    problems.extend(_bad_features(source, _named(policy), running))
    return policy if len(problems) == before else None


def unfit(source: Source, running: Running) -> list[Problem]:
    """What a policy names itself and the running pair does not have, for whoever is about to fit it."""
    checks = [*source.model.rules, *(source.model.conditions or {}).values()]
    pins = [*(source.model.features or []), *(pin for check in checks for pin in check.features or [])]
    clamped = source.model.suppress.features if source.model.suppress else None
    named = {pin.index for pin in pins} | set(clamped or [])
    return _bad_features(source, named, running) + wrong_width(source, running)


def applies(source: Source, running: Running) -> bool:
    """False where the policy is bound to models of other names."""
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
        hold=model.suppress.hold if model.suppress else None,
        release_below=model.suppress.release_below if model.suppress else 1.0,
        rewind=(model.suppress.rewind or 0) if model.suppress else 0,
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
    """The features that a policy reads or clamps."""
    checks: list[Check] = [*policy.rules, *policy.conditions]
    named = {feature.index for check in checks for feature in check.features}
    return named | {clamp.feature for clamp in policy.clamps}


def _bad_features(source: Source, named: set[int], running: Running) -> list[Problem]:
    """Features that the dictionary does not have, that were never active, or whose unit has changed."""
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
                found.append(_at_feature(source, index, what, mend(source)))
    return found


def _locked_maxima(lock: LockModel) -> dict[int, float]:
    pins = [pin for part in (lock.rules, lock.conditions) for locked in part.values() for pin in locked.pins]
    entries: list[LockedEntry] = [*pins, *lock.features, *lock.suppress]
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
    parts = (("features", lock.features), ("suppress", lock.suppress))
    for part, entries in parts:
        for i, entry in enumerate(entries):
            if entry.index == index:
                return document.problem([part, i, "index"], message, hint)
    return document.problem([], message, hint)
