"""Evidence of every detection against its definition: of the tokens so far the best, and the features that gave most.

Weights and readings are such that all sums are exact and many are equal, so that ties are told apart as well.
"""

import itertools

import numpy as np
import pytest

from monitor.policy.policy import Condition, WeightedFeature
from monitor.policy.policyset import PolicySet
from monitor.policy.rules import evidence, weights
from monitor.policy.rules.explain import explain
from monitor.policy.rules.sessions import SessionStore
from monitor.policy.schema.expression import AllOf, AnyOf, AtLeast
from monitor.policy.schema.policy import Cumulative, LongestRun, Max, Mean, TopKMean
from monitor.records import UNREAD, Action, Blocks, Clamp, Coverage, Failure, Phase, Probe, Signal, TokenBlock
from tests.policy.conftest import policy, rule, word

FEATURES, SPECIAL = 12, frozenset({7})
PHASES = ((Phase.PROMPT,), (Phase.RESPONSE,), (Phase.PROMPT, Phase.RESPONSE))
WEIGHTS, READINGS = (-1.0, 0.5, 0.5, 1.0, 2.0), (0.25, 0.25, 0.5, 1.0)
SMALL = {
    "as it is": {},
    "nothing waits": {"evidence._MOST_BYTES": 0},
    "little waits": {"evidence._MOST_BYTES": 20_000},
    "few at a time": {"weights._TOGETHER": 3, "weights._CACHED": 64},
}


def read(rng):
    """Features that a check reads."""
    return [(int(f), float(rng.choice(WEIGHTS))) for f in rng.choice(FEATURES, 5, replace=False)]


def late(rng):
    """A pooling and a threshold that is reached after a token, or after many."""
    kinds = (Max(), Mean(min_tokens=4), TopKMean(k=5), Cumulative(allowance=0.25), LongestRun(level=0.25))
    kind = kinds[rng.integers(len(kinds))]
    return {"pooling": kind, "threshold": float(rng.choice((0.5, 1.5, 3.0)))}


def random_set(rng, sessions=None, *, conditions=True):
    simple = [
        rule(
            f"r{i}",
            features=read(rng),
            action=Action(int(rng.integers(1, 4))),
            phases=PHASES[rng.integers(3)],
            session=sessions is not None and bool(rng.random() < 0.5),
            **late(rng),
        )
        for i in range(6)
    ]
    simple.append(
        rule("all", features=[(f, 1.0) for f in range(FEATURES)], pooling=Cumulative(), threshold=25.0)
    )
    simple.append(rule("probe", features=(), probe=Probe("p", (1.0,)), **late(rng)))
    mine = np.random.default_rng(rng.integers(1000))
    told = tuple(WeightedFeature(*pair) for pair in read(mine))
    both = {"probe": Probe("q", (2.0,)), "explains": told}
    simple.append(rule("explained", features=(), **both, **late(mine)))
    simple.append(rule("combined", features=read(mine), **both, **late(mine)))
    simple.append(rule("signal", features=(), signal=Signal.RESIDUAL_NORM, **late(rng)))
    sets = [policy(*simple)]
    if conditions:
        parts = [
            Condition(
                name,
                phases=PHASES[rng.integers(3)],
                features=tuple(WeightedFeature(*pair) for pair in read(rng)),
                lasts=None if rng.random() < 0.6 else 3,
                **late(rng),
            )
            for name in "abc"
        ]
        either = AnyOf(any=["a", AllOf(all=["b", "c"])])
        most = AtLeast(at_least=2, of=["a", "b", "c"])
        combined = [
            rule(f"w{i}", features=(), threshold=0.0, when=when, phases=PHASES[rng.integers(1, 3)])
            for i, when in enumerate((either, most))
        ]
        sets.append(policy(*combined, conditions=tuple(parts), name="q"))
    return PolicySet(tuple(sets), "", sessions=sessions)


def text(rng, policies, longest):
    """Readings, token ids and the length of the prompt."""
    length = int(rng.integers(3, longest))
    shape = (length, len(policies.watch))
    readings = rng.choice(READINGS, shape) * (rng.random(shape) < 0.3)
    return readings.astype(np.float32), rng.integers(0, 12, length).tolist(), int(rng.integers(2, length + 1))


