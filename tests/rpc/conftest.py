"""A server over a fake runtime on free ports, and what a test needs to talk to it."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from prometheus_client.parser import text_string_to_metric_families

from monitor.policy.policyset import PolicySet
from monitor.rpc.server import Addresses, Server, run_in_background
from monitor.settings import Settings, load_settings
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.rpc.fake import FakeRuntime, policies

pytest.register_assert_rewrite("tests.rpc.striking")

DEADLINE = 60.0
"""Seconds; far more than any call here takes."""


@dataclass
class Served:
    """A running server, its fake insides and a client."""

    runtime: FakeRuntime
    addresses: Addresses
    channel: grpc.Channel
    stub: Any
    server: Server

    def score(self, text: str, **fields: Any) -> pb.ScoreResponse:
        return self.stub.Score(pb.ScoreRequest(input=pb.Input(text=text), **fields), timeout=DEADLINE)

    def generate(self, text: str, **fields: Any) -> pb.GenerateResponse:
        request = pb.GenerateRequest(generation=generation(text, **fields))
        return self.stub.Generate(request, timeout=DEADLINE)

    def stream(self, text: str, timeout: float = DEADLINE, **fields: Any) -> Any:
        request = pb.GenerateStreamRequest(generation=generation(text, **fields))
        return self.stub.GenerateStream(request, timeout=timeout)

    def metric(self, name: str, **labels: str) -> float:
        return sum(
            value
            for (found, pairs), value in scrape(self.addresses.metrics).items()
            if found == f"sae_monitor_{name}" and labels.items() <= dict(pairs).items()
        )


def generation(text: str, **fields: Any) -> pb.Generation:
    """A generation of a text; `truncate` and the fields of Sampling may stand beside those of Generation."""
    prompt = pb.Input(text=text, truncate=fields.pop("truncate", False))
    names = {field.name for field in pb.Sampling.DESCRIPTOR.fields} & fields.keys()
    sampling = pb.Sampling(**{name: fields.pop(name) for name in names})
    return pb.Generation(input=prompt, sampling=sampling, **fields)


def scrape(address: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample at `http://address/metrics`."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def details(error: grpc.RpcError) -> dict[str, Any]:
    """The details of a status by the name of their type."""
    status = rpc_status.from_call(error)
    found = {}
    for packed in status.details:
        message = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])()
        assert packed.Unpack(message)
        found[type(message).__name__] = message
    return found


def fields(error: grpc.RpcError) -> list[str]:
    """The field names of a BadRequest."""
    return [violation.field for violation in details(error)["BadRequest"].field_violations]


@contextmanager
def fails(code: str) -> Iterator[list[grpc.RpcError]]:
    """The call inside fails with this status; the error is in the list afterwards."""
    caught: list[grpc.RpcError] = []
    with pytest.raises(grpc.RpcError) as info:
        yield caught
    assert info.value.code().name == code, info.value
    caught.append(info.value)


@contextmanager
def serving(
    runtime: FakeRuntime | None = None, chosen: PolicySet | None = None, grace: float = 5.0, **changes: Any
) -> Iterator[Served]:
    """A server over a fake runtime."""
    chosen = chosen or policies()
    runtime = runtime or FakeRuntime(chosen.watch)
    server = Server(settings(**changes), runtime, chosen)
    with run_in_background(server, grace) as addresses, connected(addresses.grpc) as channel:
        yield Served(runtime, addresses, channel, MonitorServiceStub(channel), server)


def settings(**changes: Any) -> Settings:
    return load_settings({"listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0"} | changes)


@contextmanager
def connected(address: str) -> Iterator[grpc.Channel]:
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(address, options) as channel:
        yield channel


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as running:
        yield running
