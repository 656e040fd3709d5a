"""Lines of the log."""

import contextlib
import io
import json
import logging
import signal
import sys
from types import SimpleNamespace

import grpc
import pytest
import structlog

from monitor.telemetry import logs
from monitor.telemetry.logs import WITHHELD, configure, guard_libraries
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.rpc.conftest import DEADLINE, connected, generation
from tests.telemetry.test_output import talking


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    factory = logging.getLogRecordFactory()
    # Another test of this process may have begun to serve in it.
    monkeypatch.setattr(logs._guard(), "everything", False)
    yield
    structlog.reset_defaults()
    logging.setLogRecordFactory(factory)


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


@pytest.fixture
def quoted(request):
    """What a handler of a library's own logger writes."""
    logger, seen = logging.getLogger(request.param), io.StringIO()
    handler = logging.StreamHandler(seen)
    logger.addHandler(handler)
    yield logger, seen
    logger.removeHandler(handler)


@pytest.mark.parametrize("quoted", ["transformers.generation", "torch", "grpc._cython.cygrpc"], indirect=True)
def test_what_stands_in_a_librarys_code_is_kept_and_what_it_puts_in_is_not(quoted):
    logger, seen = quoted
    guard_libraries()
    secret = "".join(["xyz", "zy"])  # not a constant of this function
    logger.error("the cache of %s is full", secret)
    logger.error(f"the cache of {secret} is full")
    logger.error(secret, stack_info=True)
    try:
        raise KeyError(secret)
    except KeyError:
        logger.exception("it failed")
    said = seen.getvalue()
    assert secret not in said
    assert "the cache of %s is full" in said
    assert said.count(WITHHELD) == 2
    assert "it failed" in said
    assert "KeyError at" in said


@pytest.mark.parametrize("quoted", ["a.notebook"], indirect=True)
def test_lines_of_the_program_around_a_server_are_its_own_business(quoted):
    logger, seen = quoted
    guard_libraries()
    logger.error("saw %s", "this")
    assert "saw this" in seen.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("quoted", ["ContinuousBatchingLogger"], indirect=True)
def test_a_request_that_the_batching_library_turns_away_is_not_quoted(quoted):
    """It quotes the first and the last token ids of a prompt in the moment in which an engine dies."""
    from transformers.generation.continuous_batching import ContinuousBatchingManager

    manager = SimpleNamespace(
        is_tp_driver=True, background_thread_status=SimpleNamespace(can_accept_new_requests=lambda: "no")
    )
    guard_libraries()
    ContinuousBatchingManager.add_request(manager, [54_321, 54_322, 54_323, 54_324])
    said = quoted[1].getvalue()
    assert WITHHELD in said
    assert "5432" not in said


@pytest.mark.slow
def test_nothing_that_a_library_writes_quotes_a_caller():
    """Records, their values and exceptions, warnings, dying threads, finalisers, the event loop's own complaints."""
    with talking("quote") as (process, addresses), connected(addresses["grpc"]) as channel:
        stub = MonitorServiceStub(channel)
        stub.Score(pb.ScoreRequest(input=pb.Input(text="xyzzy-text one")), timeout=DEADLINE)
        stub.Score(pb.ScoreRequest(input=pb.Input(text="xyzzy " * 30)), timeout=DEADLINE)
        clamped = generation("xyzzy", clamps=[pb.Clamp(feature=1, target=-1)], max_new_tokens=1)
        stub.Generate(pb.GenerateRequest(generation=clamped), timeout=DEADLINE)
        with pytest.raises(grpc.RpcError):
            stub.Inspect(pb.InspectRequest(input=pb.Input(text="xyzzy")), timeout=DEADLINE)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0
    assert "xyzzy" not in out + err
    lines = [json.loads(line) for line in err.splitlines()]
    events = [line["event"] for line in lines]
    assert sum(WITHHELD in event for event in events) >= 6
    assert any(event.startswith("Request with %s will be dropped") for event in events)
    assert any("Error in generation loop" in event and "ValueError at" in event for event in events)
    assert {"a thread died", "an exception could not be raised", "a task failed"} <= set(events)
    assert {"transformers.generation", "somebody.else", "never.seen", "UserWarning"} <= {
        line.get("library") for line in lines
    }
