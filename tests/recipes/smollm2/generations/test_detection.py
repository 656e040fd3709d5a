"""What is measured on a folder of answers: shipped rules, baselines of the same examples, folds of questions."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from monitor.lab.pair import open_pair
from monitor.policy.fit.detectors import Recipe
from monitor.policy.fit.evaluation import SourceTexts
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.readings import TextReadings, TokenReadings
from monitor.policy.schema.policy import Ema
from monitor.recipes.smollm2.generations.detection import (
    FITTED,
    SHIPPED,
    SpeechMeter,
    as_record,
    fitted_table,
    fitted_to,
    judged,
    shipped_table,
)
from monitor.rpc.assembly import bundled_policies

TOKENS, FEATURES, WIDTH = 6, 12, 5
RECIPE = Recipe((RulePooling(Ema(kind="ema", half_life=12)),), 4, 0, signed=True)


def texts(name: str, labels: np.ndarray, seed: int, *, strength: float) -> SourceTexts:
    """Texts of six tokens; where a label is 1, one feature and one axis of the residual are higher by `strength`."""
    random = np.random.default_rng(seed)
    count = len(labels)
    matrix = random.random((count * TOKENS, FEATURES)) * (random.random((count * TOKENS, FEATURES)) < 0.3)
    residuals = random.normal(size=(count * TOKENS, WIDTH)).astype(np.float32)
    high = np.repeat(labels, TOKENS) == 1
    matrix[high, 3] += strength
    residuals[high, 1] += 4 * strength
    starts = (np.arange(count + 1) * TOKENS).astype(np.intp)
    read = TextReadings(TokenReadings(sparse.csr_matrix(matrix), starts), residuals)
    words = [f"{name} word{random.integers(50)} number {i}" for i in range(count)]
    return SourceTexts(name, words, read, labels.astype(np.intp), [f"{name} {i // 2}" for i in range(count)])


def test_folds_find_what_the_residual_carries_and_words_do_not() -> None:
    labels = np.tile([1, 0], 20)
    found = fitted_to(texts("own", labels, 0, strength=1), texts("calm", np.zeros(40), 1, strength=1), RECIPE)
    assert set(found) == set(FITTED)
    for name in ("features", "probe", "combined", "linear_probe", "difference_of_means"):
        assert found[name].measure.auroc > 0.95
    assert found["bag_of_words"].measure.auroc < 0.75


def test_folds_find_nothing_where_nothing_is() -> None:
    labels = np.tile([1, 0], 20)
    found = fitted_to(texts("own", labels, 0, strength=0), texts("calm", np.zeros(40), 1, strength=0), RECIPE)
    assert all(0.2 < one.measure.auroc < 0.8 for one in found.values())


def test_of_an_answer_the_answer_alone_is_judged() -> None:
    asked = {"role": "user", "content": "Who is it?"}
    assert judged((asked, {"role": "assistant", "content": "It is I."})) == "It is I."
    assert judged((asked,)) == "Who is it?"
    assert judged("A text.") == "A text."


@pytest.mark.slow
def test_the_rules_of_a_pair_are_measured_on_answers_and_requests(generations: Path) -> None:
    pair = open_pair(pair="tiny", device="cpu")
    found = list(SpeechMeter(pair, bundled_policies(), generations).run())
    assert [(one.policy, one.file) for one in found] == [
        ("dangerous-requests", "dangerous-requests/requests"),
        ("model-identity", "model-identity/generations"),
    ]
    for one in found:
        assert (one.shipped.positive, one.shipped.negative, one.benign) == (16, 16, 30)
        assert set(SHIPPED) <= set(one.shipped.methods)
        assert set(one.fitted) == set(FITTED)
        assert 0 <= one.benign_fired <= 1
    assert found[1].fitted["bag_of_words"].measure.auroc > 0.95
    lines = shipped_table(found).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert len({line.count("|") for line in fitted_table(found).splitlines()}) == 1
    record = json.loads(as_record(found))
    assert [row["file"] for row in record] == [one.file for one in found]
    assert record[1]["shipped"]["policy"]["auroc"] == found[1].shipped.methods["policy"].auroc
