"""`decisions tail`, `show` and `verify`."""

import dataclasses
import json
import threading

import pytest

from monitor.cli.decisions import read as read_command
from monitor.telemetry.decisions.folder import segments
from monitor.telemetry.decisions.reader import read
from monitor.telemetry.decisions.record import to_json
from tests.cli.decisions.logged import seqs
from tests.rpc.conftest import serving
from tests.telemetry.decisions.logs import log
from tests.telemetry.decisions.test_record import RECORD
from tests.waiting import wait_for


def test_tail_lists_the_last(run, logged):
    folder, ids = logged
    done = run("decisions", "tail", "--log", folder)
    assert done.exit_code == 0, done.stderr
    assert seqs(done.stdout) == [1, 2, 3, 4]
    _, calm, lie, bomb, sick = ("\n" + done.stdout).splitlines()
    assert "nothing fired" in calm
    assert f"deception/word high prompt@1  {ids[1][:8]}" in lie
    assert " block " in bomb
    assert "UNKNOWN (non_finite)" in sick
    assert "refused" in sick
    assert seqs(run("decisions", "tail", "-n", "2", "--log", folder).stdout) == [3, 4]
    lines = run("decisions", "tail", "-n", "1", "--json", "--log", folder).stdout.splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["unknown"]


def test_show_by_id_its_beginning_or_number(run, logged):
    folder, ids = logged
    by_id = run("decisions", "show", ids[1], "--log", folder)
    assert by_id.exit_code == 0, by_id.stderr
    for part in (
        "Score, answered",
        "deception / word",
        "score 1, threshold 0.5",
        "not possible: neither readings",
    ):
        assert part in by_id.stdout
    assert "lie" not in by_id.stdout
    assert run("decisions", "show", ids[1][:8], "--log", folder).stdout == by_id.stdout
    assert run("decisions", "show", "2", "--log", folder).stdout == by_id.stdout
    missing = run("decisions", "show", "nobody", "--log", folder)
    assert missing.exit_code == 2
    assert "has no decision nobody" in missing.stderr


def test_verify_says_what_is_wrong(run, tmp_path):
    decisions = log(tmp_path)
    for name in "abc":
        decisions.append(lambda name=name: {"kind": "decision", "id": name}).result()
    decisions.close()
    clean = run("decisions", "verify", "--log", tmp_path)
    assert (clean.exit_code, clean.stdout) == (
        0, "3 records (1 to 3) in 1 file: every line is whole, none is missing\n",
    )  # fmt: skip
    path = segments(tmp_path)[0].path
    path.write_bytes(path.read_bytes()[:-5])
    torn = run("decisions", "verify", "--log", tmp_path)
    assert torn.exit_code == 1
    assert "the line has no end; it is not read" in torn.stdout
    assert "2 records (1 to 2) in 1 file: 2 faults (1 record missing)" in torn.stdout


def test_follow_shows_what_comes(run, tmp_path, monkeypatch):
    monkeypatch.setattr("monitor.telemetry.decisions.reader._POLL", 0.01)
    with serving(decision_log=tmp_path) as served:
        served.score("lie")
        shown = []

        def note(line):
            shown.append(json.loads(line)["seq"])
            if len(shown) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr("typer.echo", note)
        following = threading.Thread(
            target=lambda: run("decisions", "tail", "-f", "--json", "--log", tmp_path), daemon=True
        )
        following.start()
        wait_for(lambda: shown)
        served.score("lie")
        served.score("lie")
        following.join(60)
    assert shown == [1, 2, 3]


def test_the_log_that_was_read_is_as_it_was(logged):
    assert [content["seq"] for content in read(logged[0])] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("which", "named"),
    [
        ("12", True),
        ("#12", True),
        ("13", False),
        ("3f2a", True),
        ("3f2a9b", True),
        ("3f2", False),
        ("9b", False),
        ("3f2b", False),
        ("req-", True),
        ("req-8", True),
        ("req-9", False),
    ],
)
def test_a_record_is_named_by_its_number_or_the_beginning_of_its_request(which, named):
    record = dataclasses.replace(RECORD, request_id="3f2a9b77", upstream_request_id="req-81")
    assert read_command._is(which, 12, record) is named


def test_a_beginning_that_several_have_is_not_enough(run, tmp_path):
    decisions = log(tmp_path)
    for name in ("abcd1", "abcd2"):
        record = dataclasses.replace(RECORD, request_id=name)
        decisions.append(lambda record=record: to_json(record)).result()
    decisions.close()
    done = run("decisions", "show", "abcd", "--log", tmp_path)
    assert done.exit_code == 2
    assert "abcd is the beginning of ids in 2 records; write more, or the number of one: 1, 2" in done.stderr
    assert run("decisions", "show", "abcd2", "--log", tmp_path).exit_code == 0
