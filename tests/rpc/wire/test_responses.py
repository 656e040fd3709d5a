from dataclasses import replace

import numpy as np
import pytest

from monitor.model.engine.requests import Released
from monitor.policy.policy import Condition, WeightedFeature
from monitor.policy.schema.expression import AllOf, AnyOf
from monitor.records import (
    Action,
    Clamp,
    ConditionScore,
    Coverage,
    Detection,
    Digests,
    ErrorTerm,
    Evidence,
    Failure,
    FeatureReading,
    Mode,
    Phase,
    Probe,
    RuleScore,
    ScoredTokens,
    Severity,
    Signal,
    Status,
    Suppression,
    TokenLogprobs,
    TokenSpelling,
    Verdict,
    Where,
)
from monitor.rpc.wire import responses
from monitor.rpc.wire.responses import OfText
from monitor.v1 import monitor_pb2 as pb
from tests.policy.conftest import policy, rule, word
from tests.rpc.fake import Inspected


def detection(rule_name="r"):
    return Detection(
        policy="p",
        rule=rule_name,
        category="c",
        severity=Severity.CRITICAL,
        action=Action.BLOCK,
        mode=Mode.SHADOW,
        phase=Phase.RESPONSE,
        position=9,
        score=1.5,
        threshold=0.5,
        evidence=(Evidence(8, 101, "word", 0.75, (FeatureReading(3, 0.5), FeatureReading(4, 0.25, 0.0))),),
        conditions=(ConditionScore("x", 0.5, 0.25, True),),
    )


def words(token_ids):
    return [word(token_id) for token_id in token_ids]


def scored(start, *rows, **more):
    readings = np.asarray(rows, np.float32)
    ids = tuple(range(100 + start, 100 + start + len(rows)))
    return ScoredTokens(Phase.RESPONSE, start, ids, np.asarray([3, 7]), readings, **more)


def test_digests_and_coverage():
    told = responses.digests(Digests("m", "d", "p"))
    assert (told.model, told.dictionary, told.policies) == ("m", "d", "p")
    coverage = responses.coverage(Coverage(9, 8, 7))
    assert (coverage.tokens_run, coverage.tokens_scored, coverage.tokens_truncated) == (9, 8, 7)


def test_a_detection_is_told_whole():
    told = responses.detection(detection())
    assert (told.policy, told.rule, told.category) == ("p", "r", "c")
    assert (told.severity, told.action, told.mode, told.phase) == (
        pb.SEVERITY_CRITICAL,
        pb.ACTION_BLOCK,
        pb.MODE_SHADOW,
        pb.PHASE_RESPONSE,
    )
    assert (told.position, told.score, told.threshold) == (9, 1.5, 0.5)
    (token,) = told.evidence
    assert (token.position, token.token_id, token.text, token.score) == (8, 101, "word", 0.75)
    before, after = token.readings
    assert (before.feature, before.value, before.HasField("value_after_clamp")) == (3, 0.5, False)
    assert (after.feature, after.value_after_clamp, after.HasField("value_after_clamp")) == (4, 0.0, True)
    (condition,) = told.conditions
    assert (condition.name, condition.score, condition.threshold, condition.reached) == (
        "x",
        0.5,
        0.25,
        True,
    )


def test_a_verdict_is_told_whole():
    record = Verdict(
        Status.UNKNOWN,
        Action.SUPPRESS,
        Coverage(3, 2),
        (detection(),),
        (RuleScore("p", "r", Phase.PROMPT, 0.5, 1.0, (ConditionScore("x", 0.5, 1.0, False),)),),
        Failure.INCOMPLETE,
        (Suppression("p", (3, 4), 5, 2.0, 1.0, 0.75, 0.5),),
    )
    told = responses.verdict(record)
    assert (told.status, told.action) == (pb.CHECK_STATUS_UNKNOWN, pb.ACTION_SUPPRESS)
    assert (told.matched, told.failure) == (True, "incomplete")
    assert [found.rule for found in told.detections] == ["r"]
    (score,) = told.scores
    assert (score.policy, score.rule, score.phase) == ("p", "r", pb.PHASE_PROMPT)
    assert (score.score, score.threshold) == (0.5, 1.0)
    assert [(c.name, c.reached) for c in score.conditions] == [("x", False)]
    (held,) = told.suppressions
    assert (held.policy, list(held.features), held.tokens_edited) == ("p", [3, 4], 5)
    assert (held.before, held.after, held.probe_score, held.probe_threshold) == (2.0, 1.0, 0.75, 0.5)
    assert (held.held_at_layer, held.came_back, held.held) == (False, True, False)


