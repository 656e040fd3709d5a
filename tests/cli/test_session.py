"""The server that a command talks to: its address, who asks, and flags that do not go together."""

import pytest
import typer

from monitor.cli import session
from monitor.cli.session import checked, connected, open_session, refuse_local_flags
from monitor.errors import ConfigurationError


@pytest.mark.parametrize("address", ["127.0.0.1:50051", "[::1]:1", "host.example:65535"])
def test_addresses(address):
    assert checked(address) == address


@pytest.mark.parametrize("address", ["127.0.0.1", "host:", "host:port", "host:0", "host:65536", ""])
def test_addresses_that_are_none(address):
    with pytest.raises(typer.BadParameter, match=r"write HOST:PORT|port 0 is nobody's address"):
        checked(address)


def test_flags_of_a_local_model_do_not_go_with_a_server():
    refuse_local_flags({"model": None, "top_k": None})
    with pytest.raises(ConfigurationError, match="--model, --dictionary-format: not with --connect"):
        refuse_local_flags({"model": "m", "device": None, "dictionary_format": "f"})
    with pytest.raises(ConfigurationError, match="--model"), open_session("127.0.0.1:1", {"model": "m"}, 1.0):
        pass


@pytest.fixture
def asked(monkeypatch):
    """What a client was made with."""
    seen = []
    monkeypatch.setattr(session, "connect", lambda address, **given: seen.append((address, given)))
    return seen


def test_who_asks_comes_from_the_environment(asked, monkeypatch, tmp_path):
    connected("127.0.0.1:1", 2.5)
    (tmp_path / "token").write_text("saem_file\n")
    monkeypatch.setenv("SAE_MONITOR_CLIENT_TOKEN_FILE", str(tmp_path / "token"))
    connected("127.0.0.1:1")
    monkeypatch.delenv("SAE_MONITOR_CLIENT_TOKEN_FILE")
    monkeypatch.setenv("SAE_MONITOR_CLIENT_TOKEN", "saem_variable")
    connected("127.0.0.1:1")
    assert [given["token"] for _, given in asked] == ["", "saem_file", "saem_variable"]
    assert asked[0][0] == "127.0.0.1:1"
    assert asked[0][1]["timeout"] == 2.5


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"TOKEN": "a", "TOKEN_FILE": "b"}, "and not both"),
        ({"TOKEN_FILE": "nowhere/token"}, "nowhere/token: cannot be read: No such file"),
        ({"CERTIFICATE": "c", "KEY": "k"}, "a client's certificate needs SAE_MONITOR_CLIENT_CA"),
        (
            {"CERTIFICATE": "c", "CA": "a"},
            "set both SAE_MONITOR_CLIENT_CERTIFICATE and SAE_MONITOR_CLIENT_KEY",
        ),
    ],
)
def test_identities_that_do_not_go_together(asked, monkeypatch, variables, said):
    for name, value in variables.items():
        monkeypatch.setenv(f"SAE_MONITOR_CLIENT_{name}", value)
    with pytest.raises(ConfigurationError, match=said):
        connected("127.0.0.1:1")
    assert asked == []
