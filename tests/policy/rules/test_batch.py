"""Requests scored together come out as they do alone, to the last bit."""

import itertools

import numpy as np
import pytest

from monitor.policy.policy import Condition, WeightedFeature
from monitor.policy.policyset import PolicySet
from monitor.policy.schema.expression import AllOf, AnyOf, AtLeast, NotOf
from monitor.policy.schema.policy import Cumulative, Ema, Max, Mean
from monitor.records import (
    Action,
    Blocks,
    Clamp,
    Coverage,
    Failure,
    Mode,
    Phase,
    Probe,
    Signal,
    TokenBlock,
)
from tests.policy.conftest import policy, rule, word

SPECIAL = frozenset({7})
PHASES = ((Phase.PROMPT,), (Phase.RESPONSE,), (Phase.PROMPT, Phase.RESPONSE))


def simple(rng, i, pooling):
    lengths = (
        ((4, 0.9), (20, 0.4), (None, 0.7)) if rng.random() < 0.3 and pooling.kind != "longest_run" else ()
    )
    return rule(
        f"r{i}",
        features=[(int(f), float(rng.normal(0.5, 1))) for f in rng.choice(12, 4, replace=False)],
        pooling=pooling,
        hold=int(rng.integers(1, 4)),
        threshold=float(rng.uniform(0.1, 1.5)) if pooling.kind != "longest_run" else 3.0,
        action=Action(int(rng.integers(1, 4))),
        mode=Mode.ENFORCE if rng.random() < 0.5 else Mode.SHADOW,
        phases=PHASES[rng.integers(3)],
        lengths=lengths,
    )


def conditions(rng):
    poolings = (Max(), Ema(half_life=2.0), Mean(min_tokens=2), Cumulative(allowance=0.2))
    return tuple(
        Condition(
            name,
            phases=PHASES[rng.integers(3)],
            features=tuple(
                WeightedFeature(int(f), float(rng.normal(0.5, 1))) for f in rng.choice(12, 3, replace=False)
            ),
            pooling=poolings[rng.integers(4)],
            threshold=float(rng.uniform(0.2, 1.0)),
            lasts=None if rng.random() < 0.5 else int(rng.integers(1, 6)),
        )
        for name in "abcd"
    )


def random_set(rng, poolings):
    parts = conditions(rng)
    first = policy(
        *(simple(rng, i, pooling) for i, pooling in enumerate(poolings)),
        rule("sig", features=(), signal=Signal.RESIDUAL_NORM, threshold=1.2),
        rule("probe", features=(), probe=Probe("p", (1.0,)), pooling=Ema(half_life=3.0), threshold=0.4),
        clamps=(Clamp(2, -1.0),),
        hold=3,
        release_below=0.5,
    )
    held = policy(
        rule("back", features=((1, 1.0),), threshold=1.0, action=Action.SUPPRESS),
        clamps=(Clamp(1, -2.0),),
        hold=None if rng.random() < 0.5 else int(rng.integers(1, 4)),
        name="w",
    )
    mixed = AnyOf(
        any=[AllOf(all=["a", NotOf.model_validate({"not": "b"})]), AtLeast(at_least=2, of=["b", "c", "d"])]
    )
    second = policy(
        rule("when", features=(), when=AllOf(all=["a", "b"]), action=Action.BLOCK, threshold=0.0),
        rule("mixed", features=(), when=mixed, hold=2, phases=PHASES[rng.integers(3)], threshold=0.0),
        rule("nested", features=(), when=AllOf(all=["e", "d"]), threshold=0.0),
        conditions=(*parts, Condition("e", when=AnyOf(any=["a", "c"]))),
        name="q",
    )
    return PolicySet((first, second, held), "")


def texts(rng, policies, requests):
    """Readings, token ids and the length of the prompt of each request; some readings are not numbers."""
    found = []
    for _ in range(requests):
        length = int(rng.integers(2, 40))
        readings = rng.exponential(0.4, (length, len(policies.watch))) * (
            rng.random((length, len(policies.watch))) < 0.4
        )
        readings[:, policies.watch.column(Probe("p", (1.0,)))] -= 0.3
        if rng.random() < 0.15:
            readings[rng.integers(length), 0] = np.nan
        ids = tuple(int(i) for i in rng.integers(0, 12, length))
        found.append((readings.astype(np.float32), ids, int(rng.integers(1, length + 1))))
    return found


def blocks(rng, readings, ids, prompt):
    """The prompt in a few blocks, now and then one again or one left out, then token by token."""
    cuts = sorted({0, prompt, *(int(c) for c in rng.integers(0, prompt + 1, 2))})
    for a, b in itertools.pairwise(cuts):
        if rng.random() > 0.03:
            yield TokenBlock(Phase.PROMPT, a, ids[a:b], readings[a:b])
        if rng.random() < 0.1:
            yield TokenBlock(Phase.PROMPT, a, ids[a:b], readings[a:b])
    for t in range(prompt, len(ids)):
        yield TokenBlock(Phase.RESPONSE, t, ids[t : t + 1], readings[t : t + 1])


