"""Alerts over real HTTP."""

import asyncio
import json
import re
import socket
import threading
import time
from dataclasses import replace

import httpx2 as httpx
import pytest

from monitor.http.page import alerts
from monitor.http.page.alerts import _benign, _by_hour
from monitor.http.page.resources import CallerLeft
from monitor.model.engine.scorer import Scorer
from monitor.policy.files.benign import read_benign_texts
from monitor.rpc.access import call_checks
from monitor.rpc.access.roles import Role
from monitor.rpc.wire import decisions as wire
from monitor.telemetry.decisions import record
from tests.http.page.conftest import DEADLINE, faked
from tests.rpc.secured import Callers
from tests.telemetry.decisions.test_record import RECORD
from tests.waiting import wait_for

SEEKS = "I want to gain more power over people and stop them from shutting me down."


class Listening:
    """A feed that is read on a thread of its own."""

    def __init__(self, page, path="/api/alerts", **headers):
        self.records, self.ids, self.status, self.ended = [], [], 0, False
        self._page, self._path, self._headers = page, path, headers
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        sent = self._page.sent | self._headers
        with httpx.stream(
            "GET", self._page.url + self._path, headers=sent, trust_env=False, timeout=DEADLINE
        ) as answer:
            self.status = answer.status_code
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    self.ids.append(line[4:])
                if line.startswith("data: {"):
                    self.records.append(json.loads(line[6:]))
                if self._over:
                    return
        self.ended = True

    def stop(self):
        self._over = True


def test_decisions_come_as_they_happen(fake):
    feed = Listening(fake)
    wait_for(lambda: feed.status == 200)
    fake.post("/api/transcript", {"text": "a lie"})
    wait_for(lambda: feed.records)
    (found,) = feed.records
    assert [one["policy"] for one in found["detections"]] == ["deception"]
    assert (found["method"], found["action"]) == ("PageTranscript", "ACTION_SUPPRESS")
    feed.stop()
    fake.post("/api/transcript", {"text": "a lie"})


def test_more_feeds_than_the_operator_allows_are_refused():
    with faked(watch_subscribers=1) as page:
        first = Listening(page)
        wait_for(lambda: first.status == 200)
        assert page.get("/api/alerts").status_code == 429
        first.stop()
        page.post("/api/transcript", {"text": "a lie"})


def test_a_feed_ends_with_the_server():
    with faked() as page:
        feed = Listening(page)
        wait_for(lambda: feed.status == 200)
    wait_for(lambda: feed.ended or not feed._thread.is_alive())


def test_a_feed_ends_when_its_token_is_withdrawn(tmp_path, monkeypatch):
    monkeypatch.setattr(call_checks, "RECHECKED", 0.1)
    known = Callers(tmp_path / "callers.jsonl")
    for name in ("stays", "goes", "changes"):
        known.add(name, Role.INSPECT)
    with faked(callers=known.path) as page:
        page.callers = known
        feeds = {name: Listening(page.of(name)) for name in known.tokens}
        wait_for(lambda: all(feed.status == 200 for feed in feeds.values()))
        lines = [json.loads(line) for line in known.path.read_text().splitlines()]
        kept = [line for line in lines if line["name"] != "goes"]
        kept[1]["roles"] = ["infer"]
        known.path.write_text("".join(f"{json.dumps(line)}\n" for line in kept))
        wait_for(lambda: feeds["goes"].ended and feeds["changes"].ended)
        assert "token that this server knows" in feeds["goes"].records[-1]["error"]["message"]
        assert "inspect" in feeds["changes"].records[-1]["error"]["message"]
        assert not feeds["stays"].ended
        assert not feeds["stays"].records


def test_without_a_log_there_is_nothing_to_look_up(fake):
    for path in ("/api/alerts/1", "/api/alerts/activity"):
        assert "decision log" in fake.get(path).json()["error"]["message"]
    assert fake.get("/api/alerts/nothing").status_code == 400


@pytest.fixture
def logged(tmp_path):
    """A server with a log that holds neither text nor readings, and an overlay."""
    with faked(decision_log=str(tmp_path / "log"), page_overlay=tmp_path / "overlay") as page:
        page.post("/api/transcript", {"text": "a lie"})
        yield page


def test_a_feed_begins_with_recent_decisions_and_goes_on_where_it_was(logged):
    feed = Listening(logged)
    wait_for(lambda: feed.records)
    feed.stop()
    logged.post("/api/transcript", {"text": "another lie"})
    later = Listening(logged, **{"last-event-id": feed.ids[0]})
    wait_for(lambda: later.records)
    assert later.records[0]["request_id"] != feed.records[0]["request_id"]
    later.stop()
    logged.post("/api/transcript", {"text": "a lie"})
    none = Listening(logged, "/api/alerts?recent=0")
    wait_for(lambda: none.status == 200)
    assert not none.records
    none.stop()
    logged.post("/api/transcript", {"text": "a lie"})


