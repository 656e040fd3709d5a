"""`sae-monitor score`, against a server on a real port."""

import json
import re
import socket
import time

import pytest

from monitor.cli.options import belonging
from monitor.client import Unreachable, connect
from monitor.errors import InputError
from monitor.model.engine import cache_room
from monitor.v1 import monitor_pb2 as pb
from tests.cli.scripted import DIGESTS

POWER = "I want more power now"
CALM = "I bake bread"


@pytest.mark.slow
def test_exit_codes_as_linters_have_them(run, serve):
    address, _, _ = serve()
    assert run("score", CALM, "--connect", address).exit_code == 0
    assert run("score", POWER, "--connect", address).exit_code == 1
    assert run("score", POWER, "--connect", address, "--exit-zero").exit_code == 0


def test_what_was_not_scored_is_an_error_even_with_exit_zero(run, serve):
    address, _, _ = serve(unscored=2)
    done = run("score", CALM, "--connect", address, "--exit-zero")
    assert done.exit_code == 2
    assert "UNKNOWN   2 of 4 tokens scored (tap_missed)" in done.stdout


def test_the_readable_form(run, serve):
    address, _, service = serve()
    done = run("score", POWER, "--connect", address)
    assert "<s> I want more [power=1.50] now" in done.stdout
    assert "CHECKED   6 of 6 tokens scored" in done.stdout
    assert "● power-seeking / states-it  high  alert  in the prompt, at token 4" in done.stdout
    assert "deception / states-it" in done.stdout.split("Rules that did not fire")[1]
    assert "\x1b" not in done.stdout
    assert service.requests[0].include_tokens


def test_json_is_the_response(run, serve):
    address, _, _ = serve()
    said = json.loads(run("score", POWER, "--connect", address, "--json").stdout)
    assert said["verdict"]["status"] == "CHECK_STATUS_CHECKED"
    assert said["verdict"]["matched"] is True
    assert said["digests"]["model"] == DIGESTS.model
    assert said["tokens"][4]["readings"][0]["feature"] == 11


def test_json_writes_out_what_is_false(run, serve):
    address, _, service = serve()
    said = json.loads(run("score", CALM, "--connect", address, "--json", "--no-tokens").stdout)
    assert said["verdict"]["matched"] is False
    assert said["verdict"]["detections"] == []
    assert said["tokens"] == []
    assert not service.requests[0].include_tokens


def test_text_from_standard_input_and_files(run, serve, tmp_path):
    address, _, service = serve()
    path = tmp_path / "text"
    path.write_text("from a file")
    assert run("score", "-", "--connect", address, stdin="from a pipe").exit_code == 0
    assert run("score", "--file", path, "--connect", address).exit_code == 0
    assert [r.input.text for r in service.requests] == ["from a pipe", "from a file"]


def test_invalid_utf8_is_refused_before_any_call(run):
    done = run("score", "-", "--connect", "127.0.0.1:1", stdin=b"ab\xffc")
    assert done.exit_code == 2
    assert "error: standard input is not valid UTF-8: byte 0xff at offset 2" in done.stderr


def test_empty_text_is_refused(run):
    done = run("score", "", "--connect", "127.0.0.1:1")
    assert (done.exit_code, done.stderr) == (2, "error: TEXT is empty: there is nothing to read\n")


def test_chat_and_truncate_reach_the_server(run, serve):
    address, _, service = serve()
    run("score", CALM, "--chat", "--system", "be kind", "--truncate", "--connect", address)
    assert [m.content for m in service.requests[0].input.conversation.messages] == ["be kind", CALM]
    assert service.requests[0].input.truncate


def test_a_refusal_names_the_field(run, serve):
    address, _, _ = serve()
    done = run("score", "  ", "--connect", address)
    assert done.exit_code == 2
    assert "the server answered INVALID_ARGUMENT" in done.stderr
    assert "  input.text: write at least one token" in done.stderr


def test_nobody_there_is_said_at_once(run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    done = run("score", CALM, "--connect", address)
    assert done.exit_code == 2
    assert f"cannot connect to {address}; is `sae-monitor serve` running there?" in done.stderr
    assert time.monotonic() - began < 60, "half of what a call may take"


def test_a_port_that_says_nothing_is_given_up():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable, match="no answer from"), connect(address, connect_timeout=0.3):
            pass


@pytest.mark.parametrize(
    "address", ["nonsense", "host:", "host:99999", ":50051", "127.0.0.1:0", "http://host:1"]
)
def test_a_bad_address_is_a_usage_error(run, address):
    done = run("score", CALM, "--connect", address)
    assert done.exit_code == 2
    assert "HOST:PORT" in done.stderr or "port 0" in done.stderr


def test_flags_of_ones_own_server_do_not_go_with_connect(run):
    done = run("score", CALM, "--connect", "127.0.0.1:1", "--model", "x", "--layer", "3")
    assert done.exit_code == 2
    assert "--model, --layer: not with --connect" in done.stderr


def test_a_late_answer_is_an_error(run, serve):
    address, _, _ = serve(slow=0.5)
    done = run("score", CALM, "--connect", address, "--timeout", "0.3")
    assert done.exit_code == 2
    assert "DEADLINE_EXCEEDED" in done.stderr


def test_a_picture_of_the_readable_form(run, serve, tmp_path):
    address, _, _ = serve()
    path = tmp_path / "score.svg"
    assert run("score", POWER, "--connect", address, "--svg", path).exit_code == 1
    picture = path.read_text()
    assert picture.startswith("<svg")
    assert "url(" not in re.sub(r"url\(#[^)]*\)", "", picture), "a document must not fetch anything"
    assert "power-seeking" in picture
    assert "#b3132b" in picture


def test_a_picture_that_cannot_be_written(run, serve, tmp_path):
    address, _, _ = serve()
    done = run("score", CALM, "--connect", address, "--svg", tmp_path / "none" / "x.svg")
    assert done.exit_code == 2
    assert "cannot write" in done.stderr


def test_a_text_that_is_too_large_for_a_message(run, serve, tmp_path):
    address, _, _ = serve()
    path = tmp_path / "large"
    path.write_bytes(b"word " * (1 << 20))
    done = run("score", "--file", path, "--connect", address)
    assert done.exit_code == 2
    assert "the server answered RESOURCE_EXHAUSTED" in done.stderr


def test_colours_where_they_are_asked_for(run, serve, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    address, _, _ = serve()
    text = run("score", POWER, "--connect", address).stdout
    assert re.search(r"\x1b\[1;4;38;2;17;17;17;48;2;\d+;\d+;\d+m power\x1b\[0m now", text)
    assert "[power" not in text


def test_session_and_labels_travel_with_the_text() -> None:
    found = belonging(pb.Input(text="a"), "talk-1", ["team=risk", "note=a=b"])
    assert (found.session_id, dict(found.labels)) == ("talk-1", {"team": "risk", "note": "a=b"})
    with pytest.raises(InputError, match="NAME=VALUE"):
        belonging(pb.Input(text="a"), None, ["team"])


@pytest.mark.slow
def test_scoring_needs_no_room_for_a_cache(run, monkeypatch):
    """The bundled pair, on a machine without any memory to spare: only generating needs some."""
    monkeypatch.setattr(cache_room, "free_memory", lambda _: 0)
    done = run("score", CALM)
    assert (done.exit_code, "CHECKED" in done.stdout) == (0, True)
    refused = run("generate", CALM)
    assert refused.exit_code == 2
    assert "give this process more memory" in str(refused.exception) + refused.output
