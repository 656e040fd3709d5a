"""How far the sub-conditions of a rule came.

Knows names and numbers. Does not know how conditions are combined.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConditionScore:
    """One named sub-condition of a rule, at the token that fired the rule or over the whole request."""

    name: str
    score: float
    """The pooled score nearest to its threshold, in the condition's own unit; minus infinity where no token counted."""
    threshold: float
    """The threshold that held at that token."""
    reached: bool
