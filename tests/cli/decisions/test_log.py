"""The log that a command reads: which folder, and lines that are no records."""

import pytest
import typer

from monitor.cli.decisions.log import decisions, readable
from monitor.errors import InputError
from monitor.telemetry.decisions.record import to_json
from tests.cli.decisions.logged import seqs
from tests.telemetry.decisions.logs import log
from tests.telemetry.decisions.test_record import RECORD


def test_the_folder_comes_from_the_settings_too(run, logged, monkeypatch):
    monkeypatch.setenv("SAE_MONITOR_DECISION_LOG", str(logged[0]))
    assert seqs(run("decisions", "tail").stdout) == [1, 2, 3, 4]
    monkeypatch.setenv("SAE_MONITOR_DECISION_LOG", "off")
    assert "name a folder with --log" in run("decisions", "tail").stderr


def test_a_gap_and_an_unreadable_schema_are_said(run, tmp_path):
    decisions = log(tmp_path)
    gap = {"kind": "gap", "time": 60.0, "since": 0.0, "lost": 7, "reason": "No space left on device"}
    decisions.append(lambda: gap).result()
    done = run("decisions", "tail", "--log", tmp_path)
    assert (
        "7 decisions are missing here: 1970-01-01 00:00:00Z to 1970-01-01 00:01:00Z, No space" in done.stdout
    )
    decisions.append(lambda: {"kind": "decision", "schema": 99}).result()
    decisions.close()
    later = run("decisions", "tail", "--log", tmp_path)
    assert later.exit_code == 2
    assert "record 2: the record has schema 99; this version reads 1" in later.stderr


def test_a_folder_that_is_none_is_said(run, tmp_path):
    done = run("decisions", "tail", "--log", tmp_path / "none")
    assert done.exit_code == 2
    assert "is not a folder; name the one that the server was given" in done.stderr


def test_lines_without_a_record_are_passed_on():
    gap = {"kind": "gap", "seq": 1}
    found = list(decisions([gap, {"seq": 2, **to_json(RECORD)}]))
    assert found[0] == (gap, None)
    assert found[1][1].request_id == RECORD.request_id
    with pytest.raises(InputError, match="record 3: the record has schema None"):
        list(decisions([{"kind": "decision", "seq": 3}]))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"a\.jsonl: cannot be read: Permission denied"), readable(tmp_path):
        raise PermissionError(13, "Permission denied", "a.jsonl")
    with (
        pytest.raises(InputError, match=f"{tmp_path}: cannot be read: Input/output error"),
        readable(tmp_path),
    ):
        raise OSError(5, "Input/output error")
    with pytest.raises(typer.Exit) as caught, readable(tmp_path):
        raise KeyboardInterrupt
    assert caught.value.exit_code == 0
