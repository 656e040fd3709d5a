"""Conditions combined, against a loop over tokens that follows the words of the documentation."""

import itertools

import numpy as np
import pytest

from monitor.policy.policy import Condition, WeightedFeature
from monitor.policy.policyset import PolicySet
from monitor.policy.rules.explain import explain
from monitor.policy.schema.expression import AllOf, AnyOf, AtLeast, NotOf, holds
from monitor.policy.schema.policy import Cumulative, Ema, Max
from monitor.records import Coverage, Phase
from tests.policy.conftest import block, naive_pooled, policy, rule, word

BOTH = (Phase.PROMPT, Phase.RESPONSE)


def negated(part):
    return NotOf.model_validate({"not": part})


def condition(name, feature, threshold=0.5, **more):
    return Condition(name, features=(WeightedFeature(feature, 1.0),), threshold=threshold, **more)


def combined(when, *conditions, **more):
    return policy(rule("r", features=(), threshold=0.0, when=when, **more), conditions=conditions)


def fired(one, readings, prompt, cuts=()):
    """Position and phase at which the rule fires; None where it does not."""
    observer = PolicySet((one,), "").start(word)
    edges = sorted({0, prompt, len(readings), *cuts})
    for a, b in itertools.pairwise(edges):
        observer.observe(block(readings[a:b], a, Phase.PROMPT if a < prompt else Phase.RESPONSE))
    found = observer.verdict(Coverage(len(readings), len(readings))).detections
    return [(d.phase, d.position) for d in found]


def expected(one, readings, prompt):
    """The first token of each of its phases at which the rule's expression has held `for` tokens in a row."""
    (own,) = one.rules
    columns = PolicySet((one,), "").watch
    pooled = {}
    for part in one.conditions:
        if part.when is None:
            scores = [float(np.float32(row[columns.column(part.features[0].index)])) for row in readings]
            halves = (scores[1:prompt], scores[prompt:])
            pooled[part.name] = [-np.inf] + [
                v for h in halves for v in naive_pooled(h, part.pooling, part.hold)
            ]
    until = dict.fromkeys(pooled, -1.0)
    by_name = {part.name: part for part in one.conditions}
    found, streak, before = [], 0, None
    for t in range(1, len(readings)):
        phase = Phase.PROMPT if t < prompt else Phase.RESPONSE
        streak = streak if phase is before else 0
        before = phase
        for name, values in pooled.items():
            part = by_name[name]
            if phase in part.phases and values[t] >= part.threshold:
                until[name] = np.inf if part.lasts is None else t + part.lasts - 1

        def reached(name, t=t):
            inner = by_name[name].when
            return until[name] >= t if inner is None else holds(inner, reached)

        streak = streak + 1 if holds(own.when, reached) else 0
        if streak >= own.hold and phase in own.phases and phase not in {p for p, _ in found}:
            found.append((phase, t))
    return found


FORMS = [
    AllOf(all=["a", "b"]),
    AnyOf(any=["a", AllOf(all=["b", "c"])]),
    AllOf(all=["a", negated("b")]),
    AtLeast(at_least=2, of=["a", "b", "c"]),
    AllOf(all=["a", negated(AnyOf(any=["b", negated("c")]))]),
    AnyOf(any=["d", AllOf(all=["b", negated("a")])]),
]


@pytest.mark.parametrize("seed", range(60))
def test_rules_fire_where_the_words_say(seed):
    rng = np.random.default_rng(seed)
    poolings = (Max(), Ema(half_life=2.0), Cumulative(allowance=0.3))
    phases = ((Phase.PROMPT,), (Phase.RESPONSE,), BOTH)
    parts = [
        condition(
            name,
            feature,
            float(rng.uniform(0.4, 1.2)),
            pooling=poolings[rng.integers(3)],
            hold=int(rng.integers(1, 3)),
            lasts=None if rng.random() < 0.4 else int(rng.integers(1, 8)),
            phases=phases[rng.integers(3)],
        )
        for feature, name in enumerate("abc")
    ]
    one = combined(
        FORMS[seed % len(FORMS)],
        *parts,
        Condition("d", when=AllOf(all=["b", "c"])),
        hold=int(rng.integers(1, 4)),
        phases=phases[rng.integers(3)],
    )
    length = int(rng.integers(3, 40))
    prompt = int(rng.integers(1, length))
    readings = rng.exponential(0.4, (length, 3)).astype(np.float32)
    wanted = expected(one, readings, prompt)
    assert fired(one, readings, prompt) == wanted
    assert fired(one, readings, prompt, range(length)) == wanted


