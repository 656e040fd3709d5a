"""What happens around a call, with a context that stands in for gRPC's."""

import asyncio
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import grpc
import pytest
import structlog
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from monitor.errors import Overloaded, TooSlow
from monitor.rpc.access import call_interceptor as module
from monitor.rpc.access.call_interceptor import (
    Call,
    CallInterceptor,
    TimeLimits,
    current_call,
    enter,
    report,
)
from monitor.telemetry.metrics.metrics import Metrics
from monitor.telemetry.tracing import context as tracing
from tests.telemetry.metrics.measured import value

PREFIX = "monitor.v1.MonitorService"
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Checks:
    """Lets everybody in, unless it has an error for the call or for its message."""

    def __init__(self, at_call=None, at_message=None):
        self.at_call, self.at_message, self.taken = at_call, at_message, []

    @contextmanager
    def call(self, method, context):
        if self.at_call is not None:
            raise self.at_call
        yield SimpleNamespace(take=self.taken.append)

    def check(self, request):
        if self.at_message is not None:
            raise self.at_message


class Context:
    """A call of one message."""

    def __init__(self, message=b"hello", headers=(), left=None, is_cancelled=False):
        self.message, self.headers, self.left, self.is_cancelled = message, headers, left, is_cancelled
        self.written, self.status, self.aborted = [], None, None

    async def read(self):
        if self.message is None:
            await asyncio.Event().wait()
        return self.message

    async def write(self, answer):
        self.written.append(answer)

    async def abort_with_status(self, status):
        self.status = status
        raise grpc.aio.AbortError

    async def abort(self, code):
        self.aborted = code
        raise grpc.aio.AbortError

    def cancelled(self):
        return self.is_cancelled

    def time_remaining(self):
        return self.left

    def invocation_metadata(self):
        return self.headers


async def echo(request, _):
    return request.upper()


def parse(data):
    if data == b"\xff":
        raise DecodeError
    return data.decode()


def interceptor(checks=None, metrics=None, message=60.0, call=60.0):
    return CallInterceptor(PREFIX, checks or Checks(), metrics or Metrics(), TimeLimits(message, call))


def served(context, behaviour=echo, *, streaming=False, **more):
    """Serve one call; the metrics and the lines of the log afterwards."""
    metrics = more.setdefault("metrics", Metrics())
    make = grpc.unary_stream_rpc_method_handler if streaming else grpc.unary_unary_rpc_method_handler
    handler = make(behaviour, request_deserializer=parse)

    async def continuation(_):
        return handler

    async def run():
        details = SimpleNamespace(method=f"/{PREFIX}/Echo")
        wrapped = await interceptor(**more).intercept_service(continuation, details)
        with suppress(grpc.aio.AbortError):
            await wrapped.stream_stream(None, context)

    with structlog.testing.capture_logs() as lines:
        asyncio.run(run())
    return metrics, lines


def ended(metrics, code):
    return value(metrics, "requests_total", method="Echo", code=code)


def details(context):
    status = status_pb2.Status()
    for key, packed in context.status.trailing_metadata:
        if key == "grpc-status-details-bin":
            status.ParseFromString(packed)
    found = {}
    for one in status.details:
        message = getattr(error_details_pb2, one.TypeName().rpartition(".")[2])()
        one.Unpack(message)
        found[type(message).__name__] = message
    return found


def test_an_answer_is_written_and_counted():
    context = Context()
    metrics, lines = served(context)
    assert (context.written, context.status, lines) == (["HELLO"], None, [])
    assert ended(metrics, "OK") == 1


def test_a_stream_writes_for_itself():
    async def twice(request, context):
        await context.write(request)
        await context.write(request)

    context = Context()
    metrics, _ = served(context, twice, streaming=True)
    assert context.written == ["hello", "hello"]
    assert ended(metrics, "OK") == 1


def test_a_call_knows_its_method_id_charge_and_trace():
    async def seen(_, context):
        call = current_call()
        call.charged(7)
        return call.method, call.request_id, call.age(), tracing.current_trace().trace_id

    checks = Checks()
    context = Context(headers=(("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"), ("other", "x")))
    served(context, seen, checks=checks)
    ((method, request_id, age, trace),) = context.written
    assert (method, trace, checks.taken) == ("Echo", TRACE, [7])
    assert int(request_id, 16) >= 0
    assert len(request_id) == 32
    assert 0 <= age < 60


def test_who_is_not_let_in_is_told_before_the_message_is_read():
    context = Context(message=None)
    metrics, (line,) = served(context, checks=Checks(at_call=Overloaded("later", 0.25)))
    assert context.status.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details(context)["RetryInfo"].retry_delay.ToMilliseconds() == 250
    assert ended(metrics, "RESOURCE_EXHAUSTED") == 1
    assert (line["event"], line["error"], line["log_level"]) == ("call failed", "Overloaded", "info")
    assert line["request_id"] == details(context)["RequestInfo"].request_id


