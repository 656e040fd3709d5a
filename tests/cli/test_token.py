"""`sae-monitor token`, and a command line that shows a server who it is."""

import json
import stat

import pytest

from monitor.cli.session import connected
from monitor.errors import ConfigurationError
from monitor.rpc.access.callers import find_token, read_callers
from monitor.rpc.access.roles import Role
from tests.rpc.certificates import authority, issued
from tests.rpc.secured import guarded


def test_a_token_is_printed_once_and_its_hash_is_kept(run, tmp_path):
    path = tmp_path / "callers"
    made = run("token", "new", "gateway", "--role", "infer", "--role", "inspect", "--append", str(path))
    assert made.exit_code == 0, made.stderr
    token = made.stdout.strip()
    assert "\n" not in token
    assert token not in made.stderr
    assert token not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = find_token(read_callers(path), token)
    assert found.caller.name == "gateway"
    assert found.caller.roles == {Role.INFER, Role.INSPECT}


def test_lines_are_added_to_a_file_that_does_not_end_in_a_newline(run, tmp_path):
    path = tmp_path / "callers"
    for name in ("one", "two"):
        assert run("token", "new", name, "--append", str(path)).exit_code == 0
        path.write_text(path.read_text().rstrip("\n"))
    assert [entry.caller.name for entry in read_callers(path)] == ["one", "two"]


def test_without_a_file_the_line_is_shown(run):
    made = run("token", "new", "ops", "--role", "admin", "--days", "30")
    lines = [line for line in made.stderr.splitlines() if line.startswith("{")]
    assert json.loads(lines[0])["roles"] == ["admin"]
    assert json.loads(lines[0])["expires"] > "2026"


@pytest.mark.parametrize("arguments", [["Bad Name"], ["a", "--role", "root"], ["a", "--days", "0"]])
def test_what_cannot_be_a_caller(run, arguments):
    made = run("token", "new", *arguments)
    assert made.exit_code == 2
    assert not made.stdout.strip()


def test_a_file_that_cannot_be_written(run, tmp_path):
    made = run("token", "new", "a", "--append", str(tmp_path / "none" / "callers"))
    assert made.exit_code == 2
    assert "cannot be written" in made.stderr


@pytest.mark.slow
def test_the_command_line_shows_token_and_certificate(run, tmp_path, monkeypatch):
    ours = authority()
    path, ca = tmp_path / "callers", tmp_path / "ca.pem"
    ca.write_bytes(ours.pem)
    token = run("token", "new", "me", "--append", str(path)).stdout.strip()
    files = issued(ours, "server").write(tmp_path) | {"callers": path, "tls_client_ca": ca}
    own = issued(ours, "client").write(tmp_path, "client")
    with guarded(**files) as server:
        address = f"localhost:{server.addresses.grpc.rpartition(':')[2]}"
        assert run("score", "hello", "--connect", address).exit_code == 2
        (tmp_path / "token").write_text(token + "\n")
        told = {"TOKEN_FILE": tmp_path / "token", "CA": ca}
        told |= {"CERTIFICATE": own["tls_certificate"], "KEY": own["tls_key"]}
        for name, value in told.items():
            monkeypatch.setenv(f"SAE_MONITOR_CLIENT_{name}", str(value))
        scored = run("score", "hello", "--connect", address)
        assert scored.exit_code == 0, scored.stderr
        (tmp_path / "token").write_text("saem_wrong")
        refused = run("score", "hello", "--connect", address)
        assert refused.exit_code == 2
        assert "UNAUTHENTICATED" in refused.stderr
        assert "saem_wrong" not in refused.stderr


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"TOKEN": "a", "TOKEN_FILE": "b"}, "not both"),
        ({"TOKEN_FILE": "/none/of/these"}, "cannot be read"),
        ({"TOKEN": "två"}, "ASCII"),
        ({"CERTIFICATE": "a"}, "needs SAE_MONITOR_CLIENT_CA"),
        ({"CA": "a", "KEY": "b"}, "or neither"),
    ],
)
def test_identities_that_are_none(monkeypatch, told, said):
    for name, value in told.items():
        monkeypatch.setenv(f"SAE_MONITOR_CLIENT_{name}", value)
    with pytest.raises(ConfigurationError, match=said):
        connected("127.0.0.1:1")
