"""Which target to write into a policy, and why: read off the measured points, or none where they support none."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from monitor.lab.cost.edits import DENSE, DETECTORS, DROPPED, NOTHING, OWN, PROJECTED
from monitor.lab.cost.points import Point


@dataclass(frozen=True)
class Advice:
    """What to write into `suppress:`."""

    target: float | None
    """None where no target within the budget does anything that the measurement can see."""
    drop: bool
    """Whether to drop the error term as well."""
    reasons: tuple[str, ...]


def advise(points: Sequence[Point], budget: float) -> Advice:
    """The strongest measurable effect within a rise of benign perplexity of `budget` (0.02 is 2 %)."""
    before = next(point for point in points if point.way == NOTHING)
    within = [p for p in points if p.way in (OWN, DROPPED) and p.damage <= budget]
    effective = [p for p in within if p.change.high < 0]
    if not effective:
        return Advice(None, False, tuple(_nothing(points, before, budget)))
    best = min(effective, key=lambda p: (p.change.value, p.damage))
    # What costs less and cannot be told from the best is as good.
    chosen = min((p for p in effective if p.change.value <= best.change.high), key=lambda p: p.kl)
    reasons = [
        f"the unsafe share falls from {before.unsafe.value:.0%} to {chosen.unsafe.value:.0%} ({_change(chosen)})",
        f"benign perplexity rises by {chosen.damage:.1%}, KL {chosen.kl:.3f} nats per token",
        *_beside(points, chosen),
        *_later(before, chosen),
    ]
    return Advice(chosen.strength, chosen.way == DROPPED, tuple(reasons))


def at_damage(points: Sequence[Point], way: str, damage: float) -> float | None:
    """The unsafe share that a way reaches at a damage (KL), between its measured points; None beyond them."""
    origin = [p for p in points if p.way == NOTHING]
    curve = sorted((p.kl, p.unsafe.value) for p in [*origin, *(p for p in points if p.way == way)])
    for (left, high), (right, low) in itertools.pairwise(curve):
        if left <= damage <= right:
            part = 0.0 if right == left else (damage - left) / (right - left)
            return high + part * (low - high)
    return None


def _beside(points: Sequence[Point], chosen: Point) -> list[str]:
    found = []
    for way in (DENSE, PROJECTED, DETECTORS):
        other = at_damage(points, way, chosen.kl)
        if other is None:
            found.append(f"{way} was not measured at that KL")
            continue
        gap = chosen.unsafe.value - other
        verdict = "as far" if abs(gap) < 0.01 else ("less far" if gap < 0 else "further")
        found.append(f"at equal KL, {way} falls {verdict}: to {other:.0%}")
    return found


def _later(before: Point, chosen: Point) -> list[str]:
    if chosen.later_share is None or before.later_share is None:
        return []
    fell = f"{before.later_share:.0%} to {chosen.later_share:.0%}"
    kept = chosen.later_share > before.later_share / 2
    return [f"the later probe still fires: {fell}" if kept else f"the later probe falls from {fell}"]


def _nothing(points: Sequence[Point], before: Point, budget: float) -> list[str]:
    reasons = [
        f"no target within {budget:.0%} of benign perplexity changes the unsafe share ({before.unsafe.value:.0%} "
        f"before) by more than chance on {before.unsafe.trials} prompts: do not rely on this suppression"
    ]
    beyond = [p for p in points if p.way in (OWN, DROPPED) and p.change.high < 0]
    if beyond:
        least = min(beyond, key=lambda p: p.damage)
        reasons.append(
            f"the cheapest that does anything costs {least.damage:.1%}: {least.way} at {least.strength:g} falls to "
            f"{least.unsafe.value:.0%} ({_change(least)})"
        )
        reasons += _beside(points, least)
    dense = [p for p in points if p.way == DENSE and p.damage <= budget and p.change.high < 0]
    if dense:
        found = min(dense, key=lambda p: p.change.value)
        reasons.append(f"{DENSE} × {found.strength:g} does within the same budget: {_change(found)}")
    return reasons


def _change(point: Point) -> str:
    change = point.change
    return f"{100 * change.value:+.0f} points, 95 % {100 * change.low:+.0f} to {100 * change.high:+.0f}"
