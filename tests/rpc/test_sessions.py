"""Sessions, labels and conditions from the wire to the rules, and back to answers and metrics."""

from dataclasses import replace

import pytest

from monitor.policy.policy import Condition, WeightedFeature
from monitor.policy.policyset import PolicySet
from monitor.policy.rules.sessions import SessionStore
from monitor.policy.schema.expression import AllOf
from monitor.policy.schema.policy import Cumulative, Match
from monitor.records import Action
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import DEADLINE, fails, serving
from tests.rpc.fake import FakeRuntime, policy

DIGEST = "sha256:" + "c" * 64


def adding(**changes):
    """Fires at the third `lie` of a conversation."""
    one = policy("deception", 7, Action.ALERT, **changes)
    rule = replace(one.rules[0], pooling=Cumulative(), threshold=3.0, session=True)
    return replace(one, rules=(rule,))


def ask(served, text, session="", labels=()):
    given = pb.Input(text=text, session_id=session, labels=dict(labels))
    return served.stub.Score(pb.ScoreRequest(input=given), timeout=DEADLINE)


def test_scores_add_up_over_the_requests_of_a_session():
    store = SessionStore(most=1)
    chosen = PolicySet((adding(closed=False),), DIGEST, sessions=store)
    with serving(FakeRuntime(chosen.watch), chosen) as served:
        texts = ["this lie one", "that lie two", "third lie here"]
        assert [ask(served, text, "s").verdict.matched for text in texts] == [False, False, True]
        assert not any(ask(served, text).verdict.matched for text in texts)
        ask(served, "hello", "other")
        back = ask(served, "hello again", "s").verdict
        assert (back.status, back.failure) == (pb.CHECK_STATUS_UNKNOWN, "session_lost")
        assert served.metric("sessions") == 1
        assert served.metric("sessions_evicted_total", reason="size") == 2
        assert served.metric("sessions_returned_total") == 1
        assert served.metric("monitor_failures_total", cause="session_lost") == 1
        listed = served.stub.ListPolicies(pb.ListPoliciesRequest(), timeout=DEADLINE)
        assert listed.policies[0].rules[0].session


def test_a_lost_session_is_refused_where_the_policy_is_closed():
    chosen = PolicySet((adding(closed=True),), DIGEST, sessions=SessionStore(most=1))
    with serving(FakeRuntime(chosen.watch), chosen) as served:
        ask(served, "one", "s")
        ask(served, "two", "t")
        with fails("FAILED_PRECONDITION") as caught:
            ask(served, "three", "s")
        assert "session" not in caught[0].details()


def test_labels_choose_policies_and_bad_ones_are_named():
    bound = policy("weapons", 9, Action.BLOCK, match=Match(labels={"team": "risk"}))
    chosen = PolicySet((bound,), DIGEST)
    with serving(FakeRuntime(chosen.watch), chosen) as served:
        assert ask(served, "a bomb", labels={"team": "risk"}.items()).verdict.matched
        assert not ask(served, "a bomb", labels={"team": "web"}.items()).verdict.matched
        for session, labels in (("x" * 129, {}), ("", {"1a": "b"}), ("", {"a": "b" * 201})):
            with fails("INVALID_ARGUMENT"):
                ask(served, "a bomb", session, labels.items())
        with fails("INVALID_ARGUMENT"):
            ask(served, "a bomb", "", {f"l{i}": "v" for i in range(17)}.items())


def test_answers_show_conditions():
    one = policy("pair", 7, Action.ALERT)
    parts = tuple(
        Condition(name, features=(WeightedFeature(feature, 1.0),), threshold=0.5)
        for name, feature in (("lying", 7), ("arming", 9))
    )
    rule = replace(one.rules[0], features=(), threshold=0.0, when=AllOf(all=["lying", "arming"]))
    chosen = PolicySet((replace(one, rules=(rule,), conditions=parts),), DIGEST)
    with serving(FakeRuntime(chosen.watch), chosen) as served:
        (found,) = ask(served, "a lie about a bomb").verdict.detections
        assert [(c.name, c.reached, c.score) for c in found.conditions] == [
            ("lying", True, 1.0),
            ("arming", True, 1.0),
        ]
        assert {e.condition for e in found.evidence} == {"lying", "arming"}
        assert found.score == pytest.approx(0.5)
        (score,) = ask(served, "only a lie").verdict.scores
        assert [c.reached for c in score.conditions] == [True, False]
        listed = served.stub.ListPolicies(pb.ListPoliciesRequest(), timeout=DEADLINE)
        assert list(listed.policies[0].rules[0].conditions) == ["lying", "arming"]
