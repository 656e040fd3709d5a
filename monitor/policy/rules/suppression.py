"""Which policies clamp at the moment: from the first token, from a detection on, until the score has been low for long.

What a policy with `hold: N` has left, in tokens, stands in the table of the rules, a column for each holder.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monitor.policy.policy import Policy
from monitor.policy.rules.pooling import Extent
from monitor.policy.rules.program import Holder, Program, merge_clamps
from monitor.policy.rules.step import Bools, Step
from monitor.records import Clamp


def in_force(
    program: Program, policies: Sequence[Policy], left: NDArray[np.float64]
) -> tuple[tuple[Clamp, ...], tuple[str, ...]]:
    """Clamps of the policies that apply to a request, and the names of those that clamp; `left` `[holders]`."""
    acting = [policy for policy in policies if policy.clamps and policy.clamps_always and policy.enforced]
    holding = [holder.policy for holder, tokens in zip(program.holders, left, strict=True) if tokens > 0]
    acting += [policy for policy in holding if any(policy is own for own in policies)]
    return merge_clamps([clamp for p in acting for clamp in p.clamps]), tuple(p.name for p in acting)


def hold(
    program: Program, left: NDArray[np.float64], fired: Bools, taken: Step, watching: Bools, extent: Extent
) -> Bools:
    """Begin, prolong and end clamps after a step: `left` `[lanes, holders]` in place; `[lanes]` where that changed any.

    `fired` `[lanes, rules]` fired in the step, `watching` look at the lane's phase.
    """
    before = left > 0
    for number, holder in enumerate(program.holders):
        if holder.policy.hold is None:
            left[fired[:, holder.rules].any(axis=1), number] = np.inf
        else:
            _walk(program, holder, left[:, number], taken, watching, extent)
    return np.asarray((before != (left > 0)).any(axis=1))


def _walk(
    program: Program, holder: Holder, left: NDArray[np.float64], taken: Step, watching: Bools, extent: Extent
) -> None:
    """Tokens in order. One at the release level prolongs clamps only while they hold."""
    reached, kept = _levels(program, holder, taken, watching)
    most, ends = float(holder.policy.hold or 0), np.broadcast_to(extent.ends(len(reached)), left.shape)
    # Most sequences are far from the level and clamp nothing.
    for lane in np.flatnonzero(reached.any(axis=0) | (left > 0)).tolist():
        now, own = float(left[lane]), slice(0, int(ends[lane]))
        for starts, stays in zip(reached[own, lane].tolist(), kept[own, lane].tolist(), strict=True):
            now = most if starts or (stays and now > 0) else max(now - 1.0, 0.0)
        left[lane] = now


def _levels(program: Program, holder: Holder, taken: Step, watching: Bools) -> tuple[Bools, Bools]:
    """`[tokens, lanes]` each: some rule of the policy is at its threshold, some rule is at its release level."""
    shape = taken.pooled.shape[:2]
    reached, kept = np.zeros(shape, bool), np.zeros(shape, bool)
    for rule in holder.rules.tolist():
        looks = watching[:, rule]
        if program.rules[rule].when is not None:
            assert taken.stands is not None
            stands = taken.stands[..., int(np.searchsorted(program.combined, rule))] & looks
            reached |= stands
            kept |= stands
            continue
        check = int(np.searchsorted(program.simple, rule))
        scores, limit = taken.pooled[..., check], taken.thresholds[..., check]
        reached |= (scores >= limit) & looks
        # Half of a threshold below zero would lie above it.
        kept |= (scores >= np.where(limit > 0, holder.policy.release_below * limit, limit)) & looks
    return reached, kept