def blocks(rng, readings, ids, prompt):
    """A prompt in pieces of one token or of many, and a response mostly token by token."""
    cuts = {0, prompt, len(ids), *rng.integers(0, len(ids), 3).tolist()}
    if rng.random() < 0.3:
        cuts |= set(rng.integers(0, prompt, prompt // 2 + 1).tolist())
    if rng.random() < 0.8:
        cuts |= set(range(prompt, len(ids)))
    for a, b in itertools.pairwise(sorted(cuts)):
        yield TokenBlock(Phase.PROMPT if a < prompt else Phase.RESPONSE, a, tuple(ids[a:b]), readings[a:b])


class Reference:
    """The evidence of checks in one text."""

    def __init__(self, policies, readings, ids, prompt):
        self.policies, self.readings, self.ids = policies, readings, ids
        self.counted = [t for t in range(1, len(ids)) if ids[t] not in SPECIAL]
        self.prompt = prompt

    def shares(self, check, t):
        """(what it gives, column) of everything that a check reads at a token."""
        watch, row = self.policies.watch, self.readings[t].tolist()
        found = [(f.weight * row[watch.column(f.index)], watch.column(f.index)) for f in check.features]
        found += [
            (row[watch.column(o)], watch.column(o)) for o in (check.probe, check.signal) if o is not None
        ]
        return found

    def best(self, check, phases, until):
        """(position, score, named features with their readings) of the best tokens up to one, of some phases."""
        scored = []
        for t in self.counted:
            phase = Phase.PROMPT if t < self.prompt else Phase.RESPONSE
            if t <= until and phase in phases and phase in check.phases:
                scored.append((-sum(share for share, _ in self.shares(check, t)), t))
        return [(t, -score, self.named(check, t)) for score, t in sorted(scored)[:5] if score < 0]

    def named(self, check, t):
        features = self.policies.watch.features
        gives = dict.fromkeys(range(len(features)), 0.0)
        for share, column in self.shares(check, t):
            if column < len(features):
                gives[column] += share
        for one in check.explains:
            column = self.policies.watch.column(one.index)
            gives[column] += one.weight * float(self.readings[t, column])
        order = sorted((-share, column) for column, share in gives.items() if share > 0)
        columns = [column for _, column in order]
        return [(features[c], float(self.readings[t, c])) for c in columns[:3]]

    def same(self, detection):
        """Check the evidence of a detection."""
        owner = next(p for p in self.policies.policies if p.name == detection.policy)
        spec = next(r for r in owner.rules if r.name == detection.rule)
        if spec.when is None:
            assert told(detection.evidence) == self.best(spec, [detection.phase], detection.position)
            return
        held = {one.name for one in detection.conditions if one.reached}
        lists = {
            part.name: self.best(part, list(Phase), detection.position)
            for part in owner.conditions
            if part.name in held
        }
        for name, wanted in lists.items():
            mine = told(e for e in detection.evidence if e.condition == name)
            assert mine == wanted[: len(mine)]
        assert len(detection.evidence) == min(5, sum(map(len, lists.values())))
        assert {e.condition for e in detection.evidence} <= held


def told(found):
    return [(e.position, e.score, [(r.feature, r.reading) for r in e.readings]) for e in found]


def run(rng, policies, texts, **more):
    """Texts in company, each with its blocks at times of its own; all verdicts."""
    judges = [policies.start(word, SPECIAL, **more) for _ in texts]
    waiting = [list(blocks(rng, *one)) for one in texts]
    while any(waiting):
        now = [i for i, left in enumerate(waiting) if left and rng.random() < 0.7]
        work = [(judges[i].slot, waiting[i].pop(0)) for i in rng.permutation(now)]
        if work:
            policies.rules.observe_batch(Blocks.of(work))
    lengths = [len(ids) for _, ids, _ in texts]
    return [judge.verdict(Coverage(n, n)) for judge, n in zip(judges, lengths, strict=True)]


@pytest.fixture(params=SMALL.values(), ids=SMALL.keys())
def limits(request, monkeypatch):
    """Sizes that decide when something is done; they must not change what comes of it."""
    for name, value in request.param.items():
        monkeypatch.setattr(f"monitor.policy.rules.{name}", value)


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("conditions", [False, True], ids=["rules", "conditions"])
@pytest.mark.parametrize("seed", range(4))
def test_evidence_is_of_the_best_tokens_so_far(seed, conditions):
    rng = np.random.default_rng(seed)
    policies, found, features = random_set(rng, conditions=conditions), 0, 0
    for longest in (8, 30, 90):  # slots are used again by the next texts
        texts = [text(rng, policies, longest) for _ in range(5)]
        for verdict, one in zip(run(rng, policies, texts), texts, strict=True):
            assert verdict.failure is None
            for detection in verdict.detections:
                Reference(policies, *one).same(detection)
                found += len(detection.evidence) == 5
                features += sum(len(e.readings) for e in detection.evidence)
    assert found > 10
    assert features > 30


@pytest.mark.usefixtures("limits")
def test_evidence_of_a_session_is_of_its_newest_request():
    rng = np.random.default_rng(3)
    policies, found = random_set(rng, SessionStore(), conditions=False), 0
    for _ in range(4):
        one = text(rng, policies, 40)
        (verdict,) = run(rng, policies, [one], session="s")
        for detection in verdict.detections:
            Reference(policies, *one).same(detection)
            found += bool(detection.evidence)
    assert found > 3


def test_of_equal_tokens_the_earliest_are_kept():
    """Eight equal tokens and a better one at the end, in blocks and one by one."""
    policies = PolicySet((policy(rule(features=((3, 1.0),), pooling=Cumulative(), threshold=4.5)),), "")
    readings = np.asarray([[0.0], *8 * [[0.5]], [1.0]], np.float32)
    for cuts in ((0, 10), (0, 4, 10), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10), (0, 1, 6, 7, 8, 9, 10)):
        judge, found = policies.start(word), []
        for a, b in itertools.pairwise(cuts):
            found += judge.observe(
                TokenBlock(Phase.PROMPT, a, tuple(range(20 + a, 20 + b)), readings[a:b])
            ).detections
        assert [e.position for e in found[0].evidence] == [9, 1, 2, 3, 4]


def test_what_waits_of_prompts_is_bounded_and_let_go(monkeypatch):
    """Blocks of prompts wait in memory; not beyond a bound, and not beyond the phase that they are of."""
    monkeypatch.setattr(evidence, "_MOST_BYTES", 40_000)
    policies = PolicySet((policy(rule(threshold=99.0)),), "")
    store = policies.rules._store
    held = [policies.start(word) for _ in range(30)]
    for judge in held:
        judge.observe(TokenBlock(Phase.PROMPT, 0, (1,) * 100, np.full((100, 1), 0.5, np.float32)))
        assert store._size == sum(block.size for block in store._blocks) <= 40_000
    assert store._blocks
    for judge in held:
        judge.observe(TokenBlock(Phase.RESPONSE, 100, (1,), np.full((1, 1), 0.5, np.float32)))
    held[0].observe(TokenBlock(Phase.RESPONSE, 101, (1, 1), np.full((2, 1), 0.5, np.float32)))
    assert len(store._blocks) == 1
    del judge
    held.clear()
    policies.start(word).observe(TokenBlock(Phase.PROMPT, 0, (1, 1), np.full((2, 1), 0.5, np.float32)))
    assert len(store._blocks) == 1


def test_a_row_scores_the_same_whatever_stands_beside_it():
    """To the last bit, though a pass of many rows is scored in another way than one of few."""
    rng = np.random.default_rng(0)
    policies = PolicySet((policy(*(rule(f"r{i}", features=read(rng)) for i in range(20))),), "")
    rows = (rng.exponential(0.4, (3 * weights._TOGETHER, len(policies.watch)))).astype(np.float32)
    table = policies.rules.program.weights
    whole = table.scored(weights.active(rows)).scores
    for few in (rows[:1], rows[: weights._TOGETHER], rows[: weights._TOGETHER + 1]):
        assert (table.scored(weights.active(few)).scores == whole[: len(few)]).all()


def test_what_no_tap_wrote_spoils_no_other_request():
    """Infinite readings in a pass, some of them of a feature that is clamped and that no rule reads."""
    policies = PolicySet((policy(rule(threshold=0.5), clamps=(Clamp(9, -1.0),)),), "")
    assert len(policies.watch) == 2
    judges = [policies.start(word) for _ in range(2)]
    good = np.asarray([[0.0, 0.0], [0.9, 0.4]], np.float32)
    bad = np.full((2, 2), UNREAD, np.float32)
    blocks = [
        (judge.slot, TokenBlock(Phase.PROMPT, 0, (1, 2), rows))
        for judge, rows in zip(judges, (good, bad), strict=True)
    ]
    found = policies.rules.observe_batch(Blocks.of(blocks))
    assert [e.score for e in found[0].detections[0].evidence] == [pytest.approx(0.9)]
    assert found[1].failure is Failure.TAP_MISSED


@pytest.mark.parametrize("seed", range(3))
def test_explanations_name_the_same_tokens_and_features(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    policies = random_set(rng)
    readings, _, _ = text(rng, policies, 60)
    monkeypatch.setattr(weights, "_TOGETHER", 1 + 40 * (seed % 2))
    wanted = Reference(policies, readings, [0] * len(readings), len(readings))
    found = {
        (one.policy.name, one.rule.name): one for one in explain(policies.policies, readings, Phase.PROMPT)
    }
    shown = 0
    for owner in policies.policies:
        checks = [(one.name, one) for one in owner.rules if one.when is None and Phase.PROMPT in one.phases]
        for name, check in checks:
            tokens = found[owner.name, name].tokens
            told = [(t.position, t.score, [(r.feature, r.reading) for r in t.features]) for t in tokens]
            assert told == wanted.best(check, [Phase.PROMPT], len(readings))
            shown += len(told)
    assert shown > 10


def test_text_and_id_are_those_of_the_token():
    observer = PolicySet((policy(rule()),), "").start(word)
    block = TokenBlock(Phase.PROMPT, 0, (100, 101, 102), np.asarray([[0], [0.25], [0.75]], np.float32))
    (found,) = observer.observe(block).detections
    assert [(each.token_id, each.text) for each in found.evidence] == [(102, "<102>"), (101, "<101>")]
