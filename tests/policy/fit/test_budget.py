"""A budget shared over rules: what it promises on texts that set no threshold, and what it says of the rest."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import lfilter

from monitor.errors import PolicyError
from monitor.policy.fit.budget import (
    BenignScores,
    BudgetRule,
    clopper_pearson,
    share_budget,
    sufficient_texts,
    written_up,
)
from monitor.policy.fit.lengths import NEVER, bucket_maxima

EDGES = (16, 48, 128)
KINDS = ("code", "prose")


def rules(count, **more):
    return [BudgetRule(f"p{i}", "r", 0.5, **more) for i in range(count)]


def courses(rng, length, count, overlap):
    """Moving averages of noise, one for each rule, that share a part `overlap` of their variance."""
    noise = np.sqrt(1 - overlap) * rng.normal(size=(length, count))
    noise += np.sqrt(overlap) * rng.normal(size=(length, 1))
    return lfilter([0.6], [1.0, -0.8], noise, axis=0)


def drawn(seed, texts, count, overlap=0.0, longest=300, pairs=False, shift=0.3):
    """Benign texts of two kinds and all lengths; on code the first rule scores higher."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.uniform(np.log(4), np.log(longest), texts)).astype(int)
    kinds = [KINDS[i % 2] for i in range(texts)]
    found = [courses(rng, int(n), count, overlap) for n in lengths]
    for kind, course in zip(kinds, found, strict=True):
        course[:, 0] += shift * (kind == "code")
    best = np.stack([bucket_maxima([c[:, r] for c in found], EDGES).best for r in range(count)], axis=1)
    both = np.arange(texts) // 2
    return BenignScores(
        best=best,
        edges=EDGES,
        lengths=lengths,
        responses=both % 2 == 1 if not pairs else np.arange(texts) // 2 % 2 == 1,
        kinds=kinds,
        requests=np.arange(texts) if not pairs else np.arange(texts) // 4 * 2 + np.arange(texts) % 2,
        groups=np.arange(texts) // 4,
    )


def fires(scores, found):
    """`[parts, rules]` which rules fire, by the thresholds as a server applies them."""
    out = np.zeros(scores.best.shape[:2], bool)
    ends = (*scores.edges, np.inf)
    for r, pairs in enumerate(found.thresholds):
        for bucket, end in enumerate(ends):
            limit = next(v for up_to, v in pairs if up_to is None or end <= up_to)
            out[:, r] |= scores.best[:, r, bucket] >= limit
    return out


def singles(scores, found):
    """How often single rules fire, added up."""
    return float(fires(scores, found).mean(axis=0).sum())


@pytest.fixture(scope="module")
def scored():
    return drawn(0, 2400, 6)


@pytest.fixture(scope="module")
def shared(scored):
    return share_budget(rules(6), scored, 0.02)


@pytest.mark.parametrize("overlap", [0.0, 0.9])
def test_the_union_holds_for_every_length_and_every_kind_on_texts_that_set_no_threshold(overlap):
    budget, seen = 0.02, {}
    for seed in range(4):
        found = share_budget(rules(6), drawn(seed, 2400, 6, overlap), budget)
        fresh = drawn(100 + seed, 6000, 6, overlap)
        union, kinds = fires(fresh, found).any(axis=1), np.asarray(fresh.kinds)
        for kind in KINDS:
            seen.setdefault(kind, []).append(union[kinds == kind].mean())
            for bucket in range(4):
                mine = fresh.classes == bucket
                seen.setdefault((kind, bucket), []).append(union[mine & (kinds == kind)].mean())
                seen.setdefault(bucket, []).append(union[mine].mean())
    shares = {cell: np.mean(found) for cell, found in seen.items()}
    both = {cell: share for cell, share in shares.items() if isinstance(cell, tuple)}
    assert max(share for cell, share in shares.items() if cell not in both) < 1.1 * budget
    assert max(both.values()) < 1.5 * budget, "one kind at one length has few texts"
    assert max(shares.values()) > 0.4 * budget, "and the budget is used"


def test_rules_that_each_take_the_whole_rate_would_not_hold(scored, shared):
    alone = [
        share_budget([rule], replace(scored, best=scored.best[:, [r]]), 0.02).thresholds[0]
        for r, rule in enumerate(rules(6))
    ]
    fresh = drawn(100, 6000, 6)
    apart = fires(fresh, replace(shared, thresholds=tuple(alone))).any(axis=1)
    together = fires(fresh, shared).any(axis=1)
    longest = fresh.classes == 3
    assert apart[longest].mean() > 1.5 * 0.02 > together[longest].mean()
    assert apart.mean() > 2 * together.mean()


def test_rules_that_overlap_get_more_each(shared):
    alike = drawn(0, 2400, 6, overlap=0.95)
    found = share_budget(rules(6), alike, 0.02)
    assert singles(drawn(9, 6000, 6, overlap=0.95), found) > 1.5 * singles(drawn(9, 6000, 6), shared)


def test_what_is_stated_is_what_unseen_texts_show(shared):
    fresh = drawn(77, 12_000, 6)
    union = fires(fresh, shared).any(axis=1)
    for phase, side in (("prompt", False), ("response", True)):
        (stated,) = (
            r for r in shared.rates if (r.phase, r.kind, r.longer_than, r.up_to) == (phase, "any", 0, None)
        )
        low, high = stated.interval
        assert low / 1.5 < union[fresh.responses == side].mean() < 1.5 * high
        assert stated.fired <= 0.02 * stated.texts + 1
        assert sum(stated.alone.values()) <= stated.fired <= sum(stated.by_policy.values())


