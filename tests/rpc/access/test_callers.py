"""Tokens and roles: who is let in, who is not, and what the difference looks like from outside."""

import hmac
import json

import grpc
import pytest

from monitor.errors import ConfigurationError, PermissionDenied, Unauthenticated
from monitor.http.door import METHODS as HTTP_METHODS
from monitor.http.guard.proxy import ENVOY_METHODS
from monitor.http.guard.proxy import METHODS as GUARD_METHODS
from monitor.http.page.door import METHODS as PAGE_METHODS
from monitor.rpc.access import call_checks, roles
from monitor.rpc.access import callers as callers_module
from monitor.rpc.access.authentication import REFUSED, Authenticator
from monitor.rpc.access.callers import entry_line, find_token, new_token, read_callers, token_hash
from monitor.rpc.access.roles import Caller, Role
from monitor.rpc.server import SERVICE
from monitor.telemetry.metrics.security import SecurityMetrics
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.rpc.certificates import authority, issued
from tests.rpc.conftest import DEADLINE, connected, details, fails, generation, scrape, settings
from tests.rpc.secured import Callers, guarded, listed, over_tls
from tests.waiting import wait_for

ALL = tuple(Role)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    found = Callers(tmp_path_factory.mktemp("callers") / "callers.jsonl")
    for role in Role:
        found.add(role.value, role)
    found.add("late", *ALL, expires="2020-01-01")
    found.add("everything", *ALL)
    return found


@pytest.fixture(scope="module")
def server(known):
    with guarded(callers=known.path) as running:
        yield running


@pytest.fixture
def stub(server):
    with connected(server.addresses.grpc) as channel:
        yield MonitorServiceStub(channel)


WRONG = {
    "nothing": None,
    "another scheme": [("authorization", "Basic c2FlbTpzYWVt")],
    "no token": [("authorization", "Bearer ")],
    "unknown": [("authorization", f"Bearer {new_token()}")],
    "a hash": [("authorization", f"Bearer {'0' * 64}")],
    "too long": [("authorization", "Bearer " + "x" * 600)],
}


@pytest.mark.parametrize("header", WRONG.values(), ids=WRONG)
def test_nobody_gets_in_without_a_token_and_all_are_told_the_same(stub, server, header):
    before = list(server.runtime.scorer.submitted)
    for call, request in (
        (stub.Score, pb.ScoreRequest(input=pb.Input(text="hello"))),
        (stub.Generate, pb.GenerateRequest(generation=generation("hello"))),
        (stub.ListPolicies, pb.ListPoliciesRequest()),
        (stub.Inspect, pb.InspectRequest(input=pb.Input(text="hello"))),
    ):
        with fails("UNAUTHENTICATED") as caught:
            call(request, timeout=DEADLINE, metadata=header)
        assert caught[0].details() == REFUSED
        assert details(caught[0])["ErrorInfo"].reason == "UNAUTHENTICATED"
    with fails("UNAUTHENTICATED"):
        list(stub.GenerateStream(pb.GenerateStreamRequest(), timeout=DEADLINE, metadata=header))
    assert server.runtime.scorer.submitted == before


def test_an_expired_token_is_as_good_as_none(stub, known):
    with fails("UNAUTHENTICATED") as caught:
        listed(stub, known.header("late"))
    assert caught[0].details() == REFUSED


def test_two_tokens_are_none(stub, known):
    with fails("UNAUTHENTICATED"):
        listed(stub, known.header("infer") + known.header("admin"))


ALLOWED = {
    "Score": {"infer", "everything"},
    "Generate": {"infer", "everything"},
    "ListPolicies": {"infer", "inspect", "admin", "everything"},
    "Inspect": {"inspect", "everything"},
}


def attempt(stub, method, header):
    requests = {
        "Score": pb.ScoreRequest(input=pb.Input(text="hello")),
        "Generate": pb.GenerateRequest(generation=generation("hello", max_new_tokens=2)),
        "ListPolicies": pb.ListPoliciesRequest(),
        "Inspect": pb.InspectRequest(input=pb.Input(text="hello")),
    }
    return getattr(stub, method)(requests[method], timeout=DEADLINE, metadata=header)


@pytest.mark.parametrize("method", ALLOWED)
def test_roles(stub, known, method):
    for name in ("infer", "inspect", "admin", "everything"):
        if name in ALLOWED[method]:
            assert attempt(stub, method, known.header(name)) is not None
            continue
        with fails("PERMISSION_DENIED") as caught:
            attempt(stub, method, known.header(name))
        assert "needs the role" in caught[0].details()


