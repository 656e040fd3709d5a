"""Policies measured on texts: which sources count, which rules are tried, and what readers are told."""

from pathlib import Path

import pytest

from monitor.errors import InputError
from monitor.lab.data_folder import open_data
from monitor.lab.policy_evaluation import PolicyEvaluator, evaluate, idle_sources, notes_on, signals_of, tried
from monitor.policy.files.resolve import resolve
from monitor.policy.files.source import Running, read_source
from monitor.policy.policyset import PolicySet
from monitor.records import Signal
from tests.policy.policy_files import DICTIONARY, MODEL, PINNED, write_policy

CONDITIONS = """\
apiVersion: monitor/v1
metadata: {name: odd, title: Odd, category: odd, severity: low, description: Odd.}
features: [{index: 3}]
conditions:
  strong: {threshold: 0.5}
  strange: {signal: residual_norm, threshold: 5.0}
  answered: {phases: [response], threshold: 0.5, scope: session}
rules:
  - {name: both, when: {all: [strong, strange]}}
  - {name: later, when: {all: [strong, answered]}}
  - {name: plain, threshold: 1.0}
"""
CLAMPS = """\
apiVersion: monitor/v1
metadata: {name: calm, title: Calm, category: calm, severity: low, description: Calm.}
features: [{index: 3}]
rules: []
suppress: {features: [3], target: -1, when: always}
"""


def sources_and_set(folder, **texts):
    sources = [read_source(write_policy(folder, text, name), None) for name, text in texts.items()]
    running = Running(MODEL, DICTIONARY, 100)
    problems = []
    policies = tuple(resolve(source, running, problems) for source in sources)
    assert not problems
    return sources, PolicySet(policies, "")


def test_signals_that_any_part_reads(tmp_path):
    sources, _ = sources_and_set(tmp_path, odd=CONDITIONS, greed=PINNED)
    assert signals_of(sources) == {Signal.RESIDUAL_NORM}
    assert signals_of(sources[1:]) == set()


def test_every_rule_is_tried_in_the_order_of_the_file(tmp_path):
    (source,), policies = sources_and_set(tmp_path, odd=CONDITIONS)
    assert [one.rule for one in tried(source, policies)] == ["both", "later", "plain"]


def test_what_a_reader_must_know(tmp_path):
    sources, policies = sources_and_set(tmp_path, odd=CONDITIONS, calm=CLAMPS, greed=PINNED)
    odd, calm, greed = (notes_on(source, policies) for source in sources)
    assert odd[0].startswith("odd/both: combines conditions")
    assert "cannot be reached" not in odd[0]
    assert odd[1].endswith("and a text is all prompt here, so `answered` cannot be reached")
    assert odd[2].startswith("odd: learnt from no examples")
    assert odd[3] == "odd: answered add up over a conversation; here each text is a conversation of its own"
    assert calm == ["calm: has no rules, it only clamps; `policy cost` measures that"]
    assert len(greed) == 1


@pytest.fixture
def data(tmp_path):
    for name, rows in {
        "greed/wants": [f"I want number {i},1\nA calm day {i},0" for i in range(40)],
        "envy/mine": [f"Yours {i},1\nOurs {i},0" for i in range(40)],
        "benign/asks": [f"How far is town {i}?,0" for i in range(60)],
    }.items():
        path = tmp_path / "texts" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return open_data(tmp_path / "texts")


def test_sources_about_no_policy_are_said(tmp_path, data):
    (greed,), _ = sources_and_set(tmp_path, greed=PINNED)
    assert list(idle_sources(data, [greed])) == ["envy/mine: not used, as no policy here is about envy"]
    (calm,), _ = sources_and_set(tmp_path, calm=CLAMPS)
    with pytest.raises(InputError, match="NAME being one of calm"):
        list(idle_sources(data, [calm]))


def test_a_pinned_policy_is_measured_without_baselines(tmp_path, data, opened):
    folder = tmp_path / "policies"
    folder.mkdir()
    write_policy(folder, PINNED)
    told = []
    found = evaluate(opened, folder, data, rows=20, texts=5, progress=told.append)
    assert told == ["reading benign texts", "measuring greed", "counting false positives"]
    (source,) = found.sources
    assert (source.policy, source.rule, source.source) == ("greed", "stated", "greed/wants")
    assert (source.positive, source.negative, set(source.methods)) == (10, 10, {"policy"})
    assert sum(rate.texts for rate in found.rates if rate.rule == "stated") == 60
    assert sum(rate.texts for rate in found.rates if not rate.rule) == 60
    assert (
        found.notes[0]
        == "greed: learnt from no examples, so it has no card, and no baselines stand beside it"
    )
    assert found.digests["policies"] == PolicyEvaluator(opened, Path(folder)).set.digest


def test_without_rows_false_positives_alone_are_counted(tmp_path, data, opened):
    folder = tmp_path / "policies"
    folder.mkdir()
    write_policy(folder, PINNED)
    told = []
    found = evaluate(opened, folder, data, rows=0, texts=5, progress=told.append)
    assert told == ["reading benign texts", "counting false positives"]
    assert found.sources == ()
    assert sum(rate.texts for rate in found.rates if rate.rule == "stated") == 60
