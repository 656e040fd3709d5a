"""Counts of what the demonstration sent and what came back, to be compared with the server's metrics."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from monitor.cli.demo.scrape import MetricScrape, scrape
from monitor.v1 import monitor_pb2 as pb

SETTLE_SECONDS = 5.0
"""Longest time to wait for the counters. The server counts a call when it ends, just after its answer was received."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A counter's expected and actual increase."""

    name: str
    expected: float
    found: float

    @property
    def right(self) -> bool:
        """True where both are the same."""
        return self.expected == self.found


@dataclass(slots=True)
class CallTally:
    """Calls by method, tokens, detections by policy and rule, and verdicts with gaps."""

    calls: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    detections: Counter[tuple[str, str]] = field(default_factory=Counter)
    verdicts: int = 0
    gaps: list[str] = field(default_factory=list)
    """Descriptions of the verdicts that do not cover every token."""

    def called(self, method: str, verdict: pb.Verdict | None = None) -> None:
        """Count a call that ended with OK, and what its verdict contains."""
        self.calls[method] += 1
        if verdict is not None:
            self.verdicts += 1
            self.tokens += verdict.coverage.tokens_scored
            self.gaps += gap(verdict)
            self.detections.update((d.policy, d.rule) for d in verdict.detections)

    def against(self, moved: MetricScrape) -> list[Moved]:
        """Compare the tally with the increase of each counter, and of their sums, which shows unexpected increases."""
        rows = [
            Moved(
                f"requests, {method}",
                count,
                moved.total("sae_monitor_requests_total", method=method, code="OK"),
            )
            for method, count in sorted(self.calls.items())
        ]
        rows.append(Moved("requests, all", self.calls.total(), moved.total("sae_monitor_requests_total")))
        rows.append(Moved("tokens scored", self.tokens, moved.total("sae_monitor_tokens_scored_total")))
        rows.append(Moved("tokens not scored", 0, moved.total("sae_monitor_tokens_unscored_total")))
        for (policy, rule), count in sorted(self.detections.items()):
            found = moved.total("sae_monitor_detections_total", policy=policy, rule=rule)
            rows.append(Moved(f"detections, {policy} / {rule}", count, found))
        every = moved.total("sae_monitor_detections_total")
        rows.append(Moved("detections, all", self.detections.total(), every))
        return rows

    def settled(self, address: str, before: MetricScrape) -> list[Moved]:
        """Scrape until the counters have caught up, for a few seconds at most."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            rows = self.against(scrape(address).since(before))
            if all(row.right for row in rows) or time.monotonic() > deadline:
                return rows
            time.sleep(0.05)


def gap(verdict: pb.Verdict) -> list[str]:
    """A description of a verdict that does not cover every token; empty where it does."""
    coverage = verdict.coverage
    if verdict.status == pb.CHECK_STATUS_CHECKED and coverage.tokens_scored == coverage.tokens_run > 0:
        return []
    status = pb.CheckStatus.Name(verdict.status).removeprefix("CHECK_STATUS_")
    return [f"{status}, {coverage.tokens_scored} of {coverage.tokens_run} tokens"]
