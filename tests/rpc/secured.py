"""Servers that ask who calls, and callers with tokens and certificates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from monitor.rpc.access.callers import entry_line, new_token
from monitor.rpc.access.roles import Role
from monitor.rpc.server import Addresses, Server, run_in_background
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.rpc.certificates import Pair
from tests.rpc.conftest import DEADLINE, settings
from tests.rpc.fake import FakeRuntime, policies

PLAIN = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]


@dataclass
class Callers:
    """A file of callers, and the tokens that are not in it."""

    path: Path
    tokens: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, *roles: Role, **limits: Any) -> str:
        token = new_token()
        line = json.loads(entry_line(name, roles, token)) | limits
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.tokens[name] = token
        return token

    def header(self, name: str) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.tokens[name]}")]


@dataclass
class Guarded:
    runtime: FakeRuntime
    addresses: Addresses
    server: Server


@contextmanager
def guarded(grace: float = 5.0, **changes: Any) -> Iterator[Guarded]:
    """A server over a fake runtime, without a client."""
    chosen = policies()
    runtime = FakeRuntime(chosen.watch)
    server = Server(settings(**changes), runtime, chosen)
    with run_in_background(server, grace) as addresses:
        yield Guarded(runtime, addresses, server)


@contextmanager
def over_tls(address: str, trusted: Pair, own: Pair | None = None) -> Iterator[Any]:
    """A stub over TLS; `own` is the client's certificate."""
    pair = (own.key_pem, own.pem) if own else (None, None)
    credentials = grpc.ssl_channel_credentials(trusted.pem, *pair)
    target = f"localhost:{address.rpartition(':')[2]}"
    with grpc.secure_channel(target, credentials, PLAIN) as channel:
        yield MonitorServiceStub(channel)


def listed(stub: Any, header: list[tuple[str, str]] | None = None) -> pb.ListPoliciesResponse:
    """The cheapest call."""
    return stub.ListPolicies(pb.ListPoliciesRequest(), timeout=DEADLINE, metadata=header)