def test_the_random_cases_above_do_fire():
    rng = np.random.default_rng(0)
    one = combined(FORMS[0], condition("a", 0), condition("b", 1))
    readings = rng.exponential(0.4, (30, 2)).astype(np.float32)
    assert fired(one, readings, 20)


def test_a_condition_is_remembered_from_the_prompt_to_the_response():
    one = combined(
        AllOf(all=["asked", "answered"]),
        condition("asked", 0, phases=(Phase.PROMPT,)),
        condition("answered", 1, phases=(Phase.RESPONSE,)),
        phases=(Phase.RESPONSE,),
    )
    assert fired(one, [[0, 0], [1, 1], [0, 0], [0, 0], [0, 1]], 2) == [(Phase.RESPONSE, 4)]
    assert fired(one, [[0, 0], [0, 1], [1, 0], [0, 0], [0, 1]], 2) == []


def test_detections_and_scores_show_every_condition():
    one = combined(
        AllOf(all=["secret", negated("user")]), condition("secret", 3, 0.5), condition("user", 7, 0.4)
    )
    observer = PolicySet((one,), "").start(word)
    (found,) = observer.observe(block([[0, 0], [0.2, 0.1], [0.9, 0.3]])).detections
    assert [(c.name, c.score, c.threshold, c.reached) for c in found.conditions] == [
        ("secret", pytest.approx(0.9), 0.5, True),
        ("user", pytest.approx(0.3), 0.4, False),
    ]
    assert (found.score, found.threshold) == (pytest.approx(0.1), 0.0)
    assert {e.condition for e in found.evidence} == {"secret"}
    assert [e.position for e in found.evidence] == [2, 1]
    observer.observe(block([[0, 0.8]], 3))
    (score,) = observer.verdict(Coverage(4, 4)).scores
    assert score.score == pytest.approx(-0.4)
    assert [c.reached for c in score.conditions] == [True, True]


def test_explain_shows_every_condition():
    one = combined(AllOf(all=["secret", "user"]), condition("secret", 3, 0.5), condition("user", 7, 0.4))
    (told,) = explain((one,), np.asarray([[0, 0], [0.9, 0.1]], np.float32), Phase.PROMPT)
    assert (told.fired, told.tokens) == (False, ())
    assert [(p.name, p.reached, p.threshold) for p in told.parts] == [
        ("secret", True, 0.5),
        ("user", False, 0.4),
    ]
    assert told.score == pytest.approx(-0.3)
    assert [(t.position, [f.feature for f in t.features]) for t in told.parts[0].tokens] == [(1, [3])]


def test_thresholds_follow_the_length_of_the_phase():
    lengths = ((2, 0.9), (4, 0.5), (None, 0.2))
    one = policy(rule(threshold=0.2, lengths=lengths))
    series = [[9], [0.6], [0.6], [0.6], [0.3], [0.3]]
    observer = PolicySet((one,), "").start(word)
    (found,) = observer.observe(block(series)).detections
    assert (found.position, found.threshold) == (3, 0.5)
    quiet = PolicySet((one,), "").start(word)
    quiet.observe(block([[9], [0.6], [0.6], [0.1], [0.1], [0.15]]))
    (score,) = quiet.verdict(Coverage(6, 6)).scores
    assert (score.score, score.threshold) == (pytest.approx(0.15), 0.2)
    late = PolicySet((one,), "").start(word)
    assert [d.position for t in range(6) for d in late.observe(block(series[t : t + 1], t)).detections] == [3]
