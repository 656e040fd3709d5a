"""The policies that ship: files that agree with each other, enough examples, tests that pass on readings."""

import json
from pathlib import Path

import pytest

from monitor.lab.policy_tests import run_tests
from monitor.policy.files.benign import read_benign
from monitor.policy.files.examples import Label
from monitor.policy.files.lint import check_folder
from monitor.policy.files.loader import read_folder
from monitor.policy.schema.policy import json_schema

POLICIES = Path(__file__).parents[2] / "policies"
SOURCES = read_folder(POLICIES, "tiny")
NAMED = {
    "deception",
    "power-seeking",
    "bias",
    "sycophancy",
    "manipulation-secrecy",
    "dangerous-requests",
    "scams",
    "model-identity",
    "unsafe-code-vulnerability",
    "unsafe-code-backdoor",
    "unsafe-code-bug",
}


@pytest.mark.slow
def test_everything_reads():
    checked = check_folder(POLICIES)
    assert checked.policies == len(SOURCES) >= len(NAMED)
    assert not [note for note in checked.notes if "test" in note]


def test_the_named_categories_are_there():
    assert {source.model.metadata.name for source in SOURCES} >= NAMED


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.model.metadata.name)
def test_examples_are_many_and_each_is_its_own(source):
    labels = [example.label for example in source.examples]
    assert labels.count(Label.POSITIVE) >= 60
    assert len(labels) - labels.count(Label.POSITIVE) >= 60
    assert labels.count(Label.HARD_NEGATIVE) >= 20


def test_benign_texts_are_many_and_no_example_is_among_them():
    benign = read_benign(POLICIES / "benign.jsonl")
    assert len(benign) >= 300
    assert not set(benign) & {example.text for source in SOURCES for example in source.examples}


def test_the_shipped_schema_is_the_current_one():
    shipped = json.loads((POLICIES / "policy.schema.json").read_text())
    assert shipped == json_schema(), "run `sae-monitor policy schema -o policies/policy.schema.json`"


@pytest.mark.slow
def test_cases_on_readings_pass():
    results = run_tests(POLICIES, None)
    assert {result.policy for result in results if result.skipped} == {s.model.metadata.name for s in SOURCES}
    assert sum(result.passed for result in results) > len(SOURCES)
    assert not [result for result in results if not result.passed and not result.skipped]


def test_no_example_comes_from_the_labelled_data(data_folder):
    files = [path.read_text("utf-8").split("\n") for path in (data_folder / "labelled").glob("*/*.jsonl")]
    known = {json.loads(line)["text"].strip() for lines in files for line in lines if line}
    own = {example.text for source in SOURCES for example in source.examples}
    assert not known & (own | set(read_benign(POLICIES / "benign.jsonl")))
