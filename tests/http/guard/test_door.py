"""The guard's port: what it refuses at the start, and over TLS in front of a server over TLS."""

import httpx2 as httpx
import pytest

from monitor.errors import ConfigurationError
from monitor.http.guard.door import check_guard
from tests.http.guard.conftest import guarding
from tests.rpc.conftest import settings
from tests.rpc.fake import FakeRuntime, policies


def test_there_must_be_something_to_guard():
    with pytest.raises(ConfigurationError, match="--upstream"):
        check_guard(settings())
    check_guard(settings(upstream="http://127.0.0.1:8000"))


def test_a_model_that_forgets_cannot_watch(behind):
    runtime = FakeRuntime(policies().watch)
    runtime.scorer.why_whole = "its layers forget"
    with pytest.raises(ConfigurationError, match="take another one"), guarding(behind, runtime=runtime):
        raise AssertionError("it was started")


def test_other_hosts_are_refused_on_a_loopback_address(guard):
    url = f"{guard.addresses.http}/v1/models"
    found = httpx.get(url, headers={"host": "evil.example"}, trust_env=False)
    assert found.status_code == 421


def test_a_body_that_is_too_large_is_refused(behind):
    with guarding(behind, max_message_bytes=2048) as guard:
        body = {"messages": [{"role": "user", "content": "x" * 4000}]}
        assert guard.post("/v1/chat/completions", body).status_code == 413


def test_calls_beyond_the_limit_are_refused(behind):
    def script(reply):
        assert reply.closed()

    behind.script = script
    with guarding(behind, max_concurrent_calls=1, upstream_silence_seconds=30) as guard:
        body = {"messages": [{"role": "user", "content": "hello"}], "model": "up"}
        with (
            httpx.Client(trust_env=False, timeout=1.0) as client,
            pytest.raises(httpx.ReadTimeout),
        ):
            client.post(f"{guard.addresses.http}/v1/chat/completions", json=body)
        assert guard.metric("requests_total", method="GuardChatCompletions", code="CANCELLED") <= 1


def test_draining_lets_answers_finish(behind):
    behind.streams(["one ", "two ", "three"], pause=0.1)
    with guarding(behind) as guard:
        stream = iter(guard.chat("hello", stream=True))
        next(stream)
        server = guard.server
        assert server._access.admission is not None
        rest = list(stream)
    assert rest[-1].choices[0].finish_reason == "stop"
