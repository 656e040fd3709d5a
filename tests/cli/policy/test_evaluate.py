"""`policy evaluate`: every rule has a row or a reason."""

import json

import pytest

from monitor.lab.evaluation_results import PolicyEvaluation
from tests.cli.policy.tools import HALF, ROWS, output_of


@pytest.mark.slow
def test_evaluate_measures_what_no_fit_has_read(fitted, data, tmp_path):
    text = output_of("evaluate", fitted, "--data", data, *HALF, "--rows", 50)
    assert "| scams | scam/made-up |" in text
    assert "scams/written" in text
    record = json.loads(output_of("evaluate", fitted, "--data", data, *HALF, "--rows", 50, "--json"))
    (source,) = record["sources"]
    assert (source["positive"], source["negative"]) == (25, 25)
    assert set(source["methods"]) >= {"policy", "linear_probe", "bag_of_words", "random_features"}
    assert source["methods"]["bag_of_words"]["auroc"] == 1.0, "the made-up rows are told apart by their words"
    rates = [r for r in record["rates"] if r["rule"] == "written"]
    assert sum(r["texts"] for r in rates) == ROWS
    assert all(r["interval"][0] <= r["fired"] / r["texts"] <= r["interval"][1] for r in rates)


@pytest.mark.slow
def test_every_rule_has_a_row_or_a_reason(mixed, data):
    record = json.loads(output_of("evaluate", mixed, "--data", data, *HALF, "--rows", 50, "--json"))
    fired = {}
    for rate in record["rates"]:
        key = f"{rate['policy']}/{rate['rule']}"
        fired[key] = fired.get(key, 0) + rate["fired"]
    assert set(fired) == {"scams/written", "both/usual", "both/later", "loud/any-token", "any rule/"}
    assert fired["both/later"] == 0, "nothing is written by a model here"
    assert fired["loud/any-token"] == fired["any rule/"] == ROWS
    measured = {source["policy"]: source for source in record["sources"]}
    assert set(measured) == {"scams", "both"}, "`loud` has no source of its category"
    assert measured["both"]["methods"]["policy"]["auroc"] > 0.9
    assert measured["both"]["caught"] > measured["both"]["fired"]
    notes = "\n".join(record["notes"])
    assert "elsewhere: bound to *another*; not measured on this model" in notes
    assert "both/usual: combines conditions" in notes
    assert "all prompt here, so `answered` cannot be reached" in notes
    assert "loud: learnt from no examples" in notes
    assert "- elsewhere: bound" in str(PolicyEvaluation("f", {}, (), notes=tuple(record["notes"])))


def test_a_few_rows_are_refused(fitted, data, run):
    done = run("policy", "evaluate", str(fitted), "--data", str(data), "--rows", "20")
    assert done.exit_code == 2
    assert "write 50 or more, or 0" in " ".join(done.stderr.replace("│", " ").split())
