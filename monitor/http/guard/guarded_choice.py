"""A choice of the upstream server's answer, on its way through the guard."""

from __future__ import annotations

from monitor.http.guard.log_probabilities import HeldLogProbabilities
from monitor.records import FinishReason
from monitor.rpc.watched_answer import More, OpenedWatch, WatchedAnswer
from monitor.rpc.watches import WatchEnding

_REASONS = {"length": FinishReason.LENGTH, "content_filter": FinishReason.POLICY}
"""Reasons for which upstream servers end a choice; all others are an end of its own."""


class GuardedChoice(WatchedAnswer):
    """An answer that the upstream server writes."""

    def __init__(self, opened: OpenedWatch, more: More) -> None:
        super().__init__(opened, more)
        self.finish: str | None = None
        """Why the upstream server ended it; None while it goes on."""
        self.log_probabilities = HeldLogProbabilities()

    async def conclude(self, reason: FinishReason | None = None) -> WatchEnding:
        """As of every answer; without a reason, for the one that the upstream server gave."""
        return await super().conclude(reason or _REASONS.get(self.finish or "", FinishReason.STOP))
