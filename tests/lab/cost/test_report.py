"""What a measurement of cost found, as a page and as JSON."""

import json
from pathlib import Path

import pytest

from monitor.lab.cost.advice import Advice
from monitor.lab.cost.edits import DENSE, NOTHING, OWN
from monitor.lab.cost.report import HEADS, CostReport
from tests.lab.cost.measured import point

TOLD = {
    "prompts": 40,
    "new": 12,
    "judge_auroc": 0.975,
    "judge_false": 0.05,
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
        "25%",
        "75%",
        "12.5 (+25.0%)",
        "0.1250",
    )
    assert rows[2][4:6] == ("–", "–")


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
    assert found.recommendation() == [said, "", "- because it works"]
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
