"""What goes to the upstream server and what comes back: headers, credentials, compressed bodies."""

import gzip
import zlib

import openai
import pytest

from monitor.errors import ConfigurationError
from monitor.http.guard.upstream import (
    AUTHORIZATION,
    Upstream,
    passed_on,
    unpacked,
    with_own_authorization,
)
from monitor.rpc.access.roles import Role
from tests.http.conftest import DEADLINE
from tests.http.guard.conftest import guarding
from tests.rpc.conftest import settings
from tests.rpc.secured import Callers

HELLO = [{"role": "user", "content": "hello"}]


def test_headers_that_are_between_neighbours_are_left_out():
    given = [
        (b"Connection", b"close, X-Hop"),
        (b"X-Hop", b"a"),
        (b"Transfer-Encoding", b"chunked"),
        (b"TE", b"trailers"),
        (b"X-Kept", b"b"),
        (b"X-Kept", b"c"),
    ]
    assert passed_on(given) == [(b"x-kept", b"b"), (b"x-kept", b"c")]


def test_bodies_are_unpacked_up_to_a_size():
    text = b"text " * 100
    for encoding, body in (
        ("", text),
        ("identity", text),
        ("gzip", gzip.compress(text)),
        ("deflate", zlib.compress(text)),
    ):
        assert unpacked(body, encoding, 500) == text
    assert unpacked(gzip.compress(text), "gzip", 499) is None
    assert unpacked(gzip.compress(text)[:-9], "gzip", 500) is None
    assert unpacked(text, "gzip", 500) is None
    assert unpacked(text, "zstd", 500) is None


def scope(**headers: str):
    return {"headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]}


@pytest.mark.parametrize(
    ("given", "checks", "ours", "theirs"),
    [
        ({"authorization": "U"}, False, None, "U"),
        ({"authorization": "O"}, True, "O", None),
        ({"authorization": "U", "x_sae_monitor_authorization": "O"}, True, "O", "U"),
        ({"authorization": "U", "x_sae_monitor_authorization": "O"}, False, "O", "U"),
        ({}, True, None, None),
    ],
)
def test_whose_an_authorization_is(given, checks, ours, theirs):
    found = with_own_authorization(scope(**given, x_other="kept"), checks_callers=checks)
    headers = dict(found["headers"])
    assert headers.get(b"authorization") == (ours.encode() if ours else None)
    assert headers[b"x-other"] == b"kept"
    assert b"x-sae-monitor-authorization" not in headers
    assert found[AUTHORIZATION] == (theirs.encode() if theirs else None)


def test_two_authorizations_are_not_made_one():
    given = [(b"authorization", b"A"), (b"authorization", b"B")]
    found = with_own_authorization({"headers": given}, checks_callers=True)
    assert found["headers"] == given


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("", ""),
        ("/", ""),
        ("/v1", ""),
        ("/v1/", ""),
        ("/api/v1", "/api"),
        ("/api", "/api"),
        ("/v1/openai", "/v1/openai"),
    ],
)
def test_a_url_may_end_as_clients_of_the_api_write_it(behind, given, wanted):
    """What stands in it goes before the path of every request, which has a `/v1` of its own."""
    behind.says("hello")
    del behind.asked[:]
    with guarding(behind, upstream=behind.url + given) as guard:
        guard.client().chat.completions.create(model="m", messages=HELLO)
    assert [asked.target for asked in behind.asked] == [f"{wanted}/v1/chat/completions"]


def test_callers_prove_to_the_guard_who_they_are_and_to_the_server_behind_it(behind, tmp_path):
    known = Callers(tmp_path / "callers.jsonl")
    token = known.add("app", Role.INFER)
    (tmp_path / "upstream").write_text("of-the-guard\n")
    behind.says("fine")
    with guarding(behind, callers=known.path, upstream_token_file=tmp_path / "upstream") as guard:
        assert guard.post("/v1/chat/completions", {"messages": HELLO}).status_code == 401
        own = guard.client(api_key=token)
        assert own.chat.completions.create(model="up", messages=HELLO).choices[0].message.content == "fine"
        assert behind.asked[-1].headers["authorization"] == "Bearer of-the-guard"
        both = guard.client(
            api_key="of-the-caller", default_headers={"x-sae-monitor-authorization": f"Bearer {token}"}
        )
        both.chat.completions.create(model="up", messages=HELLO)
        assert behind.asked[-1].headers["authorization"] == "Bearer of-the-caller"
        assert not any("sae-monitor" in name for name in behind.asked[-1].headers)
        wrong = guard.client(api_key="of-the-caller", timeout=DEADLINE)
        with pytest.raises(openai.AuthenticationError):
            wrong.models.list()


def test_a_role_that_may_not_infer_may_not_be_guarded(behind, tmp_path):
    known = Callers(tmp_path / "callers.jsonl")
    token = known.add("auditor", Role.INSPECT)
    with guarding(behind, callers=known.path) as guard:
        headers = {"authorization": f"Bearer {token}"}
        assert guard.post("/v1/chat/completions", {"messages": HELLO}, headers=headers).status_code == 403


@pytest.mark.parametrize("content", [b"", b" \n", b"two\nlines", "tökén".encode()])
def test_a_file_that_holds_no_token_is_refused(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(ConfigurationError, match="upstream_token_file"):
        Upstream(settings(upstream="http://127.0.0.1:1", upstream_token_file=tmp_path / "token"))


def test_files_that_are_not_there_are_refused(tmp_path):
    for name in ("upstream_token_file", "upstream_ca"):
        with pytest.raises(ConfigurationError, match=name):
            Upstream(settings(upstream="https://127.0.0.1:1", **{name: tmp_path / "none"}))


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://a:b@c", "http://x?y=1"])
def test_wrong_urls_are_refused(url):
    with pytest.raises(ConfigurationError, match="upstream"):
        settings(upstream=url)


def test_a_line_of_a_log_never_holds_the_authorization(behind, capfd):
    behind.says("fine")
    with guarding(behind, log_level="debug") as guard:
        guard.client(api_key="very-secret").chat.completions.create(model="up", messages=HELLO)
        behind.script = lambda reply: reply.connection.close()
        guard.post("/v1/chat/completions", {"messages": HELLO}, headers={"authorization": "very-secret"})
    printed = capfd.readouterr()
    assert "very-secret" not in printed.out + printed.err
