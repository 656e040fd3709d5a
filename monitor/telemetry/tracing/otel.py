"""Export of spans with OpenTelemetry over OTLP. No other module imports OpenTelemetry, which is an optional package.

Names, times and attributes come from the callers of `Trace.describe`, `phase` and `event`. Child spans are created when
their request ends, with the times that were recorded before.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from monitor import __version__
from monitor.errors import ConfigurationError
from monitor.telemetry.tracing.context import Attribute, Trace

SERVICE = "sae-monitor"
_RPC = "monitor.v1.MonitorService"
_SEND_SECONDS = 5.0
_FAULTS = frozenset({"INTERNAL", "UNAVAILABLE", "UNKNOWN", "DATA_LOSS", "UNIMPLEMENTED", "DEADLINE_EXCEEDED"})
"""Statuses that OpenTelemetry's conventions count as errors of the server. Other errors are the caller's."""


# https://www.w3.org/TR/trace-context/#tracestate-header
_MEMBER = re.compile(
    r"([a-z][_0-9a-z*/-]{0,255}|[a-z0-9][_0-9a-z*/-]{0,240}@[a-z][_0-9a-z*/-]{0,13})=[!-+\--<>-~]{1,256}"
)
_LONGEST_STATE = 512
_MOST_MEMBERS = 32


def _well_formed(metadata: Mapping[str, str]) -> dict[str, str]:
    """The headers, without a malformed `tracestate`: the SDK would log a warning that quotes what the caller sent."""
    state = metadata.get("tracestate", "")
    members = [member.strip(" \t") for member in state.split(",")]
    keys = {match[1] for member in members if (match := _MEMBER.fullmatch(member))}
    kept = len(keys) == len(members) <= _MOST_MEMBERS and len(state) <= _LONGEST_STATE
    return {name: value for name, value in metadata.items() if name != "tracestate" or kept}


class SpanTrace(Trace):
    """A request's span, open until `end`, and its children."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        super().__init__(format_trace_id(span.get_span_context().trace_id))
        self._tracer, self._span = tracer, span

    def describe(self, name: str, attributes: Mapping[str, Attribute]) -> None:
        """Set the name of the span and add attributes to it."""
        self._span.update_name(name)
        self._span.set_attributes(dict(attributes))

    def add(self, attributes: Mapping[str, Attribute]) -> None:
        """Add attributes to the span."""
        self._span.set_attributes(dict(attributes))

    def phase(self, name: str, start: int, end: int, attributes: Mapping[str, Attribute]) -> None:
        """Export a child span with these times, in nanoseconds since 1970."""
        context = set_span_in_context(self._span)
        child = self._tracer.start_span(name, context, attributes=dict(attributes), start_time=start)
        child.end(end)

    def event(self, name: str, at: int, attributes: Mapping[str, Attribute]) -> None:
        """Add an event to the request's span. The time is in nanoseconds since 1970."""
        self._span.add_event(name, dict(attributes), timestamp=at)

    def end(self, code: str) -> None:
        """End the span with a gRPC status; one that is the server's fault marks it as an error."""
        self._span.set_attribute("rpc.response.status_code", code)
        if code in _FAULTS:
            self._span.set_status(StatusCode.ERROR)
            self._span.set_attribute("error.type", code)
        self._span.end()


class SpanTracing:
    """Begins a span for every request, as a child of the caller's span where the headers name one."""

    def __init__(self, exporter: SpanExporter, ratio: float = 1.0, batch: bool = True) -> None:
        """Export spans with `exporter`; with `batch` False each of them at once.

        `ratio` is the share of requests to sample, among those whose headers bring no sampling decision.
        """
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor

        resource = Resource.create({"service.name": SERVICE, "service.version": __version__})
        sampler = ParentBased(TraceIdRatioBased(ratio))
        self._provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
        processor = BatchSpanProcessor(exporter) if batch else SimpleSpanProcessor(exporter)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(SERVICE, __version__)
        self._headers = TraceContextTextMapPropagator()

    @classmethod
    def over_otlp(cls, endpoint: str, ratio: float) -> SpanTracing:
        """Send spans to a collector at `http://HOST:PORT` or `https://…`. Raises ConfigurationError for others."""
        if not endpoint.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"otlp_endpoint: found {endpoint!r}: write http://HOST:4317, or https://"
            )
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return cls(OTLPSpanExporter(endpoint, timeout=_SEND_SECONDS), ratio)

    def begin(self, method: str, metadata: Mapping[str, str]) -> SpanTrace:
        """Begin the span of a call that arrived with these headers."""
        parent = self._headers.extract(_well_formed(metadata))
        attributes = {"rpc.system.name": "grpc", "rpc.method": f"{_RPC}/{method}"}
        span = self._tracer.start_span(
            f"{_RPC}/{method}",
            parent,
            SpanKind.SERVER,
            attributes=attributes,
            start_time=time.time_ns(),
        )
        return SpanTrace(self._tracer, span)

    def close(self, seconds: float) -> None:
        """Send the spans that wait, for at most `seconds`."""
        self._provider.force_flush(round(seconds * 1000))
        self._provider.shutdown()
