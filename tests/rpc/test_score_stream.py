"""ScoreStream: what its caller may show, and when, and what is said of it in the end."""

import asyncio
import json
import queue
import time
from contextlib import contextmanager

import pytest

from monitor.client import TextPiece, connect
from monitor.policy.policyset import PolicySet
from monitor.records import Action, Mode
from monitor.rpc import score_stream
from monitor.rpc.access.roles import Role
from monitor.rpc.assembly import assemble
from monitor.rpc.server import Server, run_in_background
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import DEADLINE, fails, fields, serving, settings
from tests.rpc.fake import FakeRuntime, policies, policy
from tests.rpc.secured import Callers
from tests.waiting import wait_for

ASSISTANT, USER = pb.ROLE_ASSISTANT, pb.ROLE_USER


@pytest.fixture(scope="module")
def served():
    with serving(guard_settle_seconds=0.05) as running:
        yield running


class Pushing:
    """A call in which a test says and hears one thing after the other."""

    def __init__(self, stub, metadata=()):
        self._out = queue.Queue()
        self.call = stub.ScoreStream(iter(self._out.get, None), timeout=DEADLINE, metadata=metadata)

    def begin(self, text="hello there", **changes):
        given = pb.Input(text=text) if text else pb.Input()
        self._out.put(pb.ScoreStreamRequest(begin=pb.StreamBegin(input=given, **changes)))
        return self

    def say(self, text, **changes):
        self._out.put(pb.ScoreStreamRequest(piece=pb.StreamPiece(text=text, **changes)))
        return self

    def end(self, reason=pb.FINISH_REASON_UNSPECIFIED):
        self._out.put(pb.ScoreStreamRequest(end=pb.StreamEnd(finish_reason=reason)))
        return self

    def send(self, message):
        self._out.put(message)
        return self

    def close(self):
        self._out.put(None)
        return self

    def hear(self):
        return next(self.call)

    def shown(self):
        """The next progress."""
        while True:
            if (found := self.hear()).HasField("progress"):
                return found.progress

    def rest(self):
        found = list(self.call)
        return found, found[-1].final


@contextmanager
def pushing(served, **options):
    call = Pushing(served.stub, **options)
    try:
        yield call
    finally:
        call.close()
        call.call.cancel()


def test_text_may_be_shown_once_it_was_scored(served):
    with pushing(served) as call:
        first = call.begin().hear()
        assert (first.progress.characters, first.progress.blocked, len(first.request_id)) == (0, False, 32)
        assert call.say("öne two thr").shown() == pb.StreamProgress(characters=7, bytes=8)
        assert call.say("ee").shown() == pb.StreamProgress(characters=13, bytes=14)
        _, final = call.end(pb.FINISH_REASON_LENGTH).rest()
    assert final.finish_reason == pb.FINISH_REASON_LENGTH
    assert (final.verdict.status, final.verdict.action) == (pb.CHECK_STATUS_CHECKED, pb.ACTION_ALLOW)
    assert (final.prompt_tokens, final.answer_tokens, final.released_unread) == (3, 3, 0)
    assert final.verdict.coverage.tokens_scored == 6
    assert final.digests.model == served.runtime.model_digest
    assert final.holding == pb.HOLDING_HOLD


def test_the_last_word_is_complete_where_nothing_more_comes(served):
    with pushing(served) as call:
        call.begin().hear()
        assert call.say("one").shown().characters == 3
        assert call.say(" two", settle=True).shown().characters == 7


def test_what_a_policy_blocks_is_not_to_be_shown(served):
    with pushing(served) as call:
        call.begin()
        heard, final = call.say("one lie two bomb three ").say("four").rest()
    events = [found.WhichOneof("event") for found in heard]
    assert events == ["progress", "detection", "detection", "progress", "final"]
    assert heard[-2].progress == pb.StreamProgress(characters=11, bytes=11, blocked=True)
    assert [e.text for d in heard[1:3] for e in d.detection.evidence] == ["", ""]  # nothing was shown by then
    assert (final.finish_reason, final.verdict.action) == (pb.FINISH_REASON_POLICY, pb.ACTION_BLOCK)
    wait_for(lambda: not served.runtime.scorer.streams)


def test_a_prompt_that_is_blocked_ends_the_call(served):
    with pushing(served) as call:
        heard, final = call.begin("the bomb").rest()
    assert [found.WhichOneof("event") for found in heard] == ["detection", "progress", "final"]
    assert heard[1].progress.blocked
    assert final.finish_reason == pb.FINISH_REASON_POLICY
    assert final.answer_tokens == 0


