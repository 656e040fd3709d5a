"""WatchDetections: live, filtered, from a place in the log on, for slow readers, and at the end."""

import queue
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import grpc
import pytest

from monitor.policy.policyset import PolicySet
from monitor.records import Action, Mode
from monitor.rpc.wire import decisions
from monitor.telemetry.decisions import writer
from monitor.telemetry.decisions.folder import LogState, segments
from monitor.telemetry.decisions.reader import read
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.children import beside
from tests.rpc.conftest import DEADLINE, connected, fails, serving
from tests.rpc.fake import policies, policy
from tests.waiting import wait_for


class Watcher:
    """A stream read on a thread."""

    def __init__(self, served, **fields):
        self.call = served.stub.WatchDetections(pb.WatchDetectionsRequest(**fields), timeout=DEADLINE)
        self.call.initial_metadata()
        self.seen = queue.Queue()
        self.ended = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for event in self.call:
                self.seen.put(event)
        except grpc.RpcError as error:
            self.seen.put(error)
        self.ended.set()

    def next(self):
        return self.seen.get(timeout=DEADLINE)


@contextmanager
def watching(served, **fields):
    watcher = Watcher(served, **fields)
    try:
        yield watcher
    finally:
        watcher.call.cancel()
        assert watcher.ended.wait(DEADLINE)


def test_what_is_detected_is_streamed_as_it_is_decided(tmp_path):
    with serving(decision_log=tmp_path) as served, watching(served) as watcher:
        served.score("calm")
        answer = served.score("lie")
        event = watcher.next()
        assert watcher.seen.empty()
    assert (event.request_id, event.record, event.method, event.outcome) == (
        answer.request_id, 1, "Score", "answered",
    )  # fmt: skip
    assert event.digests == answer.digests
    assert event.coverage == answer.verdict.coverage
    (found,) = event.detections
    (told,) = answer.verdict.detections
    assert (found.policy, found.position, found.score) == (told.policy, told.position, told.score)
    assert [(e.text, e.token_id) for e in found.evidence] == [("", 0)]
    assert event.time.ToNanoseconds() > 1_700_000_000e9


def test_a_caller_who_leaves_while_its_record_is_written_is_watched_too(tmp_path, monkeypatch):
    begun, go, sync = threading.Event(), threading.Event(), writer.Disk.sync

    def held(disk, handle):
        begun.set()
        assert go.wait(DEADLINE)
        sync(disk, handle)

    monkeypatch.setattr(writer.Disk, "sync", held)
    with serving(decision_log=tmp_path) as served, watching(served) as watcher:
        try:
            asked = pb.ScoreRequest(input=pb.Input(text="lie"))
            call = served.stub.Score.future(asked, timeout=DEADLINE)
            assert begun.wait(DEADLINE)
            call.cancel()
            wait_for(lambda: served.metric("requests_total", method="Score", code="CANCELLED") == 1)
        finally:
            go.set()
        assert watcher.next().record == 1
        served.score("lie")
        assert watcher.next().record == 2
    assert len(list(read(tmp_path))) == 2


def test_without_a_log_it_works_live_and_has_no_place_to_begin():
    with serving() as served, watching(served) as watcher:
        served.score("lie")
        event = watcher.next()
        assert (event.cursor, event.record, event.detections[0].policy) == ("", 0, "deception")
        with fails("INVALID_ARGUMENT"):
            next(served.stub.WatchDetections(pb.WatchDetectionsRequest(after="0"), timeout=DEADLINE))


def shadowing():
    quiet = policy("weapons", 9, Action.BLOCK, mode=Mode.SHADOW)
    clamping = next(p for p in policies(closed=False).policies if p.name == "deception")
    return PolicySet((quiet, clamping), "sha256:" + "d" * 64)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["lie"]),
        ({"include_shadow": True}, ["lie", "bomb"]),
        ({"include_shadow": True, "policies": ["weapons"]}, ["bomb"]),
        ({"policies": ["nobody"]}, []),
        ({"minimum_severity": pb.SEVERITY_HIGH}, ["lie"]),
        ({"minimum_severity": pb.SEVERITY_CRITICAL}, []),
        ({"include_unknown": True}, ["lie", "sick"]),
        ({"include_unknown": True, "policies": ["nobody"]}, ["sick"]),
    ],
)
def test_filters(fields, expected):
    with serving(chosen=shadowing()) as served, watching(served, **fields) as watcher:
        words = {served.score(word).request_id: word for word in ("calm", "lie", "bomb", "sick")}
        with watching(served, include_shadow=True, include_unknown=True) as last:
            served.score("lie")
            last.next()
        seen = [words.get(watcher.seen.get_nowait().request_id) for _ in range(watcher.seen.qsize())]
        assert [word for word in seen if word] == expected


