"""The caller's trace: which headers give one, and where its id goes."""

import contextvars

import pytest
from structlog.contextvars import merge_contextvars

from monitor.telemetry.metrics import labels
from monitor.telemetry.tracing import context

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    "header",
    ["", "00", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{PARENT}-01",
     f"00-{TRACE.upper()}-{PARENT}-01"],
)  # fmt: skip
def test_what_is_no_trace_context_gives_none(header):
    assert context.trace_id_of(header) == ""


def test_later_versions_of_the_header_may_say_more():
    assert context.trace_id_of(f"01-{TRACE}-{PARENT}-01-more") == TRACE


def test_the_trace_of_a_task_reaches_log_lines_and_exemplars_and_no_other_task():
    def inside():
        context.enter(context.Trace(TRACE))
        found = merge_contextvars(None, "", {})
        return context.current_trace().trace_id, labels.exemplar(), found.get("trace_id")

    assert contextvars.copy_context().run(inside) == (TRACE, {"trace_id": TRACE}, TRACE)
    assert context.current_trace().trace_id == ""
    assert "trace_id" not in merge_contextvars(None, "", {})


def test_without_a_trace_nothing_is_bound():
    def inside():
        context.enter(context.Trace())
        return labels.exemplar(), merge_contextvars(None, "", {})

    assert contextvars.copy_context().run(inside) == (None, {})


def test_the_callers_id_is_taken_over_and_nothing_is_exported():
    tracing = context.CallerTracing()
    trace = tracing.begin("Score", {"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert trace.trace_id == TRACE
    assert tracing.begin("Score", {}).trace_id == ""
    trace.describe("a", {})
    trace.phase("a", 0, 1, {})
    trace.event("a", 0, {})
    trace.end("OK")
    tracing.close(0.0)
    assert trace.trace_id == TRACE
