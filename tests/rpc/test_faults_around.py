"""Policies that change and a decision log that has no room in the midst of a stream, in the real server.

In each case: every token that the caller was given was scored, by the policies that the request began with; what went
wrong is counted and told; and the server goes on.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from monitor.telemetry.decisions import writer
from monitor.telemetry.decisions.reader import read, verify
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import DEADLINE, fails
from tests.rpc.faulty import NOT_SERVING, SERVING, Faulty, faulty
from tests.rpc.pairs import SILENT, SPEAKS
from tests.rpc.striking import LONG, PROMPT, long_stream, striking, until_it_fails, whole
from tests.waiting import wait_for


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Faulty]:
    """Reloads only when it is asked to."""
    with faulty(tmp_path, blocks=False, reload_seconds=0.0) as server:
        yield server


def write(server: Faulty, name: str, **changes: Any) -> None:
    """Put a policy like `blocking` beside the others, with these fields of its one rule."""
    folder = Path(server.scene.flags["policies"])
    policy = json.loads((folder / "blocking.yaml").read_text())
    policy["metadata"]["name"] = name
    policy["rules"] = [{"name": "any", "phases": ["response"], "action": "block", **changes}]
    (folder / f"{name}.yaml").write_text(json.dumps(policy))


def reload(server: Faulty) -> pb.ReloadPoliciesResponse:
    return server.stub.ReloadPolicies(pb.ReloadPoliciesRequest(), timeout=DEADLINE)


def meanwhile(server: Faulty, do: Callable[[], None]) -> list[pb.GenerateStreamResponse]:
    """A long stream; once it has run for a while, its engine waits until `do` has returned."""
    done: list[bool] = []

    def hold(_: torch.Tensor) -> None:
        wait_for(lambda: bool(done))

    with striking(server, hold) as strike:
        call = long_stream(server)
        assert strike.struck.wait(DEADLINE)
        try:
            do()
        finally:
            done.append(True)
        return list(call)


def ran_in_full(seen: list[pb.GenerateStreamResponse], expected: pb.GenerateResponse) -> None:
    """To its end, with every token scored by the set that it began with."""
    final = seen[-1].final
    tokens = [token for message in seen for token in message.chunk.tokens]
    assert [token.position for token in tokens] == list(range(PROMPT + LONG))
    assert [token.token_id for token in tokens] == [token.token_id for token in expected.tokens]
    assert final.finish_reason == pb.FINISH_REASON_LENGTH
    assert final.verdict.status == pb.CHECK_STATUS_CHECKED
    assert final.verdict.coverage.tokens_scored == final.verdict.coverage.tokens_run == PROMPT + LONG
    assert final.digests == expected.digests


class TestPoliciesChangeInMidStream:
    @pytest.mark.slow
    def test_the_stream_ends_on_the_set_that_it_began_with(self, asked: Faulty) -> None:
        expected = whole(asked)

        def change() -> None:
            write(asked, "strict", threshold=-1.0)
            assert list(reload(asked).added) == ["strict"]

        ran_in_full(meanwhile(asked, change), expected)
        assert asked.metric("policies_last_reload_success") == 1
        assert asked.health() == SERVING
        after = asked.generate(SILENT, max_new_tokens=LONG, include_tokens=True)
        assert after.finish_reason == pb.FINISH_REASON_POLICY
        assert [token.position for token in after.tokens] == list(range(PROMPT)), "its first token is blocked"
        assert after.digests != expected.digests
        assert asked.metric("blocked_requests_total", policy="strict") == 1

    @pytest.mark.slow
    def test_a_set_that_reads_more_features(self, asked: Faulty) -> None:
        """The rows that passes write grow wider under the stream."""
        expected = whole(asked)
        others = asked.scene.readings(SPEAKS)[1:].amax(0)
        others[[asked.scene.alerting, asked.scene.blocking]] = 0

        def change() -> None:
            folder = Path(asked.scene.flags["policies"])
            policy = json.loads((folder / "alerting.yaml").read_text())
            policy["metadata"]["name"] = "more"
            policy["features"] = [{"index": int(others.argmax())}]
            (folder / "more.yaml").write_text(json.dumps(policy))
            assert list(reload(asked).added) == ["more"]

        ran_in_full(meanwhile(asked, change), expected)
        assert whole(asked).verdict.status == pb.CHECK_STATUS_CHECKED
        assert asked.metric("monitor_failures_total") == 0
        assert asked.health() == SERVING

    @pytest.mark.slow
    def test_a_set_that_is_wrong_changes_nothing_and_is_told(self, asked: Faulty) -> None:
        expected = whole(asked)

        def change() -> None:
            write(asked, "strict", threshold="high")
            with fails("FAILED_PRECONDITION"):
                reload(asked)

        ran_in_full(meanwhile(asked, change), expected)
        assert asked.metric("policies_last_reload_success") == 0
        assert asked.metric("policies_reloads_total", result="failure") == 1
        assert asked.health() == SERVING, "the last good set is in force"
        assert whole(asked).digests == expected.digests
        write(asked, "strict", threshold=-1.0)
        assert reload(asked).changed
        assert asked.metric("policies_last_reload_success") == 1


class Disk:
    """The disk of the decision log, which may have no room."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.full = False
        write = writer.Disk.write

        def perhaps(disk: writer.Disk, handle: Any, data: bytes) -> Any:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(disk, handle, data)

        patch.setattr(writer.Disk, "write", perhaps)


class TestTheDiskIsFull:
    @pytest.mark.slow
    def test_no_answer_is_complete_that_is_not_on_record(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk, log = Disk(monkeypatch), tmp_path / "log"
        with faulty(tmp_path, blocks=False, decision_log=log, decision_log_records="all") as server:
            expected = whole(server)

            def fill(_: torch.Tensor) -> None:
                disk.full = True

            with striking(server, fill) as strike:
                seen = until_it_fails(long_stream(server), "UNAVAILABLE")
            assert strike.struck.is_set()
            positions = [token.position for message in seen for token in message.chunk.tokens]
            assert positions == list(range(PROMPT + LONG)), "all of which was scored"
            assert not any(message.HasField("final") for message in seen), "a verdict that is on no record"
            assert server.metric("decision_log_dropped_total", cause="disk_full") == 1
            assert server.metric("decision_log_errors_total", cause="disk_full") >= 1
            assert server.metric("tokens_unscored_total") == 0
            wait_for(lambda: server.health() == NOT_SERVING)
            for refused in (lambda: server.score(SILENT), lambda: list(long_stream(server))):
                with fails("UNAVAILABLE"):
                    refused()
            assert server.metric("rejected_requests_total", reason="log") == 2
            disk.full = False
            wait_for(lambda: server.health() == SERVING)
            assert whole(server).text == expected.text
        assert [content["kind"] for content in read(log)] == ["decision", "gap", "decision"]
        assert verify(log).faults == []