def test_a_stream_begins_behind_a_record_and_goes_on_live(tmp_path):
    with serving(decision_log=tmp_path) as served:
        asked = [served.score("lie").request_id for _ in range(5)]
    with serving(decision_log=tmp_path, decision_log_file_bytes=4096) as served:
        with watching(served, after="0") as watcher:
            second = [watcher.next() for _ in range(2)][-1].cursor
        with watching(served, after=second) as watcher:
            events = [watcher.next() for _ in range(3)]
            asked += [served.score("lie").request_id for _ in range(20)]
            events += [watcher.next() for _ in range(20)]
        assert [event.record for event in events] == list(range(3, 26))
        assert [event.request_id for event in events] == asked[2:]
        log = second.partition("-")[0]
        refused(served, f"{log}-99", "is record 99, and the last one of this log is 25")


@pytest.mark.slow
def test_catching_up_while_records_come_misses_and_repeats_nothing(tmp_path):
    with serving(decision_log=tmp_path) as served:
        for _ in range(100):
            served.score("lie")
        with beside(*[lambda: served.score("lie")] * 3), watching(served, after="0") as watcher:
            cursors = [watcher.next().record for _ in range(300)]
    assert cursors == list(range(1, 301))


def test_what_came_while_the_log_was_read_does_not_count_as_missed(tmp_path, monkeypatch):
    reading, go = threading.Event(), threading.Event()

    def held(folder, after):
        reading.set()
        assert go.wait(DEADLINE)
        yield from read(folder, after)

    monkeypatch.setattr("monitor.rpc.decisions.watch.read", held)
    monkeypatch.setattr("monitor.rpc.decisions.recorder._WATCHER_QUEUE", 4)
    with serving(decision_log=tmp_path) as served, watching(served, after="0") as watcher:
        try:
            assert reading.wait(DEADLINE)
            for _ in range(20):
                served.score("lie")
        finally:
            go.set()
        assert [watcher.next().record for _ in range(20)] == list(range(1, 21))
        assert served.metric("watch_missed_records_total") == 0


def test_what_is_not_kept_any_more_is_counted(tmp_path):
    with serving(decision_log=tmp_path, decision_log_file_bytes=4096, decision_log_keep_files=2) as served:
        for _ in range(60):
            served.score("lie")
        wait_for(lambda: next(read(tmp_path))["seq"] > 10)
        first = next(read(tmp_path))["seq"]
        with watching(served, after=f"{LogState.read(tmp_path).id}-1") as watcher:
            event = watcher.next()
    assert event.record >= first
    assert event.dropped == event.record - 2


def test_what_others_took_out_of_the_middle_and_off_the_end_is_counted(tmp_path):
    with serving(decision_log=tmp_path, decision_log_file_bytes=4096) as served:
        while len(segments(tmp_path)) < 5:
            served.score("lie")
        one, _, three, *_rest = (found.first for found in segments(tmp_path))
        segments(tmp_path)[1].path.unlink()
        for found in segments(tmp_path)[-2:]:
            found.path.unlink()
        with watching(served, after="0") as watcher:
            seen = [watcher.next() for _ in range(len(list(read(tmp_path))))]
            served.score("lie")
            last = watcher.next()
    middle = next(event for event in seen if event.record == three)
    assert seen[0].record == one
    assert middle.dropped == three - seen[[e.record for e in seen].index(three) - 1].record - 1
    assert (
        last.record - 1 - last.dropped == len(seen) + 1
    )  # The line that says what is missing has a number too.


def cursors(served, count):
    with watching(served, after="0") as watcher:
        return [watcher.next().cursor for _ in range(count)]


def refused(served, after, said):
    with pytest.raises(grpc.RpcError) as caught:
        next(served.stub.WatchDetections(pb.WatchDetectionsRequest(after=after), timeout=DEADLINE))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said in caught.value.details()


def test_a_cursor_of_another_replica_is_refused(tmp_path):
    with serving(decision_log=tmp_path / "one") as served:
        served.score("lie")
        served.score("lie")
        first, _ = cursors(served, 2)
    with serving(decision_log=tmp_path / "two") as served:
        for _ in range(3):
            served.score("lie")
        refused(served, first, "is a cursor of log")
        assert len(cursors(served, 3)) == 3


