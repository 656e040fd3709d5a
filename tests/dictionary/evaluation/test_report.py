from __future__ import annotations

import json

import numpy as np

from monitor.dictionary.cards.card_file import Context
from monitor.dictionary.evaluation.clear_features import clearest, summarise
from monitor.dictionary.evaluation.comparison import compare_detectors
from monitor.dictionary.evaluation.report import (
    EvaluationScope,
    FeaturePortrait,
    marked,
    portraits,
    records,
    table,
)
from monitor.dictionary.evaluation.source import SkippedSource
from tests.dictionary.evaluation.labelled_readings import FEATURES, made_readings

RARE = np.full(FEATURES, 0.001)
SUBJECT = EvaluationScope("sha256:m", "sha256:d", 4, FEATURES, 1500, 8)


def _benign(silent):
    benign = np.random.default_rng(0).random((100, FEATURES)).astype(np.float32)
    benign[:, silent] = 0
    return benign


def test_the_table_holds_every_number_once():
    result = compare_detectors(
        "power_seeking", "persona_x", made_readings(200, 0), made_readings(200, 1), limit=8
    )
    text = table(SUBJECT, [result], [SkippedSource("benign", "instructions", "all rows are negative")])
    row = next(line for line in text.split("\n") if line.startswith("| power_seeking/persona_x"))
    assert row.count("**") == 2
    assert f"({result.of('sparse rule').features})" in row
    for item in result.measured:
        assert f"{item.auroc.value:.2f}".removeprefix("0") in row
    assert "persona: sparse rule above bag of words on" in text
    assert "not measured: benign/instructions: all rows are negative" in text
    json.dumps(records(SUBJECT, [result], [], []))


def test_the_clearest_feature_is_telling_and_silent_on_benign_requests():
    halves = {
        name: (made_readings(200, seed), made_readings(200, seed + 1)) for name, seed in (("a", 0), ("b", 10))
    }
    benign = _benign(silent=[7])
    summaries = [summarise("power", name, train, test, benign) for name, (train, test) in halves.items()]
    found = clearest(summaries, benign, RARE, count=3, most_per_concept=2)
    assert [clear.feature for clear in found] == [7]  # all others fire on benign requests
    silent = np.zeros_like(benign)
    both = clearest(summaries, silent, RARE, count=3, most_per_concept=2)
    assert {clear.feature for clear in both} == {3, 7}
    assert clearest(summaries, benign, RARE * 100, count=3, most_per_concept=2) == []
    best = found[0]
    assert (best.feature, best.concept, best.fires_benign) == (7, "power", 0.0)
    tests = [test for _, test in halves.values()]
    fires = np.mean([(test.maximum[test.labels][:, 7] >= 0.1).mean() for test in tests])
    assert best.fires_positive == fires
    source = halves[best.best_source][1]
    assert all(source.labels[row] and source.maximum[row, 7] > 0 for row in best.examples)


def test_strong_tokens_are_bold_and_markdown_is_escaped():
    context = Context(1.0, 1, (" a", " *b", "c", "\n|d"), (0, 90, 80, 10))
    assert marked(context) == r"a **\*bc**↵\|d"


def test_a_portrait_shows_both_kinds_of_context():
    half = made_readings(200, 0)
    found = clearest(
        [summarise("power", "a", half, half, _benign([3, 7]))],
        _benign([3, 7]),
        RARE,
        count=1,
        most_per_concept=1,
    )
    context = Context(2.0, 0, (" power",), (100,))
    text = portraits([FeaturePortrait(found[0], "power", 3.5, 0.01, (context,), (context,))])
    assert f"### {found[0].feature} · power (power)" in text
    assert text.count("- **power**") == 2
