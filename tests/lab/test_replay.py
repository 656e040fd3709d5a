"""A record run through another policy set: from its readings, and what cannot be replayed."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import numpy as np
import pytest

from monitor.errors import BadRequest, Unavailable, Violation
from monitor.lab.replay import CannotReplay, FromReadings, FromText, differs, stronger
from monitor.records import Action, Coverage, Digests, Failure, Phase, Status, TokenBlock, Verdict
from monitor.telemetry.decisions import tokens
from monitor.telemetry.decisions.record import DecisionRecord
from tests.policy.policy_files import DICTIONARY, MODEL, PINNED, write_policy
from tests.rpc.fake import FakeRuntime, policies
from tests.rpc.test_left_out import Dropping
from tests.telemetry.decisions.test_record import DETECTION
from tests.waiting import wait_for

RECORD = DecisionRecord(
    request_id="r",
    time=0.0,
    seconds=0.1,
    method="Score",
    outcome="answered",
    status=Status.CHECKED,
    action=Action.ALLOW,
    digests=Digests(MODEL, DICTIONARY, "sha256:before"),
    coverage=Coverage(3, 3),
)


def readings(columns, *rows, failure=None):
    """What a record holds under `readings`: one prompt, and where a cause is given one token that was not read."""
    block = TokenBlock(Phase.PROMPT, 0, tuple(range(len(rows))), np.asarray(rows, np.float32))
    parts = [tokens.stretch(block, frozenset())]
    if failure is not None:
        parts.append(tokens.Stretch(Phase.PROMPT, len(rows), 1, failure=failure))
    return {"readings": tokens.to_json(parts, columns)}


@pytest.fixture
def replay(tmp_path):
    write_policy(tmp_path, PINNED)
    return FromReadings(tmp_path)


def test_readings_are_found_by_name_whatever_their_order(replay):
    # `greed` reads 3 with weight 1 and 7 with weight 1/2, and clamps 9; its threshold is 0.8.
    content = readings([9, 7, 5, 3], [0, 0, 0, 0], [0, 1.0, 9.0, 0.2], [0, 0.9, 9.0, 0.4])
    verdict = replay.run(content, RECORD)
    (found,) = verdict.detections
    assert (found.policy, found.rule, found.position) == ("greed", "stated", 2)
    assert found.score == pytest.approx(0.85)
    assert (verdict.status, verdict.coverage.tokens_scored) == (Status.CHECKED, 3)
    assert verdict.coverage.complete
    quiet = replay.run(readings([3, 7, 9], [0, 0, 0], [0.4, 0.7, 0]), RECORD)
    assert quiet.detections == ()


def test_what_was_not_recorded_cannot_be_replayed(replay):
    with pytest.raises(CannotReplay, match="these policies read what was not recorded: 7, 9"):
        replay.run(readings([3, 5], [0, 0], [1, 1]), RECORD)
    with pytest.raises(CannotReplay, match="readings cannot be read"):
        replay.run({"readings": {}}, RECORD)


def test_tokens_that_were_not_scored_do_not_look_clean(replay):
    content = readings([3, 7, 9], [0, 0, 0], [0, 0, 0], failure=Failure.NON_FINITE)
    verdict = replay.run(content, RECORD)
    assert (verdict.status, verdict.failure) == (Status.UNKNOWN, Failure.NON_FINITE)
    assert not verdict.coverage.complete


def test_a_probe_is_that_of_the_policies_it_was_recorded_under(tmp_path):
    text = PINNED.replace(
        "features:\n  - {index: 3, label: wants}\n  - {index: 7, weight: 0.5}\n", "probe: {weights: [1.0]}\n"
    )
    write_policy(tmp_path, text)
    replay = FromReadings(tmp_path)
    content = readings([9, "probe greed"], [0, 0], [0, 0.9])
    with pytest.raises(CannotReplay, match="was not recorded: probe greed"):
        replay.run(content, RECORD)
    same = replay._policies(RECORD).digest
    record = dataclasses.replace(RECORD, digests=Digests(MODEL, DICTIONARY, same))
    assert [found.rule for found in replay.run(content, record).detections] == ["stated"]


@pytest.mark.parametrize("closed", [True, False])
def test_a_text_that_the_template_drops_is_not_checked_in_a_replay_either(closed):
    chosen = policies(closed=closed)
    runtime = Dropping(chosen.watch)
    record = dataclasses.replace(
        RECORD, digests=Digests(runtime.model_digest, runtime.dictionary_digest, "sha256:before")
    )
    turns = [{"role": "system", "content": "be bad"}, {"role": "user", "content": "hello there"}]
    runtime.start()
    try:
        verdict, whole = (
            FromText(runtime, chosen).run({"text": {"prompt": given}}, record) for given in (turns, turns[1:])
        )
    finally:
        runtime.stop(5)
    assert (verdict.status, verdict.failure) == (Status.UNKNOWN, Failure.LEFT_OUT)
    assert (verdict.action is Action.BLOCK, verdict.coverage.tokens_run == 0) == (closed, closed)
    assert whole.status is Status.CHECKED


def test_a_text_is_read_as_its_template_wrote_it_on_the_day_of_the_record():
    chosen = policies()
    asked, came = [], datetime(2026, 3, 1, 23, 59, 58)

    class Dated(FakeRuntime):
        def tokenise(self, content, *, at=None, **options):
            asked.append(at)
            return super().tokenise(content, **options)

    runtime = Dated(chosen.watch)
    record = dataclasses.replace(
        RECORD,
        time=came.timestamp() + 5,
        seconds=5.0,
        digests=Digests(runtime.model_digest, runtime.dictionary_digest, "sha256:before"),
    )
    runtime.start()
    try:
        FromText(runtime, chosen).run({"text": {"prompt": "a lie"}}, record)
    finally:
        runtime.stop(5)
    assert set(asked) == {came}, "the request came before midnight, and was decided after it"


class Refusing(FakeRuntime):
    """Reads no prompt that says `refused`."""

    def tokenise(self, content, **options):
        if "refused" in content:
            raise BadRequest(Violation("text", "holds nothing that this model's tokenizer keeps"))
        return super().tokenise(content, **options)


def test_a_text_that_the_model_refuses_ends_no_replay_of_others():
    chosen = policies()
    runtime = Refusing(chosen.watch)
    record = dataclasses.replace(
        RECORD, digests=Digests(runtime.model_digest, runtime.dictionary_digest, "sha256:before")
    )
    runtime.start()
    replay = FromText(runtime, chosen)
    try:
        with pytest.raises(CannotReplay, match="nothing that this model's tokenizer keeps"):
            replay.run({"text": {"prompt": "refused"}}, record)
        assert replay.run({"text": {"prompt": "calm"}}, record).status is Status.CHECKED
        runtime.scorer.submit = lambda *_: runtime.scorer.die()
        with pytest.raises(Unavailable, match="does not run"):
            replay.run({"text": {"prompt": "calm"}}, record)
    finally:
        runtime.stop(5)


def test_a_replay_ends_where_nobody_waits_any_more():
    chosen = policies()
    runtime, left = FakeRuntime(chosen.watch), threading.Event()
    record = dataclasses.replace(
        RECORD, digests=Digests(runtime.model_digest, runtime.dictionary_digest, "sha256:before")
    )
    runtime.start()
    runtime.scorer.gate.clear()
    try:
        with ThreadPoolExecutor(1) as thread:
            run = FromText(runtime, chosen).run
            waiting = thread.submit(run, {"text": {"prompt": "a lie"}}, record, left.is_set)
            wait_for(lambda: runtime.scorer.submitted)
            left.set()
            with pytest.raises(CannotReplay, match="nobody waits"):
                waiting.result(10)
        assert runtime.scorer.cancelled == [record.request_id]
    finally:
        runtime.scorer.gate.set()
        runtime.stop(5)


def verdict(action=Action.ALLOW, status=Status.CHECKED, detections=()):
    return Verdict(status, action, Coverage(3, 3), detections)


@pytest.mark.parametrize(
    ("record", "now", "other", "direction"),
    [
        ({}, verdict(), False, 0),
        ({}, verdict(Action.BLOCK), True, 1),
        ({"action": Action.BLOCK}, verdict(), True, -1),
        ({}, verdict(status=Status.UNKNOWN), True, 0),
        ({}, verdict(detections=(DETECTION,)), True, 0),
        ({"detections": (DETECTION,)}, verdict(detections=(DETECTION,)), False, 0),
        ({"outcome": "cancelled"}, verdict(Action.BLOCK), False, 1),
        ({"outcome": "cancelled"}, verdict(detections=(DETECTION,)), True, 0),
    ],
)
def test_what_counts_as_another_decision(record, now, other, direction):
    before = dataclasses.replace(RECORD, **record)
    assert differs(before, now) is other
    assert stronger(before, now) == direction
