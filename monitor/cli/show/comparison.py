"""Compare the generations of one prompt without and with clamps: how far the clamped features fell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from monitor.cli.show.strength import left
from monitor.v1 import monitor_pb2 as pb

TOLERANCE = 0.05
"""How far a clamped feature may read above its target, in units of its maximum. Encoding the clamped residual again
seldom gives exactly the target."""


@dataclass(frozen=True, slots=True)
class Fall:
    """Readings of one clamped feature in units of its maximum, without and with clamps, except at the first token."""

    clamp: pb.Clamp
    before: float
    """Its highest reading without clamps."""
    clamped: float
    """Its highest reading after the clamps, on tokens where it was clamped."""
    elsewhere: float
    """Its highest reading after the clamps on all other tokens: other clamps, or the changed text, can activate it."""

    @property
    def held(self) -> bool:
        """True where it reads at most its target, or 0 for negative targets, as no feature reads below 0."""
        return self.clamped <= max(0.0, self.clamp.target) + TOLERANCE


@dataclass(frozen=True, slots=True)
class ClampComparison:
    """The answers without and with clamps, and those clamps."""

    clamps: tuple[pb.Clamp, ...]
    plain: pb.GenerateResponse
    clamped: pb.GenerateResponse

    @property
    def falls(self) -> list[Fall]:
        """The readings for every clamp, in descending order of the readings without clamps."""
        return sorted(map(self._fall, self.clamps), key=lambda fall: fall.before, reverse=True)

    @property
    def per_token(self) -> tuple[float, float]:
        """Sum of the clamped features' readings, as a mean per token: without clamps, and with them."""
        features = {clamp.feature for clamp in self.clamps}
        return _per_token(self.plain, features), _per_token(self.clamped, features)

    def _fall(self, clamp: pb.Clamp) -> Fall:
        readings = list(_readings(self.clamped, {clamp.feature}))
        applied = [left(r) for r in readings if _applies(clamp, r)]
        other = [left(r) for r in readings if not _applies(clamp, r)]
        before = [left(r) for r in _readings(self.plain, {clamp.feature})]
        return Fall(clamp, max(before, default=0.0), max(applied, default=0.0), max(other, default=0.0))


def edited(answer: pb.GenerateResponse) -> int:
    """Number of tokens that a clamp edited."""
    return sum(any(r.HasField("value_after_clamp") for r in token.readings) for token in answer.tokens)


def _applies(clamp: pb.Clamp, reading: pb.Reading) -> bool:
    """Whether the clamp edits this token: everywhere, or where the feature was active before."""
    amplified = clamp.where == pb.CLAMP_WHERE_UNSPECIFIED and clamp.target > 0
    return amplified or clamp.where == pb.CLAMP_WHERE_EVERYWHERE or reading.value > 0


def _readings(answer: pb.GenerateResponse, features: Iterable[int]) -> Iterator[pb.Reading]:
    for token in answer.tokens:
        if token.position > 0:
            yield from (r for r in token.readings if r.feature in features)


def _per_token(answer: pb.GenerateResponse, features: Iterable[int]) -> float:
    return sum(map(left, _readings(answer, features))) / max(1, len(answer.tokens) - 1)
