"""The guard inside Envoy: whose headers and credentials go where. `tests/deploy/test_envoy.py` runs Envoy itself."""

import asyncio

import pytest

from monitor.errors import ConfigurationError
from monitor.http.calls import PEER
from monitor.http.errors import UpstreamError
from monitor.http.guard.door import check_guard
from monitor.http.guard.envoy import EnvoyUpstream, of_envoy
from monitor.http.guard.upstream import AUTHORIZATION
from monitor.rpc.envoy.conversation import CONVERSATION, Gone, UpstreamResponse, _Body
from monitor.rpc.envoy.processor import GRPC_PEER
from tests.rpc.conftest import settings


class Peer:
    def invocation_metadata(self):
        return (("authorization", "Bearer envoys"), ("x", b"y"))

    def auth_context(self):
        return {"x509_common_name": [b"envoy"]}


class Talk:
    """Stands for a conversation."""

    def __init__(self, response=None):
        self.response, self.asked = response, None

    async def ask(self, fields, body):
        self.asked = fields, body
        if self.response is None:
            raise Gone
        return self.response


def test_envoy_is_the_caller_and_credentials_of_requests_are_for_upstream():
    scope = of_envoy({GRPC_PEER: Peer(), "headers": [(b"authorization", b"Bearer theirs"), (b"a", b"b")]})
    assert scope["headers"] == [(b"a", b"b"), (b"authorization", b"Bearer envoys")]
    assert scope[AUTHORIZATION] == b"Bearer theirs"
    assert scope[PEER] == {"x509_common_name": [b"envoy"]}


@pytest.mark.parametrize(
    ("theirs", "sent"), [(b"Bearer theirs", b"Bearer theirs"), (None, b"Bearer operators")]
)
def test_what_goes_upstream(tmp_path, theirs, sent):
    (tmp_path / "token").write_text("operators\n")
    behind = EnvoyUpstream(settings(envoy=True, upstream_token_file=tmp_path / "token"))
    body = _Body()
    body.parts.put_nowait(b"one")
    body.parts.put_nowait(None)
    talk = Talk(UpstreamResponse(200, [(b"content-type", b"text/event-stream; x")], body))
    scope = {
        "headers": [
            (b"host", b"h"),
            (b"accept-encoding", b"br"),
            (b"x-sae-monitor-status", b"checked"),
            (b"authorization", b"Bearer envoys"),
            (b"a", b"b"),
        ],
        AUTHORIZATION: theirs,
        CONVERSATION: talk,
    }

    async def test():
        async with behind.answer(scope, b"body") as found:
            assert (found.status, found.kind, found.readable) == (200, "text/event-stream", True)
            assert await found.content() == b"one"

    asyncio.run(test())
    fields, body = talk.asked
    assert body == b"body"
    assert fields == [(b"a", b"b"), (b"authorization", sent), (b"accept-encoding", b"identity")]


def test_an_envoy_that_goes_is_an_upstream_that_broke():
    async def test():
        with pytest.raises(UpstreamError):
            async with EnvoyUpstream(settings(envoy=True)).answer({"headers": [], CONVERSATION: Talk()}, b""):
                raise AssertionError("there was an answer")

    asyncio.run(test())


def test_a_guard_may_stand_in_envoy_alone(tmp_path):
    check_guard(settings(envoy=True))
    with pytest.raises(ConfigurationError, match="--envoy"):
        check_guard(settings())
    with pytest.raises(ConfigurationError, match="upstream_token_file"):
        check_guard(settings(envoy=True, upstream_token_file=tmp_path / "none"))
