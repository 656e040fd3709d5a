"""Fitted policies on unseen texts: intervals, rates by length, and labelled sources."""

import numpy as np
import pytest

from monitor.policy.files.lock import CURVE
from monitor.policy.fit.evaluation import CORPUS, BenignRate, SourceTexts, on_sources, rates_of
from monitor.policy.fit.metrics import threshold_at
from tests.policy.synthetic import Synthetic


def rate(texts, fired):
    return BenignRate("p", "r", 0.01, "s", 0, None, texts, fired)


@pytest.mark.parametrize(
    ("texts", "fired", "low", "high"),
    [
        # From the closed form of Wilson's interval, worked out by hand with z = 1.96.
        (100, 1, 0.00177, 0.05449),
        (10, 5, 0.23659, 0.76341),
        (50, 0, 0.0, 0.07135),
        (50, 50, 0.92865, 1.0),
    ],
)
def test_intervals_are_wilsons(texts, fired, low, high):
    assert rate(texts, fired).interval == pytest.approx((low, high), abs=2e-5)


def test_without_texts_nothing_is_known():
    assert rate(0, 0).interval == (0.0, 1.0)


def test_rates_by_length_leave_out_empty_buckets():
    lengths = np.array([1, 16, 17, 40, 200, 201])
    fired = np.array([1, 0, 1, 1, 0, 1])
    found = rates_of("p", "r", None, "books", fired, lengths, (16, 32, 128))
    assert [(r.longer_than, r.up_to, r.texts, r.fired) for r in found] == [
        (0, 16, 2, 1),
        (16, 32, 1, 1),
        (32, 128, 1, 1),
        (128, None, 2, 1),
    ]
    assert {(r.kind, r.source, r.asked) for r in found} == {(CORPUS, "books", None)}
    assert [r.longer_than for r in rates_of("p", "r", None, "b", fired[:2], lengths[:2], (16, 32))] == [0]


class AlwaysTheFirst:
    """A rule whose score is known: the number of tokens, and it fires on texts of more than ten."""

    policy, rule, asked, features, how = "p", "r", None, 0, None

    def score(self, read):
        return read.lengths.astype(float)

    def fired(self, read):
        return (read.lengths > 10).astype(np.intp)


def test_a_rule_on_sources_without_baselines():
    reader = Synthetic()
    yes, no = [f"yes {i}" for i in range(12)], [f"no {i}" for i in range(8)]
    benign = [f"benign {i}" for i in range(30)]
    sources = [
        SourceTexts(
            "both", yes + no, reader.read(yes + no), np.repeat([1, 0], [12, 8]), [str(i) for i in range(20)]
        ),
        SourceTexts("alone", yes, reader.read(yes), np.ones(12, np.intp), ["g"] * 12),
    ]
    both, alone = on_sources(AlwaysTheFirst(), None, sources, reader.read(benign), benign, 0)
    lengths = sources[0].read.lengths
    assert (both.source, both.positive, both.negative) == ("both", 12, 8)
    assert both.caught == pytest.approx((lengths[:12] > 10).mean())
    assert both.fired == pytest.approx((lengths[12:] > 10).mean())
    pairs = [(a > b) + 0.5 * (a == b) for a in lengths[:12] for b in lengths[12:]]
    assert both.methods["policy"].auroc == pytest.approx(np.mean(pairs))
    assert set(both.methods) == {"policy"}
    assert (alone.negative, alone.fired, alone.caught) == (0, None, both.caught)
    requests = reader.read(benign).lengths
    for n, rate in enumerate(CURVE[:-1]):
        for others, found in ((requests, both.curves), (lengths[12:], both.own_curves)):
            limit = threshold_at(others.astype(float), rate)
            assert (others >= limit).mean() <= rate
            assert found["policy"][n] == pytest.approx((lengths[:12] >= limit).mean(), abs=1e-4)
    assert both.curves["policy"][-1] == both.own_curves["policy"][-1] == 1.0
    assert both.curves["policy"][CURVE.index(0.01)] == pytest.approx(both.methods["policy"].recall, abs=1e-4)
    assert (alone.curves, alone.own_curves) == (both.curves, {})