def test_a_prompt_may_come_in_pieces(served):
    with pushing(served) as call:
        call.begin("").say("be ni", role=pb.ROLE_SYSTEM).say("ce", role=pb.ROLE_SYSTEM)
        call.say("say ", role=USER).say("it", role=USER, settle=True)
        assert call.hear().progress.characters == 0
        _, final = call.say("one").end().rest()
    assert (final.prompt_tokens, final.answer_tokens) == (5, 1)
    with pushing(served) as call:
        _, final = call.begin("").say("so", role=USER).say("one").end().rest()
    assert (final.prompt_tokens, final.answer_tokens) == (2, 1)


def test_a_prompt_without_an_answer_has_a_verdict(served):
    with pushing(served) as call:
        _, final = call.begin("").say("a lie", role=USER).close().rest()
    assert [found.policy for found in final.verdict.detections] == ["deception"]
    assert (final.finish_reason, final.answer_tokens) == (pb.FINISH_REASON_STOP, 0)


def test_parts_do_not_run_into_each_other_and_only_text_of_the_caller_counts(served):
    with pushing(served) as call:
        call.begin().hear()
        assert call.say("a bo", part="reasoning", settle=True).shown().characters == 4
        assert call.say("mb", settle=True).shown() == pb.StreamProgress(characters=6, bytes=6)
        assert call.say(" bomb", settle=True).shown() == pb.StreamProgress(
            characters=6, bytes=6, blocked=True
        )


def test_a_word_that_goes_on_behind_another_part_is_read_whole(served):
    with pushing(served) as call:
        call.begin().hear()
        assert call.say("go bo", part="one", settle=True).shown().characters == 5
        assert call.say("fine", part="two", settle=True).shown().characters == 9
        assert (
            call.say("at and", part="one", settle=True).shown().characters == 15
        )  # bo, at: one word, a boat
        assert call.say(" bo", part="two", settle=True).shown().characters == 18
        assert call.say(" x", part="one", settle=True).shown().characters == 20
        shown = call.say("mb", part="two", settle=True).shown()
        assert (shown.characters, shown.blocked) == (20, True)


FIRST, SECOND = "tool_calls[0]", "tool_calls[1]"


def test_pieces_of_two_calls_in_turn_are_two_texts(served):
    """Each is read behind the prompt alone, and what may be shown goes on in the order in which the pieces came."""
    with pushing(served) as call:
        call.begin().hear()
        assert call.say("go ", call=FIRST, settle=True).shown().characters == 3
        assert call.say("a lie ", call=SECOND, settle=True).shown().characters == 9
        call.say("bo", call=FIRST).say("go ", call=SECOND)  # held back: the word may go on
        assert call.say("at", call=FIRST, settle=True).shown().characters == 16
        heard, final = call.say("one bomb", call=SECOND, settle=True).end().rest()
    told = [found.detection for found in heard if found.HasField("detection")]
    assert [(found.policy, found.call) for found in told] == [("weapons", SECOND)]
    assert final.finish_reason == pb.FINISH_REASON_POLICY
    assert [text.call for text in final.texts] == [FIRST, SECOND]
    assert [text.verdict.action for text in final.texts] == [pb.ACTION_ALLOW, pb.ACTION_BLOCK]
    assert [text.verdict.coverage.tokens_scored for text in final.texts] == [5, 8]
    assert (final.verdict.action, final.verdict.matched) == (pb.ACTION_BLOCK, True)
    assert [(found.policy, found.call) for found in final.verdict.detections] == [
        ("deception", SECOND),
        ("weapons", SECOND),
    ]
    assert (final.prompt_tokens, final.answer_tokens, final.verdict.coverage.tokens_scored) == (3, 7, 13)
    wait_for(lambda: not served.runtime.scorer.streams)


def test_a_word_in_a_call_is_not_joined_with_one_in_another(served):
    with pushing(served) as call:
        call.begin().say("bo", call=FIRST).say("mb", call=SECOND)
        _, final = call.say("er", call=FIRST).end().rest()
    assert final.finish_reason == pb.FINISH_REASON_STOP
    assert [text.verdict.coverage.tokens_scored for text in final.texts] == [4, 4]


