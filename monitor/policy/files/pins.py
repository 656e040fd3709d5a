"""What a policy itself names for a check to read: pinned features or a probe, as a lock keeps them.

Knows policies and how numbers are written into locks. Does not know what a lock teaches, nor files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from monitor.policy.files.lock import LockedPin, LockedRule, as_written
from monitor.policy.schema.policy import CheckModel, Pin, PolicyModel


def pins_of(policy: PolicyModel, check: CheckModel) -> Sequence[Pin]:
    """The pinned features that a check reads; none where it reads a signal, a probe or what a lock teaches."""
    if check.features is not None:
        return check.features
    return policy.features or () if check.signal is None else ()


def probe_digest(policy: PolicyModel, check: CheckModel) -> str | None:
    """`sha256:` of the policy's own probe where a check reads it."""
    if policy.probe is None or check.own_columns:
        return None
    return "sha256:" + hashlib.sha256(policy.probe.model_dump_json().encode()).hexdigest()


def locked_pins(policy: PolicyModel, check: CheckModel, maxima: Sequence[float]) -> list[LockedPin]:
    """The pins of a check with the units of their readings, `maxima` `[features]`."""
    return [
        LockedPin(index=pin.index, weight=pin.weight, maximum=float(maxima[pin.index]))
        for pin in pins_of(policy, check)
    ]


def reads_the_same(policy: PolicyModel, check: CheckModel, locked: LockedRule) -> bool:
    """Whether a check reads what it was calibrated with, as far as the policy names it."""
    now = [(pin.index, as_written(pin.weight)) for pin in pins_of(policy, check)]
    then = [(pin.index, as_written(pin.weight)) for pin in locked.pins]
    return (sorted(now), probe_digest(policy, check)) == (sorted(then), locked.probe)
