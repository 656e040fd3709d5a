"""The trace of the current request, taken from the W3C trace context in its caller's headers (`traceparent`).

Works without OpenTelemetry: then the caller's trace id still reaches log lines, decision records and exemplars, and no
spans are exported. `monitor.telemetry.tracing.otel` exports them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Protocol

import structlog

from monitor.telemetry.metrics import labels

Attribute = str | bool | int | float | Sequence[str]
"""Value of an attribute of a span or an event. Never a prompt or an output."""

# https://www.w3.org/TR/trace-context/#traceparent-header; a later version may carry more fields.
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


class Trace:
    """The trace of one request. This base class holds the trace id; its other methods do nothing."""

    def __init__(self, trace_id: str = "") -> None:
        self.trace_id = trace_id
        """32 hexadecimal digits; empty where neither the caller nor this server traces."""

    def describe(self, name: str, attributes: Mapping[str, Attribute]) -> None:
        """Set the name of the request's span and add attributes to it."""

    def add(self, attributes: Mapping[str, Attribute]) -> None:
        """Add attributes to the request's span."""

    def phase(self, name: str, start: int, end: int, attributes: Mapping[str, Attribute]) -> None:
        """Add a child span for a phase of the request. Times are in nanoseconds since 1970."""

    def event(self, name: str, at: int, attributes: Mapping[str, Attribute]) -> None:
        """Add an event to the request's span. The time is in nanoseconds since 1970."""

    def end(self, code: str) -> None:
        """End the request's span with the name of a gRPC status."""


class Tracing(Protocol):
    """Begins the traces of requests. Implemented by `CallerTracing` and, with OpenTelemetry, by `otel.SpanTracing`."""

    def begin(self, method: str, metadata: Mapping[str, str]) -> Trace:
        """Begin the trace of a call that arrived with these headers."""

    def close(self, seconds: float) -> None:
        """Send the spans that wait, for at most `seconds`."""


class CallerTracing:
    """Exports no spans; only takes over the trace id of the caller."""

    def begin(self, method: str, metadata: Mapping[str, str]) -> Trace:
        """A trace that holds the caller's trace id and exports nothing."""
        return Trace(trace_id_of(metadata.get("traceparent", "")))

    def close(self, seconds: float) -> None:
        """Do nothing: there are no spans to send."""


def trace_id_of(traceparent: str) -> str:
    """The trace id in a `traceparent` header; empty where the header is malformed or an id in it is all zeros."""
    match = _PARENT.fullmatch(traceparent)
    if match is None or not match["trace"].strip("0") or not match["span"].strip("0"):
        return ""
    return match["trace"]


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def enter(trace: Trace) -> None:
    """Make this the trace of the current task, and add its id to the task's log lines and exemplars."""
    _current.set(trace)
    labels.trace_id.set(trace.trace_id)
    if trace.trace_id:
        structlog.contextvars.bind_contextvars(trace_id=trace.trace_id)


def current_trace() -> Trace:
    """The trace of the request that the current task serves; outside of a request one that does nothing."""
    return _current.get() or Trace()
