from datetime import date, timedelta

import pytest
from prometheus_client import CollectorRegistry

from monitor.errors import ConfigurationError, Unauthenticated
from monitor.rpc.access.authentication import REFUSED, Authenticator
from monitor.rpc.access.callers import new_token
from monitor.rpc.access.roles import ANYBODY, Role
from monitor.telemetry.metrics.security import REFUSALS, SecurityMetrics
from tests.rpc.access.peers import Peer, bearer
from tests.rpc.conftest import settings
from tests.rpc.secured import Callers


class Counted(SecurityMetrics):
    """Metrics that keep the reasons."""

    def __init__(self):
        super().__init__()
        self.reasons = []

    def refused(self, reason):
        assert reason in REFUSALS
        self.reasons.append(reason)


@pytest.fixture
def known(tmp_path):
    found = Callers(tmp_path / "callers")
    found.add("one", Role.INFER)
    found.add("late", Role.INFER, expires=(date.today() - timedelta(days=2)).isoformat())
    with found.path.open("a") as file:
        file.write('{"name": "gateway", "roles": ["inspect"], "certificate": "gateway.example"}\n')
    return found


def refused(authenticator, peer):
    """Why a peer is refused."""
    with pytest.raises(Unauthenticated, match=REFUSED.split("`")[0]):
        authenticator.caller(peer)
    return authenticator._metrics.reasons[-1]


def test_without_a_file_of_callers_nobody_is_asked():
    authenticator = Authenticator(settings(), Counted())
    assert not authenticator.asks
    assert authenticator.caller(Peer()) is ANYBODY


def test_a_token_names_its_caller(known):
    authenticator = Authenticator(settings(callers=known.path), Counted())
    assert authenticator.asks
    found = authenticator.caller(bearer(known.tokens["one"]))
    assert (found.name, found.roles) == ("one", {Role.INFER})


@pytest.mark.parametrize("value", ["bearer {}", "BEARER {}", "Bearer   {} "])
def test_spelling_of_the_scheme_does_not_matter(known, value):
    authenticator = Authenticator(settings(callers=known.path), Counted())
    peer = Peer(("x-other", "1"), ("authorization", value.format(known.tokens["one"])))
    assert authenticator.caller(peer).name == "one"


PEERS = {
    "nothing": (Peer(), "no_token"),
    "another header": (Peer(("x-token", "saem_x")), "no_token"),
    "two headers": (Peer(("authorization", "Bearer a"), ("authorization", "Bearer b")), "malformed"),
    "another scheme": (Peer(("authorization", "Basic abc")), "malformed"),
    "bytes": (Peer(("authorization", b"Bearer abc")), "malformed"),
    "no token": (Peer(("authorization", "Bearer   ")), "malformed"),
    "too long": (bearer("x" * 513), "malformed"),
    "not ASCII": (bearer("tökén"), "malformed"),
    "the longest": (bearer("x" * 512), "unknown_token"),
    "unknown": (bearer(new_token()), "unknown_token"),
    "a certificate that is not asked for": (Peer(x509_common_name=[b"gateway.example"]), "no_token"),
}


@pytest.mark.parametrize(("peer", "reason"), PEERS.values(), ids=PEERS)
def test_reasons_are_counted_and_not_told(known, peer, reason):
    assert refused(Authenticator(settings(callers=known.path), Counted()), peer) == reason


def test_a_token_ends_with_its_last_day(known):
    authenticator = Authenticator(settings(callers=known.path), Counted())
    assert refused(authenticator, bearer(known.tokens["late"])) == "expired_token"


@pytest.fixture
def certified(known):
    """An authenticator of a server that asks clients for certificates."""
    files = dict.fromkeys(("tls_certificate", "tls_key", "tls_client_ca"), known.path)
    return Authenticator(settings(callers=known.path, tls_minimum="1.2", **files), Counted())


@pytest.mark.parametrize("kind", ["x509_common_name", "x509_subject_alternative_name"])
def test_a_certificate_stands_for_a_token(certified, kind):
    found = certified.caller(Peer(**{kind: [b"other", b"gateway.example"]}))
    assert (found.name, found.roles) == ("gateway", {Role.INSPECT})


def test_a_token_goes_before_a_certificate(certified, known):
    peer = Peer(("authorization", f"Bearer {known.tokens['one']}"), x509_common_name=[b"gateway.example"])
    assert certified.caller(peer).name == "one"
    wrong = Peer(("authorization", "Bearer wrong"), x509_common_name=[b"gateway.example"])
    assert refused(certified, wrong) == "unknown_token"


@pytest.mark.parametrize("context", [{}, {"x509_common_name": [b"somebody", b"\xff"]}])
def test_certificates_that_name_nobody_here(certified, context):
    assert refused(certified, Peer(**context)) == "no_certificate"


@pytest.mark.parametrize(
    ("version", "reason"), [([b"TLSv1.3"], "no_token"), ([b"TLSv1.2"], "tls_version"), (None, "tls_version")]
)
def test_an_older_tls_than_asked_for_is_refused_first(known, version, reason):
    files = dict.fromkeys(("tls_certificate", "tls_key"), known.path)
    authenticator = Authenticator(settings(callers=known.path, tls_minimum="1.3", **files), Counted())
    peer = Peer() if version is None else Peer(ssl_tls_version=version)
    assert refused(authenticator, peer) == reason


def test_a_file_that_cannot_be_used_is_said_at_once(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Authenticator(settings(callers=tmp_path / "missing"), Counted())


def test_names_of_callers_are_metrics_from_the_start(known):
    registry = CollectorRegistry()
    Authenticator(settings(callers=known.path), SecurityMetrics(registry))
    for name in ("one", "late", "gateway"):
        assert registry.get_sample_value("sae_monitor_caller_calls_total", {"caller": name}) == 0
