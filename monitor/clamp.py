"""Clamps: which feature is set to which value, on which tokens, and what becomes of the rest of the residual.

Knows the words only. Does not know who asks for a clamp or how one is applied. Imports nothing of this project.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Where(enum.StrEnum):
    """Which tokens a clamp edits: those on which the feature is active, or all; never a sequence's first."""

    ACTIVE = "active"
    EVERYWHERE = "everywhere"


class ErrorTerm(enum.StrEnum):
    """What becomes of the part of the residual that the dictionary does not explain, on tokens that are edited.

    `keep` adds it back (x' = x + Σ (c_i − a_i) · W_dec[i]). `drop` leaves it out (x' = decode(edited a)): stronger,
    because part of a suppressed behaviour can hide there, and dearer, because it needs the whole dictionary.
    """

    KEEP = "keep"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Clamp:
    """Set one feature's activation to a value at the tapped layer, on prompt and response tokens alike."""

    feature: int
    target: float
    """In units of the feature's recorded maximum; negative suppresses below zero, positive amplifies."""
    where: Where = Where.ACTIVE
    error_term: ErrorTerm = ErrorTerm.KEEP

    def strengthened(self, other: Clamp | None) -> Clamp:
        """This clamp and another of the same feature as one: the lower target, everywhere if either says so,
        without the error term if either says so.
        """
        if other is None:
            return self
        where = Where.EVERYWHERE if Where.EVERYWHERE in (self.where, other.where) else Where.ACTIVE
        drop = ErrorTerm.DROP in (self.error_term, other.error_term)
        error_term = ErrorTerm.DROP if drop else ErrorTerm.KEEP
        return Clamp(self.feature, min(self.target, other.target), where, error_term)


class CallerClamps(enum.StrEnum):
    """Which clamps the operator allows in requests. Those of policies can only ever be strengthened."""

    NONE = "none"
    SUPPRESS = "suppress"
    """Targets of 0 and below."""
    ANY = "any"
    """Amplifying as well: a caller can then make the model say what the policies were not measured on."""
