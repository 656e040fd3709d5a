"""Decisions on disk before their callers learn of them: what is in them, what is not, and what happens without room."""

import errno
import hashlib
import hmac
import json
import threading

import pytest

from monitor.errors import ConfigurationError
from monitor.records import Action
from monitor.rpc.server import Server, run_in_background
from monitor.telemetry.decisions import writer
from monitor.telemetry.decisions.folder import segments
from monitor.telemetry.decisions.reader import read, verify
from monitor.telemetry.decisions.record import from_json
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import DEADLINE, fails, serving, settings
from tests.rpc.fake import FakeRuntime, policies
from tests.rpc.test_server import NOT_SERVING, SERVING, health
from tests.waiting import wait_for


def records(folder):
    return [content for content in read(folder) if content["kind"] == "decision"]


def test_a_record_says_who_what_where_and_how_much_but_not_what_was_said(tmp_path):
    with serving(decision_log=tmp_path) as served:
        answer = served.score("secret lie about plans")
        (record,) = records(tmp_path)
    text = json.dumps(record)
    assert not any(word in text for word in ("secret", "lie", "about", "plans"))
    assert (record["schema"], record["seq"], record["request_id"]) == (1, 1, answer.request_id)
    assert (record["method"], record["outcome"], record["status"], record["action"]) == (
        "Score", "answered", "checked", "suppress",
    )  # fmt: skip
    assert record["coverage"] == {"tokens_run": 5, "tokens_scored": 5, "tokens_judged": 4}
    (found,) = record["detections"]
    assert (found["policy"], found["rule"], found["severity"], found["phase"]) == (
        "deception", "word", "high", "prompt",
    )  # fmt: skip
    assert (found["position"], found["score"], found["threshold"]) == (2, 1.0, 0.5)
    assert found["evidence"][0]["position"] == 2
    assert found["evidence"][0]["readings"] == [{"feature": 7, "reading": 1.0}]
    assert {score["policy"] for score in record["scores"]} == {"deception", "weapons"}
    assert record["digests"] == {
        "model": answer.digests.model,
        "dictionary": answer.digests.dictionary,
        "policies": answer.digests.policies,
    }
    assert record["prompt"]["tokens"] == 5
    assert from_json(record).detections[0].position == 2


def test_only_requests_with_something_to_say_unless_all_are_asked_for(tmp_path):
    for which, expected in (("detections", ["lie"]), ("all", ["calm", "lie"])):
        folder = tmp_path / which
        with serving(decision_log=folder, decision_log_records=which, decision_log_text=True) as served:
            served.score("calm")
            served.score("lie")
            served.stub.Inspect(pb.InspectRequest(input=pb.Input(text="lie")), timeout=DEADLINE)
            with fails("INVALID_ARGUMENT"):
                served.score("")
        assert [record["text"]["prompt"] for record in records(folder)] == expected


def test_generations_say_why_they_ended_and_only_text_that_was_released(tmp_path):
    with serving(decision_log=tmp_path, decision_log_text=True) as served:
        whole = served.generate("lie mail me@example.org end", max_new_tokens=5)
        blocked = list(served.stream("bomb now", max_new_tokens=5))
    first, second = records(tmp_path)
    assert (first["method"], first["finish"], first["action"]) == ("Generate", "stop", "suppress")
    assert first["text"] == {"prompt": "lie mail [email] end", "response": "lie mail [email] "}
    assert whole.text == "lie mail me@example.org "
    assert (second["method"], second["finish"], second["action"]) == ("GenerateStream", "policy", "block")
    assert second["request_id"] == blocked[-1].request_id
    assert second["text"]["response"] == ""


def test_conversations_are_masked_turn_by_turn_with_the_operators_masks(tmp_path):
    masks = {"name": "Jo(hn)?", "code": "[A-Z]{2}-[0-9]+"}
    with serving(decision_log=tmp_path, decision_log_text=True, decision_log_masks=masks) as served:
        turns = [pb.ChatMessage(role=pb.ROLE_USER, content="lie to John about AB-12")]
        chat = pb.Input(conversation=pb.Conversation(messages=turns))
        served.stub.Score(pb.ScoreRequest(input=chat), timeout=DEADLINE)
    (record,) = records(tmp_path)
    assert record["text"]["prompt"] == [{"role": "user", "content": "lie to [name] about [code]"}]