def test_detections_in_the_prompt_are_told_once(served):
    with pushing(served) as call:
        heard, final = call.begin("a lie").say("one").say("two", call=FIRST).end().rest()
    told = [found.detection for found in heard if found.HasField("detection")]
    assert [(found.phase, found.call) for found in told] == [(pb.PHASE_PROMPT, "")]
    assert [(found.phase, found.call) for found in final.verdict.detections] == [(pb.PHASE_PROMPT, "")]
    assert [text.call for text in final.texts] == ["", FIRST]
    assert {(s.policy, s.phase) for s in final.verdict.scores} == {
        (policy, phase)
        for policy in ("weapons", "deception")
        for phase in (pb.PHASE_PROMPT, pb.PHASE_RESPONSE)
    }


def test_an_answer_of_one_text_is_told_as_ever(served):
    with pushing(served) as call:
        _, final = call.begin().say("one").end().rest()
    assert not final.texts


def made(*texts):
    return [pb.CallText(name=f"messages[1].tool_calls[{n}]", text=text) for n, text in enumerate(texts)]


def test_calls_in_the_prompt_are_texts_of_their_own(served):
    with pushing(served) as call:
        heard, final = call.begin(calls=made("go home", "a lie")).say("one").end().rest()
    assert [found.WhichOneof("event") for found in heard] == ["detection", "progress", "progress", "final"]
    assert heard[0].detection.call == "messages[1].tool_calls[1]"
    assert heard[0].detection.phase == pb.PHASE_PROMPT
    assert [text.call for text in final.texts] == [
        "",
        "messages[1].tool_calls[0]",
        "messages[1].tool_calls[1]",
    ]
    assert [text.verdict.coverage.tokens_scored for text in final.texts] == [4, 3, 3]
    assert final.verdict.action == pb.ACTION_SUPPRESS
    with pushing(served) as call:
        call.begin("", calls=made("a bomb")).say("so", role=USER, settle=True)
        heard, final = call.rest()
    assert [found.WhichOneof("event") for found in heard] == ["detection", "progress", "final"]
    assert heard[1].progress.blocked
    assert (final.finish_reason, final.verdict.action) == (pb.FINISH_REASON_POLICY, pb.ACTION_BLOCK)
    wait_for(lambda: not served.runtime.scorer.streams)


def test_a_call_in_the_prompt_that_cannot_be_read_is_not_clean(served):
    with pushing(served) as call:
        call.begin(calls=made("sick"))
        with fails("FAILED_PRECONDITION"):
            list(call.call)


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        (
            [pb.ScoreStreamRequest(begin=pb.StreamBegin(input=pb.Input(text="x"), calls=made(" ")))],
            "begin.calls[0].text",
        ),
        (
            [
                pb.ScoreStreamRequest(
                    begin=pb.StreamBegin(input=pb.Input(text="x"), calls=[pb.CallText(text="y")])
                )
            ],
            "begin.calls[0].name",
        ),
        ([pb.ScoreStreamRequest(piece=pb.StreamPiece(text="x"))], "begin"),
        ([pb.ScoreStreamRequest()], "begin"),
        ([pb.ScoreStreamRequest(begin=pb.StreamBegin())], "begin.input"),
        ([pb.ScoreStreamRequest(begin=pb.StreamBegin(holding=9))], "begin.holding"),
    ],
)
def test_a_wrong_beginning_is_named(served, messages, field):
    with fails("INVALID_ARGUMENT") as caught:
        list(served.stub.ScoreStream(iter(messages), timeout=DEADLINE))
    assert fields(caught[0]) == [field]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.ScoreStreamRequest(begin=pb.StreamBegin()), "event"),
        (pb.ScoreStreamRequest(), "event"),
        (pb.ScoreStreamRequest(piece=pb.StreamPiece(role=USER, text="x")), "piece.role"),
        (pb.ScoreStreamRequest(piece=pb.StreamPiece(role=99, text="x")), "piece.role"),
        (pb.ScoreStreamRequest(piece=pb.StreamPiece(role=USER, text="x", part="y")), "piece"),
        (pb.ScoreStreamRequest(piece=pb.StreamPiece(part="y" * 65)), "piece.part"),
        (pb.ScoreStreamRequest(piece=pb.StreamPiece(call="y" * 129)), "piece.call"),
        (pb.ScoreStreamRequest(piece=pb.StreamPiece(role=USER, text="x", call="y")), "piece"),
        (pb.ScoreStreamRequest(end=pb.StreamEnd(finish_reason=pb.FINISH_REASON_POLICY)), "end.finish_reason"),
    ],
)
def test_a_wrong_message_later_on_is_named(served, message, field):
    with pushing(served) as call:
        call.begin().say("one ").send(message)
        with fails("INVALID_ARGUMENT") as caught:
            list(call.call)
    assert fields(caught[0]) == [field]
    wait_for(lambda: not served.runtime.scorer.streams)


