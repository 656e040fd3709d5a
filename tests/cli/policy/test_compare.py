"""`policy compare`: who flips between two sets, as a table and as JSON."""

import json
import shutil

import pytest
from rich.console import Console

from monitor.cli.policy.compare import as_record, show_comparison
from tests.cli.policy.tools import HALF, output_of
from tests.lab.compared import TEXTS, compared


@pytest.mark.slow
def test_report_and_compare_take_combined_rules_and_leave_out_other_models(mixed, data, tmp_path):
    page = tmp_path / "page.html"
    output_of("report", mixed, "--data", data, *HALF, "--rows", 50, "--texts", 50, "-o", page, "--show", 2)
    text = page.read_text()
    assert "elsewhere: bound to *another*" in text
    assert "both/usual: combines conditions" in text
    assert 'id="policy-both"' in text
    assert 'id="policy-elsewhere"' not in text
    record = json.loads(output_of("compare", mixed, mixed, "--on", data, *HALF, "--rows", 20, "--json"))
    assert {rule["rule"] for rule in record["rules"]} == {
        "scams/written",
        "both/usual",
        "both/later",
        "loud/any-token",
    }
    assert record["notes"] == [
        f"elsewhere of {name}: bound to *another*; not compared on this model" for name in "AB"
    ]
    assert "elsewhere of B: bound to" in output_of("compare", mixed, mixed, "--on", data, *HALF, "--rows", 20)


@pytest.mark.slow
def test_compare_says_who_flips(fitted, data, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(fitted, other)
    strict = (other / "scams.yaml").read_text().replace("{false_positive_rate: 0.01}", "1000.0")
    (other / "scams.yaml").write_text(strict)
    record = json.loads(output_of("compare", fitted, other, "--on", data, *HALF, "--rows", 40, "--json"))
    (change,) = record["rules"]
    assert change["rule"] == "scams/written"
    assert (change["both"], change["only_b"]["count"]) == (0, 0)
    assert change["only_a"]["count"] + change["neither"] == record["texts"]
    same = json.loads(output_of("compare", fitted, fitted, "--on", data, *HALF, "--rows", 40, "--json"))
    assert same["rules"][0]["p_value"] == 1.0
    assert same["digests"]["a"] == same["digests"]["b"] != record["digests"]["b"]
    assert "newspapers" not in output_of("compare", fitted, other, "--on", data, *HALF, "--rows", 40)


@pytest.fixture
def found():
    return compared()


def test_texts_are_shown_only_when_asked_and_cannot_command_the_terminal(found):
    console = Console(record=True, width=120, force_terminal=False, markup=False)
    show_comparison(console, found, 0)
    plain = console.export_text()
    assert "bold" not in plain
    assert "p/x" in plain
    show_comparison(console, found, 5)
    shown = console.export_text()
    assert "<b>bold</b>\\x1b[31m" in shown
    assert "third" in shown


def test_json_says_the_same(found):
    record = json.loads(as_record(found, 0))
    x = next(r for r in record["rules"] if r["rule"] == "p/x")
    assert (x["only_a"], x["only_b"]["indices"], x["p_value"]) == ({"count": 1, "indices": [1]}, [2], 1.0)
    assert next(r for r in record["rules"] if r["rule"] == "p/new")["p_value"] is None
    assert json.loads(as_record(found, 1))["rules"][0]["only_a"]["texts"][0]["text"] == TEXTS[1]