def test_equal_prompts_are_found_by_their_hash_and_guesses_need_the_key(tmp_path):
    key = b"sixteen bytes or more"
    (tmp_path / "salt").write_bytes(key + b"\n")
    for folder in ("a", "b"):
        with serving(decision_log=tmp_path / folder, decision_log_salt_file=tmp_path / "salt") as served:
            served.score("lie one")
            served.score("lie two")
    one, two = (record["prompt"] for record in records(tmp_path / "a"))
    again = records(tmp_path / "b")[0]["prompt"]
    assert one == again
    assert one["hmac"] == hmac.new(key, b"lie one", hashlib.sha256).hexdigest() != two["hmac"]
    with serving(decision_log=tmp_path / "c") as served:
        served.score("lie one")
    unkeyed = records(tmp_path / "c")[0]["prompt"]
    assert unkeyed["hmac"] != one["hmac"]
    assert unkeyed["key"] != one["key"]


def test_what_could_not_be_checked_is_on_record(tmp_path):
    with serving(decision_log=tmp_path) as served, fails("FAILED_PRECONDITION"):
        served.score("sick")
    with serving(decision_log=tmp_path, chosen=policies(closed=False)) as served:
        assert served.score("sick").verdict.status == pb.CHECK_STATUS_UNKNOWN
    refused, answered = records(tmp_path)
    assert (refused["status"], refused["failure"], refused["outcome"]) == ("unknown", "non_finite", "refused")
    assert (answered["status"], answered["failure"], answered["outcome"]) == (
        "unknown", "non_finite", "answered",
    )  # fmt: skip


def test_a_caller_who_leaves_is_on_record_with_what_was_seen(tmp_path):
    with serving(decision_log=tmp_path, decision_log_records="detections") as served:
        stream = served.stream("lie on and on", max_new_tokens=10_000)
        next(stream)
        stream.cancel()
        quiet = served.stream("nothing to see", max_new_tokens=10_000)
        next(quiet)
        quiet.cancel()
        wait_for(lambda: records(tmp_path))
    (record,) = records(tmp_path)
    assert (record["outcome"], record["status"], record["failure"]) == (
        "cancelled",
        "unknown",
        "not_concluded",
    )
    assert record["detections"][0]["policy"] == "deception"
    assert record["coverage"]["tokens_scored"] > 0


def test_readings_are_kept_where_asked_for_without_a_word(tmp_path):
    with serving(decision_log=tmp_path, decision_log_readings=True) as served:
        served.generate("lie and bombs", max_new_tokens=2)
    (record,) = records(tmp_path)
    first, *rest = record["readings"]["blocks"]
    assert record["readings"]["columns"] == [7, 9]
    assert first == {"phase": "prompt", "start": 0, "tokens": 4, "special": [0], "values": [[1, 0, 1.0]]}
    assert [(block["phase"], block["start"], block["tokens"]) for block in rest] == [
        ("response", 4, 1),
        ("response", 5, 1),
    ]
    assert "lie" not in json.dumps(record)


class Full:
    """Makes every write of a log fail."""

    def __init__(self, monkeypatch):
        self.full = False
        write = writer.Disk.write

        def perhaps(disk, handle, data):
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(disk, handle, data)

        monkeypatch.setattr(writer.Disk, "write", perhaps)


@pytest.mark.slow
def test_without_room_nothing_is_answered_that_is_not_logged(tmp_path, monkeypatch):
    disk = Full(monkeypatch)
    with serving(decision_log=tmp_path) as served:
        served.score("lie")
        disk.full = True
        with fails("UNAVAILABLE"):
            served.score("lie again")
        wait_for(lambda: health(served) == NOT_SERVING)
        with fails("UNAVAILABLE"):
            served.score("calm")
        with fails("UNAVAILABLE"):
            list(served.stream("calm", max_new_tokens=3))
        assert served.metric("decision_log_dropped_total", cause="disk_full") == 1
        assert served.metric("rejected_requests_total", reason="log") == 2
        assert served.metric("decision_log_errors_total", cause="disk_full") >= 1
        disk.full = False
        wait_for(lambda: health(served) == SERVING)
        assert served.score("lie").verdict.matched
    kinds = [content["kind"] for content in read(tmp_path)]
    assert kinds == ["decision", "gap", "decision"]
    assert verify(tmp_path).faults == []


