"""The shape of `suppress:` in a policy file.

Knows its fields and which of them exclude each other. Does not know rules: `schema` checks the two together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from monitor.policy.schema.base import Check, FeatureIndex, Strict, refuse
from monitor.policy.schema.check import once
from monitor.records import ErrorTerm, Where


class Suppress(Strict):
    """Clamp features, so that the model is pushed away from what they stand for."""

    features: Annotated[list[FeatureIndex], Field(min_length=1)] | None = None
    """Pinned by index; left out, the lock's, which are chosen by causal effect."""
    target: Annotated[float, Field(ge=-20, le=0)]
    """In units of each feature's maximum; negative pushes below zero."""
    when: Literal["always", "detected"] = "detected"
    """`detected`: after an enforced rule with action `suppress` has fired."""
    where: Annotated[Where, Field(strict=False)] = Where.ACTIVE
    error_term: Annotated[ErrorTerm, Field(strict=False)] = ErrorTerm.KEEP
    """`drop` replaces the residual of edited tokens by the edited reconstruction: stronger, and it needs the whole
    dictionary in memory and a full encode and decode of those tokens."""
    hold: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Tokens for which the clamps stay after the score was last at or above the release level. Left out, they stay
    to the end of the request."""
    release_below: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The release level, as a share of the rule's threshold; with `hold`."""

    def checks(self) -> Iterable[Check]:
        """What goes with which `when` and with `hold`; no feature stands twice."""
        yield from (self._starts, self._release)
        yield from once(self.features, ["features"])

    def _starts(self) -> None:
        if self.when == "always" and self.hold is not None:
            raise refuse(["hold"], "`hold` goes with `when: detected`; clamps of `always` never start")

    def _release(self) -> None:
        if self.hold is None and self.release_below != 1.0:
            raise refuse(["release_below"], "`release_below` needs `hold: TOKENS`")
