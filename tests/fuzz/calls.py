"""Targets behind gRPC: messages as the wire reads them, calls to a running server, headers, frames."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import grpc
from google.protobuf.message import DecodeError, Message

from monitor.errors import BadRequest, Unauthenticated
from monitor.rpc.access.authentication import Authenticator
from monitor.rpc.access.callers import new_token
from monitor.rpc.access.roles import Role, check_request
from monitor.rpc.server import SERVICE
from monitor.rpc.wire import requests
from monitor.v1 import monitor_pb2 as pb
from tests.fuzz.messages import varied
from tests.fuzz.mutate import mutated
from tests.fuzz.target import ACCEPTED, REFUSED, BytesTarget
from tests.rpc.conftest import connected, serving

METHODS = [method for method in SERVICE.methods if method.name not in ("WatchDetections", "ReloadPolicies")]
ALLOWED = {
    "OK",
    "INVALID_ARGUMENT",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "NOT_FOUND",
    "PERMISSION_DENIED",
}
"""Statuses that a strange message may end with. INTERNAL and UNKNOWN are bugs, and so is a deadline that passes."""
_SECONDS = 20.0
_MOST_TOKENS = 65


def _message(number: int) -> Message:
    name = METHODS[number % len(METHODS)].input_type.name
    found: Message = getattr(pb, name)()
    return found


def _seeds() -> list[bytes]:
    text = pb.Input(text="a few words with a lie")
    turns = [
        pb.ChatMessage(role=pb.ROLE_USER, content="hello"),
        pb.ChatMessage(role=pb.ROLE_ASSISTANT, content="hi"),
    ]
    chat = pb.Input(conversation=pb.Conversation(messages=turns), truncate=True)
    sampling = pb.Sampling(max_new_tokens=3, temperature=0.7, top_k=5, top_p=0.9, seed=1, stop=["end", "."])
    clamps = [pb.Clamp(feature=7, target=-2.0)]
    asked = pb.Generation(input=text, sampling=sampling, clamps=clamps, include_tokens=True, logprobs=3)
    known: dict[str, list[Message]] = {
        "Score": [pb.ScoreRequest(input=text, include_tokens=True), pb.ScoreRequest(input=chat)],
        "Generate": [pb.GenerateRequest(generation=asked)],
        "GenerateStream": [pb.GenerateStreamRequest(generation=asked)],
        "Inspect": [pb.InspectRequest(input=text, top_k=3)],
    }
    seeds = []
    for number, method in enumerate(METHODS):
        for message in known.get(method.name, [_message(number)]):
            seeds.append(bytes([number]) + message.SerializeToString())
    return seeds


def _streamed(message: Any) -> Any:
    """A message of ScoreStream, which may be the first, one between, or the last."""
    if message.WhichOneof("event") == "begin":
        return requests.stream_start(message)
    return requests.stream_piece(message) or requests.stream_end(message)


class Wire(BytesTarget):
    """Messages to records: everything that is checked without a model. The first byte chooses the method."""

    name = "wire"
    readers: ClassVar[dict[str, Any]] = {
        "ScoreRequest": requests.score,
        "InspectRequest": requests.inspection,
        "GenerateRequest": lambda message: requests.generation(message.generation),
        "GenerateStreamRequest": lambda message: requests.generation(message.generation),
        "ScoreStreamRequest": _streamed,
    }

    def corpus(self) -> Sequence[bytes]:
        return _seeds()

    def mutate(self, data: bytes, chance: random.Random, corpus: Sequence[bytes]) -> bytes:
        """Half of the time the fields, half of the time the bytes."""
        method, body = data[:1] or b"\0", data[1:]
        if chance.random() < 0.5:
            message = _message(method[0])
            try:
                message.ParseFromString(body)
            except DecodeError:
                message.Clear()
            return method + varied(message, chance).SerializeToString()
        return method + mutated(body, chance, [seed[1:] for seed in corpus])

    def run(self, data: bytes) -> str:
        message = _message(data[0] if data else 0)
        try:
            message.ParseFromString(data[1:])
            check_request_of(message)
            reader = self.readers.get(message.DESCRIPTOR.name)
            if reader is not None:
                reader(message)
        except (DecodeError, BadRequest):
            return REFUSED
        return ACCEPTED


def check_request_of(message: Message) -> None:
    from monitor.rpc.access.roles import ANYBODY

    check_request(ANYBODY, message)


class Calls(Wire):
    """A real server over a runtime without a model; the same messages as raw bytes over a real connection."""

    name = "rpc"

    @contextmanager
    def opened(self) -> Iterator[None]:
        with serving(max_message_bytes=64 << 10) as served, connected(served.addresses.grpc) as channel:
            self._served = served
            self._methods = [
                (
                    channel.unary_stream if method.server_streaming else channel.unary_unary,
                    f"/{SERVICE.full_name}/{method.name}",
                )
                for method in METHODS
            ]
            self._multi = [make(path) for make, path in self._methods]
            yield

    def run(self, data: bytes) -> str:
        number = (data[0] if data else 0) % len(METHODS)
        code = self._code(number, _brief(number, data[1:]))
        assert code in ALLOWED, f"{METHODS[number].name} ended with {code}"
        return ACCEPTED if code == "OK" else code.lower()

    def _code(self, number: int, body: bytes) -> str:
        try:
            answer = self._multi[number](body, timeout=_SECONDS)
            if METHODS[number].server_streaming:
                for _ in answer:
                    pass
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"


def _brief(number: int, body: bytes) -> bytes:
    """The same message without asking for thousands of tokens: the runtime here has no context that would end them."""
    message: Any = _message(number)
    with suppress(DecodeError):
        message.ParseFromString(body)
        generates = "generation" in message.DESCRIPTOR.fields_by_name
        if generates and message.generation.sampling.max_new_tokens > _MOST_TOKENS:
            message.generation.sampling.max_new_tokens = _MOST_TOKENS
            return bytes(message.SerializeToString())
    return body


class Headers(BytesTarget):
    """The header that carries a token, as bytes or text, once or several times."""

    name = "headers"
    words = (b"Bearer ", b"bearer ", b"saem_", b" ", b",", b"\n", b"Basic ")

    @contextmanager
    def opened(self) -> Iterator[None]:
        import tempfile
        from pathlib import Path

        from monitor.telemetry.metrics.security import SecurityMetrics
        from tests.rpc.conftest import settings
        from tests.rpc.secured import Callers

        with tempfile.TemporaryDirectory() as folder:
            known = Callers(Path(folder) / "callers")
            self._token = known.add("somebody", Role.INFER)
            self._access = Authenticator(settings(callers=known.path), SecurityMetrics())
            yield

    def corpus(self) -> Sequence[bytes]:
        return [f"Bearer {self._token}".encode(), f"Bearer {new_token()}".encode(), b"Bearer x\nBearer y"]

    def run(self, data: bytes) -> str:
        values: list[str | bytes] = [part.decode("latin-1") for part in data.split(b"\n")]
        if data[:1] == b"\xff":
            values = [data]
        try:
            found = self._access.caller(_Peer([("authorization", value) for value in values]))
        except Unauthenticated:
            return REFUSED
        # Nothing but the token itself may ever open the door.
        assert len(values) == 1
        assert isinstance(values[0], str)
        assert values[0][7:].strip() == self._token
        assert found.name == "somebody"
        return ACCEPTED


class _Peer:
    def __init__(self, headers: list[tuple[str, str | bytes]]) -> None:
        self._headers = headers

    def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
        return self._headers

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}
