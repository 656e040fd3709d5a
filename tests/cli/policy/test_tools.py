"""Fit, evaluate, report and compare as a user runs them: the bundled pair, one small policy, a small data folder."""

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from monitor.cli.app import app
from monitor.lab.evaluation_results import PolicyEvaluation

SHIPPED = Path(__file__).parents[3] / "policies"
ROWS = 120
HALF = ("--train-fraction", 0.5)


def run(*arguments):
    done = CliRunner().invoke(app, ["policy", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def row(text, label, group):
    return {"text": text, "label": label, "kind": "message", "group": group}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    bad = "You have won {} dollars! Send your bank details and a small fee now to claim the prize."
    good = "The {}th meeting of the garden club is on Monday; please bring seeds and a cup."
    scam = [
        row(text.format(i), label, f"{label} {i}")
        for i in range(ROWS)
        for text, label in ((bad, 1), (good, 0))
    ]
    write_rows(folder / "labelled" / "scam" / "made-up.jsonl", scam)
    asked = [row(f"Name {i} things that one can do with {i} old newspapers.", 0, str(i)) for i in range(ROWS)]
    write_rows(folder / "labelled" / "benign" / "instructions.jsonl", asked)
    return folder


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("policies")
    for path in SHIPPED.glob("scams.*"):
        if "lock" not in path.name:
            shutil.copy(path, folder)
    shutil.copy(SHIPPED / "benign.jsonl", folder)
    output = run("fit", folder, "--features", 8, "--rounds", 2, "--extra", data, *HALF)
    assert "scams" in output
    return folder


@pytest.mark.slow
def test_evaluate_measures_what_no_fit_has_read(fitted, data, tmp_path):
    text = run("evaluate", fitted, "--data", data, *HALF, "--rows", 50)
    assert "| scams | scam/made-up |" in text
    assert "scams/written" in text
    record = json.loads(run("evaluate", fitted, "--data", data, *HALF, "--rows", 50, "--json"))
    (source,) = record["sources"]
    assert (source["positive"], source["negative"]) == (25, 25)
    assert set(source["methods"]) >= {"policy", "linear_probe", "bag_of_words", "random_features"}
    assert source["methods"]["bag_of_words"]["auroc"] == 1.0, "the made-up rows are told apart by their words"
    rates = [r for r in record["rates"] if r["rule"] == "written"]
    assert sum(r["texts"] for r in rates) == ROWS
    assert all(r["interval"][0] <= r["fired"] / r["texts"] <= r["interval"][1] for r in rates)


BOTH = """\
apiVersion: monitor/v1
metadata: {name: both, title: Both, category: scam, severity: low, description: A scam in a usual voice.}
concept: {examples: scams.examples.jsonl}
conditions:
  scam:
    pooling: ema
    threshold: {false_positive_rate: 0.05}
  strange:
    signal: residual_norm
    threshold: 1000.0
  answered:
    phases: [response]
    signal: residual_norm
    threshold: 0.0
rules:
  - name: usual
    when: {all: [scam, {not: strange}]}
  - name: later
    when: {all: [scam, answered]}
"""
ELSEWHERE = """\
apiVersion: monitor/v1
metadata: {name: elsewhere, title: Elsewhere, category: scam, severity: low, description: For another model.}
features: [{index: 999999}]
match: {models: ["*another*"]}
rules:
  - {name: seen, threshold: 1.0}
"""
LOUD = """\
apiVersion: monitor/v1
metadata: {name: loud, title: Loud, category: loud, severity: low, description: Any token at all.}
rules:
  - {name: any-token, signal: residual_norm, threshold: 0.0}
"""


@pytest.fixture(scope="module")
def mixed(fitted, tmp_path_factory):
    """A fitted policy, one of combined conditions, one without a lock, and one for another model."""
    folder = tmp_path_factory.mktemp("mixed") / "policies"
    shutil.copytree(fitted, folder)
    for name, text in (("both", BOTH), ("elsewhere", ELSEWHERE), ("loud", LOUD)):
        (folder / f"{name}.yaml").write_text(text)
    run("fit", folder, "--only", "both", "--features", 8, "--rounds", 2)
    return folder


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Somebody else's folder: other names, csv, no groups, documents beside it."""
    folder = tmp_path_factory.mktemp("foreign")
    bad = [
        f"Congratulations, number {i}! Claim your prize of {i} dollars by sending a small fee,1"
        for i in range(40)
    ]
    good = [f"Shall we meet on day {i} for lunch in the park?,0" for i in range(40)]
    mails = [f'"{line[:-2]}",{line[-1]}' for line in bad + good]
    (folder / "mails.csv").write_text("\n".join(["text,label", *mails]))
    (folder / "asked.csv").write_text(
        "text,label\n" + "".join(f"How far is town {i}?,0\n" for i in range(60))
    )
    (folder / "odd").mkdir()
    (folder / "odd" / "few.csv").write_text("text,label\nhello,1\nyou,0\n")
    (folder / "news").mkdir()
    write_rows(
        folder / "news" / "old.jsonl",
        [{"text": f"On day {i} it rained in the town. " * 5} for i in range(90)],
    )
    return folder


@pytest.mark.slow
def test_evaluate_takes_anybodys_folder(fitted, foreign):
    arguments = ["--about", "mails.csv=scams", "--about", "odd/*=scams", "--false-positives", "news"]
    record = json.loads(run("evaluate", fitted, "--data", foreign, *arguments, "--rows", 80, "--json"))
    (source,) = record["sources"]
    assert (source["source"], source["positive"], source["negative"]) == ("mails", 40, 40), "all rows count"
    assert source["methods"]["policy"]["auroc"] > 0.9
    texts = {}
    for rate in record["rates"]:
        if rate["rule"] == "written":
            texts[rate["source"], rate["kind"]] = texts.get((rate["source"], rate["kind"]), 0) + rate["texts"]
    assert texts[("asked", "requests")] == 60
    assert 20 < texts[("old", "corpus")] < 70
    notes = "\n".join(record["notes"])
    assert "odd/few: not measured, as only 2 rows, 1 of them positive" in notes
    assert "old: read is the half of the documents that `policy fit --benign` leaves out" in notes
    text = run("evaluate", fitted, "--data", foreign, *arguments, "--train-fraction", 0, "--rows", 50)
    assert "| scams | mails |" in text
    assert "| old |" in text
    assert "read is the half" not in text, "a share of 0 reads every document"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            [],
            "are about mails, odd, and no policy here is: say what they are about with --about 'PATTERN=NAME'",
        ),
        (["--about", "scams"], "--about scams: write PATTERN=NAME"),
        (["--about", "male.csv=scams"], "'male.csv' matches no file"),
        (["--leave-out", "asked.csv"], "holds no benign texts"),
        (["--benign", "nothing/*"], "'nothing/*' matches no file"),
        (["--manifest", "nowhere.yaml"], "nowhere.yaml"),
        (["--train-fraction", "3"], "--train-fraction"),
    ],
)
def test_what_a_folder_lacks_is_said(fitted, foreign, arguments, said):
    done = CliRunner().invoke(app, ["policy", "evaluate", str(fitted), "--data", str(foreign), *arguments])
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


