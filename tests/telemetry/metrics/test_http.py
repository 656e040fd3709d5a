"""What the port answers: formats, compression, and what is not there."""

import gzip
import socket
import threading
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from monitor.errors import ConfigurationError
from monitor.telemetry.metrics.http import MetricsServer, listening_socket
from monitor.telemetry.metrics.labels import trace_id
from monitor.telemetry.metrics.metrics import Metrics
from tests.children import beside
from tests.rpc.fake import policies

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def metrics():
    made = Metrics(CollectorRegistry())
    made.policies_changed(policies())
    made.methods(["Score"], ["OK"])
    return made


@pytest.fixture
def port(metrics):
    server = MetricsServer.start(metrics.registry, "127.0.0.1", 0)
    yield server.port
    server.stop()


def get(port, path="/metrics", **headers):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=named)
    with opener.open(request, timeout=10) as answer:
        return answer.headers, answer.read()


PROMETHEUS = {
    "2": "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    "3": "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    "protobuf": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.5,"
    "application/openmetrics-text;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    "text": "text/plain;version=0.0.4;q=0.5,*/*;q=0.2",
}
"""What Prometheus asks for, by its version or what it was told to prefer."""


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain;version=0.0.4", False),
        ("text/plain;version=none", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=none", True),
        ("application/openmetrics-text;version=9.9.9", True),
        (PROMETHEUS["2"], True),
        (PROMETHEUS["3"], True),
        (PROMETHEUS["protobuf"], True),
        (PROMETHEUS["text"], False),
    ],
)
def test_the_format_is_one_that_was_asked_for(port, accept, openmetrics):
    headers, body = get(port, Accept=accept)
    kind = "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain; version=0.0.4"
    assert headers["Content-Type"].startswith(kind)
    parse = parse_openmetrics if openmetrics else parse_text
    assert any(family.name == "sae_monitor_requests" for family in parse(body.decode()))


@pytest.mark.parametrize(
    ("accepted", "compressed"), [("gzip", True), ("deflate, gzip;q=0.5", True), ("identity", False)]
)
def test_the_answer_is_compressed_for_whoever_takes_it(port, accepted, compressed):
    headers, body = get(port, Accept_Encoding=accepted)
    assert (headers["Content-Encoding"] == "gzip") == compressed
    assert b"sae_monitor_requests_total" in (gzip.decompress(body) if compressed else body)


def test_exemplars_name_the_trace_in_openmetrics_only(metrics, port):
    token = trace_id.set(TRACE)
    metrics.call_ended("Score", "OK", 0.02)
    trace_id.set("not a trace id")
    metrics.call_ended("Score", "OK", 3.0)
    trace_id.reset(token)
    _, body = get(port, Accept="application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(body.decode())}
    found = [s.exemplar for s in families["sae_monitor_request_duration_seconds"].samples if s.exemplar]
    assert [(e.labels, e.value) for e in found] == [({"trace_id": TRACE}, 0.02)]
    (requests,) = [s for s in families["sae_monitor_requests"].samples if s.name.endswith("_total")]
    assert (requests.value, requests.exemplar.labels) == (2, {"trace_id": TRACE})
    assert TRACE not in get(port)[1].decode()


@pytest.mark.parametrize("path", ["/", "/metrics/", "/favicon.ico", "/metrics/../etc/passwd"])
def test_there_is_nothing_else(port, path):
    with pytest.raises(urllib.error.HTTPError) as found:
        get(port, path)
    assert found.value.code == 404
    found.value.close()


def test_a_query_chooses_metrics_by_name(port):
    _, body = get(port, "/metrics?name[]=sae_monitor_requests_total")
    assert [family.name for family in parse_text(body.decode())] == ["sae_monitor_requests"]


@pytest.mark.slow
def test_a_client_that_says_nothing_keeps_nobody_waiting(port):
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    try:
        assert b"sae_monitor_requests_total" in get(port)[1]
    finally:
        for connection in silent:
            connection.close()


def test_many_scrapes_at_once_under_writes(metrics, port):
    bodies = []
    with beside(lambda: metrics.call_ended("Score", "OK", 0.01)):
        scrapers = [threading.Thread(target=lambda: bodies.append(get(port)[1])) for _ in range(16)]
        for scraper in scrapers:
            scraper.start()
        for scraper in scrapers:
            scraper.join()
    assert len(bodies) == 16
    assert all(list(parse_text(body.decode())) for body in bodies)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_in_use_says_what_to_change(metrics, host):
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        first = MetricsServer.start(metrics.registry, host, 0)
    except ConfigurationError:
        if host == "::1":
            pytest.skip("this machine has no IPv6 loopback")
        raise
    try:
        with pytest.raises(ConfigurationError, match="another metrics_listen"):
            MetricsServer.start(metrics.registry, host, first.port)
    finally:
        first.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_what_a_connection_sends_leaves_at_once(host):
    """Without it, the first piece of a stream leaves 40 ms after the headers."""
    with (
        listening_socket(host, 0) as listening,
        socket.create_connection(("127.0.0.1", listening.getsockname()[1]), timeout=30),
    ):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