def test_nothing_may_follow_the_end(served, monkeypatch):
    waited = score_stream._Arrivals.next

    async def both(self, seconds):
        while self._waiting.qsize() < 2:
            await asyncio.sleep(0.01)
        return await waited(self, seconds)

    monkeypatch.setattr(score_stream._Arrivals, "next", both)
    with pushing(served) as call:
        call.begin().end().say("more")
        with fails("INVALID_ARGUMENT") as caught:
            list(call.call)
    assert fields(caught[0]) == ["event"]


def test_a_message_that_is_none_is_a_bad_request(served):
    method = served.channel.stream_stream("/monitor.v1.MonitorService/ScoreStream")
    begin = pb.ScoreStreamRequest(begin=pb.StreamBegin(input=pb.Input(text="a"))).SerializeToString()
    with fails("INVALID_ARGUMENT"):
        list(method(iter([begin, b"\xff\xff"]), timeout=DEADLINE))


@pytest.mark.parametrize(
    ("holding", "first"), [(pb.HOLDING_HOLD, 0), (pb.HOLDING_SAMPLE, 8), (pb.HOLDING_END, 8)]
)
def test_text_is_held_as_its_caller_wants(served, holding, first):
    scorer = served.runtime.scorer
    with pushing(served) as call:
        call.begin(holding=holding, sample_tokens=3).hear()
        scorer.gate.clear()
        try:
            call.say("one two ")
            if first:
                assert call.shown().characters == first
            call.say("three four five ")
            if holding == pb.HOLDING_END:
                assert call.shown().characters == 24
        finally:
            time.sleep(0.05)
            scorer.gate.set()
        heard, final = call.end().rest()
    shown = [found.progress.characters for found in heard if found.HasField("progress")]
    assert shown == sorted(shown)
    assert (final.holding, final.verdict.status) == (holding, pb.CHECK_STATUS_CHECKED)
    assert (final.released_unread > 0) == bool(first)


def test_text_shown_before_it_was_scored_is_blocked_late_and_said_to_be(served):
    with pushing(served) as call:
        call.begin(holding=pb.HOLDING_END).hear()
        assert call.say("a bomb now ").shown().characters == 11
        _, final = call.end().rest()
    assert (final.finish_reason, final.released_unread) == (pb.FINISH_REASON_POLICY, 11)


@pytest.mark.parametrize("closed", [True, False])
def test_text_that_nobody_scores_in_time_is_not_clean(closed):
    with serving(chosen=policies(closed=closed), guard_read_seconds=1.0) as served, pushing(served) as call:
        call.begin().hear()
        served.runtime.scorer.gate.clear()
        call.say("one two ")
        if closed:
            with fails("FAILED_PRECONDITION"):
                list(call.call)
        else:
            assert call.shown().characters == 8
            _, final = call.end().rest()
            assert (final.verdict.status, final.verdict.failure) == (pb.CHECK_STATUS_UNKNOWN, "incomplete")
            assert final.released_unread == 8
        served.runtime.scorer.gate.set()
        wait_for(lambda: not served.runtime.scorer.streams)
        name = "fail_closed_requests_total" if closed else "fail_open_requests_total"
        assert served.metric(name, cause="incomplete") == 1


def test_parts_that_are_no_text_are_not_clean():
    with serving(chosen=policies(closed=False)) as served:
        with pushing(served) as call:
            _, final = call.begin(unread=1).say("one").end().rest()
            assert final.verdict.failure == "left_out"
        with pushing(served) as call:
            _, final = call.begin().say("one", unread=1).end().rest()
            assert final.verdict.failure == "left_out"
    with serving() as served, pushing(served) as call:
        call.begin(unread=1)
        with fails("FAILED_PRECONDITION"):
            list(call.call)


def test_a_caller_who_leaves_is_forgotten(served):
    with pushing(served) as call:
        call.begin().hear()
        call.say("one ").shown()
        assert served.runtime.scorer.streams
        call.call.cancel()
        wait_for(lambda: not served.runtime.scorer.streams)


def test_a_server_that_broke_off_is_told_from_one_that_ended(served):
    with pushing(served) as call:
        _, final = call.begin().say("one").end(pb.FINISH_REASON_ERROR).rest()
    assert final.finish_reason == pb.FINISH_REASON_ERROR
    with pushing(served) as call:
        _, final = call.begin().say("one").close().rest()
    assert final.finish_reason == pb.FINISH_REASON_STOP


