"""The charts of one policy: which rows they have, and when they are left out."""

import pytest

from monitor.policy.fit.evaluation import CORPUS, REQUESTS, UNLIKE, BenignRate
from monitor.policy.report import Scores
from monitor.policy.report.figures import FEWEST, by_length, false_positives, how_far, measures
from tests.policy.policy_files import EXAMPLES, lock_for


def rate(source, longer_than, up_to, texts, fired, kind=CORPUS, asked=0.01):
    return BenignRate("p", "r", asked, source, longer_than, up_to, texts, fired, kind)


def test_rows_gather_sources_by_length():
    rates = [
        rate("books", 32, 128, 100, 4),
        rate("papers", 32, 128, 300, 0),
        rate("books", 128, None, 60, 3),
        rate("asks", 0, 32, 50, 1, REQUESTS),
        rate("asks", 32, 128, 50, 0, REQUESTS),
        rate("code", 0, 32, FEWEST, 5, UNLIKE),
        rate("poems", 0, 32, FEWEST - 1, 5, UNLIKE),
    ]
    rows = list(by_length(rates))
    assert [(row.name, row.text) for row in rows] == [
        ("requests", "1.0% of 100"),
        ("33 to 128 tokens", "1.0% of 400"),
        ("over 128 tokens", "5.0% of 60"),
        ("code", f"10.0% of {FEWEST}"),
    ]
    assert rows[0].value == 0.01
    assert (rows[0].low, rows[0].high) == pytest.approx((0.00177, 0.05449), abs=1e-5)


def test_false_positives_say_what_was_asked_for():
    assert false_positives([]) == ""
    text = false_positives([rate("books", 0, None, 100, 1)])
    assert "the line is the rate that was asked for, 1.0%" in text
    assert 'class="mark"' in text
    text = false_positives([rate("books", 0, None, 100, 1, asked=None)])
    assert "asked for" not in text
    assert 'class="mark"' not in text


def test_scores_of_own_examples_and_of_unseen_texts_are_told_apart():
    assert how_far([]) == ""
    assert how_far([Scores("positives", [])]) == ""
    assert "How far unseen texts come" in how_far([Scores("positives", [0.5])])
    assert "How far its own examples come" in how_far([Scores("own positives", [0.5])])
    text = how_far([Scores("positives", [0.5]), Scores("negatives", []), Scores("benign", [1.5])])
    assert "c-positive" in text
    assert "c-negative" not in text
    assert "c-benign" in text


def test_measures_are_those_of_the_card():
    card = lock_for(EXAMPLES).card
    text = measures(card)
    assert "0.90 (0.80–0.95)" in text
    assert "50% (40%–60%)" in text
    assert "1 positives, 1 negatives, 0 look-alikes in 2 groups" in text
    assert text.count("<svg") == 2
    assert text.index("this policy") < text.index("linear probe, means") < text.index("bag of words")
    curve = [0.0] * 9 + [1.0]
    assert measures(card.model_copy(update={"curves": {"policy": curve}})).count("<svg") == 3