def together(policies, work):
    """Blocks of several requests in one call; where each request stands then."""
    found = policies.rules.observe_batch(Blocks.of([(observer.slot, block) for observer, block in work]))
    return [found.get(i) or observer.decision() for i, (observer, _) in enumerate(work)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_together_is_alone(some_poolings, seed):
    rng = np.random.default_rng(seed)
    policies = random_set(rng, some_poolings)
    requests = [list(blocks(rng, *text)) for text in texts(rng, policies, 12)]
    lengths = [sum(len(b.token_ids) for b in given) for given in requests]
    alone = []
    for given in requests:
        observer = policies.start(word, SPECIAL)
        alone.append((observer, [observer.first, *(observer.observe(b) for b in given)]))
    beside = [policies.start(word, SPECIAL) for _ in requests]
    decisions = [[observer.first] for observer in beside]
    waiting = [list(given) for given in requests]
    ended = set()
    while any(waiting):
        # Requests start and end at different times and now and then miss a pass.
        now = [i for i, left in enumerate(waiting) if left and rng.random() < 0.8]
        work = [(i, waiting[i].pop(0)) for i in rng.permutation(now)]
        for (i, _), said in zip(work, together(policies, [(beside[i], b) for i, b in work]), strict=True):
            decisions[i].append(said)
        for i, left in enumerate(waiting):
            if not left and i not in ended:
                ended.add(i)
                verdict = beside[i].verdict(Coverage(lengths[i], lengths[i]))
                assert verdict == alone[i][0].verdict(Coverage(lengths[i], lengths[i]))
    for (_, one), other in zip(alone, decisions, strict=True):
        assert one == other


def test_nothing_is_said_where_nothing_is_new():
    policies = PolicySet((policy(rule(threshold=0.5)),), "")
    observers = [policies.start(word) for _ in range(3)]
    quiet, loud = (TokenBlock(Phase.PROMPT, 1, (1,), np.asarray([[v]], np.float32)) for v in (0.4, 0.9))
    blocks = [(observers[0].slot, quiet), (observers[1].slot, loud), (observers[2].slot, quiet)]
    for observer in observers:
        observer.observe(TokenBlock(Phase.PROMPT, 0, (1,), np.zeros((1, 1), np.float32)))
    assert list(policies.rules.observe_batch(Blocks.of(blocks))) == [1]


def test_a_rule_that_crashes_takes_nobody_down_silently(monkeypatch):
    policies = PolicySet((policy(rule(threshold=0.5)),), "")
    observers = [policies.start(word) for _ in range(3)]
    start = [TokenBlock(Phase.PROMPT, t, (1,), np.zeros((1, 1), np.float32)) for t in range(2)]
    for observer in observers:
        observer.observe(start[0])
    monkeypatch.setattr("monitor.policy.rules.observer.step", lambda *_: 1 / 0)
    said = together(policies, [(observer, start[1]) for observer in observers])
    assert [one.failure for one in said] == [Failure.RULE_ERROR] * 3
    assert [one.action for one in said] == [Action.BLOCK] * 3
    for observer in observers:
        assert observer.verdict(Coverage(2, 2)).failure is Failure.RULE_ERROR


def test_a_detection_that_cannot_be_told_takes_down_its_own_request_alone():
    def fails(token_id):
        raise ValueError(token_id)

    policies = PolicySet((policy(rule(threshold=0.5)),), "")
    observers = [policies.start(word), policies.start(fails), policies.start(word)]
    readings = np.asarray([[0.0], [0.9]], np.float32)
    said = together(policies, [(o, TokenBlock(Phase.PROMPT, 0, (1, 2), readings)) for o in observers])
    assert [one.failure for one in said] == [None, Failure.RULE_ERROR, None]
    assert [len(one.detections) for one in said] == [1, 0, 1]


def test_slots_of_requests_that_were_dropped_are_used_again():
    policies = PolicySet((policy(rule(threshold=0.5)),), "")
    seen = set()
    for _ in range(5):
        observers = [policies.start(word) for _ in range(20)]
        seen |= {observer.slot for observer in observers}
        for t in range(3):
            rows = np.full((1, 1), 0.1, np.float32)
            together(policies, [(o, TokenBlock(Phase.PROMPT, t, (1,), rows)) for o in observers])
        assert all(o.verdict(Coverage(3, 3)).scores[0].score == pytest.approx(0.1) for o in observers[::2])
    assert len(seen) <= 40


def test_a_request_that_somebody_holds_keeps_its_slot():
    policies = PolicySet((policy(rule(threshold=0.5)),), "")
    held = policies.start(word)
    assert all(policies.start(word).slot != held.slot for _ in range(50))
