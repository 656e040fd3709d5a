"""Sub-conditions of rules as messages.

Knows records and messages. Does not know how conditions are evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable

from monitor.policy.policy import Rule
from monitor.policy.schema.expression import names_in
from monitor.records import ConditionScore
from monitor.v1 import monitor_pb2 as pb


def scores(records: Iterable[ConditionScore]) -> list[pb.ConditionScore]:
    """How far sub-conditions came."""
    return [
        pb.ConditionScore(
            name=found.name, score=found.score, threshold=found.threshold, reached=found.reached
        )
        for found in records
    ]


def named(rule: Rule) -> list[str]:
    """The conditions that a rule names, each once, in the order of writing."""
    return [] if rule.when is None else list(dict.fromkeys(name for name, _ in names_in(rule.when)))