def test_clamps_of_the_callers_own_need_the_role_admin(stub, known):
    request = pb.GenerateRequest(generation=generation("hello", clamps=[pb.Clamp(feature=1, target=-1)]))
    with fails("PERMISSION_DENIED") as caught:
        stub.Generate(request, timeout=DEADLINE, metadata=known.header("infer"))
    assert "generation.clamps" in caught[0].details()
    assert stub.Generate(request, timeout=DEADLINE, metadata=known.header("everything")).text
    streamed = pb.GenerateStreamRequest(generation=request.generation)
    with fails("PERMISSION_DENIED"):
        list(stub.GenerateStream(streamed, timeout=DEADLINE, metadata=known.header("infer")))


def test_a_method_without_a_rule_needs_the_role_admin():
    roles.check_method(Caller("a", frozenset({Role.ADMIN})), "SomethingNew")
    with pytest.raises(PermissionDenied, match="SomethingNew needs the role admin"):
        roles.check_method(Caller("a", frozenset({Role.INFER, Role.INSPECT})), "SomethingNew")


def test_refusals_are_counted_by_cause(server, stub, known):
    def count(reason):
        name = "sae_monitor_refused_callers_total"
        return scrape(server.addresses.metrics)[name, frozenset({("reason", reason)})]

    before = {reason: count(reason) for reason in ("no_token", "unknown_token", "expired_token", "role")}
    for header in (None, WRONG["unknown"], known.header("late")):
        with fails("UNAUTHENTICATED"):
            listed(stub, header)
    with fails("PERMISSION_DENIED"):
        attempt(stub, "Inspect", known.header("infer"))
    assert {reason: count(reason) - was for reason, was in before.items()} == dict.fromkeys(before, 1)


@pytest.mark.slow
def test_a_token_is_taken_and_revoked_while_the_server_runs(tmp_path):
    known = Callers(tmp_path / "callers")
    known.add("first", Role.INFER)
    with guarded(callers=known.path) as server, connected(server.addresses.grpc) as channel:
        stub = MonitorServiceStub(channel)
        assert listed(stub, known.header("first")).policies
        kept = known.path.read_text()
        known.add("second", Role.INFER)
        wait_for(lambda: is_let_in(stub, known.header("second")))
        known.path.write_text("not a caller")
        # The file is read again at a call, and the last good one stays in use.
        wait_for(lambda: is_let_in(stub, known.header("second")) and reloaded(server) == 0)
        assert listed(stub, known.header("second")).policies
        known.path.write_text(kept)
        wait_for(lambda: not is_let_in(stub, known.header("second")))
        assert listed(stub, known.header("first")).policies


def test_a_feed_of_detections_ends_when_its_token_is_withdrawn(tmp_path, monkeypatch):
    monkeypatch.setattr(call_checks, "RECHECKED", 0.1)
    known = Callers(tmp_path / "callers")
    for name in ("stays", "goes"):
        known.add(name, Role.INSPECT)
    with guarded(callers=known.path) as server, connected(server.addresses.grpc) as channel:
        stub = MonitorServiceStub(channel)
        stays, goes = (
            stub.WatchDetections(pb.WatchDetectionsRequest(), metadata=known.header(name), timeout=DEADLINE)
            for name in ("stays", "goes")
        )
        for feed in (stays, goes):
            feed.initial_metadata()
        lines = known.path.read_text().splitlines()
        known.path.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["name"] == "stays"))
        with fails("UNAUTHENTICATED"):
            next(goes)
        assert stays.is_active()
        stays.cancel()


def reloaded(server):
    samples = scrape(server.addresses.metrics)
    return samples["sae_monitor_access_last_reload_success", frozenset({("file", "callers")})]


def is_let_in(stub, header):
    try:
        return bool(listed(stub, header).policies)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
            raise
        return False


def test_a_certificate_can_stand_for_a_token(tmp_path):
    ours = authority()
    path = tmp_path / "callers"
    path.write_text(json.dumps({"name": "gateway", "roles": ["infer"], "certificate": "gateway"}))
    (tmp_path / "ca.pem").write_bytes(ours.pem)
    files = issued(ours, "server").write(tmp_path) | {"tls_client_ca": tmp_path / "ca.pem", "callers": path}
    with guarded(**files) as server:
        address = server.addresses.grpc
        with over_tls(address, ours, issued(ours, "gateway")) as stub:
            assert listed(stub).policies
            with fails("PERMISSION_DENIED"):
                attempt(stub, "Inspect", None)
        with over_tls(address, ours, issued(ours, "somebody")) as stub, fails("UNAUTHENTICATED"):
            listed(stub)


class OldPeer:
    """A call over TLS 1.2, as gRPC describes it."""

    def invocation_metadata(self):
        return ()

    def auth_context(self):
        return {"ssl_tls_version": [b"TLSv1.2"]}


