"""What a policy set makes of many texts that were read at once: the running rules on batch readings.

Knows policy sets and readings. Does not read texts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monitor.lab.compare_sets import Outcome
from monitor.policy.fit import TextReadings
from monitor.policy.fit.running_rule import columns
from monitor.policy.policyset import PolicySet
from monitor.records import Phase, TokenBlock


def outcomes(policies: PolicySet, read: TextReadings, phase: Phase) -> list[Outcome]:
    """Detections and action of each text, as the running rules give them."""
    return [_outcome(policies, columns(read, text, policies.watch), phase) for text in range(len(read))]


def _outcome(policies: PolicySet, rows: NDArray[np.float32], phase: Phase) -> Outcome:
    decision = policies.start(str).observe(TokenBlock(phase, 0, tuple(range(len(rows))), rows))
    return Outcome(frozenset(f"{d.policy}/{d.rule}" for d in decision.detections), decision.action)