def test_shadow_rules_are_told_and_do_nothing():
    chosen = PolicySet((policy("weapons", 9, Action.BLOCK, mode=Mode.SHADOW),), "sha256:" + "d" * 64)
    with serving(FakeRuntime(chosen.watch), chosen) as served, pushing(served) as call:
        heard, final = call.begin().say("a bomb ").end().rest()
    assert [d.detection.mode for d in heard if d.HasField("detection")] == [pb.MODE_SHADOW]
    assert final.finish_reason == pb.FINISH_REASON_STOP


def test_the_decision_log_has_a_record_of_it(tmp_path):
    with (
        serving(decision_log=str(tmp_path), decision_log_records="all", decision_log_text=True) as served,
        pushing(served) as call,
    ):
        call.begin(holding=pb.HOLDING_HOLD).hear()
        _, final = call.say("one ", part="reasoning").say("two bomb ").rest()
        assert final.finish_reason == pb.FINISH_REASON_POLICY
    lines = [json.loads(x) for path in tmp_path.glob("*.jsonl*") for x in path.read_text().splitlines()]
    (record,) = [line for line in lines if line.get("kind") == "decision"]
    assert (record["method"], record["mode"], record["finish"]) == ("ScoreStream", "hold", "policy")
    assert record["text"] == {"prompt": "hello there", "response": "one two"}


def test_tokens_beyond_those_announced_are_charged(tmp_path):
    known = Callers(tmp_path / "callers.jsonl")
    known.add("greedy", Role.INFER, tokens=8)
    known.add("watcher", Role.INSPECT)
    with serving(callers=known.path, max_concurrent_calls=8) as served:
        with pushing(served, metadata=known.header("greedy")) as call:
            call.begin(expected_tokens=2).hear()  # 3 tokens of the prompt
            assert call.say("one two three").shown().characters == 7
            assert call.shown().characters == 13
            call.say(" four five six seven ")
            with fails("RESOURCE_EXHAUSTED"):
                list(call.call)
        with pushing(served, metadata=known.header("greedy")) as call:
            assert call.begin(expected_tokens=5).end().rest()
        with pushing(served, metadata=known.header("watcher")) as call, fails("PERMISSION_DENIED"):
            list(call.begin().call)
        wait_for(lambda: not served.runtime.scorer.streams)


SAID = "All of us will water the garden in the morning."
CALLS = {
    FIRST: 'plan_day\n{"steps": ["walk", "read", "sleep"]}',
    SECOND: 'gain_power\n{"goal": "take control of the world"}',
}


def scores(verdict):
    return {(one.policy, one.rule, one.phase): one.score for one in verdict.scores}


@pytest.mark.slow
def test_each_call_is_scored_as_if_it_were_the_whole_answer():
    """What is said, and each call, their pieces in turn, and calls in the prompt: the same numbers as each alone."""
    chosen = settings(max_running=0, skip_self_test=True)
    asked = [{"role": "user", "content": "Tell me about your plans for today."}]

    def final(*pieces, prompt=asked, **options):
        with client.score_stream(prompt, **options) as stream:
            for _ in stream.released(pieces):
                pass
            return stream.final

    with (
        run_in_background(Server(chosen, *assemble(chosen)), 5.0) as addresses,
        connect(addresses.grpc) as client,
    ):
        alone = [final(text).verdict for text in (SAID, *CALLS.values())]
        alone += [final(prompt=text).verdict for text in CALLS.values()]
        pieces = [TextPiece(SAID)]
        for at in range(0, max(map(len, CALLS.values())), 3):
            pieces += [TextPiece(text[at : at + 3], "arguments", call=call) for call, text in CALLS.items()]
        found = final(*pieces, calls={f"m[0].{call}": text for call, text in CALLS.items()})
    together = [text.verdict for text in found.texts]
    assert [text.call for text in found.texts] == ["", FIRST, SECOND, f"m[0].{FIRST}", f"m[0].{SECOND}"]
    for mine, other in zip(together, alone, strict=True):
        assert mine.coverage == other.coverage
        assert scores(mine).keys() == scores(other).keys()
        for name, score in scores(other).items():
            assert scores(mine)[name] == pytest.approx(score, abs=1e-4)
    assert found.verdict.action == max(verdict.action for verdict in together)
    # They are not all alike, so that a mistaken text would show.
    assert len({tuple(scores(one).values()) for one in alone}) == 5