def test_a_message_that_asks_for_too_much_is_not_served():
    context = Context()
    served(context, checks=Checks(at_message=Overloaded("no", 0.1)))
    assert (context.written, context.status.code) == ([], grpc.StatusCode.RESOURCE_EXHAUSTED)


@pytest.mark.parametrize("message", [b"\xff", grpc.aio.EOF])
def test_what_is_no_message_is_a_bad_request(message):
    context = Context(message)
    metrics, _ = served(context)
    assert context.status.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in details(context)["BadRequest"].field_violations] == ["request"]
    assert ended(metrics, "INVALID_ARGUMENT") == 1


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"message": 0.01}, "no message came within 0.01 seconds"),
        ({"call": 0.01}, "took longer than 0.01 seconds"),
    ],
)
def test_a_call_has_so_much_time(limits, text):
    context = Context(message=None)
    metrics, _ = served(context, **limits)
    assert context.status.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert text in context.status.details
    assert ended(metrics, "DEADLINE_EXCEEDED") == 1


def test_a_timeout_of_the_works_own_is_not_the_limits():
    async def failing(*_):
        raise TimeoutError("a prompt")

    context = Context()
    _, (line,) = served(context, failing)
    assert context.status.code is grpc.StatusCode.INTERNAL
    assert line["error"] == "TimeoutError"


def test_an_unexpected_error_reaches_neither_the_caller_nor_the_log_with_its_text():
    async def failing(*_):
        raise KeyError("a prompt")

    context = Context()
    metrics, (line,) = served(context, failing)
    assert context.status.code is grpc.StatusCode.INTERNAL
    assert "a prompt" not in repr(context.status)
    assert "a prompt" not in repr(line)
    assert (line["error"], line["log_level"]) == ("KeyError", "error")
    assert line["at"][-1].endswith("failing")
    assert ended(metrics, "INTERNAL") == 1


def test_a_call_that_ended_while_it_was_written_to_is_no_error():
    async def gone(*_):
        raise grpc.aio.InternalError("Failed to execute batch")

    context = Context()
    metrics, lines = served(context, gone)
    assert (context.aborted, lines) == (grpc.StatusCode.CANCELLED, [])
    assert ended(metrics, "CANCELLED") == 1


@pytest.mark.parametrize(
    ("left", "code"), [(None, "CANCELLED"), (5.0, "CANCELLED"), (0.05, "DEADLINE_EXCEEDED")]
)
def test_a_cancelled_call_ends_by_its_deadline_or_its_caller(left, code):
    metrics, context = Metrics(), Context(left=left, is_cancelled=True)
    with pytest.raises(asyncio.CancelledError):
        served(context, metrics=metrics)
    assert ended(metrics, code) == 1
    assert context.status is None


def asked_for(method, handler):
    """What the interceptor makes of a handler, twice, and how often it asked for it."""
    asked = []

    async def continuation(_):
        asked.append(method)
        return handler

    async def run():
        own, details = interceptor(), SimpleNamespace(method=method)
        return [await own.intercept_service(continuation, details) for _ in range(2)]

    return asyncio.run(run()), len(asked)


def test_methods_are_wrapped_once_and_other_services_and_unknown_methods_passed_on():
    handler = grpc.unary_unary_rpc_method_handler(echo, request_deserializer=parse)
    (first, second), asked = asked_for(f"/{PREFIX}/Echo", handler)
    assert first is second
    assert first is not handler
    assert (asked, first.request_streaming, first.response_streaming) == (1, True, True)
    assert asked_for("/grpc.health.v1.Health/Check", handler) == ([handler, handler], 2)
    assert asked_for(f"/{PREFIX}/Unheard", None) == ([None, None], 2)


def test_outside_of_a_call_there_is_none():
    async def run():
        with pytest.raises(LookupError):
            current_call()
        call = Call("Score", "id", 0.0)
        enter(call)
        call.charged(10**9)
        return current_call() is call

    assert asyncio.run(run())


def test_errors_of_callers_are_reported_in_one_short_line_and_others_with_their_place():
    call = Call("Score", "id", 0.0)
    with structlog.testing.capture_logs() as lines:
        report(call, "DEADLINE_EXCEEDED", TooSlow("slow"))
        report(call, "INTERNAL", TooSlow("slow"))
    first, second = lines
    assert (first["method"], first["request_id"], first["code"]) == ("Score", "id", "DEADLINE_EXCEEDED")
    assert "at" not in first
    assert (second["log_level"], second["at"]) == ("error", [])


def test_of_a_header_that_was_sent_twice_the_last_counts():
    context = Context(headers=(("traceparent", "a"), ("tracestate", "s"), ("traceparent", "b"), ("x", "y")))
    assert module._trace_headers(context) == {"traceparent": "b", "tracestate": "s"}
