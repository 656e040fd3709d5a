"""Recording and alerting rules: what the real promtool says, and that none of them stands alone."""

import re
import subprocess

import pytest
from prometheus_client import CollectorRegistry
from ruamel.yaml import YAML

from monitor.telemetry.metrics.guard import GuardMetrics, WaitMetrics
from monitor.telemetry.metrics.metrics import Metrics
from monitor.telemetry.metrics.security import SecurityMetrics
from monitor.telemetry.metrics.server_state import watched_gauge
from tests.deploy.tools import DEPLOY, RULES, found, run

pytestmark = pytest.mark.real

CASES = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))


def load(path):
    return YAML(typ="safe").load(path.read_text())


def rules(kind):
    return [
        rule for path in RULES for group in load(path)["groups"] for rule in group["rules"] if kind in rule
    ]


ALERTS = [rule["alert"] for rule in rules("alert")]
NAMES = [case["name"] for path in CASES for case in load(path)["tests"]]


def test_promtool_accepts_rules_and_configuration():
    run("promtool", "check", "rules", *RULES)
    run("promtool", "check", "config", "prometheus.yml", cwd=DEPLOY / "prometheus")


@pytest.mark.slow
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_case_fires_what_it_says(path):
    assert "SUCCESS" in run("promtool", "test", "rules", path)


def cases_with(tmp_path, alert, expr, word):
    """How the cases of an alert whose names hold `word` go, each alone, with another expression in its place."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "tests").mkdir()
    yaml = YAML(typ="safe")
    for path in RULES:
        content = load(path)
        for rule in (rule for group in content["groups"] for rule in group["rules"]):
            if rule.get("alert") == alert:
                rule["expr"] = expr
        yaml.dump(content, tmp_path / "rules" / path.name)
    named = re.compile(rf"\b{alert.removeprefix('SaeMonitor')}\b.*\b{word}\b")
    every = [(source, case) for source in CASES for case in load(source)["tests"]]
    for number, (source, case) in enumerate(every):
        if named.search(case["name"]):
            one = tmp_path / "tests" / f"{number}.yml"
            yaml.dump(load(source) | {"tests": [case]}, one)
            done = subprocess.run(
                [found("promtool"), "test", "rules", one], capture_output=True, text=True, check=False
            )
            yield done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("expr", "word"), [("vector(1) > 2", "fires"), ("vector(1)", "quiet")])
@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_cases_that_notice_if_it_never_fires_and_if_it_always_does(
    tmp_path, alert, expr, word
):
    outcomes = list(cases_with(tmp_path, alert, expr, word))
    assert outcomes
    for code, said in outcomes:
        assert code == 1, said
        assert alert in said


@pytest.mark.slow
def test_a_case_that_fires_something_else_fails(tmp_path):
    """The cases can fail: with the threshold moved, promtool says so."""
    for folder in ("rules", "tests"):
        (tmp_path / folder).mkdir()
    for path in RULES:
        (tmp_path / "rules" / path.name).write_text(path.read_text().replace("> 0.8", "> 0.95"))
    case = tmp_path / "tests" / "service.yml"
    case.write_text((DEPLOY / "prometheus" / "tests" / "service.yml").read_text())
    with pytest.raises(AssertionError, match="QueueSaturated"):
        run("promtool", "test", "rules", case)


@pytest.mark.parametrize("rule", rules("alert"), ids=ALERTS)
def test_every_alert_says_how_urgent_it_is_and_leads_to_the_runbook(rule):
    assert rule["labels"]["urgency"] in ("page", "ticket")
    assert {"summary", "description", "runbook_url"} == set(rule["annotations"])
    path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor == rule["alert"].lower()
    entries = re.findall(r"^### (\w+)\n`(\w+)` · (.+)$", (DEPLOY.parent / path).read_text(), re.MULTILINE)
    assert (rule["alert"], rule["labels"]["urgency"]) in [entry[:2] for entry in entries]
    assert all(len(entry[2]) > 40 for entry in entries)


def test_the_runbook_has_no_entry_too_many():
    headings = re.findall(r"^### (\w+)$", (DEPLOY / "runbook.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)


def exported():
    """Names of all series that a server can export."""
    registry = CollectorRegistry()
    Metrics(registry)
    SecurityMetrics(registry)
    GuardMetrics(registry)
    WaitMetrics(registry)
    watched_gauge(registry)
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
    return {
        family.name + suffix for family in registry.collect() for suffix in suffixes.get(family.type, [""])
    }


def test_rules_name_only_series_that_exist():
    recorded = {rule["record"] for rule in rules("record")}
    named = set()
    for rule in [*rules("alert"), *rules("record")]:
        text = re.sub(r'"[^"]*"', "", rule["expr"])
        named |= set(re.findall(r"(?<![\w:])(?:(?:[a-z_0-9]+:)?sae_monitor|process)_[a-z0-9_:]+", text))
    assert named
    assert named - recorded <= exported()
