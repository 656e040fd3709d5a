"""The `suppress:` section of a policy file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from monitor.policy.schema.base import FeatureIndex, FieldCheck, Strict, refuse
from monitor.policy.schema.check import once
from monitor.records import ErrorTerm, Where


class Suppress(Strict):
    """Which features are clamped, and how, so that the model is pushed away from what they stand for."""

    features: Annotated[list[FeatureIndex], Field(min_length=1)] | None = None
    """Indices of the features to clamp. Left out, they are those that `policy fit` chose by their causal effect."""
    target: Annotated[float, Field(ge=-20, le=0)]
    """What the features are set to, in units of each feature's recorded maximum. Negative values push below zero."""
    when: Literal["always", "detected"] = "detected"
    """`detected` clamps once an enforced rule with `action: suppress` has fired; `always`, from the first token on."""
    where: Annotated[Where, Field(strict=False)] = Where.ACTIVE
    """`active` clamps a feature at the tokens where it is active; `everywhere` clamps it at every token."""
    error_term: Annotated[ErrorTerm, Field(strict=False)] = ErrorTerm.KEEP
    """What happens to the part of the residual that the dictionary does not explain. `keep` keeps it. `drop` replaces
    the residual of edited tokens by the edited reconstruction: this is stronger, but needs the whole dictionary in
    memory and an encode and decode of each of those tokens."""
    hold: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """For how many tokens the clamps stay after the score was last at or above the release level. Left out, they stay
    to the end of the request."""
    release_below: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The release level, as a share of the rule's threshold. Needs `hold`; below 1 it keeps clamps from flickering."""

    def checks(self) -> Iterable[FieldCheck]:
        """`hold` needs `when: detected`, `release_below` needs `hold`, and no feature stands twice."""
        yield from (self._starts, self._release)
        yield from once(self.features, ["features"])

    def _starts(self) -> None:
        if self.when == "always" and self.hold is not None:
            raise refuse(["hold"], "`hold` goes with `when: detected`; clamps of `always` never start")

    def _release(self) -> None:
        if self.hold is None and self.release_below != 1.0:
            raise refuse(["release_below"], "`release_below` needs `hold: TOKENS`")
