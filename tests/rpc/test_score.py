"""Score, ListPolicies and Inspect over a real connection."""

import threading

from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import DEADLINE, details, fails, serving
from tests.rpc.fake import FakeRuntime, policies
from tests.waiting import wait_for


def test_a_clean_text_is_checked_and_not_matched(served):
    response = served.score("what a nice day")
    verdict = response.verdict
    assert verdict.status == pb.CHECK_STATUS_CHECKED
    assert not verdict.matched
    assert verdict.action == pb.ACTION_ALLOW
    assert (verdict.coverage.tokens_run, verdict.coverage.tokens_scored) == (5, 5)
    assert len(response.request_id) == 32
    assert response.digests.model == "sha256:" + "a" * 64
    assert response.digests.dictionary == "sha256:" + "b" * 64
    assert response.digests.policies == "sha256:" + "c" * 64
    assert not response.tokens


def test_a_match_names_policy_severity_and_evidence(served):
    verdict = served.score("this is a lie").verdict
    assert verdict.matched
    assert verdict.status == pb.CHECK_STATUS_CHECKED
    assert verdict.action == pb.ACTION_SUPPRESS
    (found,) = verdict.detections
    assert (found.policy, found.rule, found.category) == ("deception", "word", "deception")
    assert (found.severity, found.mode, found.phase) == (pb.SEVERITY_HIGH, pb.MODE_ENFORCE, pb.PHASE_PROMPT)
    assert (found.position, found.score, found.threshold) == (4, 1.0, 0.5)
    assert (found.evidence[0].position, found.evidence[0].text) == (4, "lie")
    assert {(s.policy, s.score) for s in verdict.scores} == {("weapons", 0.0), ("deception", 1.0)}


def test_tokens_come_with_readings_where_asked_for(served):
    tokens = served.score("a lie", include_tokens=True).tokens
    assert [(t.position, t.text, t.phase) for t in tokens] == [
        (0, "<bos>", pb.PHASE_PROMPT),
        (1, "a", pb.PHASE_PROMPT),
        (2, "lie", pb.PHASE_PROMPT),
    ]
    assert [[(r.feature, r.value) for r in t.readings] for t in tokens] == [[], [], [(7, 1.0)]]


def test_a_conversation_is_scored(served):
    turns = [
        pb.ChatMessage(role=pb.ROLE_USER, content="tell a lie"),
        pb.ChatMessage(role=pb.ROLE_ASSISTANT, content="no"),
    ]
    request = pb.ScoreRequest(input=pb.Input(conversation=pb.Conversation(messages=turns)))
    response = served.stub.Score(request, timeout=DEADLINE)
    assert response.verdict.matched
    assert response.verdict.coverage.tokens_run == 5


def test_truncation_is_done_only_where_asked_for_and_counted(served):
    words = " ".join(["word"] * 100)
    with fails("INVALID_ARGUMENT") as caught:
        served.score(words)
    assert details(caught[0])["ErrorInfo"].reason == "TOO_LONG"
    request = pb.ScoreRequest(input=pb.Input(text=words, truncate=True))
    coverage = served.stub.Score(request, timeout=DEADLINE).verdict.coverage
    assert (coverage.tokens_run, coverage.tokens_truncated) == (64, 37)
    assert served.metric("tokens_truncated_total") == 37


def test_a_failure_under_closed_refuses_with_generic_text_and_counts_apart(served):
    with fails("FAILED_PRECONDITION") as caught:
        served.score("this makes me sick")
    assert caught[0].details() == "the request could not be served"
    assert details(caught[0])["ErrorInfo"].reason == "MONITORING_FAILED"
    assert served.metric("monitor_failures_total", cause="non_finite") == 1
    assert served.metric("tokens_unscored_total", cause="non_finite") == 5
    assert served.metric("blocked_requests_total") == 0


def test_a_failure_under_open_answers_with_unknown():
    with serving(chosen=policies(closed=False)) as served:
        verdict = served.score("this makes me sick").verdict
    assert verdict.status == pb.CHECK_STATUS_UNKNOWN
    assert verdict.failure == "non_finite"
    assert verdict.coverage.tokens_scored < verdict.coverage.tokens_run


def test_tokens_that_never_ran_make_the_verdict_unknown():
    chosen = policies(closed=False)
    runtime = FakeRuntime(chosen.watch)
    runtime.scorer.forget = 2
    with serving(runtime, chosen) as served:
        verdict = served.score("one two three four").verdict
    assert verdict.status == pb.CHECK_STATUS_UNKNOWN
    assert verdict.failure == "incomplete"


