"""The loaded set: what is watched and clamped, what suppression needs, and which rules a request gets."""

import numpy as np
import pytest

from monitor.policy.policyset import PolicySet
from monitor.policy.schema.policy import Match
from monitor.policy.schema.pooling import Cumulative
from monitor.records import Action, Clamp, ErrorTerm, Mode, Phase, TokenBlock
from tests.policy.conftest import block, policy, rule, word


def test_what_is_watched_is_what_rules_read_and_policies_clamp():
    one = policy(rule(features=((7, 1.0), (3, 0.5))), name="one", clamps=(Clamp(9, -1.0), Clamp(3, -1.0)))
    two = policy(rule(features=((3, 1.0),)), name="two", clamps=(Clamp(5, -1.0),))
    found = PolicySet((one, two), "sha256:x")
    assert set(found.watch.features) == {3, 5, 7, 9}
    assert found.clampable == (3, 5, 9)
    assert found.digest == "sha256:x"


def test_suppression_needs_nothing_for_policies_in_shadow():
    shadowed = policy(
        rule(mode=Mode.SHADOW), name="shadowed", clamps=(Clamp(3, -1.0, error_term=ErrorTerm.DROP),)
    )
    assert PolicySet((shadowed,), "").suppression.plans == ()
    assert not PolicySet((shadowed,), "").suppression.whole
    enforced = policy(rule(action=Action.SUPPRESS), name="enforced", clamps=(Clamp(4, -1.0), Clamp(2, -1.0)))
    needs = PolicySet((shadowed, enforced), "").suppression
    assert [(plan.policy, plan.features) for plan in needs.plans] == [("enforced", (4, 2))]


@pytest.mark.parametrize(("mode", "closed"), [(Mode.ENFORCE, True), (Mode.SHADOW, False)])
def test_only_enforced_policies_close_a_request_that_was_not_scored(mode, closed):
    assert PolicySet((policy(rule(mode=mode), closed=True),), "").closed is closed
    assert not PolicySet((policy(rule(mode=mode), closed=False),), "").closed


def test_no_policies_watch_nothing():
    empty = PolicySet((), "")
    assert (len(empty.watch), empty.clampable, empty.closed) == (0, (), False)


def test_a_request_gets_the_policies_that_match_it():
    ours = policy(rule("a"), name="ours", match=Match.model_validate({"callers": ["batch-*"]}))
    labelled = policy(rule("b"), name="labelled", match=Match.model_validate({"labels": {"team": "risk"}}))
    everybodys = policy(rule("c"), name="everybodys")
    found = PolicySet((ours, labelled, everybodys), "")

    def fired(**asked):
        decision = found.start(word, **asked).observe(block([[0.0], [9.0]]))
        return [detection.policy for detection in decision.detections]

    assert fired() == ["everybodys"]
    assert fired(caller="batch-7") == ["ours", "everybodys"]
    assert fired(caller="batch-7", labels={"team": "risk"}) == ["ours", "labelled", "everybodys"]
    assert fired(labels={"team": "other"}) == ["everybodys"]


def test_a_reload_may_go_on_with_the_sessions_of_the_set_before():
    adding = policy(rule(pooling=Cumulative(), threshold=1.0, session=True))
    first = PolicySet((adding,), "1")
    first.start(word, session="s").observe(block([[0.0], [0.6]]))
    for sessions, fires in ((first.sessions, True), (None, False)):
        later = PolicySet((adding,), "2", sessions=sessions).start(word, session="s")
        assert (
            bool(
                later.observe(
                    TokenBlock(Phase.PROMPT, 0, (7, 8), np.array([[0], [0.6]], np.float32))
                ).detections
            )
            is fires
        )
