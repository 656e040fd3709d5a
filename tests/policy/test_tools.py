"""Fit, evaluate, report and compare as a user runs them: the bundled pair, one small policy, a small data folder."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monitor.cli.app import app
from monitor.cli.policy_benign import SPREAD, benign_texts, documents, excerpt
from monitor.cli.policy_evaluate_text import table
from monitor.cli.policy_extra import extra_rows, held_out, sources_of

SHIPPED = Path(__file__).parents[2] / "policies"
ROWS = 120


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
    output = run("fit", folder, "--features", 8, "--rounds", 2, "--extra", data / "labelled")
    assert "scams" in output
    return folder


def test_evaluate_measures_what_no_fit_has_read(fitted, data, tmp_path):
    text = run("evaluate", fitted, "--data", data, "--rows", 50)
    assert "| scams | scam/made-up |" in text
    assert "scams/written" in text
    record = json.loads(run("evaluate", fitted, "--data", data, "--rows", 50, "--json"))
    (source,) = record["sources"]
    assert (source["positive"], source["negative"]) == (25, 25)
    assert set(source["methods"]) >= {"policy", "linear_probe", "bag_of_words", "random_features"}
    assert source["methods"]["bag_of_words"]["auroc"] == 1.0, "the made-up rows are told apart by their words"
    rates = [r for r in record["rates"] if r["rule"] == "written"]
    assert sum(r["texts"] for r in rates) == ROWS
    assert all(r["interval"][0] <= r["fired"] / r["texts"] <= r["interval"][1] for r in rates)


def test_report_shows_unseen_texts_token_by_token(fitted, data, tmp_path):
    page = tmp_path / "page.html"
    run("report", fitted, "--data", data, "--rows", 50, "--texts", 50, "-o", page, "--show", 2)
    text = page.read_text()
    assert "scam/made-up" in text.replace("<wbr>", "")
    assert 'class="words"' in text
    assert "of the threshold" in text
    run("report", fitted, "-o", page)
    assert "own example" in page.read_text()
    assert "No labelled data was given" in page.read_text()


def test_compare_says_who_flips(fitted, data, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(fitted, other)
    strict = (other / "scams.yaml").read_text().replace("{false_positive_rate: 0.01}", "1000.0")
    (other / "scams.yaml").write_text(strict)
    record = json.loads(run("compare", fitted, other, "--on", data, "--rows", 40, "--json"))
    (change,) = record["rules"]
    assert change["rule"] == "scams/written"
    assert (change["both"], change["only_b"]["count"]) == (0, 0)
    assert change["only_a"]["count"] + change["neither"] == record["texts"]
    same = json.loads(run("compare", fitted, fitted, "--on", data, "--rows", 40, "--json"))
    assert same["rules"][0]["p_value"] == 1.0
    assert same["digests"]["a"] == same["digests"]["b"] != record["digests"]["b"]
    assert "newspapers" not in run("compare", fitted, other, "--on", data, "--rows", 40)


def test_what_a_fit_reads_is_never_measured_on(data, tmp_path):
    path = data / "labelled" / "scam" / "made-up.jsonl"
    learnt = set(extra_rows(data / "labelled", "scams", "scam").texts)
    measured = {r.text for r in held_out(path, 10_000)}
    assert learnt
    assert measured
    assert not learnt & measured
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": f"Line {i} of a book. " * 9}) + "\n" for i in range(400)))
    halves = [set(documents([corpus], held_out=which)) for which in (False, True)]
    assert halves[0].isdisjoint(halves[1])
    assert sum(map(len, halves)) == 400
    found = benign_texts(SHIPPED, [corpus])
    assert not {text for half in halves[1:] for text in half} & {*found.learnt, *found.aside}


def test_sources_speak_of_the_policy_that_they_are_about(tmp_path):
    for name in ("unsafe_code/sven", "unsafe_code/other", "deception/x"):
        write_rows(tmp_path / f"{name}.jsonl", [row("t", 1, "g")])
    stems = {p.stem for p in sources_of(tmp_path, "unsafe-code-backdoor", "unsafe_code")}
    assert stems == {"other"}
    assert {p.stem for p in sources_of(tmp_path, "unsafe-code-vulnerability", "unsafe_code")} == {
        "other",
        "sven",
    }


def test_long_documents_give_pieces_from_all_over(tmp_path):
    book = "".join(f"Sentence number {i}. " for i in range(20_000))
    (tmp_path / "book.jsonl").write_text(json.dumps({"text": book}) + "\n")
    pieces = [p for half in (False, True) for p in documents([tmp_path / "book.jsonl"], held_out=half)]
    assert 4 <= len(pieces) <= 10
    assert all(piece in book for piece in pieces)
    assert len({excerpt(piece, *SPREAD) for piece in pieces}) == len(pieces)


def test_tables_without_rows_are_left_out():
    assert table(["a"], []) == ""
    assert table(["a", "b"], [["1", "2"]]).splitlines()[1] == "|---|---|"
