"""A real server over a small random pair, whose insides a test can break while it serves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from monitor.model.runtime import Runtime
from monitor.rpc.assembly import assemble
from monitor.rpc.server import Addresses, Server, run_in_background
from monitor.settings import load_settings
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.rpc.conftest import DEADLINE, connected, generation, scrape
from tests.rpc.pairs import Scene, small_scene

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Faulty:
    """A running server and what a test may break in it."""

    runtime: Runtime
    scene: Scene
    addresses: Addresses
    channel: grpc.Channel
    server: Server

    @property
    def stub(self) -> Any:
        return MonitorServiceStub(self.channel)

    def stream(self, text: str, timeout: float = DEADLINE, **fields: Any) -> Any:
        request = pb.GenerateStreamRequest(generation=generation(text, **fields))
        return self.stub.GenerateStream(request, timeout=timeout)

    def generate(self, text: str, **fields: Any) -> pb.GenerateResponse:
        request = pb.GenerateRequest(generation=generation(text, **fields))
        return self.stub.Generate(request, timeout=DEADLINE)

    def score(self, text: str) -> pb.ScoreResponse:
        return self.stub.Score(pb.ScoreRequest(input=pb.Input(text=text)), timeout=DEADLINE)

    def health(self) -> int:
        stub = health_pb2_grpc.HealthStub(self.channel)
        return stub.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE).status

    def metric(self, name: str, **labels: str) -> float:
        return sum(
            value
            for (found, pairs), value in scrape(self.addresses.metrics).items()
            if found == f"sae_monitor_{name}" and labels.items() <= dict(pairs).items()
        )


@contextmanager
def faulty(
    folder: Path, *, on_error: str = "closed", blocks: bool = True, **changes: Any
) -> Iterator[Faulty]:
    """The server of a scene whose policies all say `on_error`; without `blocks` no rule ever ends a generation."""
    scene = small_scene(folder)
    for file in (folder / "policies").glob("*.yaml"):
        policy = json.loads(file.read_text()) | {"on_error": on_error}
        for rule in policy["rules"]:
            rule["threshold"] = rule["threshold"] if blocks else 90.0
        file.write_text(json.dumps(policy, indent=2))
    settings = load_settings(scene.flags | changes)
    assembly = assemble(settings)
    server = Server(settings, *assembly)
    with run_in_background(server, 2.0) as addresses, connected(addresses.grpc) as channel:
        yield Faulty(assembly.runtime, scene, addresses, channel, server)