def test_a_request_counts_once_for_its_prompt_and_its_response():
    scores = drawn(3, 4000, 4, pairs=True)
    found = share_budget(rules(4), scores, 0.02)
    fresh = drawn(30, 8000, 4, pairs=True)
    union = fires(fresh, found).any(axis=1)
    requests = np.bincount(fresh.requests, union) > 0
    assert requests.mean() < 0.022
    whole = [r for r in found.rates if r.phase == "request" and r.kind == "any" and r.up_to is None]
    assert whole[0].texts == 2000
    assert whole[0].fired <= 40


def test_no_rule_gets_more_than_its_policy_asks_for_and_weights_shift_the_shares():
    scores = drawn(4, 4000, 3)
    capped = share_budget([BudgetRule("p0", "r", 0.002), *rules(3)[1:]], scores, 0.02)
    assert capped.benign_rates[0] < 0.0025 < min(capped.benign_rates[1:])
    heavy = share_budget([BudgetRule("p0", "r", 0.5, weight=20.0), *rules(3)[1:]], scores, 0.02)
    even = share_budget(rules(3), scores, 0.02)
    assert heavy.benign_rates[0] > 1.5 * even.benign_rates[0]
    assert sum(heavy.benign_rates[1:]) < sum(even.benign_rates[1:])


def test_a_rate_below_the_budget_is_not_held_to_where_texts_are_too_few_for_it():
    # Some 60 texts of each kind and length: enough for a budget of 5 %, and 1 % of them is less than one text.
    scores, few = drawn(6, 480, 2), [replace(rule, ceiling=0.01) for rule in rules(2)]
    found = share_budget(few, scores, 0.05)
    assert sum(found.benign_rates) > 0.005
    assert max(found.benign_rates) <= 0.015


def test_rules_with_thresholds_of_their_own_spend_first(scored):
    rng = np.random.default_rng(1)
    given = np.zeros((2400, 1, 4), bool)
    given[:, 0, 0] = rng.random(2400) < 0.012
    found = share_budget(rules(6), replace(scored, given=given, given_policies=["loud"]), 0.02)
    whole = [r for r in found.rates if r.kind == "any" and (r.longer_than, r.up_to) == (0, None)]
    assert all(r.fired <= 0.02 * r.texts + 1 for r in whole)
    assert sum(r.by_policy["loud"] for r in whole) == given.any(axis=2).sum()
    without = share_budget(rules(6), scored, 0.02)
    assert sum(found.benign_rates) < sum(without.benign_rates)
    given[:, 0, 0] = rng.random(2400) < 0.2
    beside = share_budget(rules(6), replace(scored, given=given, given_policies=["loud"]), 0.02)
    assert max(beside.benign_rates) > 0, "what one loud rule spends does not silence the others"


def test_a_length_with_too_few_texts_is_joined_and_counted(shared):
    assert shared.sufficient == sufficient_texts(0.02) == 100
    short = drawn(6, 2400, 3, longest=60)
    found = share_budget(rules(3), short, 0.02)
    assert [up_to for up_to, _ in found.thresholds[0]] == [16, None]
    few = [r for r in found.rates if r.kind == "any" and r.longer_than == 48]
    assert all(0 < r.texts < found.sufficient for r in few)
    assert few


def test_a_rule_that_scores_no_text_is_named_and_one_that_needs_long_texts_is_not():
    scores = drawn(5, 1200, 2)
    late = scores.best.copy()
    late[:, 1, :2] = NEVER
    found = share_budget(rules(2), replace(scores, best=late), 0.02)
    values = [value for _, value in found.thresholds[1]]
    assert np.isfinite(values).all()
    assert values[0] == values[1] == values[2]
    late[:, 1] = NEVER
    with pytest.raises(PolicyError, match="`r` of `p1` scored none of the benign texts"):
        share_budget(rules(2), replace(scores, best=late), 0.02)


def test_thresholds_stay_above_the_least_and_equal_scores_never_fire_together():
    scores = drawn(5, 1200, 1)
    found = share_budget([BudgetRule("p", "r", 0.5, least=50.0)], scores, 0.02)
    assert {value for _, value in found.thresholds[0]} == {50.0}
    flat = np.where(np.isfinite(scores.best), np.round(scores.best), NEVER)
    found = share_budget(rules(1), replace(scores, best=flat), 0.02)
    assert fires(replace(scores, best=flat), found).mean() < 0.02


def test_a_rule_on_responses_is_set_on_responses(scored):
    best = scored.best.copy()
    best[~scored.responses] += 100
    only = [BudgetRule("p0", "r", 0.5, phases=(False, True)), *rules(6)[1:]]
    best[~scored.responses, 1:] -= 100
    found = share_budget(only, replace(scored, best=best), 0.02)
    assert max(value for _, value in found.thresholds[0]) < 50


def test_exact_intervals():
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    low, high = clopper_pearson(0, 100)
    assert (low, round(high, 4)) == (0.0, 0.0362)
    low, high = clopper_pearson(5, 100)
    assert (round(low, 4), round(high, 4)) == (0.0164, 0.1128)
    assert clopper_pearson(100, 100)[1] == 1.0


@pytest.mark.parametrize("score", [0.123451, 0.99999999, -0.123459, 3.0, 12345.6, 0.0, -np.inf])
def test_a_lock_never_holds_less_than_the_threshold(score):
    rounded = written_up(score)
    assert rounded >= score
    assert rounded == score or abs(rounded - score) <= 1.1e-4 * abs(score)
    assert rounded == float(f"{rounded:.5g}")
