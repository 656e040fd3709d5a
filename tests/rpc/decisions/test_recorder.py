"""The recording of decisions as settings ask for it."""

import asyncio

import pytest

from monitor.errors import ConfigurationError, Overloaded, Unavailable
from monitor.rpc.decisions.recorder import DecisionRecorder, check_recorder
from monitor.telemetry.decisions.folder import WriterLock
from monitor.telemetry.metrics.metrics import Metrics
from tests.rpc.conftest import settings


def recorder(**changes):
    return DecisionRecorder(settings(**changes), Metrics())


def test_a_check_leaves_the_folder_free(tmp_path):
    check_recorder(settings(decision_log=tmp_path))
    check_recorder(settings(decision_log=tmp_path))
    WriterLock(tmp_path).release()


def test_a_folder_that_another_server_writes_is_refused_before_a_model_is_loaded(tmp_path):
    own = recorder(decision_log=tmp_path)
    own.start()
    with pytest.raises(ConfigurationError, match="writes to"):
        check_recorder(settings(decision_log=tmp_path))
    asyncio.run(own.stop())
    check_recorder(settings(decision_log=tmp_path))


def test_a_salt_file_that_cannot_be_used_is_said(tmp_path):
    (tmp_path / "salt").write_text("")
    for file in (tmp_path / "salt", tmp_path / "missing"):
        changed = {"decision_log": "off", "decision_log_salt_file": file}
        with pytest.raises(ConfigurationError):
            check_recorder(settings(**changed))
        with pytest.raises(ConfigurationError):
            recorder(**changed)


def test_a_folder_that_cannot_be_made_is_said_without_a_trace(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="decision_log"):
        recorder(decision_log=tmp_path / "file" / "log").start()


def test_where_records_go_is_said(tmp_path):
    assert recorder(decision_log="off").place == "off"
    assert recorder(decision_log=tmp_path / "log").place == str(tmp_path / "log")


def test_without_a_log_there_is_nothing_to_open_or_to_close():
    own = recorder(decision_log="off")
    own.start()
    assert own.ledger.log is None
    asyncio.run(own.stop())


def test_a_log_is_opened_at_the_start_and_closed_at_the_end(tmp_path):
    own = recorder(decision_log=tmp_path / "log")
    assert own.ledger.log is None
    own.start()
    assert own.ledger.log is not None
    assert (tmp_path / "log").is_dir()
    asyncio.run(own.stop())
    again = recorder(decision_log=tmp_path / "log")
    again.start()
    asyncio.run(again.stop())


def test_streams_are_ended_and_no_others_begin():
    async def run():
        own = recorder(decision_log="off", watch_subscribers=1)
        with own.ledger.feed.subscribe(bool) as stream:
            with pytest.raises(Overloaded), own.ledger.feed.subscribe(bool):
                pytest.fail("there is one place")
            own.close_streams()
            ended = await stream.next()
        with pytest.raises(Unavailable), own.ledger.feed.subscribe(bool):
            pytest.fail("the server stops")
        return ended

    assert asyncio.run(run()) is None
