import itertools
from dataclasses import replace

import numpy as np
import pytest

from monitor.policy.policyset import PolicySet
from monitor.records import UNREAD, Action, Clamp, Coverage, Failure, Mode, Phase, Status, Where
from tests.policy.conftest import block, naive_pooled, policy, rule, word

ALL = "sha256:" + "0" * 64


def started(*policies):
    return PolicySet(tuple(policies), ALL).start(word)


def coverage(n):
    return Coverage(tokens_run=n, tokens_scored=n)


def test_fires_once_at_the_token_that_crosses():
    observer = started(policy(rule(features=((3, 2.0), (7, -1.0)), threshold=1.0)))
    decision = observer.observe(block([[9, 0], [0.4, 0], [0.8, 0.7], [0.8, 0.5], [1, 0]]))
    (found,) = decision.detections
    assert (found.position, found.score) == (3, pytest.approx(1.1))
    assert [e.position for e in found.evidence] == [3, 2, 1]
    assert found.evidence[0].text == "<103>"
    assert [r.feature for r in found.evidence[0].readings] == [3]
    assert observer.observe(block([[5, 0]], start=5)).detections == ()
    assert observer.verdict(coverage(6)).scores[0].score == pytest.approx(10)


def test_position_zero_is_ignored_and_phases_are_separate():
    observer = started(policy(rule(phases=(Phase.RESPONSE,))))
    observer.observe(block([[9], [9], [9]]))
    assert not observer.verdict(coverage(3)).matched
    assert (
        observer.observe(block([[0.5]], start=3, phase=Phase.RESPONSE)).detections[0].phase is Phase.RESPONSE
    )
    observer = started(policy(rule()))
    observer.observe(block([[9]]))
    assert not observer.verdict(coverage(1)).matched
    observer.observe(block([[9]], start=1))
    observer.observe(block([[9]], start=2, phase=Phase.RESPONSE))
    assert [d.phase for d in observer.verdict(coverage(3)).detections] == [Phase.PROMPT, Phase.RESPONSE]


def test_special_tokens_say_nothing():
    readings = [[0.0], [0.9], [0.9]]
    marked = PolicySet((policy(rule()),), "").start(word, frozenset({101}))
    (found,) = marked.observe(block(readings)).detections
    assert found.position == 2
    assert [evidence.position for evidence in found.evidence] == [2]
    only = PolicySet((policy(rule()),), "").start(word, frozenset({101, 102}))
    assert not only.observe(block(readings)).detections
    verdict = only.verdict(Coverage(3, 3))
    assert (verdict.status, verdict.failure) == (Status.UNKNOWN, Failure.NOT_JUDGED), "nothing was judged"


def test_coverage_counts_what_rules_judged():
    observer = PolicySet((policy(rule(threshold=9.0)),), "").start(word, frozenset({101}))
    observer.observe(block([[0.1]]))
    assert observer.verdict(coverage(1)).failure is Failure.NOT_JUDGED
    observer.observe(block([[0.1], [0.1], [0.1]], start=1))
    observer.observe(block([[0.1], [0.1]], start=4, phase=Phase.RESPONSE))
    verdict = observer.verdict(coverage(6))
    assert (verdict.status, verdict.coverage) == (Status.CHECKED, Coverage(6, 6, tokens_judged=4))
    without_rules = PolicySet((), "").start(word)
    without_rules.observe(block(np.zeros((3, 0))))
    assert without_rules.verdict(coverage(3)).status is Status.CHECKED


@pytest.mark.parametrize("sinks", [(), (1,), (2,), (1, 2)])
def test_attention_sinks_say_nothing(sinks):
    """A token of outlying norm is passed over as the first of a text is, wherever it stands and whatever it is."""
    request = PolicySet((policy(rule()),), "").start(word, frozenset())
    decision = request.observe(replace(block([[9.0], [0.9], [0.9]]), sinks=sinks))
    left = [at for at in (1, 2) if at not in sinks]
    assert [found.position for found in decision.detections] == left[:1]
    for found in decision.detections:
        assert {evidence.position for evidence in found.evidence} <= set(left)
    verdict = request.verdict(Coverage(3, 3, tokens_sinks=1 + len(sinks)))
    assert verdict.status is (Status.CHECKED if left else Status.UNKNOWN)