def test_a_cursor_of_a_log_that_was_begun_anew_is_refused(tmp_path):
    with serving(decision_log=tmp_path) as served:
        served.score("lie")
        (cursor,) = cursors(served, 1)
    for path in [found.path for found in segments(tmp_path)]:
        path.unlink()
    with serving(decision_log=tmp_path) as served:
        served.score("lie")
        refused(served, cursor, "its log was begun anew; write 0")


def test_a_cursor_outlives_restarts_and_a_file_that_others_rotate(tmp_path):
    with serving(decision_log=tmp_path) as served:
        served.score("lie")
        (cursor,) = cursors(served, 1)
    with serving(decision_log=tmp_path) as served:
        segments(tmp_path)[0].path.rename(tmp_path / "away")
        served.score("lie")
        with watching(served, after=cursor) as watcher:
            event = watcher.next()
    assert (event.record, event.dropped) == (3, 0)


@pytest.mark.parametrize(
    "after", ["", "17", "-1", "x-1", "0-", "abc-", "abc-1-2", "ABC-1", "abc-99999999999999999", " 0"]
)
def test_what_is_no_cursor_is_refused(tmp_path, after):
    with serving(decision_log=tmp_path) as served:
        refused(
            served, after, "is no cursor; write the `cursor` of an event, or 0 for the beginning of the log"
        )


@pytest.mark.slow
def test_a_slow_reader_learns_how_much_it_missed_and_holds_nobody_up():
    # A client with a small window, so that the network holds little of what is not read.
    window = [
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 65535),
        ("grpc.enable_http_proxy", 0),
    ]
    with serving() as served, grpc.insecure_channel(served.addresses.grpc, window) as channel:
        slow = MonitorServiceStub(channel).WatchDetections(pb.WatchDetectionsRequest(), timeout=60)
        slow.initial_metadata()
        asked = 0
        while not served.metric("watch_missed_records_total"):
            for _ in range(200):
                served.score("lie")
            asked += 200
            assert asked < 10_000
        dropped = 0
        for seen, event in enumerate(slow, start=1):
            dropped = event.dropped
            if seen + dropped == asked:
                break
        assert dropped == served.metric("watch_missed_records_total")
        slow.cancel()
        wait_for(lambda: served.metric("watch_streams") == 0)


def test_too_many_streams_are_refused():
    with serving(watch_subscribers=1) as served, watching(served), fails("RESOURCE_EXHAUSTED"):
        next(served.stub.WatchDetections(pb.WatchDetectionsRequest(), timeout=DEADLINE))


def test_streams_end_with_ok_when_the_server_stops():
    with ExitStack() as stack:
        with serving(grace=20.0) as served:
            channel = stack.enter_context(connected(served.addresses.grpc))
            watcher = Watcher(replace(served, stub=MonitorServiceStub(channel)))
            served.score("lie")
        assert watcher.ended.wait(5)
        assert watcher.next().detections
        assert watcher.seen.empty(), watcher.seen.get()


@pytest.mark.slow
def test_a_stream_ends_with_ok_before_the_longest_call_is_over():
    with serving(max_call_seconds=2.0) as served:
        watcher = Watcher(served)
        assert watcher.ended.wait(DEADLINE)
        assert watcher.seen.empty(), watcher.seen.get()


def test_wrong_filters_are_named():
    with serving() as served:
        for wrong in ({"policies": [""]}, {"minimum_severity": 9}):
            with fails("INVALID_ARGUMENT"):
                next(served.stub.WatchDetections(pb.WatchDetectionsRequest(**wrong), timeout=DEADLINE))


def test_a_record_is_written_out_once_for_all_streams_that_want_the_same(monkeypatch):
    made, real = [], decisions.response

    def counted(*args):
        made.append(args)
        return real(*args)

    monkeypatch.setattr(decisions, "response", counted)
    with serving() as served, ExitStack() as open_streams:
        alike = [open_streams.enter_context(watching(served)) for _ in range(5)]
        other = open_streams.enter_context(watching(served, include_unknown=True))
        served.score("lie")
        events = [watcher.next() for watcher in (*alike, other)]
        served.score("lie")
        later = [watcher.next() for watcher in (*alike, other)]
    assert len(made) == 4
    assert len({event.request_id for event in events}) == len({event.request_id for event in later}) == 1
    assert events[0].request_id != later[0].request_id
