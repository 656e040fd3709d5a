"""Certificates: whose are taken, and how they change while the server runs."""

import json
import socket
import ssl
import warnings

import pytest

from monitor.client import connect
from monitor.errors import ConfigurationError
from monitor.rpc.access.layer import check_access
from monitor.rpc.access.tls import read_certificates
from monitor.rpc.server import Server, run_in_background
from tests.rpc.certificates import DAY, authority, issued
from tests.rpc.conftest import fails, scrape, settings
from tests.rpc.fake import FakeRuntime, policies
from tests.rpc.secured import guarded, listed, over_tls
from tests.waiting import wait_for

OURS, THEIRS = authority(), authority("somebody else")
SERVER, CLIENT, STRANGER = issued(OURS, "server"), issued(OURS, "client"), issued(THEIRS, "client")


def shown_name(address, trusted=OURS):
    """Whose certificate a new connection is shown."""
    context = ssl.create_default_context(cadata=trusted.pem.decode())
    context.set_alpn_protocols(["h2"])
    host, port = address.rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return dict(part[0] for part in secure.getpeercert()["subject"])["commonName"]


def test_calls_over_tls(tmp_path):
    with guarded(**SERVER.write(tmp_path)) as server:
        with over_tls(server.addresses.grpc, OURS) as stub:
            assert len(listed(stub).policies) == 2
        samples = scrape(server.addresses.metrics)
    expiry = samples[
        "sae_monitor_tls_certificate_expiry_timestamp_seconds", frozenset({("file", "certificate")})
    ]
    assert expiry == SERVER.certificate.not_valid_after_utc.timestamp()


def test_a_client_that_trusts_somebody_else_does_not_talk_to_us(tmp_path):
    with (
        guarded(**SERVER.write(tmp_path)) as server,
        over_tls(server.addresses.grpc, THEIRS) as stub,
        fails("UNAVAILABLE"),
    ):
        listed(stub)


