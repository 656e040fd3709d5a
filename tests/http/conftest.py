"""A server over a fake runtime with an HTTP port, and the client of the OpenAI API that people use."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx
import openai
import pytest

from monitor.http.door import HttpDoor
from monitor.policy.policyset import PolicySet
from monitor.rpc.server import Addresses, Server, run_in_background
from tests.rpc.conftest import scrape, settings
from tests.rpc.fake import FakeRuntime, policies

DEADLINE = 60.0
"""Seconds; far more than any call here takes."""
MODEL = "fake"


@dataclass
class Served:
    """A running server and its fake insides."""

    runtime: FakeRuntime
    addresses: Addresses
    server: Server
    clients: list[openai.OpenAI] = field(default_factory=list, kw_only=True)
    """To be closed before the server is."""

    def client(self, **changes: Any) -> openai.OpenAI:
        options = {"api_key": "none", "max_retries": 0, "timeout": DEADLINE} | changes
        self.clients.append(openai.OpenAI(base_url=f"{self.addresses.http}/v1", **options))
        return self.clients[-1]

    def close(self) -> None:
        """Close all clients. A socket that is left to the collector of garbage fails whichever test runs then."""
        for client in self.clients:
            client.close()

    def chat(self, text: str, **fields: Any) -> Any:
        options = {"model": MODEL, "temperature": 0, "max_tokens": 6} | fields
        messages = [{"role": "user", "content": text}]
        return self.client().chat.completions.create(messages=messages, **options)

    def post(self, path: str, body: Any, **options: Any) -> Any:
        """An answer to JSON."""
        return httpx.post(
            f"{self.addresses.http}{path}", json=body, trust_env=False, timeout=DEADLINE, **options
        )

    def metric(self, name: str, **labels: str) -> float:
        return sum(
            value
            for (found, pairs), value in scrape(self.addresses.metrics).items()
            if found == f"sae_monitor_{name}" and labels.items() <= dict(pairs).items()
        )

    @contextmanager
    def raw(self, request: bytes) -> Iterator[socket.socket]:
        """A connection on which these bytes were sent."""
        host, _, port = self.addresses.http.rpartition("/")[2].rpartition(":")
        with socket.create_connection((host, int(port)), timeout=DEADLINE) as connection:
            connection.sendall(request)
            yield connection


def closed(connection: socket.socket) -> bool:
    """True once the other side has closed the connection, without a word before."""
    try:
        return connection.recv(10) == b""
    except ConnectionResetError:
        return True


@contextmanager
def serving(
    runtime: FakeRuntime | None = None, chosen: PolicySet | None = None, grace: float = 5.0, **changes: Any
) -> Iterator[Served]:
    """A server over a fake runtime, with an HTTP port."""
    chosen = chosen or policies()
    runtime = runtime or FakeRuntime(chosen.watch)
    options = {"http_listen": "127.0.0.1:0", "served_model_name": MODEL} | changes
    server = Server(settings(**options), runtime, chosen, door=HttpDoor)
    with run_in_background(server, grace) as addresses, closing(Served(runtime, addresses, server)) as found:
        yield found


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as running:
        yield running
