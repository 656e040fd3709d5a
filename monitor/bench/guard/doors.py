"""Doors in front of a server, each in a process of its own: the guard, Envoy, LiteLLM's proxy."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx2
from ruamel.yaml import YAML

BOOTSTRAP = Path(__file__).parents[3] / "deploy" / "envoy" / "envoy.yaml"
"""The Envoy configuration that is shipped."""
_FILTER = "envoy.filters.http.ext_proc"
_FREE = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--decision-log", "off")
_WIDE = ("--max-concurrent-calls", "4096", "--max-connections", "8192", "--max-streams", "4096")
_NOTHING = '''\
from litellm.integrations.custom_guardrail import CustomGuardrail


class Nothing(CustomGuardrail):
    """Looks at every request, answer and piece of a stream, and leaves all as it is."""

    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        return data

    async def async_post_call_success_hook(self, data, user_api_key_dict, response):
        return response

    async def async_post_call_streaming_iterator_hook(self, user_api_key_dict, response, request_data):
        async for piece in response:
            yield piece
'''


@dataclass(frozen=True)
class MeasuredDoor:
    """Where streams are asked for."""

    url: str
    grpc: str = ""
    """Address of the gRPC port; empty where there is none."""
    guarded: bool = False
    """True where every stream must end with a verdict."""
    token: str = ""
    """Bearer token that it wants."""


@contextmanager
def guard(behind: str, mode: str, pair: str) -> Iterator[MeasuredDoor]:
    """A guard as a reverse proxy."""
    flags = ["--upstream", behind, "--guard-mode", mode, "--http-listen", "127.0.0.1:0"]
    with _monitor(flags, pair, '"http": "(http://[^"]+)"') as (http, grpc):
        yield MeasuredDoor(http, grpc, guarded=True)


@contextmanager
def envoy(program: str, behind: str) -> Iterator[MeasuredDoor]:
    """Envoy without a filter of ours."""
    with _envoy(program, behind, None) as url:
        yield MeasuredDoor(url)


@contextmanager
def guarded_envoy(program: str, behind: str, pair: str) -> Iterator[MeasuredDoor]:
    """Envoy with a guard as its external processor, in the configuration that is shipped."""
    with _monitor(["--envoy"], pair, "") as (_, grpc), _envoy(program, behind, grpc) as url:
        yield MeasuredDoor(url, grpc, guarded=True)


@contextmanager
def litellm(python: str, behind: str) -> Iterator[MeasuredDoor]:
    """LiteLLM's proxy with a guardrail that does nothing. `python` is an interpreter that has `litellm[proxy]`."""
    port, token = _free_port(), f"sk-{secrets.token_urlsafe(24)}"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "nothing.py").write_text(_NOTHING, encoding="utf-8")
        config = Path(folder, "config.yaml")
        config.write_text(json.dumps(_litellm_config(behind)), encoding="utf-8")  # JSON is YAML
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"LITELLM_MASTER_KEY": token, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}
        program = str(Path(python).with_name("litellm"))
        command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        url = f"http://127.0.0.1:{port}"
        with _running(command, env=environment, cwd=folder) as (process, log):
            _wait(process, log, lambda: _answers(f"{url}/health/liveliness"))
            yield MeasuredDoor(url, token=token)


def _litellm_config(behind: str) -> dict[str, Any]:
    upstream = {"model": "openai/recorded", "api_base": f"{behind}/v1", "api_key": "none"}
    watched = {
        "guardrail": "nothing.Nothing",
        "mode": ["pre_call", "post_call"],
        "default_on": True,
    }
    return {
        "model_list": [{"model_name": "recorded", "litellm_params": upstream}],
        "guardrails": [{"guardrail_name": "nothing", "litellm_params": watched}],
    }


@contextmanager
def _monitor(flags: Sequence[str], pair: str, http: str) -> Iterator[tuple[str, str]]:
    """`sae-monitor guard` with these flags: its URL, as a pattern finds it in the log, and its gRPC address."""
    # Where Envoy stands in front nobody needs the HTTP port, and it must not be taken.
    free = [*_FREE, *([] if http else ["--http-listen", "127.0.0.1:0"]), *_WIDE, "--log-format", "json"]
    command = [sys.executable, "-m", "monitor", "guard", *free, "--pair", pair, *flags]
    found: list[re.Match[str] | None] = []

    def listens(log: IO[str]) -> bool:
        log.seek(0)
        text = log.read()
        found[:] = [re.search(http, text), re.search('"grpc": "([^"]+)"', text)]
        return all(found)

    with _running(command, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as (process, log):
        _wait(process, log, lambda: listens(log))
        url, grpc = found
        assert url is not None
        assert grpc is not None
        yield (url[1] if http else ""), grpc[1]


@contextmanager
def _envoy(program: str, behind: str, grpc: str | None) -> Iterator[str]:
    """Envoy before a server; with the guard at a gRPC address, or without any filter."""
    admin, listen = _free_port(), _free_port()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "envoy.json")
        path.write_text(json.dumps(_bootstrap(admin, listen, behind, grpc)), encoding="utf-8")
        command = [program, "-c", str(path), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"]
        with _running(command) as (process, log):
            _wait(process, log, lambda: _answers(f"http://127.0.0.1:{admin}/ready"))
            time.sleep(1.0 if grpc else 0.0)  # the first health check of the guard
            yield f"http://127.0.0.1:{listen}"


def _bootstrap(admin: int, listen: int, behind: str, grpc: str | None) -> Any:
    config = YAML(typ="safe").load(BOOTSTRAP.read_text(encoding="utf-8"))
    listener, clusters = config["static_resources"]["listeners"][0], config["static_resources"]["clusters"]
    config["admin"]["address"]["socket_address"]["port_value"] = admin
    listener["address"]["socket_address"]["port_value"] = listen
    _point(clusters[0], behind.rpartition(":")[2])
    if grpc is None:
        filters = listener["filter_chains"][0]["filters"][0]["typed_config"]
        filters["http_filters"] = [one for one in filters["http_filters"] if one["name"] != _FILTER]
        del clusters[1:]
    else:
        _point(clusters[1], grpc.rpartition(":")[2])
    return config


def _point(cluster: dict[str, Any], port: str) -> None:
    """Have a cluster of one server on this machine stand at another port."""
    (place,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    place["endpoint"]["address"]["socket_address"]["port_value"] = int(port)


@contextmanager
def _running(command: Sequence[str], **options: Any) -> Iterator[tuple[subprocess.Popen[bytes], IO[str]]]:
    """A process and its output, until the block ends."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        try:
            yield process, log
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(
    process: subprocess.Popen[bytes], log: IO[str], there: Callable[[], bool], seconds: float = 300.0
) -> None:
    """Wait until a process serves. Raises RuntimeError with the end of its output where it does not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if there():
            return
        time.sleep(0.1)
    log.seek(0)
    raise RuntimeError(f"{process.args!r} did not start (exit code {process.poll()}): {log.read()[-2000:]}")


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, trust_env=False, timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
