"""What an evaluation found: arrays, tables and JSON with the same numbers."""

import json

import numpy as np
import pytest

from monitor.lab.evaluation_results import (
    ANY,
    METHODS,
    PolicyEvaluation,
    as_markdown,
    as_record,
    corpus_table,
    lock_table,
    rate_table,
    source_table,
    table,
)
from monitor.policy.files.lock import CURVE
from monitor.policy.fit.evaluation import REQUESTS, UNLIKE, BenignRate, RuleOnSource
from tests.policy.policy_files import EXAMPLES, lock_for

LOCK = lock_for(EXAMPLES)
SEPARATION = LOCK.card.methods["policy"]


def rate(policy, rule, source, low, high, texts, fired, kind="corpus", asked=0.01):
    return BenignRate(policy, rule, asked, source, low, high, texts, fired, kind)


RATES = (
    rate("greed", "stated", "asks", 0, 32, 100, 1, REQUESTS),
    rate("greed", "stated", "books", 0, 32, 50, 0),
    rate("greed", "stated", "books", 32, None, 50, 5),
    rate("greed", "stated", "papers", 32, None, 150, 5),
    rate("greed", "stated", "code", 0, 32, 10, 10, UNLIKE),
    rate(ANY, "", "asks", 0, 32, 100, 2, REQUESTS, None),
    rate(ANY, "", "books", 32, None, 50, 6, asked=None),
)
CURVES = [n / len(CURVE) for n in range(len(CURVE))]
SOURCES = (
    RuleOnSource(
        "greed",
        "a",
        40,
        30,
        0.8,
        0.1,
        {"policy": SEPARATION, "bag_of_words": SEPARATION},
        "stated",
        {"policy": CURVES},
    ),
    RuleOnSource("greed", "b", 40, 0, 0.5, None, {"policy": SEPARATION}, "stated"),
)
FOUND = PolicyEvaluation(
    "folder", {"model": "sha256:" + "a" * 64}, (LOCK,), SOURCES, RATES, ("a note",), "tiny"
)


def test_arrays_have_a_place_for_every_method():
    assert FOUND.auroc.shape == FOUND.recall.shape == (2, len(METHODS), 3)
    assert FOUND.auroc[0, 0].tolist() == [0.9, 0.8, 0.95]
    assert FOUND.recall[1, 0].tolist() == [0.5, 0.4, 0.6]
    assert np.isnan(FOUND.auroc[1]).all(), "without negatives there is no AUROC"
    assert np.isnan(FOUND.recall[0, METHODS.index("probe")]).all()
    assert FOUND.recall[0, METHODS.index("bag_of_words")].tolist() == [0.5, 0.4, 0.6]


def test_rates_with_their_intervals():
    found = FOUND.false_positive_rates
    assert found[:, 0] == pytest.approx([0.01, 0, 0.1, 1 / 30, 1, 0.02, 0.12])
    assert ((found[:, 1] <= found[:, 0]) & (found[:, 0] <= found[:, 2])).all()
    assert PolicyEvaluation("f", {}, ()).false_positive_rates.shape == (0, 3)


def test_one_line_for_each_rule_on_each_source():
    head, first, _ = repr(FOUND).splitlines()
    assert head == "PolicyEvaluation(1 policies, 2 rows of sources, 7 rates)"
    assert first == "  greed/stated on a: AUROC 0.90 (0.80–0.95), recall 50% at 1 %"


def test_tables():
    assert "| greed | a | 40 / 30 | **0.90 (0.80–0.95)** | 50% | 80% / 10.0% | – |" in source_table(SOURCES)
    assert "| greed | b | 40 / 0 | – | 50% | 50% / – | – |" in source_table(SOURCES)
    two = (*SOURCES, RuleOnSource("greed", "a", 1, 1, 1, 1, {"policy": SEPARATION}, "other"))
    assert "| greed/other | a |" in source_table(two)
    heads, _, first, last = rate_table(RATES).splitlines()
    assert heads == "| rule | asked | requests | corpora ≤ 32 | corpora > 32 | other corpora |"
    assert first.startswith("| greed/stated | 1.0% | 1.0% (0.2–5.4; 100) | 0.0% (0.0–7.1; 50) | 5.0% (2.7–")
    assert last.startswith(f"| {ANY} |  | 2.0% (")
    assert corpus_table(RATES).splitlines()[2:] == [
        "| asks | 2.0% (0.6–7.0; 100) | – |",
        "| books | – | 12.0% (5.6–23.8; 50) |",
    ]
    assert "| greed | **0.90 (0.80–0.95)** | **50%** (40%–60%) |" in lock_table([LOCK])
    assert table(["a"], []) == ""
    assert lock_table([LOCK.model_copy(update={"card": None})]) == ""


def test_everything_on_one_page_and_as_json():
    page = as_markdown(FOUND)
    assert page == str(FOUND)
    assert page.startswith("Measured on model `aaaaaaaaaaaa`.")
    assert (
        "Requests: `asks`. Corpora: `books`, `papers`, documents that no fit has read. Other corpora" in page
    )
    assert page.endswith("- a note\n")
    record = json.loads(as_record(FOUND))
    assert (record["pair"], record["curve_rates"]) == ("tiny", list(CURVE))
    assert (record["sources"][0]["curves"], record["sources"][1]["own_curves"]) == ({"policy": CURVES}, {})
    assert record["sources"][0]["methods"]["policy"]["auroc"] == 0.9
    assert record["rates"][0]["interval"] == list(RATES[0].interval)
    assert record["cards"]["greed"]["maturity"] == "beta"
    assert record["notes"] == ["a note"]
