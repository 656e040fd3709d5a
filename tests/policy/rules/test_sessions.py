"""Scores that add up over the requests of a conversation, and what becomes of conversations that were dropped."""

import numpy as np
import pytest

from monitor.policy.policy import Condition
from monitor.policy.policyset import PolicySet
from monitor.policy.rules.sessions import SessionStore
from monitor.policy.schema.policy import Cumulative, Match
from monitor.records import Action, Blocks, Coverage, Phase, Status, TokenBlock
from tests.policy.conftest import policy, rule, word


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def adding(closed=True, **more):
    one = rule(pooling=Cumulative(), threshold=2.0, session=True, **more)
    return policy(one, closed=closed)


def ask(policies, readings, ids=None, *, prompt=None, session="s", caller=""):
    """One request: its verdict after a prompt and a response."""
    observer = policies.start(word, session=session, caller=caller)
    rows = np.asarray(readings, np.float32)[:, None]
    ids = tuple(ids or range(len(rows)))
    prompt = len(rows) if prompt is None else prompt
    observer.observe(TokenBlock(Phase.PROMPT, 0, ids[:prompt], rows[:prompt]))
    for t in range(prompt, len(rows)):
        observer.observe(TokenBlock(Phase.RESPONSE, t, ids[t : t + 1], rows[t : t + 1]))
    return observer.verdict(Coverage(len(rows), len(rows)))


def test_scores_add_up_over_requests_and_not_without_a_session():
    for session, wanted in (("s", [False, False, True]), ("", [False, False, False])):
        policies = PolicySet((adding(),), "")
        found = [ask(policies, [0, 0.4, 0.4], (0, 10 + i, 20 + i), session=session).matched for i in range(3)]
        assert found == wanted


def test_callers_with_the_same_session_do_not_mix():
    policies = PolicySet((adding(),), "")
    for i in range(4):
        assert not ask(policies, [0, 0.45], (0, 10 + i), caller="a").matched
        assert not ask(policies, [0, 0.45], (0, 10 + i), caller="b").matched


def test_what_a_prompt_repeats_of_the_conversation_counts_once():
    policies = PolicySet((adding(),), "")
    first = ask(policies, [0, 0.5, 0.5], (0, 1, 2), prompt=2)
    assert not first.matched
    # The whole first exchange again, and one more turn.
    second = ask(policies, [0, 0.5, 0.5, 0.6], (0, 1, 2, 3))
    assert not second.matched
    third = ask(policies, [0, 0.5, 0.5, 0.6, 0.5], (0, 1, 2, 3, 4))
    assert [(d.position, d.score) for d in third.detections] == [(4, pytest.approx(2.1))]


def test_a_response_counts_even_where_it_says_the_same_again():
    policies = PolicySet((adding(phases=(Phase.RESPONSE,)),), "")
    found = [ask(policies, [0, 0.0, 0.9], (0, 1, 2), prompt=2).matched for _ in range(3)]
    assert found == [False, False, True]


@pytest.mark.parametrize(("closed", "action"), [(True, Action.BLOCK), (False, Action.ALLOW)])
def test_a_session_that_was_dropped_never_looks_clean(closed, action):
    clock = Clock()
    store = SessionStore(most=2, ttl=60, clock=clock)
    policies = PolicySet((adding(closed),), "", sessions=store)
    for name in ("a", "b", "c"):
        assert ask(policies, [0, 0.1], session=name).status is Status.CHECKED
    assert (len(store), store.evicted) == (2, {"size": 1, "ttl": 0})
    back = ask(policies, [0, 0.1], session="a")
    assert (back.status, back.failure, back.action) == (Status.UNKNOWN, "session_lost", action)
    again = ask(policies, [0, 0.1], session="a")
    assert again.status is Status.UNKNOWN, "it stays without its beginning"
    clock.now = 100.0
    assert ask(policies, [0, 0.1], session="new").status is Status.CHECKED
    assert ask(policies, [0, 0.1], session="c").failure == "session_lost"
    assert store.evicted["ttl"] == 2
    assert store.returned == 2


def test_a_session_that_never_pooled_is_no_concern_of_other_policies():
    clock = Clock()
    store = SessionStore(most=1, ttl=60, clock=clock)
    plain = PolicySet((policy(rule()),), "", sessions=store)
    ask(plain, [0, 0.1], session="a")
    assert len(store) == 0
    shadow = policy(rule(), closed=True, name="closed")
    mixed = PolicySet((adding(closed=False), shadow), "", sessions=store)
    ask(mixed, [0, 0.1], session="a")
    ask(mixed, [0, 0.1], session="b")
    back = ask(mixed, [0, 0.1], session="a")
    assert (back.status, back.action) == (Status.UNKNOWN, Action.ALLOW)
    short = mixed.start(word, session="a").verdict(Coverage(3, 2))
    assert (short.failure, short.action) == ("session_lost", Action.BLOCK), "the other policy misses a token"


