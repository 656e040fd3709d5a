"""What each caller has in progress, and whether it may have more.

Lives on the event loop. Knows callers by name. Does not know who may do what, nor what a call does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from monitor.errors import BadRequest, Overloaded, Violation
from monitor.rpc.access.roles import Caller
from monitor.telemetry.metrics.metrics import Metrics


class CallerQuotas:
    """Counts calls and tokens of callers with a name; those without one share the server's own limits."""

    def __init__(self, calls: int, tokens: int | None, retry_after: float, metrics: Metrics) -> None:
        self._most_calls, self._most_tokens = calls, tokens
        self._retry_after, self._metrics = retry_after, metrics
        self._calls: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()

    @contextmanager
    def call(self, caller: Caller) -> Iterator[Charge]:
        """One more call of a caller, with nothing charged yet. Raises Overloaded where it has too many."""
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
                # Names come and go with the file; none is kept for nothing.
                del self._calls[caller.name], self._tokens[caller.name]

    def take(self, caller: Caller, tokens: int) -> None:
        """More tokens of a caller. Raises Overloaded, or BadRequest where they could never be had."""
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
    """The tokens of one call; given back when the call ends."""

    def __init__(self, allowances: CallerQuotas, caller: Caller) -> None:
        self._allowances, self._caller = allowances, caller
        self.tokens = 0

    def take(self, tokens: int) -> None:
        """Prompt and answer as long as it may become. Raises Overloaded, or BadRequest where it never fits."""
        self._allowances.take(self._caller, tokens)
        self.tokens += tokens
