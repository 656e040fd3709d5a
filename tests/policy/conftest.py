"""Policies built in code, and a per-token reference of the rules in plain Python floats."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.policy.policy import Policy, Pooling, Rule, WeightedFeature
from monitor.policy.schema.policy import Cumulative, Ema, LongestRun, Max, Mean, TopKMean
from monitor.records import Action, Mode, Phase, Severity, TokenBlock

BOTH = (Phase.PROMPT, Phase.RESPONSE)


def rule(name="r", features=((3, 1.0),), pooling=None, hold=1, threshold=0.5, **more):
    fields = {"phases": BOTH, "severity": Severity.HIGH, "action": Action.ALERT, "mode": Mode.ENFORCE, **more}
    weighted = tuple(WeightedFeature(i, w) for i, w in features)
    return Rule(
        name=name, features=weighted, pooling=pooling or Max(), hold=hold, threshold=threshold, **fields
    )


def policy(*rules, name="p", **more):
    fields = {
        "title": "P",
        "category": "c",
        "severity": Severity.HIGH,
        "description": "d",
        "maturity": "beta",
    }
    return Policy(name=name, rules=tuple(rules), **{**fields, **more})


def block(readings, start=0, phase=Phase.PROMPT):
    rows = np.asarray(readings, np.float32)
    return TokenBlock(phase, start, tuple(range(100 + start, 100 + start + len(rows))), rows)


def word(token_id):
    return f"<{token_id}>"


def naive_pooled(scores: list[float], pooling: Pooling, hold: int) -> list[float]:
    """What is compared with the threshold after each token, by the definitions and nothing else."""
    pooled = []
    for t in range(len(scores)):
        seen = scores[: t + 1]
        if isinstance(pooling, Max):
            value = seen[-1]
        elif isinstance(pooling, Mean):
            value = sum(seen) / max(len(seen), pooling.min_tokens)
        elif isinstance(pooling, TopKMean):
            value = sum(sorted((max(s, 0.0) for s in seen), reverse=True)[: pooling.k]) / pooling.k
        elif isinstance(pooling, Ema):
            value, rate = 0.0, 1 - 2 ** (-1 / pooling.half_life)
            for s in seen:
                value += rate * (s - value)
        elif isinstance(pooling, Cumulative):
            value = 0.0
            for s in seen:
                value = max(0.0, value + s - pooling.allowance)
        else:
            assert isinstance(pooling, LongestRun)
            value = 0.0
            for s in seen:
                value = value + 1 if s >= pooling.level else 0.0
        pooled.append(value)
    return [min(pooled[t - hold + 1 : t + 1]) if t + 1 >= hold else -np.inf for t in range(len(pooled))]


@pytest.fixture
def some_poolings():
    return [
        Max(),
        Mean(),
        Mean(min_tokens=1),
        TopKMean(),
        TopKMean(k=1),
        TopKMean(k=7),
        Ema(),
        Ema(half_life=0.5),
        LongestRun(level=0.4),
        LongestRun(level=-0.1),
        Cumulative(),
        Cumulative(allowance=0.3),
    ]