def test_a_clean_verdict_has_no_failure_and_a_suppression_without_probe_no_score():
    clean = responses.verdict(Verdict(Status.CHECKED, Action.ALLOW, Coverage(1, 1)))
    assert (clean.matched, clean.failure, len(clean.detections)) == (False, "", 0)
    held = responses.suppression(Suppression("p", (3,), 5, 2.0, 0.0))
    assert (held.held, held.came_back) == (True, False)
    assert not held.HasField("probe_score")
    assert not held.HasField("probe_threshold")


def test_scored_tokens_have_the_readings_that_are_not_zero():
    told = responses.scored_tokens([scored(4, [0.5, 0.0], [0.0, 0.0]), None, scored(6, [0.0, 0.25])], words)
    assert [(t.position, t.token_id, t.text, t.phase) for t in told] == [
        (4, 104, "<104>", pb.PHASE_RESPONSE),
        (5, 105, "<105>", pb.PHASE_RESPONSE),
        (6, 106, "<106>", pb.PHASE_RESPONSE),
    ]
    assert [[(r.feature, r.value) for r in t.readings] for t in told] == [[(3, 0.5)], [], [(7, 0.25)]]


def test_inspected_tokens_keep_the_order_of_their_features():
    record = Inspected(2, 9, "nine", (FeatureReading(5, 0.75), FeatureReading(1, 0.5)))
    (told,) = responses.inspected_tokens([record])
    assert (told.position, told.token_id, told.text) == (2, 9, "nine")
    assert [(r.feature, r.value) for r in told.features] == [(5, 0.75), (1, 0.5)]


def test_a_policy_is_listed_with_its_rules_and_clamps():
    one = policy(
        rule("weighed", features=((3, 1.0), (5, -0.5)), threshold=0.75, action=Action.BLOCK, session=True),
        rule("probed", features=(), probe=Probe("p/p", (1.0,)), phases=(Phase.PROMPT,), mode=Mode.SHADOW),
        rule("signal", features=(), signal=next(iter(Signal))),
        clamps=(Clamp(3, -1.0, Where.EVERYWHERE, next(iter(set(ErrorTerm) - {ErrorTerm.KEEP}))),),
    )
    told = responses.policy(one)
    assert (told.name, told.title, told.category) == ("p", "P", "c")
    assert (told.severity, told.description, told.maturity) == (pb.SEVERITY_HIGH, "d", "beta")
    weighed, probed, signal = told.rules
    assert (list(weighed.features), list(weighed.weights)) == ([3, 5], [1.0, -0.5])
    assert (weighed.threshold, weighed.action, weighed.session) == (0.75, pb.ACTION_BLOCK, True)
    assert (weighed.signal, weighed.probe, list(weighed.conditions)) == ("", False, [])
    assert (list(probed.phases), probed.mode, probed.probe) == ([pb.PHASE_PROMPT], pb.MODE_SHADOW, True)
    assert signal.signal == next(iter(Signal)).value
    (clamp,) = told.clamps
    assert (clamp.feature, clamp.target, clamp.where) == (3, -1.0, pb.CLAMP_WHERE_EVERYWHERE)
    assert clamp.error_term not in (pb.ERROR_TERM_UNSPECIFIED, pb.ERROR_TERM_KEEP)


@pytest.mark.parametrize(
    ("when", "names"),
    [
        (None, []),
        ("x", ["x"]),
        (AllOf(all=["b", AnyOf(any=["a", "b", "c"]), "a"]), ["b", "a", "c"]),
    ],
)
def test_conditions_of_a_rule_are_named_once_in_the_order_of_writing(when, names):
    assert responses.named(rule(features=(), when=when)) == names


def test_conditions_that_are_listed_are_those_of_the_rule():
    one = policy(
        rule(features=(), when=AllOf(all=["y", "x"])),
        conditions=tuple(Condition(n, features=(WeightedFeature(1, 1.0),)) for n in "xyz"),
    )
    assert [list(told.conditions) for told in responses.policy(one).rules] == [["y", "x"]]


