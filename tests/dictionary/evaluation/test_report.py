from __future__ import annotations

import json

import pytest

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
from tests.dictionary.evaluation.labelled_readings import FEATURES, RARE, made_benign, made_readings

SUBJECT = EvaluationScope("sha256:m", "sha256:d", 4, FEATURES, 1500, 8)


@pytest.mark.slow
def test_the_table_holds_every_number_once():
    result = compare_detectors(
        "power_seeking", "persona_x", made_readings(200, 0), made_readings(200, 1), limit=8
    )
    skipped = [SkippedSource("benign", "instructions", "all rows are negative")]
    averages = {"persona": ["power_seeking/persona_x"], "none of these": ["power_seeking/other"]}
    text = table(SUBJECT, [result], skipped, averages)
    row = next(line for line in text.split("\n") if line.startswith("| power_seeking/persona_x"))
    assert row.count("**") == 2
    assert f"({result.of('sparse rule').features})" in row
    for item in result.measured:
        assert f"{item.auroc.value:.2f}".removeprefix("0") in row
    assert "persona: sparse rule above bag of words on" in text
    assert "none of these" not in text
    assert "not measured: benign/instructions: all rows are negative" in text
    json.dumps(records(SUBJECT, [result], [], []))


def test_strong_tokens_are_bold_and_markdown_is_escaped():
    context = Context(1.0, 1, (" a", " *b", "c", "\n|d"), (0, 90, 80, 10))
    assert marked(context) == r"a **\*bc**↵\|d"


def test_a_portrait_shows_both_kinds_of_context():
    readings = made_readings(200, 0)
    found = clearest(
        [summarise("power", "a", readings, readings, made_benign([3, 7]))],
        made_benign([3, 7]),
        RARE,
        count=1,
        most_per_concept=1,
    )
    context = Context(2.0, 0, (" power",), (100,))
    text = portraits([FeaturePortrait(found[0], "power", 3.5, 0.01, (context,), (context,))])
    assert f"### {found[0].feature} · power (power)" in text
    assert text.count("- **power**") == 2
