import numpy as np
import pytest

from monitor.policy.policy import Condition, WeightedFeature
from monitor.policy.rules.pooling import Extent
from monitor.policy.rules.program import compile_program
from monitor.policy.rules.state import blank
from monitor.policy.rules.step import InSession, Lanes, nearest, settle, step
from monitor.policy.schema.expression import AllOf
from tests.policy.conftest import policy, rule

LENGTHS = ((2, 0.9), (None, 0.5))


def condition(name, feature, **more):
    return Condition(name, features=(WeightedFeature(feature, 1.0),), **more)


def program(*rules, **more):
    return compile_program((policy(*rules, **more),))


def lanes_of(compiled, count=1):
    rules, checks = len(compiled.rules), len(compiled.checks)
    return Lanes(blank(compiled, count), np.ones((count, rules), bool), np.ones((count, checks), bool))


def column(*scores):
    """`[tokens, 1, 1]`."""
    return np.asarray(scores, np.float64)[:, None, None]


def extent(*before, lengths=None):
    return Extent(np.asarray(before), None if lengths is None else np.asarray(lengths))


def test_a_rule_hits_wherever_it_is_at_its_threshold():
    compiled = program(rule(threshold=0.5))
    taken = step(compiled, lanes_of(compiled), column(0.2, 0.5, 0.4, 0.9), extent(0))
    assert taken.hits[:, 0, 0].tolist() == [False, True, False, True]
    assert (taken.holds, taken.stands) == (None, None)
    assert taken.threshold(1, 0, 0) == 0.5


@pytest.mark.parametrize("which", ["armed", "reading"])
def test_rules_that_fired_or_do_not_look_are_passed_over(which):
    compiled = program(rule("a"), rule("b"))
    lanes = lanes_of(compiled)
    getattr(lanes, which)[0, 0] = False
    taken = step(compiled, lanes, np.ones((1, 1, 2)), extent(0))
    assert taken.hits[0, 0].tolist() == [False, True]


def test_padding_reaches_nothing_and_leaves_no_trace():
    compiled = program(rule(threshold=-1.0))
    lanes = lanes_of(compiled, 2)
    scores = np.asarray([[0.5, 0.3], [0.0, 0.4]])[..., None]
    taken = step(compiled, lanes, scores, extent(0, 0, lengths=[1, 2]))
    assert taken.hits[..., 0].tolist() == [[True, True], [False, True]]
    assert np.isneginf(taken.pooled[1, 0, 0])
    assert lanes.state["tokens"][:, 0].tolist() == [1.0, 2.0]
    settle(compiled, lanes, taken)
    assert lanes.state["best"][:, 0].tolist() == [0.5, 0.4]


def test_thresholds_by_length_count_the_tokens_before():
    compiled = program(rule(threshold=0.5, lengths=LENGTHS))
    taken = step(compiled, lanes_of(compiled, 2), np.full((2, 2, 1), 0.6), extent(0, 1))
    assert taken.thresholds[..., 0].tolist() == [[0.9, 0.9], [0.9, 0.5]]
    assert taken.hits[..., 0].tolist() == [[False, False], [False, True]]
    assert taken.threshold(1, 1, 0) == 0.5


def test_conditions_last_from_block_to_block():
    parts = (condition("a", 0, threshold=0.5, lasts=3), condition("b", 1, threshold=0.5, lasts=1))
    compiled = program(rule(features=(), when=AllOf(all=["a", "b"])), conditions=parts)
    scores = np.asarray([[1, 0], [0, 1], [0, 1], [0, 1], [1, 0], [0, 1]], np.float64)
    wanted = [False, True, True, False, False, True]
    for cuts in ([6], [1] * 6, [2, 4], [3, 2, 1]):
        lanes, hits, done = lanes_of(compiled), [], 0
        for size in cuts:
            taken = step(compiled, lanes, scores[done : done + size, None], extent(done))
            hits += taken.hits[:, 0, 0].tolist()
            done += size
        assert hits == wanted, cuts


def test_a_combined_rule_waits_until_it_has_held_so_many_tokens():
    compiled = program(
        rule(features=(), when="a", hold=2), conditions=(condition("a", 0, threshold=0.5, lasts=1),)
    )
    lanes = lanes_of(compiled)
    first = step(compiled, lanes, column(1, 0, 1), extent(0))
    second = step(compiled, lanes, column(1, 1, 0), extent(3))
    assert first.stands[:, 0, 0].tolist() == [False, False, False]
    assert second.stands[:, 0, 0].tolist() == [True, True, False]
    assert first.holds[:, 0, 0].tolist() == [True, False, True]


def test_scores_of_a_session_stand_in_for_those_of_the_request():
    compiled = program(rule("a", session=True, threshold=0.5, lengths=LENGTHS), rule("b", threshold=0.5))
    own = InSession(1, np.asarray([[0.7]]), np.asarray([[3]]))
    taken = step(compiled, lanes_of(compiled, 2), np.full((1, 2, 2), 0.6), extent(0, 0), [own])
    assert taken.pooled[0].tolist() == [[0.6, 0.6], [0.7, 0.6]]
    assert taken.hits[0].tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize("lengths", [(), LENGTHS])
def test_the_best_is_the_score_nearest_to_its_threshold(lengths):
    rng = np.random.default_rng(len(lengths))
    compiled = program(rule(threshold=0.5, lengths=lengths))
    scores = rng.normal(0.4, 0.4, 12)
    limits = [0.9 if lengths and n < 2 else 0.5 for n in range(12)]
    lanes, done = lanes_of(compiled), 0
    for size in (1, 4, 1, 6):
        taken = step(compiled, lanes, column(*scores[done : done + size]), extent(done))
        for tokens in range(size + 1):
            seen = range(done + tokens)
            best = max(seen, key=lambda n: scores[n] - limits[n], default=None)
            score, limit = nearest(compiled, lanes, taken, 0, 0, tokens)
            if best is None:
                assert score == -np.inf
            else:
                assert (score, limit) == (scores[best], limits[best])
        settle(compiled, lanes, taken)
        done += size
        best = int(np.argmax(scores[:done] - limits[:done]))
        assert lanes.state["best"][0, 0] == scores[best]


def test_checks_that_do_not_look_at_the_phase_come_no_further():
    compiled = program(rule())
    lanes = lanes_of(compiled)
    lanes.reading[:] = False
    taken = step(compiled, lanes, column(0.9), extent(0))
    assert nearest(compiled, lanes, taken, 0, 0, 1) == (-np.inf, 0.5)
    settle(compiled, lanes, taken)
    assert np.isneginf(lanes.state["best"]).all()