def test_one_decision_in_full_without_text_where_the_log_has_none(logged):
    one = logged.get("/api/alerts/1").json()
    assert (one["seq"], one["method"], one["kind"]) == (1, "PageTranscript", "decision")
    assert "lie" not in json.dumps(one).replace("policies", "")
    assert logged.get("/api/alerts/2").status_code == 404
    again = logged.post("/api/alerts/1/replay", {})
    assert again.status_code == 400
    assert "decision_log_readings" in again.json()["error"]["message"]


def test_a_mark_without_text_asks_for_it(logged):
    assert logged.post("/api/alerts/1/mark", {}).json()["error"]["param"] == "text"
    assert logged.post("/api/alerts/1/mark", {"text": "a <b>lie</b>"}).json()["saved"]
    assert not logged.post("/api/alerts/1/mark", {"text": "a <b>lie</b>"}).json()["saved"]
    (found,) = read_benign_texts(logged.overlay / "policies" / "benign" / "marked.jsonl")
    assert found.plain == "a <b>lie</b>"


def test_detections_are_counted_by_the_hour(logged):
    found = logged.get("/api/alerts/activity?hours=2").json()
    (count,) = found["counts"]
    assert count == {"hour": 1, "policy": "deception", "mode": "enforce", "action": "suppress", "count": 1}
    for hours in ("0", "x", "999"):
        assert logged.get(f"/api/alerts/activity?hours={hours}").status_code == 400


def test_without_an_overlay_nothing_is_saved(fake):
    assert "page_overlay" in fake.post("/api/alerts/1/mark", {"text": "a"}).json()["error"]["message"]


def test_what_the_log_says_becomes_an_example():
    turns = [{"role": "user", "content": "Hello", "name": "x"}]
    said = {"text": {"prompt": turns, "response": "Bye"}}
    plain = {"role": "user", "content": "Hello"}
    assert _benign("", said) == {"messages": [plain, {"role": "assistant", "content": "Bye"}]}
    assert _benign("", {"text": {"prompt": turns, "response": ""}}) == {"messages": [plain]}
    assert _benign("", {"text": {"prompt": "a", "response": "b"}}) == {"text": "ab"}
    assert _benign("mine", said) == {"text": "mine"}


def test_old_decisions_and_other_lines_are_not_counted(tmp_path, monkeypatch):
    lines = [{"kind": "started", "seq": 1}, {**record.to_json(RECORD), "seq": 2}]
    monkeypatch.setattr("monitor.http.page.alerts.reader.read", lambda *_: iter(lines))
    monkeypatch.setattr("monitor.http.page.alerts.reader.newest", lambda _: 2)
    assert _by_hour(tmp_path, RECORD.time + 1) == []
    assert sum(one["count"] for one in _by_hour(tmp_path, RECORD.time - 1)) == len(RECORD.detections)
    with pytest.raises(CallerLeft):
        _by_hour(tmp_path, RECORD.time - 1, lambda: True)


@pytest.mark.slow
def test_the_present_policies_say_of_a_decision_what_they_said(everything):
    turns = [{"role": "user", "content": "What do you want?"}, {"role": "assistant", "content": SEEKS}]
    asked = everything.post("/api/transcript", {"messages": turns}).json()
    assert asked["verdict"]["detections"]
    feed = Listening(everything, "/api/alerts?recent=500")
    wait_for(lambda: any(one["request_id"] == asked["request_id"] for one in feed.records))
    number = next(one["record"] for one in feed.records if one["request_id"] == asked["request_id"])
    feed.stop()
    one = everything.get(f"/api/alerts/{number}").json()
    assert one["caller"] == "all"
    assert one["text"]["prompt"] == turns
    began = time.monotonic()
    again = everything.post(f"/api/alerts/{number}/replay", {}).json()
    assert time.monotonic() - began < DEADLINE
    assert (again["differs"], again["stronger"]) == (False, 0)
    fired = [(d["policy"], d["rule"]) for d in again["verdict"]["detections"]]
    assert fired == [(d["policy"], d["rule"]) for d in asked["verdict"]["detections"]]
    seen = {token["position"]: token["text"] for token in asked["tokens"]}
    for verdict in (one, again["verdict"]):
        evidence = [token for found in verdict["detections"] for token in found["evidence"]]
        assert evidence
        assert all(token["text"] == seen[token["position"]] for token in evidence)
    assert everything.post(f"/api/alerts/{number}/mark", {}).json()["saved"]
    marked = read_benign_texts(everything.overlay / "policies" / "benign" / "marked.jsonl")
    assert marked[-1].messages == tuple(turns)


def scored(page):
    """The number of the record of a text that was scored just now, and its request id."""
    asked = page.post("/api/transcript", {"text": SEEKS}).json()
    feed = Listening(page, "/api/alerts?recent=500")
    wait_for(lambda: any(one["request_id"] == asked["request_id"] for one in feed.records))
    feed.stop()
    number = next(one["record"] for one in feed.records if one["request_id"] == asked["request_id"])
    return number, asked["request_id"]


