"""`features effect` on the bundled pair: a feature of a prompt, and those that matter most."""

import json

import pytest

PROMPT = ("--prompt", "I want to gain more")


@pytest.fixture(scope="module")
def ranking(run_once):
    return json.loads(run_once("features", "effect", *PROMPT, "--top", "3", "--json").stdout)


@pytest.fixture(scope="module")
def run_once():
    from typer.testing import CliRunner

    from monitor.cli.app import app

    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_features_are_ranked_by_what_they_do_to_the_next_token(ranking):
    rows = ranking["features"]
    assert len(rows) == 3
    sizes = [abs(row["attribution"]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert 0 < ranking["probability"] <= 1
    # First order and exact agree in sign for most of what is strongest.
    assert sum(row["ablation"] * row["attribution"] > 0 for row in rows) >= 2


def test_one_feature_by_position_and_by_token(run_once, ranking):
    feature = ranking["features"][0]["feature"]
    record = json.loads(run_once("features", "effect", feature, *PROMPT, "--top", "4", "--json").stdout)
    assert record["token"] == ranking["token"]
    assert record["explained"]["ablation"] == pytest.approx(ranking["features"][0]["ablation"], rel=1e-3)
    assert all(row["reading"] > 0 for row in record["positions"])
    assert [row["ablation"] for row in record["raised"]] == sorted(
        (row["ablation"] for row in record["raised"]), reverse=True
    )
    shown = run_once("features", "effect", feature, *PROMPT)
    assert shown.exit_code == 0
    assert "ablation is exact" in shown.stdout


def test_what_cannot_be_explained_is_said(run_once, ranking):
    wrong = run_once("features", "effect", "99999999", *PROMPT)
    assert "does not exist" in wrong.stderr
    assert "write one" in run_once("features", "effect", *PROMPT, "--token", "several words here").stderr
