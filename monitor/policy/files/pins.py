"""Pinned features and probes as a lock records them, so that a change of them is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from monitor.policy.files.lock import LockedPin, LockedRule, as_written
from monitor.policy.schema.policy import CheckModel, Pin, PolicyModel


def pins_of(policy: PolicyModel, check: CheckModel) -> Sequence[Pin]:
    """The pinned features that a check reads; none where it reads a signal, a probe or the features of the lock."""
    if check.features is not None:
        return check.features
    return policy.features or () if check.signal is None else ()


def probe_digest(policy: PolicyModel, check: CheckModel) -> str | None:
    """`sha256:` of the policy's own probe; None where the check does not read it."""
    if policy.probe is None or check.own_columns:
        return None
    return "sha256:" + hashlib.sha256(policy.probe.model_dump_json().encode()).hexdigest()


def locked_pins(policy: PolicyModel, check: CheckModel, maxima: Sequence[float]) -> list[LockedPin]:
    """The pinned features that a check reads, for the lock; `maxima` `[features]` are the units of their readings."""
    return [
        LockedPin(index=pin.index, weight=pin.weight, maximum=float(maxima[pin.index]))
        for pin in pins_of(policy, check)
    ]


def reads_the_same(policy: PolicyModel, check: CheckModel, locked: LockedRule) -> bool:
    """Whether the features or the probe that the policy names are those that the check's threshold was set for."""
    now = [(pin.index, as_written(pin.weight)) for pin in pins_of(policy, check)]
    then = [(pin.index, as_written(pin.weight)) for pin in locked.pins]
    return (sorted(now), probe_digest(policy, check)) == (sorted(then), locked.probe)