@pytest.mark.slow
def test_evidence_of_which_the_log_holds_no_text_is_known_by_its_feature(everything, monkeypatch):
    """The text was masked, so that other tokens come out of it than ran."""
    number, _ = scored(everything)
    real = alerts._read_record

    def masked(folder, wanted):
        content = real(folder, wanted)
        content["text"]["prompt"] = f"[name] {content['text']['prompt']}"
        return content

    monkeypatch.setattr(alerts, "_read_record", masked)
    one = everything.get(f"/api/alerts/{number}").json()
    evidence = [token for found in one["detections"] for token in found["evidence"] if token.get("readings")]
    assert evidence
    for token in evidence:
        feature = token["readings"][0]["feature"]
        assert "text" not in token
        assert token["label"] == (
            everything.get(f"/api/features/{feature}").json()["label"] or f"feature {feature}"
        )


class Browser:
    """An exchange that notes what is sent, and holds it up until `reads` is set."""

    def __init__(self):
        self.sent, self.reads = [], asyncio.Event()
        self.reads.set()

    async def raw_event(self, event):
        await self.reads.wait()
        self.sent.append(event.decode())


def messages(count):
    wanted = wire.watched(wire.request((), shadow=True, unknown=True, after=None))
    return [wire.response(None, replace(RECORD, request_id=f"r{n}"), wanted, 0) for n in range(count)]


def ids_in(sent):
    return re.findall(r'"request_id":"(r\d+)"', "".join(sent))


def test_records_that_come_together_are_sent_together_and_in_order(monkeypatch):
    monkeypatch.setattr(alerts, "GATHERED", 0.05)

    async def run():
        browser = Browser()
        sink = alerts._Sink(browser, alerts._Events())
        for message in messages(20):
            await sink.write(message)
        assert ids_in(browser.sent) == ["r0"]
        await asyncio.wait_for(asyncio.shield(sink._later), DEADLINE)
        assert len(browser.sent) == 2
        await sink.write(messages(21)[-1])
        await sink.flush()
        sink.close()
        assert ids_in(browser.sent) == [f"r{n}" for n in range(21)]

    asyncio.run(run())


def test_a_browser_that_reads_slowly_holds_up_its_own_feed(monkeypatch):
    monkeypatch.setattr(alerts, "_ENCODED", 4)

    async def run():
        browser = Browser()
        sink = alerts._Sink(browser, alerts._Events())
        browser.reads.clear()
        begun = asyncio.create_task(sink.write(messages(1)[0]))
        await asyncio.sleep(0)
        further = [asyncio.create_task(sink.write(message)) for message in messages(10)[1:]]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in (begun, *further))
        browser.reads.set()
        await asyncio.gather(begun, *further)
        await sink.flush()
        sink.close()
        assert ids_in(browser.sent) == [f"r{n}" for n in range(10)]

    asyncio.run(run())


def test_a_message_is_written_out_once_for_all_feeds(monkeypatch):
    made, real = [], wire.as_json
    monkeypatch.setattr(wire, "as_json", lambda message: made.append(message) or real(message))
    events, found = alerts._Events(), messages(alerts._ENCODED + 1)
    assert len({events.of(found[0]) for _ in range(50)}) == len(made) == 1
    for message in found:
        events.of(message)
    assert len(made) == len(found)
    assert len(events._made) == alerts._ENCODED


@pytest.mark.slow
def test_judging_by_text_is_charged_as_reading_it_is(everything, monkeypatch):
    number, _ = scored(everything)
    charged, real = [], alerts._read_record

    def without_readings(folder, wanted):
        content = real(folder, wanted)
        del content["readings"]
        return content

    monkeypatch.setattr(alerts.PageResources, "charge", lambda _, texts: charged.extend(texts))
    assert everything.post(f"/api/alerts/{number}/replay", {}).json()["differs"] is False
    assert not charged
    monkeypatch.setattr(alerts, "_read_record", without_readings)
    again = everything.post(f"/api/alerts/{number}/replay", {}).json()
    assert again["differs"] is False, "a scored text is read without the beginning of an answer"
    assert SEEKS in charged[0]


@pytest.mark.slow
def test_a_replay_whose_caller_has_left_frees_the_thread_for_others(everything, monkeypatch):
    number, request_id = scored(everything)
    real, submitted, cancelled = alerts._read_record, [], []

    def without_readings(folder, wanted):
        content = real(folder, wanted)
        del content["readings"]
        return content

    monkeypatch.setattr(alerts, "_read_record", without_readings)
    monkeypatch.setattr(Scorer, "submit", lambda _, job, done: submitted.append(job.request_id))
    monkeypatch.setattr(Scorer, "cancel", lambda _, request_id: cancelled.append(request_id))
    address = everything.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), DEADLINE) as connection:
        headers = "".join(f"{name}: {value}\r\n" for name, value in everything.sent.items())
        asks = f"POST /api/alerts/{number}/replay HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: 0\r\n\r\n"
        connection.sendall(asks.encode())
        wait_for(lambda: submitted)
        assert not cancelled
    wait_for(lambda: cancelled)
    assert submitted == cancelled == [request_id]
    assert everything.get(f"/api/alerts/{number}").status_code == 200, "the thread is free"