def test_a_call_over_an_older_tls_than_asked_for(tmp_path):
    files = {"tls_certificate": tmp_path / "c", "tls_key": tmp_path / "k"}
    assert Authenticator(settings(**files), SecurityMetrics()).caller(OldPeer()) is roles.ANYBODY
    with pytest.raises(Unauthenticated):
        Authenticator(settings(**files, tls_minimum="1.3"), SecurityMetrics()).caller(OldPeer())


def test_tokens_are_compared_in_constant_time_and_all_of_them(known, monkeypatch):
    compared = []

    def compare(left, right):
        compared.append((left, right))
        return hmac.compare_digest(left, right)

    class Spied:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(callers_module, "hmac", Spied)
    entries = read_callers(known.path)
    for token in (known.tokens["infer"], known.tokens["everything"], new_token()):
        compared.clear()
        found = find_token(entries, token)
        assert (found is not None) == (token in known.tokens.values())
        # Every entry, in order, wherever the match was; and hashes only, never the token.
        assert compared == [(entry.sha256, token_hash(token)) for entry in entries]


def test_the_file_holds_no_token(known):
    content = known.path.read_text()
    for token in known.tokens.values():
        assert token not in content
        assert len(token) > 40


HASH = "0" * 64
BAD_LINES = [
    ("{", "not a JSON object"),
    ("[]", "not a JSON object"),
    (
        '{"name": "a", "roles": ["infer"], "token": "saem_x"}',
        "keys that are not known; there are name, roles",
    ),
    (json.dumps({"roles": ["infer"], "sha256": HASH}), "name: is missing"),
    (json.dumps({"name": "../a", "roles": ["infer"], "sha256": HASH}), "name: write 1 to 63"),
    (json.dumps({"name": "a", "sha256": HASH}), "roles: write a list of infer, inspect, admin"),
    (json.dumps({"name": "a", "roles": ["root"], "sha256": HASH}), "roles: write"),
    (json.dumps({"name": "a", "roles": [["infer"]], "sha256": HASH}), "roles: write"),
    (json.dumps({"name": "a", "roles": ["infer"]}), "give sha256"),
    (json.dumps({"name": "a", "roles": ["infer"], "sha256": "saem_secret"}), "sha256: write 64 hexadecimal"),
    (json.dumps({"name": "a", "roles": ["infer"], "sha256": HASH, "certificate": "b"}), "not both"),
    (
        json.dumps({"name": "a", "roles": ["infer"], "sha256": HASH, "expires": "soon"}),
        "expires: write the last",
    ),
    (json.dumps({"name": "a", "roles": ["infer"], "sha256": HASH, "expires": 7}), "expires: write the last"),
    (
        json.dumps({"name": "a", "roles": ["infer"], "sha256": HASH, "calls": 0}),
        "calls: write a whole number",
    ),
    (
        json.dumps({"name": "a", "roles": ["infer"], "sha256": HASH, "calls": True}),
        "calls: write a whole number",
    ),
    ("# only a comment", "has no callers"),
    ("", "has no callers"),
]


@pytest.mark.parametrize(("line", "said"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_wrong_lines(tmp_path, line, said):
    path = tmp_path / "callers"
    path.write_text(line)
    with pytest.raises(ConfigurationError, match="callers") as caught:
        read_callers(path)
    assert said in str(caught.value)
    # A token that somebody put where its hash belongs does not reach a log.
    assert "saem_" not in str(caught.value)


def test_files_that_are_no_files_of_callers(tmp_path):
    path = tmp_path / "callers"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_callers(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_callers(path)
    path.write_bytes(b" " * (2 << 20))
    with pytest.raises(ConfigurationError, match="larger than"):
        read_callers(path)


def test_a_byte_order_mark_is_no_part_of_a_line_and_utf_16_is_named(tmp_path):
    path = tmp_path / "callers"
    line = entry_line("gateway", [Role.INFER], new_token())
    path.write_text(line + "\n", "utf-8-sig")
    assert [entry.caller.name for entry in read_callers(path)] == ["gateway"]
    path.write_text("# who may call\n" + line + "\n", "utf-8-sig")
    assert len(read_callers(path)) == 1
    path.write_text(line + "\n", "utf-16")
    with pytest.raises(ConfigurationError, match="callers:1: is UTF-16, not UTF-8; convert it"):
        read_callers(path)


def test_every_method_has_its_roles_written_down():
    own = {method.name for method in SERVICE.methods}
    assert own.isdisjoint(HTTP_METHODS)
    assert own | {*HTTP_METHODS, *GUARD_METHODS, *ENVOY_METHODS, *PAGE_METHODS} == roles.METHODS.keys()
