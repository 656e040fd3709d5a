"""`sae-monitor decisions`: what it lists, shows, checks and replays."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from monitor.cli.decisions.filter import instant
from monitor.errors import InputError
from monitor.telemetry.decisions.folder import LogState, segments
from monitor.telemetry.decisions.reader import read
from tests.rpc.conftest import serving
from tests.telemetry.decisions.logs import log
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A log of four decisions by a real server over fake insides, and the request ids."""
    folder = tmp_path_factory.mktemp("log")
    with serving(decision_log=folder, decision_log_records="all") as served:
        ids = [served.score("calm").request_id, served.score("lie").request_id]
        ids.append(served.generate("bomb", max_new_tokens=2).request_id)
        with pytest.raises(Exception, match="could not be served"):
            served.score("sick")
    return folder, ids


def seqs(output):
    return [int(found) for found in re.findall(r"^ +(\d+)  20", output, re.MULTILINE)]


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


def test_the_folder_comes_from_the_settings_too(run, logged, monkeypatch):
    monkeypatch.setenv("SAE_MONITOR_DECISION_LOG", str(logged[0]))
    assert seqs(run("decisions", "tail").stdout) == [1, 2, 3, 4]
    monkeypatch.setenv("SAE_MONITOR_DECISION_LOG", "off")
    assert "name a folder with --log" in run("decisions", "tail").stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [1, 2, 3, 4]),
        (["--policy", "deception"], [2]),
        (["--policy", "weapons", "--rule", "word"], [3]),
        (["--policy", "deception", "--rule", "other"], []),
        (["--severity", "high"], [2, 3]),
        (["--severity", "critical"], []),
        (["--action", "suppress"], [2, 3, 4]),
        (["--action", "block", "--status", "checked"], [3]),
        (["--status", "unknown"], [4]),
        (["--since", "1h"], [1, 2, 3, 4]),
        (["--until", "2020-01-01"], []),
        (["--caller", "somebody"], []),
    ],
)
def test_filter(run, logged, arguments, expected):
    done = run("decisions", "filter", *arguments, "--log", logged[0])
    assert done.exit_code == 0, done.stderr
    assert seqs(done.stdout) == expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--severity", "bad"], "there is no severity 'bad'; there are low, medium, high, critical"),
        (["--since", "yesterday"], "'yesterday' is no time; write 2026-11-22"),
    ],
)
def test_wrong_conditions_are_explained(run, logged, arguments, said):
    done = run("decisions", "filter", *arguments, "--log", logged[0])
    assert done.exit_code == 2
    assert said in done.stderr


def test_times():
    assert instant("2h", lambda: 10_000.0) == 10_000.0 - 7200
    assert instant("1970-01-02") == 86400
    assert instant("1970-01-01T01:00+01:00") == 0
    with pytest.raises(InputError):
        instant("2x")


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


@pytest.mark.slow
def read_json(arguments, count):
    """The first lines of a command that prints one JSON object on each."""
    with subprocess.Popen(
        [sys.executable, "-m", "monitor", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            return [json.loads(process.stdout.readline()) for _ in range(count)]
        finally:
            process.kill()


def test_watch_shows_what_a_server_detects_and_begins_where_it_is_told(run, tmp_path):
    with serving(decision_log=tmp_path, max_call_seconds=3.0) as served:
        first = served.score("lie").request_id
        served.generate("bomb", max_new_tokens=1)
        arguments = ["decisions", "watch", "--connect", served.addresses.grpc, "--after"]
        shown = run(*arguments, f"{LogState.read(tmp_path).id}-9")
        assert shown.exit_code == 2
        assert "the last one of this log is 2" in shown.stderr
        process = subprocess.Popen(
            [sys.executable, "-m", "monitor", *arguments, "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # Whoever runs the tests in the background of a shell ignores SIGINT, and so would this process.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        try:
            lines = [process.stdout.readline() for _ in range(4)]
            time.sleep(3)  # The first stream is over by now, and another one goes on where it ended.
            last = served.score("lie").request_id
            lines += [process.stdout.readline() for _ in range(2)]
            as_json = read_json([*arguments, "0", "--json"], 3)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                _, said = process.communicate(timeout=60)
            finally:
                process.kill()
                process.communicate()
    assert process.returncode == 0, said
    assert said == f"go on with --after {as_json[-1]['cursor']}\n"
    assert [event["record"] for event in as_json] == ["1", "2", "3"]
    assert first in lines[0]
    assert "● deception / word  high  suppress  in the prompt, at token 1" in lines[1]
    assert " block " in lines[2]
    assert lines[4].startswith("     3  20")
    assert last in lines[4]


def test_a_folder_that_is_none_is_said(run, tmp_path):
    done = run("decisions", "tail", "--log", tmp_path / "none")
    assert done.exit_code == 2
    assert "is not a folder; name the one that the server was given" in done.stderr


@pytest.mark.slow
def test_reading_needs_no_torch():
    code = (
        "import sys, typer.testing; from monitor.cli.app import app\n"
        "done = typer.testing.CliRunner().invoke(app, ['decisions', 'tail', '--help']); assert done.exit_code == 0\n"
        "import monitor.cli.decisions.filter\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_the_log_that_was_read_is_as_it_was(logged):
    assert [content["seq"] for content in read(logged[0])] == [1, 2, 3, 4]
