"""Lines of the log."""

import contextlib
import io
import json
import sys

import pytest
import structlog

from monitor.telemetry.logs import configure


@pytest.fixture(autouse=True)
def restored():
    yield
    structlog.reset_defaults()


def test_json_lines_carry_the_event_and_nothing_below_the_level(capsys):
    configure("warning", "json")
    log = structlog.get_logger()
    log.info("not this")
    log.warning("this", request_id="abc")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["request_id"]) == ("this", "warning", "abc")


def test_console_lines_show_no_local_variables(capsys):
    configure("info", "console")
    prompt = "xyz" + "zy"
    try:
        raise ValueError(len(prompt))
    except ValueError:
        structlog.get_logger().exception("failed")
    shown = capsys.readouterr().err
    assert "ValueError" in shown
    assert "xyzzy" not in shown


def test_a_full_disk_or_a_closed_stream_ends_nobody_who_logs(monkeypatch):
    with open("/dev/full", "w", buffering=1) as full:
        with pytest.raises(OSError, match="No space left"):
            full.write("lost\n")
        monkeypatch.setattr("sys.stderr", full)
        configure("info", "json")
        structlog.get_logger().error("lost")
        with contextlib.suppress(OSError):
            full.close()
    with pytest.raises(ValueError, match="closed"):
        full.write("lost too\n")
    structlog.get_logger().error("lost too")
    monkeypatch.setattr("sys.stderr", io.StringIO())
    configure("info", "json")
    structlog.get_logger().error("seen")
    assert [json.loads(line)["event"] for line in sys.stderr.getvalue().splitlines()] == ["seen"]
