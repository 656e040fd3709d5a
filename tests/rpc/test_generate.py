"""Generate and GenerateStream over a real connection."""

from dataclasses import replace

import pytest

from monitor.errors import Unavailable
from monitor.policy.policyset import PolicySet
from monitor.records import Action, Clamp, Phase
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import DEADLINE, details, fails, fields, generation, serving
from tests.rpc.fake import FakeRuntime, policies, policy
from tests.waiting import wait_for


def events(call):
    """(kind, message) of a whole stream."""
    return [(message.WhichOneof("event"), message) for message in call]


def test_a_generation_in_one_piece(served):
    response = served.generate("one two three", max_new_tokens=5)
    assert response.text == "one two three one two "
    assert response.finish_reason == pb.FINISH_REASON_LENGTH
    assert response.verdict.status == pb.CHECK_STATUS_CHECKED
    assert not response.verdict.matched
    assert response.verdict.coverage.tokens_run == 9
    assert response.digests.model
    assert served.metric("time_to_first_token_seconds_count") == 1
    assert served.metric("tokens_scored_total", phase="prompt") == 4
    assert served.metric("tokens_scored_total", phase="response") == 5


def test_generation_stops_where_the_model_does(served):
    response = served.generate("one end two")
    assert response.text == "one "
    assert response.finish_reason == pb.FINISH_REASON_STOP


def test_a_stream_ends_with_its_verdict_and_says_the_same_as_one_piece(served):
    stream = events(served.stream("one lie", max_new_tokens=4, include_tokens=True))
    assert len({message.request_id for _, message in stream}) == 1
    assert [kind for kind, _ in stream].count("final") == 1
    assert stream[-1][0] == "final"
    final = stream[-1][1].final
    whole = served.generate("one lie", max_new_tokens=4, include_tokens=True)
    chunks = [message.chunk for kind, message in stream if kind == "chunk"]
    assert "".join(chunk.text for chunk in chunks) == whole.text == "one lie one lie "
    assert [t for chunk in chunks for t in chunk.tokens] == list(whole.tokens)
    assert [t.position for t in whole.tokens] == list(range(7))
    assert final.verdict == whole.verdict
    assert final.finish_reason == whole.finish_reason == pb.FINISH_REASON_LENGTH
    assert final.digests == whole.digests
    detected = [message.detection for kind, message in stream if kind == "detection"]
    assert detected == list(final.verdict.detections)
    assert [d.phase for d in detected] == [pb.PHASE_PROMPT, pb.PHASE_RESPONSE]


def test_a_block_in_the_response_ends_it_without_what_was_not_released():
    weapons = policy("weapons", 9, Action.BLOCK)
    answers = replace(weapons.rules[0], phases=(Phase.RESPONSE,))
    chosen = PolicySet((replace(weapons, rules=(answers,)),), "sha256:" + "c" * 64)
    with serving(FakeRuntime(chosen.watch), chosen) as served:
        stream = events(served.stream("build a bomb now"))
        whole = served.generate("build a bomb now")
        blocked = served.metric("blocked_requests_total", policy="weapons")
    assert whole.text == "build a "
    assert whole.finish_reason == pb.FINISH_REASON_POLICY
    assert whole.verdict.action == pb.ACTION_BLOCK
    assert whole.verdict.status == pb.CHECK_STATUS_CHECKED
    assert [kind for kind, _ in stream][-2:] == ["detection", "final"]
    assert "".join(message.chunk.text for _, message in stream) == "build a "
    assert stream[-1][1].final.verdict == whole.verdict
    assert stream[-2][1].detection == whole.verdict.detections[0]
    (found,) = whole.verdict.detections
    assert found.phase == pb.PHASE_RESPONSE
    withheld = [e for e in found.evidence if e.position >= 7]
    assert withheld
    assert all(e.text == "" and e.token_id == 0 for e in withheld)
    assert blocked == 2


def test_a_block_in_the_prompt_releases_nothing(served):
    response = served.generate("build a bomb now")
    assert response.text == ""
    assert response.finish_reason == pb.FINISH_REASON_POLICY
    assert served.metric("blocked_requests_total", policy="weapons") == 1
    assert served.metric("monitor_failures_total") == 0
    assert served.metric("detections_total", policy="weapons", action="block", phase="prompt") == 1


def test_a_failure_under_closed_ends_a_stream_with_generic_text():
    chosen = policies()
    with serving(FakeRuntime(chosen.watch), chosen) as served:
        with fails("FAILED_PRECONDITION") as caught:
            list(served.stream("well sick"))
        assert caught[0].details() == "the request could not be served"
        assert served.metric("monitor_failures_total", cause="non_finite") == 1
        assert served.metric("blocked_requests_total") == 0


def test_a_failure_under_open_is_unknown():
    chosen = policies(closed=False)
    with serving(FakeRuntime(chosen.watch), chosen) as served:
        response = served.generate("well sick", max_new_tokens=2)
    assert response.text == "well sick "
    assert response.verdict.status == pb.CHECK_STATUS_UNKNOWN
    assert response.verdict.failure == "non_finite"


def test_a_rule_that_blocks_after_a_failure_under_open_is_still_a_policy_hit():
    chosen = policies(closed=False)
    with serving(FakeRuntime(chosen.watch), chosen) as served:
        response = served.generate("sick old bomb")
    assert response.text == "sick old "
    assert response.finish_reason == pb.FINISH_REASON_POLICY
    assert response.verdict.status == pb.CHECK_STATUS_UNKNOWN
    assert response.verdict.action == pb.ACTION_BLOCK