def test_what_is_no_number_is_unscored_at_a_sink_too():
    request = PolicySet((policy(rule()),), "").start(word, frozenset())
    request.observe(replace(block([[0.0], [np.nan], [0.9]]), sinks=(1,)))
    assert request.verdict(Coverage(3, 3)).failure is Failure.NON_FINITE


def test_shadow_detects_and_never_acts():
    clamps = (Clamp(3, -1.0),)
    shadow = rule(action=Action.SUPPRESS, mode=Mode.SHADOW)
    observer = started(policy(shadow, clamps=clamps, clamps_always=True))
    assert observer.first.clamps == ()
    decision = observer.observe(block([[0], [1]]))
    assert len(decision.detections) == 1
    assert (decision.action, decision.clamps) == (Action.ALLOW, ())
    assert observer.failed(Failure.PASS_FAILED).action is Action.ALLOW
    assert observer.verdict(coverage(2)).status is Status.UNKNOWN


def test_the_strongest_enforced_action_stands_and_clamps_follow_detection():
    always = policy(clamps=(Clamp(5, 0.0, Where.EVERYWHERE),), clamps_always=True, name="always")
    on_hit = policy(
        rule(threshold=0.5, action=Action.SUPPRESS),
        rule("hard", threshold=2.0, action=Action.BLOCK),
        clamps=(Clamp(5, -1.0), Clamp(3, -2.0)),
    )
    observer = started(always, on_hit)
    assert observer.first.clamps == (Clamp(5, 0.0, Where.EVERYWHERE),)
    assert observer.observe(block([[0, 0], [0.4, 0]])).action is Action.ALLOW
    decision = observer.observe(block([[0.6, 0]], start=2))
    assert decision.action is Action.SUPPRESS
    assert decision.clamps == (Clamp(3, -2.0), Clamp(5, -1.0, Where.EVERYWHERE))
    assert observer.observe(block([[3, 0]], start=3)).action is Action.BLOCK
    assert observer.observe(block([[0, 0]], start=4)).action is Action.BLOCK


@pytest.mark.parametrize(
    ("bad", "cause"), [(np.nan, "non_finite"), (np.inf, "non_finite"), (UNREAD, "tap_missed")]
)
@pytest.mark.parametrize(("closed", "action"), [(True, Action.BLOCK), (False, Action.ALLOW)])
def test_readings_that_are_not_numbers_are_a_failure(bad, cause, closed, action):
    observer = started(policy(rule(), closed=closed))
    assert observer.observe(block([[0], [bad]])).action is action
    assert observer.observe(block([[0.1]], start=2)).action is action
    verdict = observer.verdict(coverage(3))
    assert (verdict.status, verdict.failure, verdict.action) == (Status.UNKNOWN, cause, action)
    assert observer.observe(block([[0.9]], start=3)).detections, "scoring goes on after a failure"


def test_readings_whose_sum_overflows_are_numbers_all_the_same():
    huge = float(np.finfo(np.float32).max)
    observer = started(policy(rule(features=((3, 1.0), (4, 1.0), (5, -1.0)))))
    assert observer.observe(block([[0, 0, 0], [huge, huge, 0]])).detections
    assert observer.observe(block([[np.inf, np.nan, 0]], start=2)).action is Action.BLOCK
    assert observer.verdict(coverage(3)).failure == "non_finite"


@pytest.mark.parametrize(
    ("blocks", "covered", "cause"),
    [
        ([block([[0], [0]])], Coverage(3, 2), "incomplete"),
        ([], Coverage(), "not_run"),
        ([block([[0]])], Coverage(2, 2), "miscounted"),
        ([block([[0]]), block([[0]], start=2)], Coverage(2, 2), "gap"),
        ([block([[0, 0], [0, 0]])], Coverage(2, 2), "shape"),
    ],
)
def test_what_was_not_scored_is_never_clean(blocks, covered, cause):
    observer = started(policy(rule()))
    for one in blocks:
        observer.observe(one)
    verdict = observer.verdict(covered)
    assert (verdict.status, verdict.failure, verdict.action) == (Status.UNKNOWN, cause, Action.BLOCK)


