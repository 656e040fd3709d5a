"""A server with the page: over a fake runtime, and over the bundled pair with callers who log in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from monitor.http.page.door import PageDoor
from monitor.policy.policyset import PolicySet
from monitor.rpc.access.roles import Role
from monitor.rpc.assembly import assemble
from monitor.rpc.server import Server, run_in_background
from tests.http.page.tabs import chromium
from tests.rpc.conftest import settings
from tests.rpc.fake import FakeRuntime, policies
from tests.rpc.secured import Callers

DEADLINE = 120.0
"""Seconds; far more than any call here takes."""
CALLERS = {
    "all": tuple(Role),
    "infers": (Role.INFER,),
    "inspects": (Role.INSPECT,),
    "administers": (Role.ADMIN,),
}
"""Names of callers with their roles."""


@dataclass
class Paged:
    """A running server with a page."""

    url: str
    grpc: str = ""
    model: str = ""
    callers: Callers | None = None
    overlay: Path | None = None
    sent: dict[str, str] = field(default_factory=dict)
    """Headers of every request."""

    def of(self, name: str) -> Paged:
        """The same, as a caller with a token."""
        assert self.callers is not None
        token = {"authorization": f"Bearer {self.callers.tokens[name]}"}
        return Paged(self.url, self.grpc, self.model, self.callers, self.overlay, token)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=self.sent | headers, trust_env=False, timeout=DEADLINE)

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        sent = self.sent | headers
        if body is None:
            return httpx.post(self.url + path, headers=sent, trust_env=False, timeout=DEADLINE)
        return httpx.post(self.url + path, json=body, headers=sent, trust_env=False, timeout=DEADLINE)

    def events(self, path: str, body: Any) -> list[dict[str, Any]]:
        """The events of a stream that comes to its end."""
        answer = self.post(path, body)
        assert answer.status_code == 200, answer.text
        parts = [part.removeprefix("data: ") for part in answer.text.split("\n\n") if part]
        assert parts.pop() == "[DONE]"
        return [json.loads(part) for part in parts]

    def chat(self, text: str, **changes: Any) -> list[dict[str, Any]]:
        body = {"model": self.model, "messages": [{"role": "user", "content": text}], "temperature": 0}
        return self.events("/api/chat", body | {"max_completion_tokens": 8} | changes)


@contextmanager
def faked(chosen: PolicySet | None = None, **changes: Any) -> Iterator[Paged]:
    """Over a fake runtime, which shows only what policies watch. Without callers unless they are given."""
    chosen = chosen or policies()
    options = {"page": "127.0.0.1:0", "served_model_name": "fake"} | changes
    server = Server(settings(**options), FakeRuntime(chosen.watch), chosen, page=PageDoor)
    with run_in_background(server, 5.0) as addresses:
        yield Paged(addresses.page, addresses.grpc, "fake", overlay=changes.get("page_overlay"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def known_callers(tmp_path_factory: pytest.TempPathFactory) -> Callers:
    known = Callers(tmp_path_factory.mktemp("callers") / "callers.jsonl")
    for name, roles in CALLERS.items():
        known.add(name, *roles)
    return known


@pytest.fixture(scope="session")
def fake() -> Iterator[Paged]:
    with faked() as running:
        yield running


@pytest.fixture(scope="session")
def guarded(known_callers: Callers) -> Iterator[Paged]:
    """Over a fake runtime, with callers."""
    with faked(callers=known_callers.path) as running:
        running.callers = known_callers
        yield running


@pytest.fixture(scope="session")
def tiny(known_callers: Callers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paged]:
    """Over the bundled pair, with callers, a decision log that keeps text and readings, and an overlay."""
    overlay, log = tmp_path_factory.mktemp("overlay"), tmp_path_factory.mktemp("log")
    chosen = settings(
        page="127.0.0.1:0",
        page_overlay=overlay,
        callers=known_callers.path,
        caller_clamps="any",
        decision_log=str(log),
        decision_log_text=True,
        decision_log_readings=True,
        max_cache_tokens=4096,
        skip_self_test=True,
    )
    with run_in_background(Server(chosen, *assemble(chosen), page=PageDoor), 5.0) as addresses:
        yield Paged(addresses.page, addresses.grpc, "tiny", known_callers, overlay)


@pytest.fixture(scope="session")
def everything(tiny: Paged) -> Paged:
    """The bundled pair as a caller with all roles."""
    return tiny.of("all")
