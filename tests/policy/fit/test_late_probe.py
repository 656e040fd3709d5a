"""The probe behind the clamped layer: what it learns, how a lock holds it, what a policy makes of it."""

import numpy as np
import pytest
from pydantic import ValidationError

from monitor.policy.files.examples import Example, Label
from monitor.policy.files.lock import LockedProbe, packed, probe_of
from monitor.policy.fit.late_probe import RATE, fit_later, highest
from monitor.policy.fit.rows import LabelledTexts, ReadTexts, read_rows
from tests.policy.fit.test_fit import policy
from tests.policy.synthetic import Synthetic

WIDTH = 12
DIRECTION = np.eye(WIDTH)[3] * 2


class Residuals:
    """Texts `LABEL NUMBER` as noise, shifted along one direction where the label is `yes`."""

    layer = 5

    def residuals(self, texts):
        found = []
        for text in texts:
            kind, number = text.split()
            rng = np.random.default_rng([int(number), kind == "yes"])
            found.append(rng.normal(0, 1, (int(rng.integers(5, 30)), WIDTH)) + DIRECTION * (kind == "yes"))
        return found


def examples(count=60):
    yes = [Example(f"yes {i}", Label.POSITIVE, str(i)) for i in range(count)]
    return yes + [Example(f"no {i}", Label.NEGATIVE, str(i)) for i in range(count)]


def rows(own, benign):
    reader = Synthetic()
    return read_rows(reader, own, ReadTexts(benign, reader.read(benign)), LabelledTexts())


def fitted():
    found = fit_later(policy(), rows(examples(), [f"benign {i}" for i in range(100, 700)]), Residuals())
    assert found is not None
    return found


def test_finds_the_direction_and_keeps_its_rate_on_texts_it_never_saw():
    locked = fitted()
    probe = probe_of(locked)
    assert probe.layer == 5
    assert probe.weights @ DIRECTION / np.linalg.norm(probe.weights) / 2 > 0.8
    assert locked.auroc > 0.95
    fresh = [f"benign {i}" for i in range(1000, 3000)]
    reached = [
        highest(r @ probe.weights + probe.bias, probe.half_life) >= probe.threshold
        for r in Residuals().residuals(fresh)
    ]
    assert np.mean(reached) < 3 * RATE


def test_half_life_is_that_of_the_rule_that_suppresses():
    rule = {"name": "r", "threshold": 1.0, "action": "suppress", "pooling": {"kind": "ema", "half_life": 5}}
    found = fit_later(policy([rule]), rows(examples(20), ["benign 1", "benign 2", "benign 3"]), Residuals())
    assert found.half_life == 5


def test_policies_that_do_not_suppress_need_none():
    made = policy(suppress=None, rules=[{"name": "r", "threshold": 1.0}])
    assert fit_later(made, rows(examples(), ["benign 1"]), Residuals()) is None


def test_the_moving_average_is_the_running_one():
    scores = np.random.default_rng(0).normal(0, 1, 40)
    value, best, keep = 0.0, -np.inf, 2 ** (-1 / 7)
    for score in scores:
        value = keep * value + (1 - keep) * score
        best = max(best, value)
    assert highest(scores, 7.0) == pytest.approx(best)
    assert highest(np.zeros(0), 7.0) == 0


@pytest.mark.parametrize(
    "weights", ["", "AAA", "AAAAAAA=", packed(np.asarray([1.0, np.nan], np.float32)), "not base64!"]
)
def test_weights_that_are_no_numbers_are_refused(weights):
    with pytest.raises(ValidationError):
        LockedProbe.model_validate(fitted().model_dump() | {"weights": weights})
