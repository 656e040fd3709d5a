"""How a command ends: JSON, files and exit codes."""

import json

import pytest
import typer

from monitor.cli.errors import ExitCode
from monitor.cli.output import as_json, exit_by, exit_code, writable, write_text
from monitor.errors import InputError
from monitor.v1 import monitor_pb2 as pb


def verdict(action=pb.ACTION_ALLOW, status=pb.CHECK_STATUS_CHECKED, scored=3):
    return pb.Verdict(status=status, action=action, coverage=pb.Coverage(tokens_run=3, tokens_scored=scored))


@pytest.mark.parametrize(
    ("given", "code", "leniently"),
    [
        (verdict(), ExitCode.CLEAN, ExitCode.CLEAN),
        (verdict(pb.ACTION_ALERT), ExitCode.MATCHED, ExitCode.CLEAN),
        (verdict(pb.ACTION_BLOCK), ExitCode.MATCHED, ExitCode.CLEAN),
        (verdict(scored=2), ExitCode.ERROR, ExitCode.ERROR),
        (verdict(status=pb.CHECK_STATUS_UNKNOWN), ExitCode.ERROR, ExitCode.ERROR),
        (pb.Verdict(), ExitCode.ERROR, ExitCode.ERROR),
    ],
)
def test_what_was_not_checked_is_an_error_whatever_is_asked(given, code, leniently):
    assert exit_code(given, exit_zero=False) == code
    assert exit_code(given, exit_zero=True) == leniently
    with pytest.raises(typer.Exit) as caught:
        exit_by(given, exit_zero=False)
    assert caught.value.exit_code == code


def test_json_has_every_field_and_letters_as_they_are():
    found = json.loads(as_json(pb.Detection(policy="é")))
    assert (found["policy"], found["position"], found["evidence"]) == ("é", 0, [])
    assert "é" in as_json(pb.Detection(policy="é"))


def test_a_file_that_cannot_be_written_is_said_before(tmp_path, monkeypatch):
    writable(None)
    writable(tmp_path / "new.txt")
    with pytest.raises(InputError, match="is a folder; name a file"):
        writable(tmp_path)
    with pytest.raises(InputError, match=r"no folder at .*none; make it, or name a file elsewhere"):
        writable(tmp_path / "none" / "a.txt")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="cannot be written; name a file elsewhere"):
        writable(tmp_path / "new.txt")


def test_a_file_that_cannot_be_written_is_said_after(tmp_path):
    write_text(tmp_path / "a.txt", "é")
    assert (tmp_path / "a.txt").read_bytes() == "é".encode()
    with pytest.raises(
        InputError, match=r"none/a\.txt cannot be written: No such file or directory; name a file"
    ):
        write_text(tmp_path / "none" / "a.txt", "x")