SPELLED = {4: TokenSpelling("\\xe2", b"\xe2"), 5: TokenSpelling("</s>", None)}


def test_log_probabilities_are_sent_with_their_text_and_without():
    told = TokenLogprobs(3, 0, 4, -0.5, ((5, -0.25), (4, -0.5)))
    events = (Released("é", logprobs=(told, told)), Released("", logprobs=(told,)))
    (message,) = responses.messages("id", events, words, SPELLED.__getitem__)
    assert len(message.chunk.logprobs) == 3
    one = message.chunk.logprobs[0]
    assert (one.position, one.text_offset) == (3, 0)
    assert (one.token.token_id, one.token.text, one.token.data, one.token.logprob) == (
        4,
        "\\xe2",
        b"\xe2",
        -0.5,
    )
    assert [(likely.text, likely.HasField("data")) for likely in one.likeliest] == [
        ("</s>", False),
        ("\\xe2", True),
    ]
    (alone,) = responses.messages("id", events[1:], words, SPELLED.__getitem__)
    assert len(alone.chunk.logprobs) == 1


def parts(*events):
    """What is sent, in short: the text and number of tokens of a chunk, or the rule of a detection."""
    sent = list(responses.messages("id", events, words, SPELLED.__getitem__))
    assert all(message.request_id == "id" for message in sent)
    return [
        m.detection.rule if m.HasField("detection") else (m.chunk.text, [t.position for t in m.chunk.tokens])
        for m in sent
    ]


def test_texts_between_two_detections_are_one_chunk():
    events = (
        Released("a", scored(1, [0.5, 0.0])),
        Released("b", scored(2, [0.5, 0.0])),
        Released("c", None, (detection("first"), detection("second")), 9),
        Released("d", scored(4, [0.5, 0.0])),
    )
    assert parts(*events) == [("abc", [1, 2]), "first", "second", ("d", [4])]


def test_events_without_text_send_no_empty_chunk():
    assert parts(Released("", None), Released("", None, (detection(),), 3)) == ["r"]
    assert parts(Released("", scored(1, [0.5, 0.0]))) == [("", [1])]
    assert parts() == []


def found(phase, status=Status.CHECKED, score=0.0, threshold=0.5, failure=None, action=Action.ALLOW):
    one = replace(detection(), phase=phase)
    return Verdict(
        status=status,
        action=action,
        detections=(one,),
        scores=(RuleScore("p", "r", Phase.RESPONSE, score, threshold),),
        coverage=Coverage(4, 3),
        failure=failure,
    )


def test_of_several_texts_the_strictest_verdict_is_told_with_the_detections_of_all():
    """Those of the prompt, which each text of the answer has, once."""
    texts = [
        OfText("", found(Phase.PROMPT, score=0.25), prompt=False),
        OfText("tool_calls[0]", found(Phase.PROMPT, score=0.75, threshold=1.25), prompt=False),
        OfText("tool_calls[1]", found(Phase.RESPONSE, score=0.5, action=Action.BLOCK), prompt=False),
        OfText(
            "m[1].tool_calls[0]", found(Phase.PROMPT, Status.UNKNOWN, failure=Failure.LEFT_OUT), prompt=True
        ),
    ]
    told = responses.strictest(texts)
    assert (told.status, told.failure) == (pb.CHECK_STATUS_UNKNOWN, "left_out")
    assert (told.action, told.matched) == (pb.ACTION_BLOCK, True)
    assert [(one.phase, one.call) for one in told.detections] == [
        (pb.PHASE_PROMPT, ""),
        (pb.PHASE_RESPONSE, "tool_calls[1]"),
        (pb.PHASE_PROMPT, "m[1].tool_calls[0]"),
    ]
    ((score, threshold),) = [(one.score, one.threshold) for one in told.scores]
    assert (score, threshold) == (0.5, 0.5)  # it came nearest to its threshold
    assert (told.coverage.tokens_run, told.coverage.tokens_scored) == (16, 12)
    each = [text.message for text in texts]
    assert [one.call for one in each] == ["", "tool_calls[0]", "tool_calls[1]", "m[1].tool_calls[0]"]
    assert [one.verdict.detections[0].call for one in each] == ["", "", "tool_calls[1]", "m[1].tool_calls[0]"]
