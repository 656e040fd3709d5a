"""The HTTP port: who may come in, how much, over which certificates, and how it closes."""

import ssl
import threading
import time

import httpx2 as httpx
import openai
import pytest

from monitor.errors import ConfigurationError
from monitor.http.door import served_name
from monitor.pairs.registry import named
from monitor.rpc.access.exposure import check_exposure
from monitor.rpc.access.roles import Role
from tests.http.conftest import DEADLINE, MODEL, closed, serving
from tests.rpc.certificates import authority, issued
from tests.rpc.conftest import settings
from tests.rpc.secured import Callers
from tests.waiting import wait_for

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "one two"}], "max_tokens": 3}


def post(served, path="/v1/chat/completions", json=CHAT, **options):
    return httpx.post(
        f"{served.addresses.http}{path}", json=json, trust_env=False, timeout=DEADLINE, **options
    )


def test_health_says_whether_calls_are_served(served):
    assert httpx.get(f"{served.addresses.http}/health", trust_env=False).status_code == 200


def test_errors_of_paths_and_methods_have_the_api_s_body(served):
    for path, status in (("/v1/nothing", 404), ("/v1/models", 405)):
        answer = post(served, path)
        assert answer.status_code == status
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"content": b"{}", "headers": {"content-type": "text/plain"}}, 415),
        (
            {"content": b"{}", "headers": {"content-type": "application/json", "content-encoding": "gzip"}},
            415,
        ),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"[1]", "headers": {"content-type": "application/json"}}, 400),
        ({"content": b'{"a": NaN}', "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"\xff", "headers": {"content-type": "application/json"}}, 400),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(served, options, status):
    answer = httpx.post(f"{served.addresses.http}/v1/chat/completions", trust_env=False, **options)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_body_is_bounded_whether_or_not_it_says_its_length():
    with serving(max_message_bytes=2048) as running:
        url = f"{running.addresses.http}/v1/chat/completions"
        headers = {"content-type": "application/json"}
        declared = httpx.post(url, content=b"x" * 4096, headers=headers, trust_env=False)
        assert declared.status_code == 413

        def pieces():
            yield from (b"x" * 1000 for _ in range(5))

        chunked = httpx.post(url, content=pieces(), headers=headers, trust_env=False)
        assert chunked.status_code == 413
        assert "2048" in chunked.json()["error"]["message"]


def test_a_body_that_does_not_come_and_a_connection_that_says_nothing_are_ended():
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: 100\r\n\r\n{"
    )
    with serving(max_message_seconds=0.3) as running:
        with running.raw(head) as slow:
            assert slow.recv(1000).startswith(b"HTTP/1.1 504")
        with running.raw(b"") as silent:
            assert closed(silent)
        with running.raw(b"POST /v1/chat/comp") as partial:
            assert closed(partial)


def test_headers_are_bounded():
    with (
        serving(max_header_bytes=1024) as running,
        running.raw(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 100_000) as big,
    ):
        assert big.recv(1000).startswith(b"HTTP/1.1 400")


def test_connections_beyond_the_limit_are_closed_at_once():
    health = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with serving(max_connections=2) as running, running.raw(b"") as kept, running.raw(b""):
        with running.raw(health) as further:
            assert closed(further)
        kept.sendall(health)
        assert kept.recv(100).startswith(b"HTTP/1.1 200")


def test_a_page_that_rebinds_a_name_to_this_machine_is_refused():
    with serving(http_hosts="gateway.internal") as running:
        for host, status in {
            "localhost:8000": 200,
            "127.0.0.1": 200,
            "[::1]:8000": 200,
            "gateway.internal": 200,
            "evil.example": 421,
            "evil.example:8000": 421,
        }.items():
            answer = post(running, headers={"host": host})
            assert answer.status_code == status, host
        assert "http_hosts" in post(running, headers={"host": "evil.example"}).json()["error"]["message"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    known = Callers(tmp_path_factory.mktemp("callers") / "callers.jsonl")
    known.add("infer", Role.INFER)
    known.add("admin", Role.INFER, Role.ADMIN)
    known.add("inspect", Role.INSPECT)
    known.add("small", Role.INFER, tokens=4)
    with serving(callers=known.path) as running:
        yield running, known


def as_caller(guarded, name):
    running, known = guarded
    return running.client(api_key=known.tokens[name])


def chat(client, **fields):
    return client.chat.completions.create(**(CHAT | fields))


def test_callers_authenticate_and_have_their_roles(guarded):
    running, _ = guarded
    assert chat(as_caller(guarded, "infer")).choices
    with pytest.raises(openai.AuthenticationError) as info:
        chat(running.client(api_key="sk-wrong"))
    assert info.value.response.headers["www-authenticate"] == "Bearer"
    with pytest.raises(openai.PermissionDeniedError, match="ChatCompletions needs the role infer"):
        chat(as_caller(guarded, "inspect"))
    assert as_caller(guarded, "inspect").models.list().data
    clamps = {"sae_monitor": {"clamps": [{"feature": 7, "target": -1}]}}
    assert chat(as_caller(guarded, "admin"), extra_body=clamps).choices
    with pytest.raises(openai.PermissionDeniedError, match="needs the role admin"):
        chat(as_caller(guarded, "infer"), extra_body=clamps)


def test_a_quota_counts_all_choices_of_a_request(guarded):
    with pytest.raises(openai.APIStatusError, match="4"):
        chat(as_caller(guarded, "small"), n=2, max_tokens=2)


def test_an_unauthenticated_body_is_not_read(guarded):
    running, _ = guarded
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: 1000000\r\n\r\n"
    )
    with running.raw(head) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 401")


def test_calls_beyond_the_limit_are_told_when_to_come_back():
    with serving(max_concurrent_calls=1, retry_after_seconds=1.5) as running:
        running.runtime.engine.gate.clear()
        waiting = threading.Thread(target=lambda: post(running))
        waiting.start()
        try:
            wait_for(lambda: running.runtime.engine.submitted)
            refused = post(running)
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "2"
            assert refused.headers["retry-after-ms"] == "1500"
        finally:
            running.runtime.engine.gate.set()
            waiting.join()
        assert running.metric("requests_total", method="ChatCompletions", code="RESOURCE_EXHAUSTED") == 1
        assert running.metric("requests_total", method="ChatCompletions", code="OK") == 1


def test_an_engine_that_is_gone_is_503():
    with serving() as running:
        running.runtime.engine.die()
        assert post(running).status_code == 503


def test_the_longest_time_of_a_call_holds():
    with serving(max_call_seconds=0.2) as running:
        running.runtime.engine.gate.clear()
        try:
            assert post(running).status_code == 504
            wait_for(lambda: running.runtime.engine.cancelled)
        finally:
            running.runtime.engine.gate.set()


def test_answers_in_progress_finish_when_the_server_stops_and_new_ones_are_refused():
    found = {}
    with serving(grace=20.0) as running:
        running.runtime.engine.gate.clear()
        first = threading.Thread(target=lambda: found.update(first=post(running)))
        first.start()
        wait_for(lambda: running.runtime.engine.submitted)

        def release():
            wait_for(lambda: post(running).status_code == 503)
            found["refused"] = True
            running.runtime.engine.gate.set()

        releasing = threading.Thread(target=release)
        releasing.start()
    first.join()
    releasing.join()
    assert found["first"].status_code == 200
    assert found["refused"]


def trusting(pair, client=None, folder=None):
    context = ssl.create_default_context(cadata=pair.pem.decode())
    if client is not None:
        files = client.write(folder, "client")
        context.load_cert_chain(files["tls_certificate"], files["tls_key"])
    return context


def test_tls_follows_its_files(tmp_path):
    first, second = authority("first"), authority("second")
    files = issued(first, "127.0.0.1").write(tmp_path)
    with serving(**files) as running:
        assert running.addresses.http.startswith("https://")
        url = f"{running.addresses.http}/v1/models"
        assert httpx.get(url, verify=trusting(first), trust_env=False).status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, verify=trusting(second), trust_env=False)
        issued(second, "127.0.0.1").write(tmp_path)

        def renewed():
            try:
                return httpx.get(url, verify=trusting(second), trust_env=False).status_code == 200
            except httpx.HTTPError:
                time.sleep(0.05)
                return False

        wait_for(renewed)


def test_client_certificates_name_callers(tmp_path):
    trusted = authority()
    files = issued(trusted, "127.0.0.1").write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(trusted.pem)
    known = tmp_path / "callers.jsonl"
    known.write_text('{"name": "alice", "roles": ["infer"], "certificate": "alice"}\n')
    with serving(**files, tls_client_ca=tmp_path / "ca.pem", callers=known) as running:
        url = f"{running.addresses.http}/v1/chat/completions"
        known_one = trusting(trusted, issued(trusted, "alice"), tmp_path)
        assert httpx.post(url, json=CHAT, verify=known_one, trust_env=False).status_code == 200
        stranger = trusting(trusted, issued(trusted, "mallory"), tmp_path)
        assert httpx.post(url, json=CHAT, verify=stranger, trust_env=False).status_code == 401
        with pytest.raises(httpx.HTTPError):
            httpx.post(url, json=CHAT, verify=trusting(trusted), trust_env=False)


def test_a_port_that_is_taken_is_a_clear_error(served):
    taken = served.addresses.http.removeprefix("http://")
    with pytest.raises(ConfigurationError, match="http_listen: cannot listen on"), serving(http_listen=taken):
        pass


def test_an_http_port_that_others_reach_needs_callers_and_certificates():
    with pytest.raises(ConfigurationError, match=r"http_listen is 0\.0\.0\.0:8000"):
        check_exposure(settings(http_listen="0.0.0.0:8000"))
    check_exposure(settings(http_listen="0.0.0.0:8000", insecure_listen=True))


def test_the_name_of_the_model(tmp_path):
    assert served_name(settings()) == named().model
    assert served_name(settings(pair="tiny")) == "tiny"
    assert served_name(settings(pair="smollm2")) == "SmolLM2-135M-Instruct"
    assert served_name(settings(model="org/name")) == "org/name"
    assert served_name(settings(model=str(tmp_path))) == tmp_path.name
    assert served_name(settings(served_model_name="mine")) == "mine"
