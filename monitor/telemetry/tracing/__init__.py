"""Spans of requests: the trace context that callers send, and its export over OTLP where OpenTelemetry is installed."""

from __future__ import annotations

from monitor.errors import ConfigurationError
from monitor.telemetry.tracing.context import CallerTracing, Tracing

__all__ = ["tracing_to"]


def tracing_to(endpoint: str | None, ratio: float) -> Tracing:
    """Tracing that exports spans to the collector at `endpoint`, or that exports none where it is None.

    Raises ConfigurationError where OpenTelemetry is needed and not installed.
    """
    if endpoint is None:
        return CallerTracing()
    try:
        from monitor.telemetry.tracing.otel import SpanTracing
    except ImportError as error:
        raise ConfigurationError(
            f"otlp_endpoint needs OpenTelemetry, and {error.name} is not installed: pip install 'sae-monitor[otel]'"
        ) from None
    return SpanTracing.over_otlp(endpoint, ratio)
