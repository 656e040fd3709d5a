"""Spans: their parents, times and attributes, and headers that are not passed on."""

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from monitor.errors import ConfigurationError
from monitor.telemetry.tracing import tracing_to
from monitor.telemetry.tracing.otel import SERVICE, SpanTracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


HEADER = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)


@pytest.mark.parametrize(
    "state", ["my secret plan", "a=b,a=secret", "=secret", "a=b,,", "k=" + "secret" * 2000, "A=b", "a=é"]
)
def test_a_trace_state_that_is_none_is_not_quoted_in_the_log(state, caplog):
    traces = SpanTracing(InMemorySpanExporter(), batch=False)
    trace = traces.begin("Score", {"traceparent": HEADER[0][1], "tracestate": state})
    assert trace.trace_id == TRACE
    assert not trace._span.get_span_context().trace_state
    assert caplog.records == []


def test_a_trace_state_is_passed_on():
    exporter = InMemorySpanExporter()
    headers = {"traceparent": HEADER[0][1], "tracestate": "rojo=00f067aa0ba902b7, 1a@congo=t61rcWkgMzE"}
    SpanTracing(exporter, batch=False).begin("Score", headers).end("OK")
    (span,) = exporter.get_finished_spans()
    assert dict(span.context.trace_state) == {"rojo": "00f067aa0ba902b7", "1a@congo": "t61rcWkgMzE"}


def test_a_wrong_endpoint_is_a_configuration_error():
    with pytest.raises(
        ConfigurationError, match="otlp_endpoint: found 'collector:4317': write http://HOST:4317"
    ):
        tracing_to("collector:4317", 1.0)


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


def test_a_request_is_one_span_with_children_at_the_times_that_were_noted(exporter):
    tracing = SpanTracing(exporter, batch=False)
    trace = tracing.begin("Score", {"traceparent": HEADER[0][1]})
    trace.describe("score m", {"a": 1})
    trace.phase("queue", 100, 250, {"b": "x"})
    trace.event("detection", 200, {"c": True})
    trace.end("OK")
    child, root = exporter.get_finished_spans()
    assert (child.name, child.start_time, child.end_time, dict(child.attributes)) == (
        "queue",
        100,
        250,
        {"b": "x"},
    )
    assert child.parent.span_id == root.context.span_id
    assert (root.name, root.kind, f"{root.parent.span_id:016x}") == ("score m", SpanKind.SERVER, PARENT)
    assert trace.trace_id == TRACE == f"{root.context.trace_id:032x}"
    assert root.attributes["rpc.method"] == "monitor.v1.MonitorService/Score"
    assert root.attributes["a"] == 1
    assert [(event.name, event.timestamp) for event in root.events] == [("detection", 200)]
    assert root.resource.attributes["service.name"] == SERVICE


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("OK", False),
        ("INVALID_ARGUMENT", False),
        ("CANCELLED", False),
        ("INTERNAL", True),
        ("UNAVAILABLE", True),
    ],
)
def test_only_what_is_the_servers_fault_is_an_error(exporter, code, fault):
    SpanTracing(exporter, batch=False).begin("Score", {}).end(code)
    (span,) = exporter.get_finished_spans()
    assert span.attributes["rpc.response.status_code"] == code
    assert (span.status.status_code is StatusCode.ERROR) is fault
    assert span.attributes.get("error.type") == (code if fault else None)


@pytest.mark.parametrize(("flags", "sampled"), [("01", True), ("00", False)])
def test_the_callers_decision_to_sample_holds(exporter, flags, sampled):
    for ratio in (0.0, 1.0):
        header = f"00-{TRACE}-{PARENT}-{flags}"
        SpanTracing(exporter, ratio, batch=False).begin("Score", {"traceparent": header}).end("OK")
    assert len(exporter.get_finished_spans()) == (2 if sampled else 0)


def test_spans_that_wait_are_sent_at_the_end(exporter):
    tracing = SpanTracing(exporter)
    tracing.begin("Score", {}).end("OK")
    tracing.close(5.0)
    assert len(exporter.get_finished_spans()) == 1
