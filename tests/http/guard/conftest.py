"""A guard over a fake model, in front of a server that answers as a test says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from monitor.http.guard.door import GuardDoor
from monitor.policy.policyset import PolicySet
from monitor.rpc.server import Server, run_in_background
from tests.http.conftest import Served
from tests.http.guard.upstream import Upstream, upstream
from tests.rpc.conftest import settings
from tests.rpc.fake import FakeRuntime, policies


@dataclass
class Guarded(Served):
    """A running guard, and what it guards."""

    upstream: Upstream

    def chat(self, text: str, **fields: Any) -> Any:
        messages = fields.pop("messages", [{"role": "user", "content": text}])
        return self.client().chat.completions.create(messages=messages, model="up", **fields)

    def client(self, **changes: Any) -> openai.OpenAI:
        return super().client(**({"api_key": "for-upstream"} | changes))


@contextmanager
def guarding(
    behind: Upstream,
    chosen: PolicySet | None = None,
    runtime: FakeRuntime | None = None,
    **changes: Any,
) -> Iterator[Guarded]:
    chosen = chosen or policies()
    runtime = runtime or FakeRuntime(chosen.watch, context=1000)
    options = {"http_listen": "127.0.0.1:0", "upstream": behind.url, "max_running": 0} | changes
    server = Server(settings(**options), runtime, chosen, door=GuardDoor)
    with (
        run_in_background(server, 5.0) as addresses,
        closing(Guarded(runtime, addresses, server, behind)) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def behind() -> Iterator[Upstream]:
    with upstream() as found:
        yield found


@pytest.fixture(scope="module")
def guard(behind: Upstream) -> Iterator[Guarded]:
    with guarding(behind) as found:
        yield found


def text_of(chunks: Any) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