def test_tokens_that_are_run_again_count_once():
    observer = started(policy(rule(hold=3)))
    observer.observe(block([[0], [1], [1]]))
    assert not observer.observe(block([[0], [1], [1]])).detections
    assert observer.observe(block([[1], [1]], start=2)).detections[0].position == 3
    assert observer.verdict(coverage(4)).status is Status.CHECKED


def random_set(rng, poolings):
    rules = [
        rule(
            f"r{i}",
            features=[(int(f), float(rng.normal(0.5, 1))) for f in rng.choice(12, 4, replace=False)],
            pooling=pooling,
            hold=int(rng.integers(1, 4)),
            threshold=float(rng.uniform(0.1, 1.5)) if pooling.kind != "longest_run" else 3.0,
            action=Action(int(rng.integers(1, 4))),
            mode=Mode.ENFORCE if rng.random() < 0.5 else Mode.SHADOW,
            phases=((Phase.PROMPT,), (Phase.RESPONSE,), (Phase.PROMPT, Phase.RESPONSE))[rng.integers(3)],
        )
        for i, pooling in enumerate(poolings)
    ]
    return PolicySet((policy(*rules, clamps=(Clamp(2, -1.0),)),), ALL)


def fed(policies, readings, prompt, cuts):
    """The verdict after feeding the readings in pieces; a piece never mixes phases."""
    observer = policies.start(word)
    edges = sorted({0, prompt, len(readings), *cuts})
    for a, b in itertools.pairwise(edges):
        observer.observe(block(readings[a:b], a, Phase.PROMPT if a < prompt else Phase.RESPONSE))
    return observer.verdict(coverage(len(readings)))


@pytest.mark.parametrize("seed", range(40))
def test_splitting_a_sequence_changes_nothing(some_poolings, seed):
    rng = np.random.default_rng(seed)
    policies = random_set(rng, some_poolings)
    length, prompt = int(rng.integers(3, 60)), int(rng.integers(1, 50))
    prompt = min(prompt, length)
    readings = rng.exponential(0.4, (length, len(policies.watch))) * (rng.random((length, 1)) < 0.6)
    whole = fed(policies, readings, prompt, [])
    for cuts in (range(length), rng.integers(0, length, 4).tolist(), rng.integers(0, length, 12).tolist()):
        parts = fed(policies, readings, prompt, cuts)
        assert (parts.action, parts.status) == (whole.action, whole.status)
        np.testing.assert_allclose(
            [s.score for s in parts.scores], [s.score for s in whole.scores], rtol=1e-12
        )
        mine = sorted(
            (d.rule, d.phase, d.position, tuple(e.position for e in d.evidence)) for d in parts.detections
        )
        theirs = sorted(
            (d.rule, d.phase, d.position, tuple(e.position for e in d.evidence)) for d in whole.detections
        )
        assert mine == theirs


@pytest.mark.parametrize("seed", range(10))
def test_detections_equal_a_loop_over_tokens(some_poolings, seed):
    rng = np.random.default_rng(100 + seed)
    policies = random_set(rng, some_poolings)
    readings = rng.exponential(0.4, (40, len(policies.watch))).astype(np.float32)
    verdict = fed(policies, readings, 17, [5, 23])
    expected = []
    for own in policies.policies[0].rules:
        for phase, rows, offset in ((Phase.PROMPT, readings[1:17], 1), (Phase.RESPONSE, readings[17:], 17)):
            columns = [policies.watch.column(f.index) for f in own.features]
            weights = [f.weight for f in own.features]
            scores = [sum(w * float(row[c]) for w, c in zip(weights, columns, strict=True)) for row in rows]
            pooled = naive_pooled(scores, own.pooling, own.hold)
            hit = next((t for t, value in enumerate(pooled) if value >= own.threshold), None)
            if hit is not None and phase in own.phases:
                expected.append((own.name, phase, offset + hit))
    assert sorted((d.rule, d.phase, d.position) for d in verdict.detections) == sorted(expected)
