"""The rules as arrays against the rules by their definitions: one token at a time, in plain float64."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.policy.policy import Condition, WeightedFeature
from monitor.policy.policyset import PolicySet
from monitor.policy.schema.expression import AllOf, AnyOf, AtLeast, NotOf, holds
from monitor.policy.schema.policy import Cumulative, Ema, LongestRun, Max, Mean, TopKMean
from monitor.records import Action, Blocks, Clamp, Coverage, Failure, Mode, Phase, TokenBlock
from tests.policy.conftest import naive_pooled, policy, rule, word

FEATURES = 8
SPECIAL = frozenset({7})
BOTH = (Phase.PROMPT, Phase.RESPONSE)
LENGTHS = (((3, 0.9), (20, 0.4), (None, 0.7)), ((70, 0.5), (None, 0.2)))
EXPRESSIONS = (
    AllOf(all=["a", "b"]),
    AnyOf(any=["a", AllOf(all=["b", "c"])]),
    AllOf(all=["a", NotOf.model_validate({"not": "b"})]),
    AtLeast(at_least=2, of=["a", "b", "c"]),
    AllOf(all=["d", NotOf.model_validate({"not": "c"})]),
)


@st.composite
def checks(draw):
    """What is read, pooled and compared."""
    read = draw(st.lists(st.integers(0, FEATURES - 1), min_size=1, max_size=3, unique=True))
    weights = draw(st.lists(st.sampled_from([-0.7, 0.3, 1.0, 1.9]), min_size=len(read), max_size=len(read)))
    pooling = draw(
        st.sampled_from(
            [
                Max(),
                Mean(min_tokens=1),
                Mean(),
                TopKMean(k=1),
                TopKMean(k=3),
                Ema(half_life=0.05),
                Ema(half_life=1.5),
                Ema(half_life=12.0),
                LongestRun(level=0.3),
                Cumulative(),
                Cumulative(allowance=0.4),
            ]
        )
    )
    run = isinstance(pooling, LongestRun)
    lengths = () if run or draw(st.booleans()) else draw(st.sampled_from(LENGTHS))
    return {
        "features": tuple(WeightedFeature(f, w) for f, w in zip(read, weights, strict=True)),
        "pooling": pooling,
        "hold": draw(st.sampled_from([1, 1, 2, 5])),
        "threshold": lengths[-1][1] if lengths else 3.0 if run else draw(st.sampled_from([0.2, 0.6, 1.4])),
        "lengths": lengths,
        "phases": draw(st.sampled_from([(Phase.PROMPT,), (Phase.RESPONSE,), BOTH, BOTH])),
    }


@st.composite
def sets(draw):
    """Policies of every kind of check, with conditions combined and clamps that end."""
    simple = []
    for number, fields in enumerate(draw(st.lists(checks(), min_size=1, max_size=5))):
        made = {**fields, "features": tuple((f.index, f.weight) for f in fields["features"])}
        action = draw(st.sampled_from([Action.ALERT, Action.SUPPRESS]))
        simple.append(rule(f"r{number}", action=action, mode=Mode.ENFORCE, **made))
    every = rule("every", features=[(f, 0.001) for f in range(FEATURES)], threshold=99.0)
    hold = draw(st.sampled_from([None, 1, 4]))
    first = policy(
        *simple, every, clamps=(Clamp(0, -1.0),), hold=hold, release_below=0.5 if hold else 1.0, name="p"
    )
    parts = [
        Condition(name, lasts=draw(st.sampled_from([None, 1, 3])), **fields)
        for name, fields in zip("abc", draw(st.lists(checks(), min_size=3, max_size=3)), strict=True)
    ]
    combined = [
        rule(
            f"w{number}",
            features=(),
            threshold=0.0,
            when=draw(st.sampled_from(EXPRESSIONS)),
            hold=draw(st.sampled_from([1, 2, 4])),
            phases=draw(st.sampled_from([(Phase.RESPONSE,), BOTH])),
        )
        for number in range(2)
    ]
    conditions = (*parts, Condition("d", when=AnyOf(any=["a", "b"])))
    return PolicySet((first, policy(*combined, conditions=conditions, name="q")), "")


class Reference:
    """One request, all of whose tokens are known."""

    def __init__(self, policies, readings, ids, prompt):
        self.policies, self.readings, self.prompt = policies, readings, prompt
        counted = [t for t in range(1, len(ids)) if ids[t] not in SPECIAL]
        self.places = {
            Phase.PROMPT: [t for t in counted if t < prompt],
            Phase.RESPONSE: [t for t in counted if t >= prompt],
        }

    def score(self, check, t):
        row = self.readings[t]
        return sum(f.weight * float(row[f.index]) for f in check.features)

    def course(self, check, phase):
        """(position, pooled score, threshold) after each token of a phase."""
        places = self.places[phase]
        pooled = naive_pooled([self.score(check, t) for t in places], check.pooling, check.hold)
        found = []
        for n, (t, value) in enumerate(zip(places, pooled, strict=True), 1):
            limit = next((v for up_to, v in check.lengths if up_to is None or n <= up_to), check.threshold)
            found.append((t, value, limit))
        return found

    def evidence(self, check, phases, until):
        """Positions of the best tokens up to one, of some phases."""
        places = [t for p in phases if p in check.phases for t in self.places[p] if t <= until]
        scored = [(-self.score(check, t), t) for t in places]
        return [t for score, t in sorted(scored)[:5] if score < 0]

    def detections(self):
        """(policy, rule, phase, position, score, evidence) of everything that fires."""
        found = []
        for own in self.policies.policies:
            held = self.conditions(own)
            for one in own.rules:
                for phase in one.phases:
                    hit = (
                        self.simple(one, phase) if one.when is None else self.combined(own, one, phase, held)
                    )
                    if hit is not None:
                        found.append((own.name, one.name, phase, *hit))
        return found

    def simple(self, one, phase):
        for t, value, limit in self.course(one, phase):
            if value >= limit:
                return t, value, self.evidence(one, [phase], t)
        return None

    def conditions(self, own):
        """Which conditions hold after each token."""
        reached = {}
        for part in own.conditions:
            if part.when is None:
                reached[part.name] = {
                    t
                    for phase in part.phases
                    for t, value, limit in self.course(part, phase)
                    if value >= limit
                }
        until, held = dict.fromkeys(reached, -1.0), {}
        order = [*self.places[Phase.PROMPT], *self.places[Phase.RESPONSE]]
        by_name = {part.name: part for part in own.conditions}
        for clock, t in enumerate(order):
            for name, places in reached.items():
                if t in places:
                    lasts = by_name[name].lasts
                    until[name] = np.inf if lasts is None else clock + lasts - 1
            held[t] = {name for name in reached if until[name] >= clock}
            for part in own.conditions:
                if part.when is not None and holds(part.when, held[t].__contains__):
                    held[t] = held[t] | {part.name}
        return held

    def combined(self, own, one, phase, held):
        streak = 0
        for t in self.places[phase]:
            streak = streak + 1 if holds(one.when, held[t].__contains__) else 0
            if streak >= one.hold:
                return t, None, None
        return None

    def best(self, one, phase):
        """The pooled score nearest to its threshold; None where no token counted."""
        found = [(value - limit, -t, value) for t, value, limit in self.course(one, phase)]
        finite = [entry for entry in found if np.isfinite(entry[0])]
        if not finite:
            return None
        return max(finite)[2] if one.lengths else max(value for _, _, value in finite)


def request(rng, longest):
    length = int(rng.integers(2, longest))
    readings = rng.exponential(0.4, (length, FEATURES)) * (rng.random((length, FEATURES)) < 0.5)
    return readings.astype(np.float32), rng.integers(0, 12, length).tolist(), int(rng.integers(1, length + 1))


def blocks(rng, readings, ids, prompt):
    """A prompt in pieces of any size, and a response in pieces of one token or a few."""
    cuts = {0, prompt, len(ids), *rng.integers(0, len(ids), int(rng.integers(0, 6))).tolist()}
    if rng.random() < 0.7:
        cuts |= set(range(prompt, len(ids)))
    for a, b in itertools.pairwise(sorted(cuts)):
        phase = Phase.PROMPT if a < prompt else Phase.RESPONSE
        yield TokenBlock(phase, a, tuple(ids[a:b]), readings[a:b])


def judged(policies, rng, requests):
    """Verdicts after blocks of random requests went through in random company."""
    judges = [policies.start(word, SPECIAL) for _ in requests]
    waiting = [list(blocks(rng, *one)) for one in requests]
    while any(waiting):
        now = [i for i, left in enumerate(waiting) if left and rng.random() < 0.7]
        work = [(judges[i].slot, waiting[i].pop(0)) for i in rng.permutation(now)]
        if work:
            policies.rules.observe_batch(Blocks.of(work))
    return [
        judge.verdict(Coverage(len(ids), len(ids)))
        for judge, (_, ids, _) in zip(judges, requests, strict=True)
    ]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(sets(), st.integers(0, 2**32 - 1), st.sampled_from([12, 40, 200]))
def test_arrays_say_what_the_definitions_say(policies, seed, longest):
    rng = np.random.default_rng(seed)
    requests = [request(rng, longest) for _ in range(int(rng.integers(1, 7)))]
    for verdict, (readings, ids, prompt) in zip(judged(policies, rng, requests), requests, strict=True):
        wanted = Reference(policies, readings, ids, prompt)
        assert verdict.failure is (None if any(wanted.places.values()) else Failure.NOT_JUDGED)
        same_detections(verdict, wanted)
        same_scores(verdict, wanted)


def same_detections(verdict, wanted):
    found = {(d.policy, d.rule, d.phase): d for d in verdict.detections}
    expected = {entry[:3]: entry[3:] for entry in wanted.detections()}
    assert {key: d.position for key, d in found.items()} == {key: e[0] for key, e in expected.items()}
    for key, (_, score, evidence) in expected.items():
        if score is not None:
            assert found[key].score == pytest.approx(score, abs=1e-6)
            assert [token.position for token in found[key].evidence] == evidence


def same_scores(verdict, wanted):
    own = wanted.policies.policies[0]
    rules = {one.name: one for one in own.rules}
    found = {(s.rule, s.phase): s.score for s in verdict.scores if s.policy == own.name}
    best = {(n, phase): wanted.best(one, phase) for n, one in rules.items() for phase in one.phases}
    assert found == pytest.approx({key: score for key, score in best.items() if score is not None}, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(checks(), st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_sessions_pool_over_requests_as_over_one_long_text(fields, seed, requests):
    rng = np.random.default_rng(seed)
    made = {**fields, "features": tuple((f.index, f.weight) for f in fields["features"]), "phases": BOTH}
    policies = PolicySet((policy(rule("s", session=True, **made)),), "")
    width, series, ids = len(policies.watch), [], itertools.count(20)
    columns = {f: policies.watch.column(f) for f in policies.watch.features}
    for number in range(requests):
        length = int(rng.integers(2, 30))
        readings = (rng.exponential(0.4, (length, width)) * (rng.random((length, width)) < 0.6)).astype(
            np.float32
        )
        judge = policies.start(word, session="s")
        cuts = sorted({0, length, int(rng.integers(0, length))})
        own = [0, *(next(ids) for _ in range(length - 1))]
        for a, b in itertools.pairwise(cuts):
            judge.observe(TokenBlock(Phase.PROMPT, a, tuple(own[a:b]), readings[a:b]))
        before = len(series)
        series += [
            sum(f.weight * float(row[columns[f.index]]) for f in fields["features"]) for row in readings[1:]
        ]
        pooled = naive_pooled(series, fields["pooling"], fields["hold"])
        limits = [
            next((v for up_to, v in fields["lengths"] if up_to is None or n <= up_to), fields["threshold"])
            for n in range(1, len(series) + 1)
        ]
        hits = [n for n in range(before, len(series)) if pooled[n] >= limits[n]]
        found = judge.verdict(Coverage(length, length)).detections
        assert [d.position for d in found] == [hits[0] - before + 1 if hits else 0][: len(hits[:1])], number
        for one in found:
            assert one.score == pytest.approx(pooled[hits[0]], abs=1e-6)
