"""`decisions watch`: what a running server detects, from stream to stream."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from google.protobuf import timestamp_pb2

from monitor.cli.decisions import watch
from monitor.cli.decisions.watch import said
from monitor.telemetry.decisions.folder import LogState
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import serving


def read_json(arguments, count):
    """The first lines of a command that prints one JSON object on each."""
    with subprocess.Popen(
        [sys.executable, "-m", "monitor", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            return [json.loads(process.stdout.readline()) for _ in range(count)]
        finally:
            process.kill()


@pytest.mark.slow
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


def event(**changes):
    at = timestamp_pb2.Timestamp(seconds=86400)
    return pb.WatchDetectionsResponse(
        request_id="r1",
        time=at,
        method="Score",
        status=pb.CHECK_STATUS_CHECKED,
        action=pb.ACTION_BLOCK,
        **changes,
    )


def test_a_line_for_the_request_and_one_for_each_rule():
    found = pb.Detection(
        policy="greed",
        rule="wants",
        severity=pb.SEVERITY_HIGH,
        action=pb.ACTION_BLOCK,
        phase=pb.PHASE_PROMPT,
        position=4,
    )
    first, second = said(
        event(cursor="1f-7", record=7, caller="a\x1b", detections=[found])
    ).plain.splitlines()
    assert first == "     7  1970-01-02 00:00:00Z    block     Score  r1  a\\x1b"
    assert second.strip().startswith("● greed / wants")
    unchecked = event(failure="gap")
    unchecked.status = pb.CHECK_STATUS_UNKNOWN
    assert said(unchecked).plain == "     -  1970-01-02 00:00:00Z    block     Score  UNKNOWN (gap)  r1"


def test_the_next_stream_begins_where_the_last_one_ended(monkeypatch):
    monkeypatch.setattr(watch, "_PAUSE", 0.0)
    asked = []
    streams = iter([[event(cursor="1f-3"), event()], [], [event(cursor="1f-9")]])

    class Client:
        @contextlib.contextmanager
        def watch_detections(self, after, **wanted):
            asked.append((after, wanted))
            try:
                yield next(streams)
            except StopIteration:
                raise KeyboardInterrupt from None

    seen = []
    events = watch._events(Client(), None, {"policies": ("greed",)})
    with pytest.raises(KeyboardInterrupt):
        seen.extend(one.cursor for one in events)
    assert seen == ["1f-3", "", "1f-9"]
    assert [after for after, _ in asked] == [None, "1f-3", "1f-3", "1f-9"]
    assert asked[0][1] == {"policies": ("greed",)}
