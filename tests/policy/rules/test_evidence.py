"""Which tokens and features a detection names, against a sort of all of them."""

import numpy as np
import pytest

from monitor.policy.policy import Condition, WeightedFeature
from monitor.policy.policyset import PolicySet
from monitor.policy.schema.expression import AllOf
from monitor.policy.schema.policy import Cumulative
from monitor.records import Phase, Probe
from tests.policy.conftest import block, policy, rule, word

TOKENS, FEATURES = 5, 3
BLOCKS = ([40], [1] * 40, [39, 1], [1] * 20 + [20], [7, 1, 1, 1, 1, 1, 1, 27])


def condition(name, feature, **more):
    return Condition(name, features=(WeightedFeature(feature, 1.0),), threshold=0.5, **more)


def fed(observer, readings, sizes, phase=Phase.PROMPT, start=0):
    """All detections of a text given in blocks of these sizes."""
    found, done = [], 0
    for size in sizes:
        found += observer.observe(block(readings[done : done + size], start + done, phase)).detections
        done += size
    return found


def told(evidence):
    return [
        (each.position, pytest.approx(each.score), [(r.feature, r.reading) for r in each.readings])
        for each in evidence
    ]


def plain(readings, weights, upto):
    """The best tokens of a rule up to a position and what gives most of each, by sorting all."""
    rows = readings[: upto + 1].astype(np.float64)
    scores = {t: float(rows[t] @ weights) for t in range(1, len(rows))}
    best = sorted((t for t in scores if scores[t] > 0), key=lambda t: (-scores[t], t))[:TOKENS]
    found = []
    for t in best:
        parts = rows[t] * weights
        columns = sorted((c for c in range(len(weights)) if parts[c] > 0), key=lambda c: (-parts[c], c))
        found.append((t, scores[t], [(c, float(readings[t, c])) for c in columns[:FEATURES]]))
    return found


@pytest.mark.parametrize("sizes", BLOCKS)
@pytest.mark.parametrize("seed", range(3))
def test_the_best_tokens_and_their_features_are_named(sizes, seed):
    rng = np.random.default_rng(seed)
    weights = rng.normal(0.4, 1.0, 6)
    readings = (rng.exponential(1.0, (40, 6)) * (rng.random((40, 6)) < 0.6)).astype(np.float32)
    readings[-1] = np.where(weights > 0, 200.0, 0.0)
    features = tuple((c, float(weight)) for c, weight in enumerate(weights))
    one = policy(rule(features=features, pooling=Cumulative(), threshold=150.0))
    (found,) = fed(PolicySet((one,), "").start(word), readings, sizes)
    assert found.position == 39
    assert told(found.evidence) == plain(readings, weights, 39)


def test_text_and_id_are_those_of_the_token():
    observer = PolicySet((policy(rule()),), "").start(word)
    (found,) = observer.observe(block([[0], [0.25], [0.75]])).detections
    assert [(each.token_id, each.text) for each in found.evidence] == [(102, "<102>"), (101, "<101>")]


def test_of_tokens_that_score_alike_the_earlier_come_first():
    observer = PolicySet((policy(rule(threshold=3.25, pooling=Cumulative())),), "").start(word)
    (found,) = fed(observer, [[0.5]] * 8, [1] * 8)
    assert [each.position for each in found.evidence] == [1, 2, 3, 4, 5]


def test_probes_score_tokens_and_are_not_named_as_features():
    probe = Probe("p/p", (1.0, 0.5))
    observer = PolicySet((policy(rule(features=(), probe=probe)),), "").start(word)
    (found,) = observer.observe(block([[0], [0.75]])).detections
    assert told(found.evidence) == [(1, 0.75, [])]


def test_a_rules_evidence_begins_anew_with_the_response():
    observer = PolicySet((policy(rule(threshold=0.5)),), "").start(word)
    assert fed(observer, [[0], [0.25], [0.375]], [3]) == []
    (found,) = fed(observer, [[0.125], [0.75]], [1, 1], Phase.RESPONSE, 3)
    assert [each.position for each in found.evidence] == [4, 3]


def test_evidence_of_conditions_is_remembered_from_the_prompt():
    conditions = (condition("asked", 0, phases=(Phase.PROMPT,)), condition("answered", 1))
    one = policy(
        rule(features=(), when=AllOf(all=["asked", "answered"]), phases=(Phase.RESPONSE,)),
        conditions=conditions,
    )
    observer = PolicySet((one,), "").start(word)
    fed(observer, [[0, 0], [0.75, 0], [0.625, 0]], [1, 2])
    (found,) = fed(observer, [[9.0, 0], [0, 0.75]], [1, 1], Phase.RESPONSE, 3)
    assert [(each.condition, each.position) for each in found.evidence] == [
        ("asked", 1),
        ("answered", 4),
        ("asked", 2),
    ]


def test_requests_side_by_side_have_evidence_of_their_own():
    policies = PolicySet((policy(rule(threshold=1.75, pooling=Cumulative())),), "")
    observers = [policies.start(word) for _ in range(20)]
    detections = [[] for _ in observers]
    for t in range(8):
        for n, observer in enumerate(observers):
            reading = 0.5 if (t + n) % 2 else 0.0
            detections[n] += observer.observe(block([[reading]], t)).detections
    for n, found in enumerate(detections):
        active = [t for t in range(1, 8) if (t + n) % 2]
        assert [[each.position for each in own.evidence] for own in found] == (
            [active[:4]] if len(active) == 4 else []
        )
