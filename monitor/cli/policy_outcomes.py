"""What a policy set makes of many texts that were read at once: the running rules on batch readings.

Knows how the columns of a watch plan are put together from readings, residuals and signals. Does not read texts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monitor.policy.comparing import Outcome
from monitor.policy.fit import TextReadings
from monitor.policy.policyset import PolicySet
from monitor.records import Phase, TokenBlock, WatchPlan


def outcomes(policies: PolicySet, read: TextReadings, phase: Phase) -> list[Outcome]:
    """Detections and action of each text, as the running rules give them."""
    return [_outcome(policies, columns(read, text, policies.watch), phase) for text in range(len(read))]


def columns(read: TextReadings, text: int, plan: WatchPlan) -> NDArray[np.float32]:
    """Readings `[tokens, watched]` of one text; the first position, which rules pass over, is zero."""
    residual = read.residual(text).astype(np.float64)
    parts = [read.tokens.of(text)[:, list(plan.features)].toarray()]
    parts += [((residual @ np.asarray(p.weights) + p.bias) / p.scale)[:, None] for p in plan.probes]
    parts += [read.signal(str(s), np.asarray([text]))[0][:, None] for s in plan.signals]
    rows = np.concatenate(parts, axis=1).astype(np.float32)
    return np.concatenate([np.zeros((1, rows.shape[1]), np.float32), rows])


def _outcome(policies: PolicySet, rows: NDArray[np.float32], phase: Phase) -> Outcome:
    decision = policies.start(str).observe(TokenBlock(phase, 0, tuple(range(len(rows))), rows))
    return Outcome(frozenset(f"{d.policy}/{d.rule}" for d in decision.detections), decision.action)
