"""The trace that a request belongs to, taken from the caller's W3C trace context (`traceparent`).

It works without OpenTelemetry: the caller's trace id still reaches log lines, decision records and exemplars, and no
spans are made. `otel` makes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Protocol

import structlog

from monitor.telemetry.metrics import labels

Attribute = str | bool | int | float | Sequence[str]
"""What a span or an event may say. Never a prompt or an output."""

# https://www.w3.org/TR/trace-context/#traceparent-header; a later version may carry more fields.
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


class Trace:
    """One request as tracing sees it. This base remembers a trace id and nothing else."""

    def __init__(self, trace_id: str = "") -> None:
        self.trace_id = trace_id
        """32 hexadecimal digits; empty where neither the caller nor this server traces."""

    def describe(self, name: str, attributes: Mapping[str, Attribute]) -> None:
        """Name the request's span and add to what it says."""

    def phase(self, name: str, start: int, end: int, attributes: Mapping[str, Attribute]) -> None:
        """A part of the request, as a span of its own. Times in nanoseconds since 1970."""

    def event(self, name: str, at: int, attributes: Mapping[str, Attribute]) -> None:
        """Something that happened in it. Time in nanoseconds since 1970."""

    def end(self, code: str) -> None:
        """The request ended with this gRPC status."""


class Tracing(Protocol):
    """Begins traces of requests; `spans.SpanTracing` exports them."""

    def begin(self, method: str, metadata: Mapping[str, str]) -> Trace:
        """The trace of a call that arrived with these headers."""

    def close(self, seconds: float) -> None:
        """Send what waits to be sent, for so long at most."""


class CallerTracing:
    """Traces nothing; passes the caller's trace id on."""

    def begin(self, method: str, metadata: Mapping[str, str]) -> Trace:
        """A trace that only has an id."""
        return Trace(trace_id_of(metadata.get("traceparent", "")))

    def close(self, seconds: float) -> None:
        """Nothing to send."""


def trace_id_of(traceparent: str) -> str:
    """The trace id in a `traceparent` header; empty where it is none, or all zero."""
    match = _PARENT.fullmatch(traceparent)
    if match is None or not match["trace"].strip("0") or not match["span"].strip("0"):
        return ""
    return match["trace"]


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def enter(trace: Trace) -> None:
    """Make this the trace of the task that runs now: of its log lines and exemplars too."""
    _current.set(trace)
    labels.trace_id.set(trace.trace_id)
    if trace.trace_id:
        structlog.contextvars.bind_contextvars(trace_id=trace.trace_id)


def current_trace() -> Trace:
    """The trace of the request that this task serves; one that does nothing outside of any."""
    return _current.get() or Trace()
