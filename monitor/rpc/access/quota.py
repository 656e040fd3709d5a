"""Quotas of callers: limits on the calls and tokens that each has in progress. Used on the event loop only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from monitor.errors import BadRequest, Overloaded, Violation
from monitor.rpc.access.roles import Caller
from monitor.telemetry.metrics.metrics import Metrics


class CallerQuotas:
    """Counts calls and tokens in progress by caller. Unnamed callers have only the server's own limits."""

    def __init__(self, calls: int, tokens: int | None, retry_after: float, metrics: Metrics) -> None:
        self._most_calls, self._most_tokens = calls, tokens
        self._retry_after, self._metrics = retry_after, metrics
        self._calls: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()

    @contextmanager
    def call(self, caller: Caller) -> Iterator[Charge]:
        """Count one call of a caller for the duration of the block. Raises Overloaded where it has too many."""
        limit = caller.calls or self._most_calls
        if caller.name and self._calls[caller.name] >= limit:
            self._metrics.rejected("caller_calls")
            raise Overloaded(f"this caller has {limit} calls in progress; try again", self._retry_after)
        self._calls[caller.name] += 1
        charge = Charge(self, caller)
        try:
            yield charge
        finally:
            self._calls[caller.name] -= 1
            self._tokens[caller.name] -= charge.tokens
            if not self._calls[caller.name]:
                # Names disappear when the callers file changes, so none is kept without calls.
                del self._calls[caller.name], self._tokens[caller.name]

    def take(self, caller: Caller, tokens: int) -> None:
        """Count more tokens of a caller.

        Raises Overloaded where its quota is in use, and BadRequest where the quota could never allow so many.
        """
        limit = caller.tokens or self._most_tokens
        if caller.name and limit is not None:
            if tokens > limit:
                raise BadRequest(
                    Violation("request", f"needs {tokens} tokens; this caller may have {limit} in progress")
                )
            if self._tokens[caller.name] + tokens > limit:
                self._metrics.rejected("caller_tokens")
                raise Overloaded(f"this caller has {limit} tokens in progress; try again", self._retry_after)
        self._tokens[caller.name] += tokens


class Charge:
    """The tokens that one call has charged to its caller; they are released when the call ends."""

    def __init__(self, allowances: CallerQuotas, caller: Caller) -> None:
        self._allowances, self._caller = allowances, caller
        self.tokens = 0

    def take(self, tokens: int) -> None:
        """Charge tokens of the prompt, or of the longest possible answer. Raises as `CallerQuotas.take`."""
        self._allowances.take(self._caller, tokens)
        self.tokens += tokens
