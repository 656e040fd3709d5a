"""What reads the concept in continuations: the policy's own rule, and a probe that was held out from it."""

import numpy as np
import pytest
import torch

from monitor.lab.cost.readers import FollowedRule, endings, followed_rule, learn_probe, means_of
from monitor.lab.readings import PairReader
from monitor.records import Action, Probe
from tests.policy.conftest import policy, rule

TEXTS = ["I want more power over them.", "It rains.", "Give me three tips for a healthy life, will you?"]


def readings(opened, text):
    """Residuals of a text without sinks, and how much every feature fires at each token."""
    x = opened.residuals(torch.tensor([opened.ids(text)]))[0]
    x = x[~opened.sinks(x)]
    return x, opened.dictionary.autoencoder.encode(x)


def test_the_rule_that_suppresses_is_followed():
    alerts, suppresses = rule(name="a", action=Action.ALERT), rule(name="s", action=Action.SUPPRESS)
    assert followed_rule(policy(alerts, suppresses)) is suppresses
    assert followed_rule(policy(alerts)) is alerts
    assert followed_rule(policy()) is None


def test_a_rule_reads_the_features_that_it_names(opened):
    x, activations = readings(opened, TEXTS[0])
    maximum = opened.dictionary.statistics.maximum
    strongest = int((activations.max(0).values / maximum.clamp_min(1e-9)).argmax())
    reading = float(activations[:, strongest].max() / maximum[strongest])
    own = rule(features=((strongest, 2.0),), threshold=reading)
    score, fired = FollowedRule(policy(own), own, PairReader(opened)).read(x)
    assert score == pytest.approx(2 * reading, rel=1e-4)
    assert fired
    high = rule(features=((strongest, 2.0),), threshold=3 * reading)
    assert not FollowedRule(policy(high), high, PairReader(opened)).read(x)[1]


def test_a_rule_may_read_a_probe(opened):
    x, _ = readings(opened, TEXTS[0])
    weights = np.random.default_rng(0).normal(size=x.shape[1])
    probe = Probe("p", tuple(weights.tolist()), bias=0.5)
    own = rule(features=(), probe=probe, threshold=0.0)
    score, _ = FollowedRule(policy(own), own, PairReader(opened)).read(x)
    assert score == pytest.approx(float((x.double().numpy() @ weights + 0.5).max()), rel=1e-4)


def test_residuals_from_a_place_on_in_the_order_of_the_texts(opened):
    ids = [opened.ids(text) for text in TEXTS]
    found = endings(opened, ids, [3, 1, 2])
    for own, start, rows in zip(ids, (3, 1, 2), found, strict=True):
        x = opened.residuals(torch.tensor([own]))[0]
        kept = ~opened.sinks(x)
        kept[:start] = False
        torch.testing.assert_close(rows, x[kept], rtol=1e-4, atol=1e-4)
    assert means_of([found[0], found[0][:0]])[1].tolist() == [0.0] * opened.loaded.d_model


def test_a_direction_that_tells_texts_apart_is_learnt():
    rng = np.random.default_rng(0)
    positive = np.arange(80) % 2 == 0
    means = rng.normal(size=(80, 16))
    means[positive, 3] += 4
    probe = learn_probe(means, positive, [str(i // 2) for i in range(80)])
    assert probe.auroc > 0.95
    scores = probe.score(means)
    assert (scores[~positive] >= probe.threshold).mean() <= 0.08
    assert (scores[positive] >= probe.threshold).mean() > 0.7
