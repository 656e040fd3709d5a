"""The client that probes ask."""

import importlib.util
import socket
import time

import pytest

from tests.deploy.processes import free_port
from tests.deploy.tools import DEPLOY
from tests.rpc.certificates import authority, issued
from tests.rpc.conftest import serving
from tests.rpc.secured import guarded


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("healthcheck", DEPLOY / "healthcheck.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_a_server_that_serves_is_healthy(check, capsys):
    with serving() as served:
        assert check([served.addresses.grpc]) == 0
        assert capsys.readouterr().out.endswith(": SERVING\n")


@pytest.mark.slow
def test_a_server_whose_engine_died_is_not(check, capsys):
    with serving() as served:
        served.runtime.engine.die()
        deadline = time.monotonic() + 20
        while check([served.addresses.grpc]) == 0 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert check([served.addresses.grpc]) == 1
        assert capsys.readouterr().out.endswith(": NOT_SERVING\n")
        # There is nothing that killing it would repair.
        assert check([served.addresses.grpc, "--alive"]) == 0


def test_nobody_there_is_not_healthy(check, capsys):
    assert check([f"127.0.0.1:{free_port()}", "--alive"]) == 1
    assert check([f"127.0.0.1:{free_port()}"]) == 1
    assert "no answer from" in capsys.readouterr().out


def test_over_tls_by_the_name_in_the_certificate(check, tmp_path):
    ours = authority()
    (tmp_path / "ca.pem").write_bytes(ours.pem)
    (tmp_path / "other.pem").write_bytes(authority("somebody else").pem)
    with guarded(**issued(ours, "server").write(tmp_path)) as server:
        address = server.addresses.grpc
        assert check([address, "--ca", str(tmp_path / "ca.pem"), "--name", "localhost"]) == 0
        assert check([address, "--ca", str(tmp_path / "other.pem"), "--name", "localhost"]) == 1
        assert check([address]) == 1
    assert check([address, "--ca", str(tmp_path / "missing.pem")]) == 1


def test_a_certificate_that_is_not_accepted_is_no_reason_to_kill(check, tmp_path, capsys):
    """One that has ended, say: those who are connected are still served, and a new process would refuse to start."""
    (tmp_path / "other.pem").write_bytes(authority("somebody else").pem)
    with guarded(**issued(authority(), "server").write(tmp_path)) as server:
        asked = [server.addresses.grpc, "--ca", str(tmp_path / "other.pem"), "--name", "localhost"]
        assert check(asked) == 1
        assert check([*asked, "--alive"]) == 0
        assert capsys.readouterr().out.endswith(": alive, but its certificate is not accepted\n")
    assert check([*asked, "--alive"]) == 1


@pytest.mark.slow
def test_whoever_takes_connections_and_never_answers_is_not_alive(check, tmp_path):
    (tmp_path / "ca.pem").write_bytes(authority().pem)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert check([address, "--alive"]) == 1
        assert check([address, "--ca", str(tmp_path / "ca.pem"), "--alive"]) == 1
