"""What a measurement of cost found, as a page and as JSON."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from monitor.lab.cost.advice import Advice
from monitor.lab.cost.edits import DENSE, NOTHING, OWN, PROJECTED
from monitor.lab.cost.equal_kl import EqualKl
from monitor.lab.cost.points import Share
from monitor.lab.cost.report import (
    EQUAL_HEADS,
    HEADS,
    OVERVIEW_HEADS,
    CostReport,
    overview,
    overview_page,
)
from tests.lab.cost.measured import point

TOLD = {
    "prompts": 40,
    "new": 12,
    "judge_auroc": 0.975,
    "judge_false": 0.05,
    "probe_auroc": 0.875,
    "minimal_pairs": 0,
    "note": "the folder",
    "positives": 30,
    "benign": 25,
}


def report(target=-2.0, drop=False, points=None):
    advice = Advice(target, drop, ("because it works",))
    points = points or (point(NOTHING, 0.0), point(OWN), point(DENSE, 2.0, own_share=None, later_share=None))
    return CostReport("greed", "sha256:" + "a" * 64, "sha256:" + "b" * 64, tuple(points), advice, -1.0, TOLD)


def test_a_row_of_words_for_each_point():
    rows = report().rows()
    assert all(len(row) == len(HEADS) for row in rows)
    assert rows[1] == (
        OWN,
        "-1",
        "50% (40%–60%)",
        "-25 (-35 to -15)",
        "–",
        "–",
        "25%",
        "75%",
        "–",
        "12.5 (+25.0%)",
        "0.1250",
    )
    assert rows[2][6:8] == ("–", "–")


@pytest.mark.parametrize(
    ("target", "drop", "said"),
    [
        (-2.0, False, "**Recommended: `target: -2`.** The policy has `target: -1`."),
        (-2.0, True, "**Recommended: `target: -2, error_term: drop`.** The policy has `target: -1`."),
        (None, False, "**Recommended: none.** The policy has `target: -1`."),
    ],
)
def test_what_to_write_into_the_policy(target, drop, said):
    found = report(target, drop)
    last = "- no target diverges enough to be compared at equal KL"
    assert found.recommendation() == [said, "", "- because it works", last]
    assert said in found.markdown(None)


def test_the_page_explains_the_edits_that_it_shows():
    page = report().markdown(Path("folder/greed.cost.png"))
    assert "![effect against damage](greed.cost.png)" in page
    assert "![" not in report().markdown(None)
    assert page.count("\n- policy: ") == 1
    assert "- zero ablation:" not in page
    assert "share of 40 continuations of 12 tokens" in page
    assert "AUROC 0.97 on groups that it had not seen, calls 5% of such negatives unsafe" in page
    assert "model sha256:aaaaaaaaaaaa…, dictionary sha256:bbbbbbbbbbbb…" in page


def test_json_holds_every_number():
    record = json.loads(report().as_json())
    assert record["points"][1]["unsafe"] == {"value": 0.5, "low": 0.4, "high": 0.6, "trials": 100}
    assert (record["advice"]["target"], record["written"], record["texts"]) == (-2.0, -1.0, TOLD)


def equal(rival, better):
    less = Share(-0.2, -0.3, -0.1 if better else 0.1, 40)
    return EqualKl(-1.0, 0.125, rival, 2.5, 0.124, Share(-0.3, -0.4, -0.2, 40), less, None, less, None, None)


@pytest.mark.parametrize(("ablated", "said"), [(True, "greed (1 of 1)"), (False, "of no policy (0 of 1)")])
def test_one_table_of_all_policies(ablated, said):
    own = point(OWN, right=Share(0.8, 0.7, 0.9, 50), right_change=Share(-0.015, -0.03, 0.0, 50))
    one = replace(
        report(points=(point(NOTHING, 0.0), own, point(DENSE, 2.5))),
        equal_kl=(equal(DENSE, True), equal(PROJECTED, ablated)),
    )
    rows = overview([one])
    assert [row[:2] for row in rows] == [("greed", "none"), ("", "-1")]
    assert all(len(row) == len(OVERVIEW_HEADS) for row in rows)
    assert rows[1][7] == "80.0% (-1.5, -3.0 to +0.0)"
    assert rows[1][-3:] == (
        "-20 (-30 to -10)",
        f"-20 (-30 to {-10 if ablated else +10:+d})",
        "yes" if ablated else "no",
    )
    assert said in overview_page([one])
    assert all(len(row) == len(EQUAL_HEADS) for row in one.equal_rows())
    assert "At equal KL" in one.markdown(None)


def test_it_is_said_that_minimal_pairs_were_not_given():
    assert "minimal pairs: not measured; name a file of them with --minimal-pairs" in report().markdown(None)
    with_pairs = replace(report(), texts=TOLD | {"minimal_pairs": 335})
    assert "share of 335 pairs of sentences" in with_pairs.markdown(None)
