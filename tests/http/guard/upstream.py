"""A small server of the OpenAI API that answers as a test says: odd chunks, errors, silence, a broken connection."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Script = Callable[["Reply"], None]


@dataclass
class Asked:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Reply:
    """What a script has to answer with."""

    def __init__(self, connection: socket.socket, asked: Asked) -> None:
        self.connection, self.asked = connection, asked

    def head(self, status: int, *lines: str) -> None:
        text = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status} Status", *lines))
        self.connection.sendall(f"{text}\r\n".encode())

    def whole(self, content: Any, status: int = 200, *lines: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.head(status, "content-type: application/json", f"content-length: {len(body)}", *lines)
        self.connection.sendall(body)

    def stream(self, *lines: str) -> None:
        self.head(200, "content-type: text/event-stream", "transfer-encoding: chunked", *lines)

    def chunk(self, data: bytes) -> None:
        self.connection.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def event(self, content: Any) -> None:
        self.chunk(b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n")

    def end(self) -> None:
        self.connection.sendall(b"0\r\n\r\n")

    def closed(self, seconds: float = 30) -> bool:
        """True once the other side has gone."""
        self.connection.settimeout(seconds)
        try:
            return self.connection.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


@dataclass
class Upstream:
    """The running server. `script` answers every request."""

    url: str = ""
    script: Script = lambda reply: reply.whole({})
    asked: list[Asked] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    """Set by scripts that see their caller go."""

    def says(self, text: str, **fields: Any) -> None:
        self.script = lambda reply: reply.whole(chat(text, **fields))

    def streams(self, pieces: Sequence[str], **options: Any) -> None:
        self.script = streamed(pieces, **options)


def chat(text: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A whole chat completion."""
    said = {"role": "assistant", "content": text} | message
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": finish}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {
        "id": "chatcmpl-up",
        "object": "chat.completion",
        "created": 1,
        "model": "up",
        "choices": [choice],
        "usage": usage,
    }


def chunk(delta: Any, finish: str | None = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    """A piece of a streamed chat completion."""
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    head = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "model": "up"}
    return head | {"choices": [choice]} | fields


def streamed(pieces: Sequence[str], *, pause: float = 0, finish: str = "stop", usage: bool = False) -> Script:
    """Answers with a stream of these pieces."""

    def script(reply: Reply) -> None:
        reply.stream()
        reply.event(chunk({"role": "assistant", "content": ""}))
        for piece in pieces:
            time.sleep(pause)
            reply.event(chunk({"content": piece}))
        reply.event(chunk({}, finish))
        if usage:
            counts = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
            reply.event(chunk({}) | {"choices": [], "usage": counts})
        reply.chunk(b"data: [DONE]\n\n")
        reply.end()

    return script


@contextmanager
def upstream() -> Iterator[Upstream]:
    """A server on a free port, until the context ends."""
    listening = socket.create_server(("127.0.0.1", 0))
    found = Upstream(f"http://127.0.0.1:{listening.getsockname()[1]}")
    open_now: set[socket.socket] = set()

    def serve(connection: socket.socket) -> None:
        open_now.add(connection)
        try:
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while (asked := _read(connection)) is not None:
                    found.asked.append(asked)
                    found.script(Reply(connection, asked))
        except (ConnectionError, OSError):
            found.gone.set()
        except BaseException as error:  # noqa: BLE001  (the test looks at it)
            found.failures.append(error)
        finally:
            open_now.discard(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield found
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for connection in list(open_now):
            connection.close()
    assert not found.failures


def _read(connection: socket.socket) -> Asked | None:
    held = b""
    while b"\r\n\r\n" not in held:
        part = connection.recv(65536)
        if not part:
            return None
        held += part
    head, _, body = held.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = _chunks(connection, body)
    size = int(headers.get("content-length", 0))
    while len(body) < size:
        body += connection.recv(65536)
    method, target, _ = first.split(" ", 2)
    return Asked(method, target, headers, body)


def _chunks(connection: socket.socket, held: bytes) -> bytes:
    """A body that comes in chunks, without trailers."""
    found = b""
    while True:
        while b"\r\n" not in held:
            held += connection.recv(65536)
        line, _, held = held.partition(b"\r\n")
        size = int(line, 16)
        while len(held) < size + 2:
            held += connection.recv(65536)
        found, held = found + held[:size], held[size + 2 :]
        if not size:
            return found
