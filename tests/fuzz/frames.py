"""Target: raw bytes on a connection, frames of HTTP/2 in any order. The server must serve others afterwards."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from monitor.v1 import monitor_pb2 as pb
from tests.fuzz.mutate import mutated
from tests.fuzz.target import ACCEPTED, BytesTarget
from tests.rpc import http2
from tests.rpc.conftest import serving

_EVERY = 50
"""Cases between two ordinary calls."""


class Frames(BytesTarget):
    """One connection per case."""

    name = "frames"

    @contextmanager
    def opened(self) -> Iterator[None]:
        with serving(handshake_seconds=1.0) as self._served:
            self._count = 0
            yield

    def corpus(self) -> Sequence[bytes]:
        block = http2.headers("/monitor.v1.MonitorService/Score")
        body = http2.message(pb.ScoreRequest(input=pb.Input(text="a")).SerializeToString())
        call = http2.frame(http2.HEADERS, http2.END_HEADERS, 1, block)
        call += http2.frame(http2.DATA, http2.END_STREAM, 1, body)
        return [
            http2.settings() + call,
            http2.settings(window=0) + call,
            call * 2,
            http2.frame(http2.PING, 0, 0, b"8" * 8),
        ]

    def mutate(self, data: bytes, chance: random.Random, corpus: Sequence[bytes]) -> bytes:
        """Bytes changed, or a frame of any kind with any flags put in."""
        if chance.random() < 0.5:
            return mutated(data, chance, corpus)
        kind, flags, stream = (
            chance.randrange(12),
            chance.randrange(256),
            chance.choice((0, 1, 2, 3, 2**31 - 1)),
        )
        strange = http2.frame(
            kind, flags, stream, chance.randbytes(chance.choice((0, 1, 4, 8, 9, 100, 20_000)))
        )
        at = chance.choice((0, 9, len(data)))
        return data[:at] + strange + data[at:]

    def run(self, data: bytes) -> str:
        with suppress(OSError), http2.opened(self._served.addresses.grpc, http2.PREFACE, data) as connection:
            connection.settimeout(0.02)
            with suppress(TimeoutError):
                connection.recv(4096)
            connection.shutdown(socket.SHUT_RDWR)
        self._count += 1
        if self._count % _EVERY == 0:
            assert self._served.score("still here").verdict.status == pb.CHECK_STATUS_CHECKED
        return ACCEPTED
