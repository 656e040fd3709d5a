"""Bytes of HTTP/2, written by hand: what a well-behaved client library would never send."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(**values: int) -> bytes:
    numbers = {"window": INITIAL_WINDOW_SIZE}
    body = b"".join(struct.pack(">HI", numbers[name], value) for name, value in values.items())
    return frame(SETTINGS, 0, 0, body)


def headers(method: str, more: Sequence[tuple[str, str]] = ()) -> bytes:
    """A header block of literals that are not indexed."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost")]
    fields += [("te", "trailers"), ("content-type", "application/grpc"), *more]
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def message(content: bytes) -> bytes:
    """A gRPC message as it stands in DATA frames."""
    return b"\0" + struct.pack(">I", len(content)) + content


def _text(text: str) -> bytes:
    raw, length = text.encode(), bytearray()
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    rest = len(raw) - 127
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    length.append(rest)
    return bytes([127]) + bytes(length) + raw


@contextmanager
def opened(address: str, *sent: bytes) -> Iterator[socket.socket]:
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"".join(sent))
        yield connection


def closed_within(connection: socket.socket, seconds: float) -> bool:
    """Read until the server closes the connection; False where it does not in time."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            if not connection.recv(1 << 16):
                return True
        except TimeoutError:
            return False
        except OSError:
            return True
    return False