@pytest.mark.parametrize("wanted", ["1.2", "1.3"])
def test_old_versions_of_tls(tmp_path, wanted):
    with guarded(**SERVER.write(tmp_path), tls_minimum=wanted) as server:
        host, port = server.addresses.grpc.rsplit(":", 1)

        def greet(version):
            context = ssl.create_default_context(cadata=OURS.pem.decode())
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            context.set_alpn_protocols(["h2"])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = ssl.TLSVersion.TLSv1
                context.maximum_version = version
            with (
                socket.create_connection((host, int(port)), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                return secure.version()

        assert greet(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        assert greet(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        with pytest.raises(ssl.SSLError, match=r"EOF|ALERT"):
            greet(ssl.TLSVersion.TLSv1_1)
        # The client here speaks 1.3, so it is let in by both; a call over 1.2 is refused in test_security_callers.
        with over_tls(server.addresses.grpc, OURS) as stub:
            assert listed(stub).policies


def test_mutual_tls_takes_only_clients_of_its_authority(tmp_path):
    (tmp_path / "ca.pem").write_bytes(OURS.pem)
    path = tmp_path / "callers"
    path.write_text(json.dumps({"name": "client", "roles": ["infer"], "certificate": "client"}))
    with guarded(**SERVER.write(tmp_path), tls_client_ca=tmp_path / "ca.pem", callers=path) as server:
        with over_tls(server.addresses.grpc, OURS, CLIENT) as stub:
            assert listed(stub).policies
        for wrong in (None, STRANGER, issued(OURS, "client", -3 * DAY, -DAY)):
            with over_tls(server.addresses.grpc, OURS, wrong) as stub, fails("UNAVAILABLE"):
                listed(stub)


@pytest.mark.parametrize("before", ["\ufeff", "# Autoridad Raíz\n", "\ufeff# Autorité\r\n"])
def test_what_editors_and_people_write_into_the_files_changes_nothing(tmp_path, before):
    """A byte order mark, and comments in any language: the libraries that read PEM disagree about both."""
    (tmp_path / "ca.pem").write_bytes(OURS.pem)
    files = SERVER.write(tmp_path) | {"tls_client_ca": tmp_path / "ca.pem"}
    for file in files.values():
        file.write_bytes(before.encode() + file.read_bytes())
    path = tmp_path / "callers"
    path.write_text(json.dumps({"name": "client", "roles": ["infer"], "certificate": "client"}))
    own = CLIENT.write(tmp_path, "client")
    for file in own.values():
        file.write_bytes(before.encode() + file.read_bytes())
    with guarded(**files, callers=path) as server:
        with over_tls(server.addresses.grpc, OURS, CLIENT) as stub:
            assert listed(stub).policies
        names = {"certificate": own["tls_certificate"], "key": own["tls_key"], "ca": files["tls_client_ca"]}
        with connect(server.addresses.grpc, **names) as client:
            assert client.policies().policies
    found = read_certificates(*files.values())
    assert len(found.context("1.2").get_ca_certs()) == 1, "the HTTP door takes them too"


@pytest.mark.parametrize("more", [{}, {"insecure_listen": True}, {"listen": "0.0.0.0:0"}])
def test_certificates_without_a_file_that_says_whose_they_are_are_refused(tmp_path, more):
    """Otherwise every certificate would be an administrator, and all would share one space of sessions."""
    (tmp_path / "ca.pem").write_bytes(OURS.pem)
    asked = settings(**SERVER.write(tmp_path), tls_client_ca=tmp_path / "ca.pem", **more)
    with pytest.raises(ConfigurationError, match="tls_client_ca is set and callers is not"):
        check_access(asked)
    server = Server(asked, FakeRuntime(policies().watch), policies())
    with pytest.raises(ConfigurationError, match="callers"), run_in_background(server, 1.0):
        pass


@pytest.mark.slow
def test_a_new_certificate_is_taken_without_a_restart_and_a_bad_one_is_not(tmp_path):
    files = SERVER.write(tmp_path)
    with guarded(**files) as server, over_tls(server.addresses.grpc, OURS) as open_before:
        assert listed(open_before).policies
        assert shown_name(server.addresses.grpc) == "server"
        issued(OURS, "renewed").write(tmp_path)
        wait_for(lambda: shown_name(server.addresses.grpc) == "renewed")
        assert listed(open_before).policies
        # A key that belongs to another certificate; later a file that is no longer there.
        files["tls_key"].write_bytes(CLIENT.key_pem)
        # Files are checked when somebody connects.
        wait_for(lambda: shown_name(server.addresses.grpc) == "renewed" and reloaded(server) == 0)
        issued(OURS, "mended").write(tmp_path)
        wait_for(lambda: shown_name(server.addresses.grpc) == "mended")
        assert reloaded(server) == 1
        files["tls_certificate"].unlink()
        wait_for(lambda: shown_name(server.addresses.grpc) == "mended" and reloaded(server) == 0)
        issued(OURS, "back").write(tmp_path)
        wait_for(lambda: shown_name(server.addresses.grpc) == "back")
        assert reloaded(server) == 1


def reloaded(server):
    samples = scrape(server.addresses.metrics)
    return samples["sae_monitor_access_last_reload_success", frozenset({("file", "tls")})]


def broken(tmp_path, change):
    files = SERVER.write(tmp_path)
    changes = change(tmp_path, files)
    return files | (changes if isinstance(changes, dict) else {})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _, f: f["tls_certificate"].unlink(), "server.pem: cannot be read: No such file"),
        (lambda _, f: f["tls_key"].unlink(), "server.key: cannot be read: No such file"),
        (lambda _, f: f["tls_certificate"].write_text("hello"), "holds no certificate; write PEM"),
        (lambda _, f: f["tls_key"].write_text("hello"), "holds no private key"),
        (lambda _, f: f["tls_key"].write_bytes(SERVER.locked()), "needs a password"),
        (lambda _, f: f["tls_key"].write_bytes(CLIENT.key_pem), "is not the key of the first certificate"),
        (lambda _, f: f["tls_certificate"].write_bytes(b"x" * (2 << 20)), "larger than"),
        (
            lambda p, _: issued(OURS, "old", -3 * DAY, -DAY).write(p).clear(),
            "the certificate of CN=old ended on",
        ),
        (
            lambda p, _: issued(OURS, "new", DAY, 3 * DAY).write(p).clear(),
            "the certificate of CN=new begins on",
        ),
        (lambda _, f: {"tls_key": None}, "tls_key is missing"),
        (lambda p, _: {"tls_certificate": None}, "tls_certificate is missing"),
        (lambda p, _: {"tls_client_ca": p / "none.pem"}, "none.pem: cannot be read"),
    ],
)
def test_files_that_cannot_serve_are_said_at_the_start(tmp_path, change, said):
    files = broken(tmp_path, change)
    chosen = policies()
    server = Server(settings(**files), FakeRuntime(chosen.watch), chosen)
    with pytest.raises(ConfigurationError, match=said), run_in_background(server, 1.0):
        pass