def test_suppression_counts_the_tokens_that_follow(served):
    served.generate("one lie two", max_new_tokens=6)
    assert served.metric("suppressed_tokens_total", policy="deception") == 6
    assert served.metric("suppressed_tokens_total", policy="weapons") == 0


def test_the_callers_settings_reach_the_engine(served):
    seen = []
    submit = served.runtime.engine.submit
    served.runtime.engine.submit = lambda request, emit: (seen.append(request), submit(request, emit))
    served.generate(
        "one two",
        max_new_tokens=3,
        temperature=0.5,
        top_k=7,
        top_p=0.9,
        seed=-4,
        stop=["end"],
        clamps=[
            pb.Clamp(feature=3, target=-1.5),
            pb.Clamp(feature=4, target=2, where=pb.CLAMP_WHERE_ACTIVE),
            pb.Clamp(feature=5, target=2),
            pb.Clamp(feature=6, target=0),
        ],
    )
    (request,) = seen
    sampling = request.sampling
    assert (sampling.max_new_tokens, sampling.temperature, sampling.top_k) == (3, 0.5, 7)
    assert (sampling.top_p, sampling.seed, sampling.stop) == (0.9, -4, ("end",))
    assert [(c.feature, c.target, c.where) for c in request.clamps] == [
        (3, -1.5, "active"),
        (4, 2.0, "active"),
        (5, 2.0, "everywhere"),
        (6, 0.0, "active"),
    ]
    assert isinstance(request.clamps[0], Clamp)


def test_an_unknown_feature_is_named_by_its_place(served):
    with fails("INVALID_ARGUMENT") as caught:
        served.generate("one", clamps=[pb.Clamp(feature=1, target=-1), pb.Clamp(feature=99, target=-1)])
    assert fields(caught[0]) == ["generation.clamps[1].feature"]


def test_a_prompt_that_is_cut_leaves_room_for_the_answer(served):
    long = " ".join(["word"] * 100)
    with fails("INVALID_ARGUMENT") as caught:
        served.generate(long)
    assert fields(caught[0]) == ["generation.input.text"]
    coverage = served.generate(long, truncate=True, max_new_tokens=10).verdict.coverage
    assert (coverage.tokens_run, coverage.tokens_truncated) == (64, 47)
    many = served.generate(long, truncate=True, max_new_tokens=1000).verdict.coverage
    assert many.tokens_truncated == 101 - 32


def test_a_cancelled_stream_ends_the_generation_at_once(served):
    with served.runtime.engine.stopped_behind(3):
        call = served.stream("one two", max_new_tokens=1_000_000)
        next(iter(call))
        call.cancel()
        wait_for(lambda: served.runtime.engine.cancelled)
    assert served.runtime.engine.cancelled == served.runtime.engine.submitted
    wait_for(lambda: not served.runtime.engine.running_now)
    wait_for(lambda: served.metric("requests_total", method="GenerateStream", code="CANCELLED") == 1)


@pytest.mark.parametrize("method", ["Generate", "GenerateStream"])
def test_a_deadline_ends_the_generation(served, method):
    kind = {"Generate": pb.GenerateRequest, "GenerateStream": pb.GenerateStreamRequest}[method]
    request = kind(generation=generation("one two", max_new_tokens=1_000_000))
    with fails("DEADLINE_EXCEEDED"):
        answer = getattr(served.stub, method)(request, timeout=0.2)
        list(answer)
    wait_for(lambda: served.runtime.engine.cancelled)
    wait_for(lambda: not served.runtime.engine.running_now)
    wait_for(lambda: served.metric("requests_total", method=method, code="DEADLINE_EXCEEDED") == 1)


@pytest.mark.slow
def test_a_slow_reader_gets_few_large_chunks(served):
    served.runtime.engine.gate.clear()
    call = served.stream("one two", max_new_tokens=20_000)
    served.runtime.engine.gate.set()
    # Nothing is read until everything was generated.
    wait_for(lambda: served.runtime.engine.submitted and not served.runtime.engine.running_now)
    messages = list(call)
    text = "".join(message.chunk.text for message in messages)
    assert text == "one two " * 10_000
    # How many small ones fit into the buffers of the connection before it is full depends on the machine.
    assert max(len(message.chunk.text.split()) for message in messages) > 5
    assert len(messages) < 19_000


def test_an_engine_error_reaches_the_caller(served):
    served.runtime.engine.fault = Unavailable("the engine stopped")
    with fails("UNAVAILABLE") as caught:
        served.generate("hello")
    assert details(caught[0])["ErrorInfo"].reason == "UNAVAILABLE"
    assert details(caught[0])["ErrorInfo"].domain == "sae-monitor"


def test_an_engine_that_dies_without_a_word_hangs_nobody(served):
    served.runtime.engine.gate.clear()
    call = served.stub.Generate.future(pb.GenerateRequest(generation=generation("hold")), timeout=DEADLINE)
    wait_for(lambda: served.runtime.engine.submitted)
    served.runtime.engine.die()
    with fails("UNAVAILABLE"):
        call.result()


def test_an_unexpected_error_quotes_no_prompt(served, capsys):
    served.runtime.engine.crash = True
    with fails("INTERNAL") as caught:
        served.generate("xyzzy")
    assert "xyzzy" not in str(caught[0])
    assert "xyzzy" not in "".join(capsys.readouterr())


def test_a_call_needs_the_generation(served):
    with fails("INVALID_ARGUMENT") as caught:
        served.stub.Generate(pb.GenerateRequest(), timeout=DEADLINE)
    assert fields(caught[0]) == ["generation.input"]