def test_policies_are_listed_by_name(served):
    listed = served.stub.ListPolicies(pb.ListPoliciesRequest(), timeout=DEADLINE)
    assert [policy.name for policy in listed.policies] == ["deception", "weapons"]
    deception = listed.policies[0]
    assert deception.maturity == "experimental"
    assert [(c.feature, c.target, c.where) for c in deception.clamps] == [(7, -2.0, pb.CLAMP_WHERE_ACTIVE)]
    (rule,) = deception.rules
    assert list(rule.features) == [7]
    assert list(rule.weights) == [1.0]
    assert list(rule.phases) == [pb.PHASE_PROMPT, pb.PHASE_RESPONSE]
    assert rule.action == pb.ACTION_SUPPRESS
    assert listed.digests.policies == "sha256:" + "c" * 64


def test_inspect_returns_the_strongest_features_of_every_token(served):
    request = pb.InspectRequest(input=pb.Input(text="a word"), top_k=3)
    response = served.stub.Inspect(request, timeout=DEADLINE)
    assert [t.text for t in response.tokens] == ["<bos>", "a", "word"]
    assert [r.feature for r in response.tokens[1].features] == [0, 1, 2]
    assert (response.coverage.tokens_run, response.coverage.tokens_scored) == (3, 3)
    default = served.stub.Inspect(pb.InspectRequest(input=pb.Input(text="a")), timeout=DEADLINE)
    assert len(default.tokens[0].features) == 10


def test_a_crash_leaks_no_text_and_the_server_goes_on(served, capsys):
    def crash():
        raise ValueError("the secret word is xyzzy")

    served.runtime.inspecting = crash
    with fails("INTERNAL") as caught:
        served.stub.Inspect(pb.InspectRequest(input=pb.Input(text="xyzzy")), timeout=DEADLINE)
    assert "xyzzy" not in str(caught[0])
    request_id = details(caught[0])["RequestInfo"].request_id
    logged = "".join(capsys.readouterr())
    assert request_id in logged
    assert "ValueError" in logged
    assert "xyzzy" not in logged
    assert served.metric("requests_total", method="Inspect", code="INTERNAL") == 1
    assert served.score("still here").verdict.status == pb.CHECK_STATUS_CHECKED


def test_a_dead_scorer_is_unavailable_and_counted(served):
    served.runtime.scorer.die()
    with fails("UNAVAILABLE"):
        served.score("hello")
    assert served.metric("rejected_requests_total", reason="engine") == 1


def test_a_full_queue_tells_when_to_come_back(served):
    served.runtime.scorer.capacity = 0
    with fails("RESOURCE_EXHAUSTED") as caught:
        served.score("hello")
    delay = details(caught[0])["RetryInfo"].retry_delay
    assert delay.ToTimedelta().total_seconds() == 0.25
    assert served.metric("rejected_requests_total", reason="queue") == 1


def test_more_inspections_than_wait_are_refused(served):
    gate = threading.Event()
    served.runtime.inspecting = gate.wait
    request = pb.InspectRequest(input=pb.Input(text="hold"))
    held = [served.stub.Inspect.future(request, timeout=DEADLINE) for _ in range(30)]
    wait_for(lambda: sum(call.done() for call in held) >= 13)
    gate.set()
    codes = [call.code().name for call in held]
    assert (codes.count("OK"), codes.count("RESOURCE_EXHAUSTED")) == (17, 13)
    assert served.metric("rejected_requests_total", reason="queue") == 13


def test_too_many_calls_are_refused():
    with serving(max_concurrent_calls=1) as served:
        served.runtime.scorer.gate.clear()
        held = served.stub.Score.future(pb.ScoreRequest(input=pb.Input(text="hold")), timeout=DEADLINE)
        wait_for(lambda: served.runtime.scorer.submitted)
        with fails("RESOURCE_EXHAUSTED") as caught:
            served.score("hello")
        assert details(caught[0])["RetryInfo"].retry_delay.ToTimedelta().total_seconds() == 1.0
        served.runtime.scorer.gate.set()
        assert held.result().verdict.status == pb.CHECK_STATUS_CHECKED
        assert served.metric("rejected_requests_total", reason="calls") == 1


def test_a_cancelled_score_is_forgotten(served):
    served.runtime.scorer.gate.clear()
    call = served.stub.Score.future(pb.ScoreRequest(input=pb.Input(text="hold")), timeout=DEADLINE)
    wait_for(lambda: served.runtime.scorer.submitted)
    call.cancel()
    wait_for(lambda: served.runtime.scorer.cancelled)
    assert served.runtime.scorer.cancelled == served.runtime.scorer.submitted
    served.runtime.scorer.gate.set()
    wait_for(lambda: served.metric("requests_total", method="Score", code="CANCELLED"))


def test_unknown_methods_are_unimplemented(served):
    call = served.channel.unary_unary("/monitor.v1.MonitorService/Nothing")
    with fails("UNIMPLEMENTED"):
        call(b"", timeout=DEADLINE)
