"""A request and its response as an application sees them, over a call that a test plays Envoy in."""

import asyncio

import grpc
import pytest

from monitor.rpc.envoy.conversation import FULL_DUPLEX, EnvoyConversation, Gone, OutOfOrder
from monitor.v1 import ext_proc_pb2 as pb


class Call:
    """The part of a gRPC call that a conversation uses."""

    def __init__(self):
        self.incoming = asyncio.Queue()
        self.sent = []

    def come(self, **message):
        self.incoming.put_nowait(pb.ProcessingRequest(**message).SerializeToString())

    async def read(self):
        return await self.incoming.get()

    async def write(self, data):
        self.sent.append(pb.ProcessingResponse.FromString(data))

    def kinds(self):
        return [message.WhichOneof("response") for message in self.sent]

    def bodies(self, name):
        found = [getattr(m, name) for m in self.sent if m.HasField(name)]
        return [found.response.body_mutation.streamed_response for found in found]


def fields(**pairs):
    names = {name: f":{name}" if name in ("path", "status", "method") else name for name in pairs}
    return pb.HttpHeaders(
        headers=pb.HeaderMap(headers=[pb.HeaderValue(key=names[n], value=v) for n, v in pairs.items()])
    )


def run(test):
    async def inside():
        call = Call()
        conversation = EnvoyConversation(call)
        filling = asyncio.create_task(conversation.fill())
        try:
            await test(call, conversation)
        finally:
            filling.cancel()
            await asyncio.wait([filling])

    asyncio.run(asyncio.wait_for(inside(), 60))


async def body_of(conversation):
    body = b""
    while (part := await conversation.receive())["more_body"]:
        body += part["body"]
    return body + part["body"]


START = {"type": "http.response.start", "status": 200, "headers": [(b"b", b"2")]}


def test_a_request_goes_on_changed_and_so_does_its_response():
    async def test(call, conversation):
        call.come(request_headers=fields(path="/p", a="1"))
        call.come(request_body=pb.HttpBody(body=b"ab"))
        call.come(request_body=pb.HttpBody(body=b"c", end_of_stream=True))
        assert await conversation.begin() == [(b":path", b"/p"), (b"a", b"1")]
        assert await body_of(conversation) == b"abc"
        asking = asyncio.create_task(conversation.ask([(b"a", b"2")], b"x" * 100_000))
        call.come(response_headers=fields(status="200", b="1"))
        response = await asking
        assert (response.status_code, response.fields) == (200, [(b"b", b"1")])
        assert call.kinds() == ["request_headers", "request_body", "request_body"]
        parts = call.bodies("request_body")
        assert (b"".join(p.body for p in parts), [p.end_of_stream for p in parts]) == (
            b"x" * 100_000,
            [False, True],
        )
        call.come(response_body=pb.HttpBody(body=b"one"))
        call.come(response_body=pb.HttpBody(body=b"two", end_of_stream=True))
        assert [part async for part in response.parts()] == [b"one", b"two"]
        await conversation.send(START)
        await conversation.send({"type": "http.response.body", "body": b"hi", "more_body": True})
        assert not conversation.over
        await conversation.send({"type": "http.response.body"})
        assert conversation.over
        assert call.kinds()[3:] == ["response_headers", "response_body", "response_body"]
        assert [(p.body, p.end_of_stream) for p in call.bodies("response_body")] == [
            (b"hi", False),
            (b"", True),
        ]

    run(test)


@pytest.mark.parametrize("asked", [False, True])
def test_a_response_that_is_made_here_takes_the_place_of_all(asked):
    async def test(call, conversation):
        call.come(request_headers=pb.HttpHeaders(headers=fields(path="/p").headers, end_of_stream=True))
        await conversation.begin()
        assert await body_of(conversation) == b""
        if asked:
            call.come(response_headers=fields(status="200"))
            await conversation.ask([], b"")
        await conversation.send({**START, "status": 503})
        await conversation.send({"type": "http.response.body", "body": b"n", "more_body": True})
        await conversation.send({"type": "http.response.body", "body": b"o"})
        made = call.sent[-1].immediate_response
        assert (made.status.code, made.body, made.headers.set_headers[0].header.key) == (503, b"no", "b")
        assert call.kinds() == (["request_headers"] if asked else []) + ["immediate_response"]

    run(test)


def test_trailers_are_answered_behind_bodies_that_have_no_end_of_their_own():
    async def test(call, conversation):
        call.come(request_headers=fields(path="/p"))
        call.come(request_body=pb.HttpBody(body=b"a"))
        call.come(request_trailers=pb.HttpTrailers())
        await conversation.begin()
        assert await body_of(conversation) == b"a"
        call.come(response_headers=fields(status="200"))
        response = await conversation.ask([], b"a")
        call.come(response_body=pb.HttpBody(body=b"b"))
        call.come(response_trailers=pb.HttpTrailers())
        assert [part async for part in response.parts()] == [b"b"]
        await conversation.send(START)
        await conversation.send({"type": "http.response.body", "body": b"c"})
        assert call.kinds() == [
            *("request_headers", "request_body", "request_trailers"),
            *("response_headers", "response_body", "response_trailers"),
        ]
        assert not any(p.end_of_stream for k in ("request_body", "response_body") for p in call.bodies(k))

    run(test)


def test_envoy_that_goes_is_told_to_whoever_waits():
    async def test(call, conversation):
        call.come(request_headers=fields(path="/p"))
        await conversation.begin()
        asking = asyncio.create_task(conversation.ask([], b""))
        receiving = asyncio.create_task(conversation.receive())
        call.incoming.put_nowait(None)
        with pytest.raises(Gone):
            await asking
        assert await receiving == {"type": "http.disconnect"}

    run(test)


def test_what_is_sent_to_an_envoy_that_has_gone_is_no_error():
    async def test(call, conversation):
        async def ended(_):
            raise grpc.aio.InternalError

        call.come(request_headers=fields(path="/p"))
        call.come(request_body=pb.HttpBody(end_of_stream=True))
        await conversation.begin()
        assert await body_of(conversation) == b""
        call.write = ended
        await conversation.send(START)
        await conversation.send({"type": "http.response.body", "body": b"x"})
        assert await conversation.receive() == {"type": "http.disconnect"}

    run(test)


@pytest.mark.parametrize(
    "message",
    [
        {"request_headers": fields(path="/"), "observability_mode": True},
        {
            "request_headers": fields(path="/"),
            "protocol_config": pb.ProtocolConfiguration(request_body_mode=1, response_body_mode=FULL_DUPLEX),
        },
        {},
    ],
)
def test_an_envoy_that_is_set_up_otherwise_is_refused(message):
    async def test(call, conversation):
        call.come(**message)
        with pytest.raises(OutOfOrder):
            await EnvoyConversation.fill(conversation)

    async def inside():
        call = Call()
        await test(call, EnvoyConversation(call))

    asyncio.run(asyncio.wait_for(inside(), 60))