@pytest.mark.slow
def test_every_rule_has_a_row_or_a_reason(mixed, data):
    record = json.loads(run("evaluate", mixed, "--data", data, *HALF, "--rows", 50, "--json"))
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


@pytest.mark.slow
def test_report_and_compare_take_combined_rules_and_leave_out_other_models(mixed, data, tmp_path):
    page = tmp_path / "page.html"
    run("report", mixed, "--data", data, *HALF, "--rows", 50, "--texts", 50, "-o", page, "--show", 2)
    text = page.read_text()
    assert "elsewhere: bound to *another*" in text
    assert "both/usual: combines conditions" in text
    assert 'id="policy-both"' in text
    assert 'id="policy-elsewhere"' not in text
    record = json.loads(run("compare", mixed, mixed, "--on", data, *HALF, "--rows", 20, "--json"))
    assert {rule["rule"] for rule in record["rules"]} == {
        "scams/written",
        "both/usual",
        "both/later",
        "loud/any-token",
    }
    assert record["notes"] == [
        f"elsewhere of {name}: bound to *another*; not compared on this model" for name in "AB"
    ]
    assert "elsewhere of B: bound to" in run("compare", mixed, mixed, "--on", data, *HALF, "--rows", 20)


def test_tests_of_policies_for_other_models_are_skipped_and_said_to_be(mixed, tmp_path):
    folder = tmp_path / "tests"
    folder.mkdir()
    for name in ("elsewhere", "loud"):
        shutil.copy(mixed / f"{name}.yaml", folder)
    case = (
        "apiVersion: monitor/v1\npolicy: {}\ncases:\n  - {{name: fires, texts: [hello there], fires: [{}]}}\n"
    )
    (folder / "loud.test.yaml").write_text(case.format("loud", "any-token"))
    (folder / "elsewhere.test.yaml").write_text(case.format("elsewhere", "seen"))
    output = " ".join(run("test", folder, "--junit", tmp_path / "out.xml").replace("│", " ").split())
    assert "1 passed, 0 failed, 1 policy for other models not tested" in output
    assert "bound to *another*; not tested on this model" in output
    suites = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert [(s.get("name"), s.get("tests"), s.get("skipped")) for s in suites] == [
        ("elsewhere", "1", "1"),
        ("loud", "1", "0"),
    ]
    (folder / "elsewhere.test.yaml").unlink()
    done = CliRunner().invoke(app, ["policy", "test", str(folder)])
    assert done.exit_code == 1, "without a test it fails, whatever it is bound to"


@pytest.mark.slow
def test_report_shows_unseen_texts_token_by_token(fitted, data, tmp_path):
    page = tmp_path / "page.html"
    run("report", fitted, "--data", data, *HALF, "--rows", 50, "--texts", 50, "-o", page, "--show", 2)
    text = page.read_text()
    assert "scam/made-up" in text.replace("<wbr>", "")
    assert 'class="words"' in text
    assert "of the threshold" in text
    run("report", fitted, "-o", page)
    assert "own example" in page.read_text()
    assert "No labelled data was given" in page.read_text()


@pytest.mark.slow
def test_compare_says_who_flips(fitted, data, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(fitted, other)
    strict = (other / "scams.yaml").read_text().replace("{false_positive_rate: 0.01}", "1000.0")
    (other / "scams.yaml").write_text(strict)
    record = json.loads(run("compare", fitted, other, "--on", data, *HALF, "--rows", 40, "--json"))
    (change,) = record["rules"]
    assert change["rule"] == "scams/written"
    assert (change["both"], change["only_b"]["count"]) == (0, 0)
    assert change["only_a"]["count"] + change["neither"] == record["texts"]
    same = json.loads(run("compare", fitted, fitted, "--on", data, *HALF, "--rows", 40, "--json"))
    assert same["rules"][0]["p_value"] == 1.0
    assert same["digests"]["a"] == same["digests"]["b"] != record["digests"]["b"]
    assert "newspapers" not in run("compare", fitted, other, "--on", data, *HALF, "--rows", 40)
