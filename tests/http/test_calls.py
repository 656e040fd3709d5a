"""What happens around a request over HTTP, with an ASGI connection made by hand."""

import asyncio
import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import structlog

from monitor.errors import BadRequest, Overloaded
from monitor.http.calls import PEER, Exchange, HttpCalls, HttpPeer, dumps, ending_with
from monitor.http.errors import HttpError
from monitor.rpc.access.call_interceptor import TimeLimits, current_call
from monitor.telemetry.metrics.metrics import Metrics
from monitor.telemetry.tracing import context as tracing
from monitor.telemetry.tracing.context import CallerTracing
from tests.telemetry.metrics.measured import value

JSON = (("content-type", "application/json"),)
TRACE = "0af7651916cd43dd8448eb211c80319c"
GONE = {"type": "http.disconnect"}


def piece(body, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


class Connection:
    """A connection on which these messages arrive, and then nothing more."""

    def __init__(self, *messages, headers=JSON, **scope):
        self.messages, self.sent = list(messages), []
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self.scope = {"headers": raw, **scope}

    async def receive(self):
        if not self.messages:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return self.messages.pop(0)

    async def send(self, message):
        self.sent.append(message)

    def exchange(self, most=1000):
        return Exchange(self.scope, self.receive, self.send, "id-1", most)

    @property
    def start(self):
        (found,) = [message for message in self.sent if message["type"] == "http.response.start"]
        return found["status"], {name.decode(): value.decode() for name, value in found["headers"]}

    @property
    def content(self):
        return b"".join(m["body"] for m in self.sent if m["type"] == "http.response.body")


class Checks:
    def __init__(self, error=None):
        self.error, self.peers, self.taken = error, [], []

    @contextmanager
    def call(self, method, peer):
        self.peers.append((method, peer))
        if self.error is not None:
            raise self.error
        yield SimpleNamespace(take=self.taken.append)


def served(connection, method, metrics=None, checks=None, message=60.0, call=60.0):
    """Run one request; the metrics and the lines of the log afterwards."""
    metrics = metrics or Metrics()
    calls = HttpCalls(checks or Checks(), metrics, TimeLimits(message, call), CallerTracing(), 1000)

    async def run():
        application = calls.endpoint("Echo", lambda exchange: method(calls, exchange))
        await application(connection.scope, connection.receive, connection.send)

    with structlog.testing.capture_logs() as lines:
        asyncio.run(run())
    return metrics, lines


def ended(metrics, code):
    return value(metrics, "requests_total", method="Echo", code=code)


async def echo(calls, exchange):
    await exchange.json(await calls.read(exchange))


def body_of(connection, most=1000):
    return asyncio.run(connection.exchange(most).body())


def test_a_body_may_come_in_pieces():
    assert body_of(Connection(piece(b'{"a"', True), piece(b": 1}"))) == {"a": 1}


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_kinds_of_body_that_are_json(kind):
    assert body_of(Connection(piece(b"{}"), headers=(("content-type", kind),))) == {}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((), 415),
        ((("content-type", "text/plain"),), 415),
        ((*JSON, ("content-encoding", "gzip")), 415),
        ((*JSON, ("content-length", "1001")), 413),
    ],
)
def test_bodies_that_are_not_read_at_all(headers, status):
    with pytest.raises(HttpError) as caught:
        body_of(Connection(headers=headers))
    assert caught.value.http_status == status


def test_a_body_ends_where_it_grows_too_large():
    endless = [piece(b"x" * 400, True) for _ in range(5)]
    connection = Connection(*endless)
    with pytest.raises(HttpError, match="larger than 1000 bytes"):
        body_of(connection)
    assert len(connection.messages) == 2
    assert body_of(Connection(piece(b'{"a":"' + b"x" * 992 + b'"}'))) == {"a": "x" * 992}


def test_a_body_that_is_no_object_is_a_bad_request():
    with pytest.raises(BadRequest):
        body_of(Connection(piece(b"[1]")))


def test_a_caller_who_leaves_while_its_body_is_read_cancels():
    connection = Connection(piece(b"{", True), GONE)

    async def run():
        exchange = connection.exchange()
        with pytest.raises(asyncio.CancelledError):
            await exchange.body()
        return exchange.left

    assert asyncio.run(run())


def test_of_headers_of_one_name_the_first_counts():
    exchange = Connection(headers=(("x", "1"), ("x", "2"))).exchange()
    assert (exchange.header("x"), exchange.header("y"), exchange.path) == ("1", "", {})
    assert Connection(path_params={"model": "m"}).exchange().path == {"model": "m"}


def test_a_whole_answer_says_its_length_and_its_request():
    connection = Connection()
    asyncio.run(connection.exchange().json({"a": "ä"}, {"x-more": "1"}, 201))
    assert connection.content == '{"a":"ä"}'.encode()
    assert connection.start == (
        201,
        {
            "x-request-id": "id-1",
            "content-type": "application/json",
            "content-length": "10",
            "x-more": "1",
        },
    )


