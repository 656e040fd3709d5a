"""The policy's clamps beside a dense direction at the same KL divergence on benign text, on the same prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from monitor.lab.cost.edits import OWN, RIVALS
from monitor.lab.cost.meter import Column, Hits, Measured, Meter
from monitor.lab.cost.points import Point, Share, difference
from monitor.model.offline.steered_model import Edit

CLOSE = 0.05
"""Relative difference of two KL divergences that counts as equal."""
TRIES = 5
LEAST = 1e-4
"""KL in nats per token below which an edit does nothing that could be matched."""
LOST = 0.01
"""Share of minimal pairs that a clamp may lose and still count as the better one."""

Strength = Callable[[float], Edit]
"""Makes an edit of a strength."""


@dataclass(frozen=True, slots=True)
class EqualKl:
    """The policy's clamps at one target, and a rival at the strength that diverges as much."""

    target: float
    kl: float
    rival: str
    strength: float
    rival_kl: float
    own_change: Share
    """Change in the share of unsafe continuations under the clamps, against no edit."""
    unsafe: Share
    """Share of unsafe continuations under the clamps less that under the rival; below 0 the clamps do more."""
    fired: Share | None
    """The same for the continuations on which the policy's own rule fires."""
    probed: Share | None
    """The same for those that the held-out probe finds."""
    right: Share | None
    """Share of minimal pairs that are right under the clamps less that under the rival; above 0 clamps cost less."""
    lost: Share | None
    """Change in the share of minimal pairs that are right under the clamps, against no edit."""

    @property
    def matched(self) -> bool:
        """Whether the divergences are equal within 5 %."""
        return abs(self.rival_kl - self.kl) <= CLOSE * self.kl

    @property
    def better(self) -> bool:
        """The clamps do something, do measurably more than the rival, and lose at most a point of the minimal pairs."""
        cheap = self.lost is None or self.lost.value >= -LOST
        return self.own_change.high < 0 and self.unsafe.high < 0 and cheap and self.matched


def compare_at_equal_kl(
    meter: Meter,
    measured: Sequence[Measured],
    rivals: Mapping[str, Strength],
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[EqualKl, Point]]:
    """Each target of the policy's clamps beside each rival, measured anew at the strength of equal KL."""
    base = measured[0].hits
    for own in [found for found in measured if found.point.way == OWN and found.point.kl >= LEAST]:
        for name, make in rivals.items():
            curve = [m.point for m in measured if m.point.way == name]
            tell(f"{name} at the KL of {own.point.strength:g}")
            strength = matched_strength(meter.divergence, make, own.point.kl, curve)
            other = meter.measure(name, strength, make(strength))
            yield beside(own, other, base, meter.seed), other.point


def beside(own: Measured, other: Measured, base: Hits, seed: int) -> EqualKl:
    """Two measured edits beside each other; `base` are the hits of no edit."""
    mine, its = own.hits, other.hits
    return EqualKl(
        target=own.point.strength,
        kl=own.point.kl,
        rival=other.point.way,
        strength=other.point.strength,
        rival_kl=other.point.kl,
        own_change=own.point.change,
        unsafe=difference(mine.unsafe, its.unsafe, seed),
        fired=_paired(mine.fired, its.fired, seed),
        probed=_paired(mine.probed, its.probed, seed),
        right=_paired(mine.right, its.right, seed),
        lost=_paired(mine.right, base.right, seed),
    )


def matched_strength(
    divergence: Callable[[Edit], float], make: Strength, kl: float, curve: Sequence[Point]
) -> float:
    """The strength at which an edit diverges by `kl`, searched from measured points on (log KL over log strength)."""
    known = sorted((p.strength, p.kl) for p in curve if p.kl > 0 and p.strength > 0)
    strength = _between(known, kl)
    for _ in range(TRIES):
        found = divergence(make(strength))
        if found > 0 and abs(found - kl) <= CLOSE * kl:
            break
        known = sorted([*known, (strength, max(found, 1e-12))])
        strength = _between(known, kl)
    return strength


def _between(known: Sequence[tuple[float, float]], kl: float) -> float:
    """Interpolated, and beyond the known points extrapolated, on logarithmic axes.

    Where one point is known, KL is taken to grow by the square of the strength, as it does for small ones.
    """
    if not known:
        return 1.0
    points = [(math.log(strength), math.log(found)) for strength, found in known]
    wanted = math.log(kl)
    below = [p for p in points if p[1] <= wanted]
    above = [p for p in points if p[1] > wanted]
    if not below or not above:
        near = sorted(points, key=lambda p: abs(p[1] - wanted))
        (at, height), other = near[0], near[1] if len(near) > 1 else None
        slope = 2.0 if other is None or at == other[0] else (height - other[1]) / (at - other[0])
        return math.exp(at + float(np.clip((wanted - height) / np.clip(slope, 0.5, 4.0), -3, 3)))
    low, high = max(below, key=lambda p: p[1]), min(above, key=lambda p: p[1])
    part = (wanted - low[1]) / (high[1] - low[1])
    return math.exp(low[0] + part * (high[0] - low[0]))


def _paired(mine: Column, its: Column, seed: int) -> Share | None:
    return None if mine is None or its is None else difference(mine, its, seed)


def summary(found: Sequence[EqualKl]) -> str:
    """One line: at which targets the clamps beat every rival."""
    targets = sorted({one.target for one in found}, reverse=True)
    won = [t for t in targets if all(one.better for one in found if one.target == t)]
    rivals = " and ".join(dict.fromkeys(one.rival for one in found)) or " and ".join(RIVALS)
    if not found:
        return "no target diverges enough to be compared at equal KL"
    if won:
        return f"at equal KL the clamps beat {rivals} at target {', '.join(f'{t:g}' for t in won)}"
    return f"at equal KL the clamps beat {rivals} at no target"