def test_sessions_outlive_a_reload_where_the_rule_did_not_change():
    store = SessionStore()
    before, same = (PolicySet((adding(),), d, sessions=store) for d in ("1", "2"))
    other = PolicySet(
        (policy(rule(pooling=Cumulative(allowance=0.1), threshold=2.0, session=True)),), "3", sessions=store
    )
    assert not ask(before, [0, 0.9, 0.9], (0, 1, 2)).matched
    assert not ask(other, [0, 0.4], (0, 3)).matched
    assert ask(same, [0, 0.4], (0, 4)).matched


def test_two_requests_of_a_session_at_once_add_up():
    policies = PolicySet((adding(),), "")
    observers = [policies.start(word, session="s") for _ in range(3)]
    hits = []
    for t in range(4):
        rows = np.full((1, 1), 0.35 if t else 0.0, np.float32)
        work = [(o, TokenBlock(Phase.PROMPT, t, (10 * i + t,), rows)) for i, o in enumerate(observers)]
        found = policies.rules.observe_batch(Blocks.of([(o.slot, b) for o, b in work]))
        hits += [len(found[i].detections) if i in found else 0 for i in range(len(work))]
    assert sum(hits) == 3
    assert not any(hits[:6])


def test_policies_bound_to_callers_and_labels():
    bound = policy(
        rule("a"), match=Match(callers=["batch-*"], labels={"team": "risk"}), name="bound", closed=True
    )
    free = policy(rule("b"), name="free", closed=False)
    policies = PolicySet((bound, free), "")
    rows = np.asarray([[0.0], [0.9]], np.float32)
    for caller, labels, wanted in (
        ("batch-7", {"team": "risk", "x": "y"}, ["a", "b"]),
        ("batch-7", {"team": "other"}, ["b"]),
        ("batch-7", None, ["b"]),
        ("web", {"team": "risk"}, ["b"]),
        ("", {}, ["b"]),
    ):
        observer = policies.start(word, caller=caller, labels=labels)
        found = observer.observe(TokenBlock(Phase.PROMPT, 0, (1, 2), rows)).detections
        assert [d.rule for d in found] == wanted
        verdict = observer.verdict(Coverage(3, 2))
        assert [s.rule for s in verdict.scores] == wanted
        assert (verdict.action is Action.BLOCK) == ("a" in wanted), (
            "on_error is that of the policies that apply"
        )


def test_thresholds_by_length_look_at_what_the_check_itself_has_read():
    asked = rule(
        "asked", session=True, phases=(Phase.PROMPT,), lengths=((5, 0.5), (None, 5.0)), threshold=5.0
    )
    both = rule("both", session=True, threshold=50.0)
    for rules in ((asked,), (asked, both)):
        policies = PolicySet((policy(*rules),), "")
        ask(policies, [0.0] * 20, prompt=2)
        found = ask(policies, [0, 1.0], (30, 31)).detections
        assert [(one.rule, one.threshold) for one in found] == [("asked", 0.5)]


def test_a_rule_that_a_reload_brings_reads_the_whole_conversation_that_goes_on():
    store = SessionStore()
    before = PolicySet(
        (policy(rule("old", pooling=Cumulative(), threshold=9.0, session=True)),), "", sessions=store
    )
    assert not ask(before, [0, 0.9, 0.9], (0, 1, 2), prompt=2).matched
    after = PolicySet((adding(),), "", sessions=store)
    assert not ask(after, [0, 0.9, 0.9], (0, 1, 2)).matched
    (found,) = ask(after, [0, 0.9, 0.9, 0.9], (0, 1, 2, 3)).detections
    assert (found.position, found.score) == (3, pytest.approx(2.7))


def test_a_rule_and_a_condition_of_one_name_add_up_apart():
    one = rule("drift", pooling=Cumulative(), threshold=2.0, session=True)
    same = {"features": one.features, "pooling": one.pooling, "threshold": 2.0, "session": True}
    when = rule("both", features=(), when="drift")
    policies = PolicySet((policy(one, when, conditions=(Condition("drift", **same),)),), "")
    assert not ask(policies, [0, 0.9, 0.9], (0, 1, 2)).matched
    assert ask(policies, [0, 0.9], (0, 9)).matched
