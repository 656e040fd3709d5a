"""A real sidecar on the demo pair, a real Prometheus that scrapes it, and traffic.

The shipped rules are used as they are, except that their durations are shortened, so that a test need not wait for
minutes: `shortened` says which.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from monitor.policy.files.lock_folders import LOCKS
from monitor.rpc.assembly import bundled_policies
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.deploy.processes import fetch_json, free_port, process
from tests.deploy.tools import RULES, found
from tests.rpc.pairs import SILENT, SPEAKS, Scene, demo_scene

DURATIONS = {"5m": "10s", "15m": "10s", "1h": "20s", "1d": "20s"}
"""Windows of the shipped rules, and what they become."""

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def shortened(text: str) -> str:
    """Rules with windows of seconds, evaluated every second, with `for` and `offset` of one."""
    text = re.sub(r"\[(5m|15m|1h|1d)\]", lambda match: f"[{DURATIONS[match[1]]}]", text)
    text = re.sub(r"offset \w+", "offset 1s", text)
    return re.sub(r"^( +)(for|interval): \w+$", r"\1\2: 1s", text, flags=re.MULTILINE)


@dataclass
class Sidecar:
    """A running sidecar and what is sent to it."""

    grpc: str
    metrics: str
    channel: grpc.Channel
    scene: Scene
    text: str = SPEAKS
    failed: list[str] = field(default_factory=list)

    def score(self, text: str) -> pb.ScoreResponse:
        stub = MonitorServiceStub(self.channel)
        parent = [("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")]
        return stub.Score(pb.ScoreRequest(input=pb.Input(text=text)), timeout=30, metadata=parent)

    def generate(self, text: str) -> pb.GenerateResponse:
        sampling = pb.Sampling(max_new_tokens=12)
        message = pb.Generation(input=pb.Input(text=text), sampling=sampling)
        return MonitorServiceStub(self.channel).Generate(pb.GenerateRequest(generation=message), timeout=30)

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Scores of `text`, which may be changed meanwhile, and harmless generations, one after the other."""
        over = threading.Event()

        def send() -> None:
            while not over.wait(0.05):
                try:
                    self.score(self.text)
                    self.generate(SILENT)
                except grpc.RpcError as error:
                    self.failed.append(error.code().name)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield
        finally:
            over.set()
            sender.join()


@contextmanager
def sidecar(folder: Path, **more: object) -> Iterator[Sidecar]:
    """The demo pair with the bundled policies, and two more that are known to fire on SPEAKS and not on SILENT.

    `more` are further settings. What the process says is in `sidecar.log` of the folder.
    """
    scene = demo_scene(folder)
    assert scene is not None
    assert scene.flags["policies"] != bundled_policies()
    for path in bundled_policies().iterdir():
        if path.is_file() and not (scene.flags["policies"] / path.name).exists():
            shutil.copy(path, scene.flags["policies"])
    shutil.copytree(bundled_policies() / LOCKS, scene.flags["policies"] / LOCKS)
    listen, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    flags = scene.flags | {"listen": listen, "metrics_listen": metrics}
    if more:
        flags["settings"] = folder / "settings.yaml"
        # JSON is YAML.
        flags["settings"].write_text(json.dumps(more, default=str))
    command = [sys.executable, "-m", "monitor", "serve"]
    for name, value in flags.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    root = Path(__file__).parents[2]
    with (
        process(command, folder / "sidecar.log", root, f"http://{metrics}/metrics"),
        grpc.insecure_channel(listen, [("grpc.enable_http_proxy", 0)]) as channel,
    ):
        grpc.channel_ready_future(channel).result(timeout=60)
        yield Sidecar(listen, metrics, channel, scene)


@dataclass
class Prometheus:
    """A running Prometheus."""

    address: str

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The samples of an expression, now."""
        return self._get("query", query=expr)["result"]

    def exemplars(self, expr: str) -> list[dict[str, Any]]:
        """Exemplars of the last five minutes."""
        times = {"start": self.query("time()-300")[1], "end": self.query("time()")[1]}
        return self._get("query_exemplars", query=expr, **times)

    def _get(self, name: str, **parameters: str) -> Any:
        url = f"http://{self.address}/api/v1/{name}?{urllib.parse.urlencode(parameters)}"
        return fetch_json(url)["data"]


@contextmanager
def prometheus(folder: Path, target: str, alertmanager: str | None = None) -> Iterator[Prometheus]:
    """Scrapes `target` every other second, with the shipped rules, shortened."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in RULES:
        (folder / path.name).write_text(shortened(path.read_text()))
    config = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"},
        "rule_files": [path.name for path in RULES],
        "alerting": {
            "alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}] if alertmanager else []
        },
        "scrape_configs": [{"job_name": "sae-monitor", "static_configs": [{"targets": [target]}]}],
    }
    # JSON is YAML.
    (folder / "prometheus.yml").write_text(json.dumps(config))
    address = f"127.0.0.1:{free_port()}"
    command = [
        found("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--enable-feature=exemplar-storage",
    ]
    with process(command, folder / "prometheus.log", folder, f"http://{address}/-/ready"):
        yield Prometheus(address)


__all__ = ["SILENT", "SPEAKS", "TRACE", "Prometheus", "Sidecar", "prometheus", "shortened", "sidecar"]
