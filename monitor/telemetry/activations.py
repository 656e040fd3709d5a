"""Histograms of the watched features' readings, cheap enough for every token.

A step of the engine hands over one small block per request; blocks wait, and are counted together once there are
many of them or somebody scrapes. Does not know policies beyond the names it is given as labels.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from monitor.records import Phase, Readings, TokenBlock, WatchPlan
from monitor.telemetry.activations_shown import BOUNDS, Counts, Shown

_PENDING_TOKENS = 4096
_PENDING_BLOCKS = 1024
_BUCKETS = len(BOUNDS) + 1


class ActivationLedger:
    """Counts of every watched feature, kept over changes of the policies. Any thread.

    A feature that is watched before and after a change keeps its counts; one that no policy watches any more is
    dropped. Tokens per phase are kept for good.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[WatchPlan, TokenBlock]] = deque()
        self._waiting = 0
        self._lock = threading.Lock()
        self._tokens = dict.fromkeys(Phase, 0)
        self._adopt(WatchPlan(()))

    def watch(self, plan: WatchPlan) -> ActivationMeter:
        """Count these features from now on; gives the meter for requests that begin on this plan."""
        with self._lock:
            self._count()
            self._adopt(plan)
        return ActivationMeter(self, plan)

    def observe(self, plan: WatchPlan, block: TokenBlock) -> None:
        """Take a block of readings in the columns of `plan`; it must not be written to again."""
        self._pending.append((plan, block))
        # Two threads may lose a count here; it only delays the counting.
        self._waiting += len(block.token_ids)
        if self._waiting >= _PENDING_TOKENS or len(self._pending) >= _PENDING_BLOCKS:
            with self._lock:
                self._count()

    def counts(self) -> tuple[dict[Phase, int], Mapping[int, Counts]]:
        """Tokens per phase, and every feature's counts so far."""
        with self._lock:
            self._count()
            cumulated = self._counts.cumsum(axis=1)
            features = {
                feature: Counts(cumulated[row], float(self._sums[row]), float(self._maxima[row]))
                for feature, row in self._rows.items()
            }
            return dict(self._tokens), features

    def _adopt(self, plan: WatchPlan) -> None:
        """One row for each feature of the plan, with what it had before."""
        old = getattr(self, "_rows", {})
        width = len(plan.features)
        counts = np.zeros((width, _BUCKETS), dtype=np.int64)
        sums, maxima = np.zeros(width), np.zeros(width)
        for row, feature in enumerate(plan.features):
            if feature in old:
                was = old[feature]
                counts[row], sums[row], maxima[row] = self._counts[was], self._sums[was], self._maxima[was]
        self._plan = plan
        self._rows = {feature: row for row, feature in enumerate(plan.features)}
        self._counts: NDArray[np.int64] = counts
        self._sums: NDArray[np.float64] = sums
        self._maxima: NDArray[np.float64] = maxima

    def _count(self) -> None:
        """Move what waits into the histograms. The lock is held."""
        self._waiting = 0
        taken = [self._pending.popleft() for _ in range(len(self._pending))]
        groups: dict[int, tuple[WatchPlan, list[TokenBlock]]] = {}
        for plan, block in taken:
            self._tokens[block.phase] += len(block.token_ids)
            groups.setdefault(id(plan), (plan, []))[1].append(block)
        for plan, blocks in groups.values():
            # Position 0 is an attention sink with huge readings; rules pass over it too.
            rows = [block.readings[1:] if block.start == 0 else block.readings for block in blocks]
            self._add(self._aligned(plan, np.concatenate(rows)))

    def _aligned(self, plan: WatchPlan, values: Readings) -> tuple[Readings, NDArray[np.intp]]:
        """The columns of `plan` that still have a row, and which row; NaN anywhere in a token drops the token.

        Probes and signals stand behind the features and are not counted.
        """
        values = values[np.isfinite(values).all(axis=1)]
        if plan is self._plan:
            return values[:, : len(plan.features)], np.arange(len(plan.features))
        kept = [column for column, feature in enumerate(plan.features) if feature in self._rows]
        rows = np.asarray([self._rows[plan.features[column]] for column in kept], dtype=np.intp)
        return values[:, kept], rows

    def _add(self, aligned: tuple[Readings, NDArray[np.intp]]) -> None:
        """Count `[tokens, columns]` readings into the columns' rows, each of which occurs once."""
        values, rows = aligned
        _, columns = active = np.nonzero(values)
        found, width = values[active], values.shape[1]
        slots = columns * _BUCKETS + np.searchsorted(_EDGES, found, side="left")
        counts = np.bincount(slots, minlength=width * _BUCKETS).reshape(width, _BUCKETS)
        counts[:, 0] += len(values) - np.bincount(columns, minlength=width)
        self._counts[rows] += counts
        self._sums[rows] += np.bincount(columns, weights=found, minlength=width)
        if len(values):
            self._maxima[rows] = np.maximum(self._maxima[rows], values.max(axis=0))


_EDGES = np.asarray(BOUNDS, dtype=np.float32)


class ActivationMeter:
    """Where the readings of requests on one policy set go. `observe` may be called from any thread."""

    def __init__(self, ledger: ActivationLedger, plan: WatchPlan) -> None:
        self._ledger = ledger
        self._plan = plan

    def observe(self, block: TokenBlock) -> None:
        """Take a scored block. Of tokens with a reading that is not a number only their phase is counted."""
        self._ledger.observe(self._plan, block)


def shown(watched: Mapping[str, Sequence[int]], limit: int) -> list[Shown]:
    """Which features get a label set of their own, at most `limit` of them, and which share their policy's `other`.

    Policies take turns, each with the features that weigh most in it first, so that a wide one starves no other.
    """
    turns = max((len(features) for features in watched.values()), default=0)
    order = [
        (policy, features[turn])
        for turn in range(turns)
        for policy, features in watched.items()
        if turn < len(features)
    ]
    own = set(order[:limit])
    return [
        Shown(
            policy,
            tuple(feature for feature in features if (policy, feature) in own),
            tuple(feature for feature in features if (policy, feature) not in own),
        )
        for policy, features in watched.items()
    ]


def features_of(chosen: Iterable[Shown]) -> set[int]:
    """Every feature that has a label set of its own."""
    return {feature for policy in chosen for feature in policy.own}