def test_without_room_it_answers_and_counts_where_told_to(tmp_path, monkeypatch):
    disk = Full(monkeypatch)
    with serving(decision_log=tmp_path, decision_log_on_full="drop") as served:
        disk.full = True
        assert served.score("lie").verdict.matched
        assert health(served) == SERVING
        assert served.metric("decision_log_dropped_total") == 1


def test_a_stream_ends_only_after_its_record(tmp_path, monkeypatch):
    held, sync = threading.Event(), writer.Disk.sync
    monkeypatch.setattr(
        writer.Disk, "sync", lambda disk, handle: (held.wait(DEADLINE), sync(disk, handle))[1]
    )
    with serving(decision_log=tmp_path) as served:
        stream = served.stream("lie", max_new_tokens=2)
        seen = []
        reader = threading.Thread(target=lambda: seen.extend(event.WhichOneof("event") for event in stream))
        reader.start()
        wait_for(lambda: seen.count("chunk") >= 1 and served.metric("decision_log_queue_records") == 0)
        assert "final" not in seen
        assert health(served) == SERVING, "the event loop waits for nobody"
        held.set()
        reader.join(DEADLINE)
    assert seen[-1] == "final"
    assert len(records(tmp_path)) == 1


def test_two_servers_cannot_share_a_folder(tmp_path):
    with serving(decision_log=tmp_path):
        chosen = policies()
        second = Server(settings(decision_log=tmp_path), FakeRuntime(chosen.watch), chosen)
        with pytest.raises(ConfigurationError, match="a folder of its own"), run_in_background(second, 1.0):
            raise AssertionError("it must not start")
    with serving(decision_log=tmp_path):
        pass


def test_every_action_and_failure_is_notable():
    from monitor.records import Coverage, Digests, Status
    from monitor.telemetry.decisions.record import DecisionRecord

    def record(status, action):
        return DecisionRecord("", 0, 0, "Score", "answered", status, action, Digests("", "", ""), Coverage())

    assert not record(Status.CHECKED, Action.ALLOW).notable
    assert record(Status.UNKNOWN, Action.ALLOW).notable
    assert all(record(Status.CHECKED, action).notable for action in Action if action)


@pytest.mark.parametrize("on_full", ["refuse", "drop"])
def test_a_file_that_is_removed_while_serving_is_noticed_by_the_next_decision(tmp_path, on_full):
    with serving(decision_log=tmp_path, decision_log_on_full=on_full) as served:
        for _ in range(3):
            served.score("lie")
        segments(tmp_path)[0].path.unlink()
        answer = served.score("lie")
        assert served.metric("decision_log_displaced_files_total", cause="removed") == 1
        assert served.metric("decision_log_dropped_total", cause="removed") == 3
        assert health(served) == SERVING
    assert [content["request_id"] for content in records(tmp_path)] == [answer.request_id]
    assert verify(tmp_path).missing == 3


@pytest.mark.slow
@pytest.mark.parametrize("on_full", ["refuse", "drop"])
def test_a_folder_that_is_gone_is_treated_as_the_setting_says(tmp_path, on_full):
    folder = tmp_path / "log"
    with serving(decision_log=folder, decision_log_on_full=on_full) as served:
        served.score("lie")
        folder.rename(tmp_path / "away")
        if on_full == "refuse":
            with fails("UNAVAILABLE"):
                served.score("lie")
            wait_for(lambda: health(served) == NOT_SERVING)
        else:
            served.score("lie")
            assert served.metric("decision_log_dropped_total") == 1
        assert served.metric("decision_log_errors_total") >= 1
        (tmp_path / "away").rename(folder)
        wait_for(lambda: len(list(read(folder))) == 2)
        wait_for(lambda: health(served) == SERVING)
        served.score("lie")
    assert len(records(folder)) == 2
    assert verify(folder).faults == []