def test_events_are_a_stream_that_ends_with_a_word():
    connection = Connection()

    async def run():
        exchange = connection.exchange()
        await exchange.event({"a": 1})
        await exchange.event({"b": "x\ny"})
        await exchange.done()

    asyncio.run(run())
    status, headers = connection.start
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert connection.content == b'data: {"a":1}\n\ndata: {"b":"x\\ny"}\n\ndata: [DONE]\n\n'
    assert [message.get("more_body") for message in connection.sent[1:]] == [True, True, False]


def test_an_error_is_the_status_or_the_last_event():
    whole, stream = Connection(), Connection()

    async def run():
        await whole.exchange().failed(Overloaded("later", 1.0), lambda found: found)
        exchange = stream.exchange()
        await exchange.event({"a": 1})
        await exchange.failed(Overloaded("later", 1.0), lambda found: found)

    asyncio.run(run())
    assert whole.start[0] == 429
    assert whole.start[1]["retry-after"] == "1"
    assert stream.start[0] == 200
    _, last, _ = stream.content.split(b"\n\n")
    assert json.loads(last.removeprefix(b"data: ")) == json.loads(whole.content)
    assert stream.sent[-1]["more_body"] is False


def test_json_is_on_one_line_and_keeps_letters():
    assert dumps({"a": ["ä\n", None]}) == '{"a":["ä\\n",null]}'.encode()


def test_a_peer_is_known_by_headers_and_certificate():
    bare = HttpPeer(Connection(headers=(("authorization", "Bearer ä"),)).scope)
    assert bare.invocation_metadata() == [("authorization", "Bearer ä")]
    assert bare.auth_context() == {}
    names = {"x509_common_name": [b"gateway"]}
    assert HttpPeer(Connection(**{PEER: names}).scope).auth_context() == names


def test_a_request_is_answered_and_counted():
    connection = Connection(piece(b'{"a": 1}'))
    metrics, lines = served(connection, echo)
    assert (json.loads(connection.content), connection.start[0], lines) == ({"a": 1}, 200, [])
    assert ended(metrics, "OK") == 1


def test_a_request_knows_its_method_id_charge_and_trace():
    seen = []

    async def look(_, exchange):
        call = current_call()
        call.charged(7)
        seen.append((call.method, call.request_id == exchange.request_id, tracing.current_trace().trace_id))

    checks = Checks()
    headers = (*JSON, ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"))
    served(Connection(headers=headers), look, checks=checks)
    assert (seen, checks.taken) == ([("Echo", True, TRACE)], [7])
    ((method, peer),) = checks.peers
    assert (method, dict(peer.invocation_metadata())["content-type"]) == ("Echo", "application/json")


def test_who_is_not_let_in_is_told_before_the_body_is_read():
    connection = Connection(piece(b"{}"))
    metrics, (line,) = served(connection, echo, checks=Checks(Overloaded("later", 1.0)))
    assert (connection.start[0], len(connection.messages)) == (429, 1)
    assert (line["event"], line["code"]) == ("call failed", "RESOURCE_EXHAUSTED")
    assert ended(metrics, "RESOURCE_EXHAUSTED") == 1


@pytest.mark.parametrize(
    ("limits", "text"),
    [({"message": 0.01}, "no body came within 0.01"), ({"call": 0.01}, "took longer than 0.01")],
)
def test_a_request_has_so_much_time(limits, text):
    connection = Connection()
    metrics, _ = served(connection, echo, **limits)
    assert connection.start[0] == 504
    assert text in json.loads(connection.content)["error"]["message"]
    assert ended(metrics, "DEADLINE_EXCEEDED") == 1


@pytest.mark.parametrize("kind", [KeyError, TimeoutError])
def test_an_unexpected_error_reaches_neither_the_caller_nor_the_log_with_its_text(kind):
    async def failing(*_):
        raise kind("a prompt")

    connection = Connection()
    metrics, (line,) = served(connection, failing)
    assert connection.start[0] == 500
    assert b"a prompt" not in connection.content
    assert "a prompt" not in repr(line)
    assert (line["log_level"], line["error"]) == ("error", kind.__name__)
    assert ended(metrics, "INTERNAL") == 1


def test_a_caller_who_leaves_ends_the_work_and_nobody_elses():
    connection, begun = Connection(piece(b"{}"), GONE), []

    async def long(calls, exchange):
        await calls.read(exchange)
        with ending_with(exchange):
            begun.append(True)
            await asyncio.Event().wait()

    metrics, lines = served(connection, long)
    assert (begun, connection.sent, lines) == ([True], [], [])
    assert ended(metrics, "CANCELLED") == 1


def test_work_that_is_done_is_watched_no_longer():
    connection, watching = Connection(piece(b"{}")), []

    async def short(calls, exchange):
        await calls.read(exchange)
        with ending_with(exchange):
            await asyncio.sleep(0)
            watching.append(len(asyncio.all_tasks()))
        await asyncio.sleep(0)
        watching.append(len(asyncio.all_tasks()))
        await exchange.json({})

    served(connection, short)
    assert watching == [2, 1]
    assert connection.start[0] == 200


def test_a_server_that_stops_cancels_and_counts():
    metrics = Metrics()

    async def stopped(*_):
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        served(Connection(), stopped, metrics=metrics)
    assert ended(metrics, "CANCELLED") == 1
