"""The client of a monitor server, for programs. It needs gRPC and protobuf, and neither torch nor pydantic.

    from monitor.client import connect

    with connect("127.0.0.1:50051") as client:
        answer = client.generate([{"role": "user", "content": "Hello, how are you?"}], max_new_tokens=20)
        print(answer.text, answer.verdict.matched)

What another server writes is scored while it writes it, and comes out as far as it may be shown:

    with connect("127.0.0.1:50051") as client, client.score_stream(messages) as stream:
        for piece in stream.released(pieces_of_the_answer):
            print(piece.text, end="")
        print(stream.final.verdict)

A piece may say which call of a tool it belongs to (`TextPiece.call`): each is scored as if it were the whole answer.
`ChatMonitor` does that for chats with a server of the OpenAI API, and `guarded_verdict` reads what a guard says of an
answer.

`AsyncClient` makes the same calls under asyncio. Answers are the messages of `monitor.v1.monitor_pb2`, described in
`protos/monitor/v1/monitor.proto`. A call that fails raises `CallFailed`, a server that cannot be reached `Unreachable`;
both are `MonitorError`. A call that the server turned away (UNAVAILABLE, RESOURCE_EXHAUSTED) is tried again three
times, after the time that the server asks for.
"""

from monitor.client.aio import AsyncClient, AsyncEventStream
from monitor.client.chat import AsyncChatMonitor, ChatAnswer, ChatEnding, ChatMonitor
from monitor.client.client import Client, EventStream, connect
from monitor.client.errors import CallFailed, Unreachable
from monitor.client.guarded import GuardedVerdict, Unmonitored, guarded_verdict
from monitor.client.pieces import TextPiece
from monitor.client.score_stream import AsyncScoreStream, ScoreStream
from monitor.errors import MonitorError, Violation

__all__ = [
    "AsyncChatMonitor",
    "AsyncClient",
    "AsyncEventStream",
    "AsyncScoreStream",
    "CallFailed",
    "ChatAnswer",
    "ChatEnding",
    "ChatMonitor",
    "Client",
    "EventStream",
    "GuardedVerdict",
    "MonitorError",
    "ScoreStream",
    "TextPiece",
    "Unmonitored",
    "Unreachable",
    "Violation",
    "connect",
    "guarded_verdict",
]
