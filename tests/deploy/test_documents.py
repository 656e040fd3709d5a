"""What the deployment documents tell people to type and to set exists."""

import re
import shlex
import subprocess

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from monitor.cli.app import app
from monitor.errors import EngineDied
from monitor.settings import Settings
from monitor.telemetry.metrics.decisions import DROPS, ERRORS
from monitor.telemetry.metrics.metrics import FAILURES, REJECTIONS
from tests.cli.test_app import paths
from tests.deploy.test_rules import exported
from tests.deploy.tools import DEPLOY, RULES

DOCUMENTS = [DEPLOY / "README.md", DEPLOY / "runbook.md"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(path):
    known = set(paths())
    groups = {words[0] for words in known if len(words) > 1}
    named = re.findall(r"(?:^|`)sae-monitor ([a-z]+)(?: ([a-z]+))?", path.read_text(), re.MULTILINE)
    assert named
    for first, second in named:
        wanted = (first, second) if first in groups and second else (first,)
        assert wanted in known, wanted


def typed():
    """The commands of this project that stand in blocks of the documents, each as it is typed."""
    for path in DOCUMENTS:
        for block in re.findall(r"^```console\n(.*?)^```", path.read_text(), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                if found := re.match(r"sae-monitor ([^#|]*)", line):
                    yield found[1].strip()


def test_there_are_commands_in_blocks():
    assert len(set(typed())) > 10


@pytest.mark.parametrize("command", sorted(set(typed())))
def test_commands_are_taken_with_their_flags(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("policies", "other-policies", "path/to/policies", "path/to/dictionary"):
        (tmp_path / name).mkdir(parents=True)
    group, words = get_command(app), shlex.split(command)
    while hasattr(group, "commands") and words and words[0] in group.commands:
        name, *words = words
        group = group.commands[name]
        group = group.load() if hasattr(group, "load") else group
    group.make_context(command, words)


def test_files_exist():
    text = (DEPLOY / "README.md").read_text()
    for name in re.findall(
        r"`((?:prometheus|alertmanager|grafana|systemd|kubernetes|base|compose)/[\w./*-]*)`", text
    ):
        folder = DEPLOY / "kubernetes" if name.startswith("base/") else DEPLOY
        assert list(folder.glob(name.rstrip("/"))), name


def test_the_tests_of_what_an_attacker_gets_exist():
    table = (DEPLOY / "README.md").read_text().partition("| an attacker")[2].partition("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[-2])]
    assert len(named) > 15
    for name in named:
        if not name.startswith("python "):
            assert (DEPLOY.parent / "tests" / name).exists(), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_settings_and_metrics_in_text_exist(path):
    """Words in code style that begin like a setting are a setting, a metric or a cause."""
    beginnings = {name.split("_")[0] for name in Settings.model_fields if "_" in name}
    metrics = {name.removeprefix("sae_monitor_") for name in exported()}
    metrics |= {re.sub("_(bucket|count|sum)$", "", name) for name in metrics}
    named = [
        name for name in re.findall(r"`(\w+_\w+)`", path.read_text()) if name.split("_")[0] in beginnings
    ]
    assert named
    assert set(named) <= {*Settings.model_fields, *metrics, *FAILURES, *DROPS, *ERRORS, *REJECTIONS}


def entry(alert):
    text = (DEPLOY / "runbook.md").read_text()
    return text.partition(f"### {alert}\n")[2].partition("\n### ")[0]


@pytest.mark.parametrize("reason", [reason for reason in REJECTIONS if reason != "draining"])
def test_the_runbook_explains_every_reason_why_calls_are_turned_away(reason):
    assert f"`{reason}`" in entry("SaeMonitorShedding")


@pytest.mark.parametrize("cause", [cause for cause in FAILURES if cause != "other"])
def test_the_runbook_explains_every_cause_why_tokens_were_not_scored(cause):
    assert f"`{cause}`" in entry("SaeMonitorTokensUnscored")


@pytest.mark.parametrize("cause", DROPS)
def test_the_runbook_explains_every_cause_why_records_were_lost(cause):
    assert f"`{cause}`" in entry("SaeMonitorDecisionsDropped")


def test_the_runbook_says_what_the_exit_code_of_a_dead_engine_means():
    assert f"- {EngineDied.exit_code}:" in entry("SaeMonitorRestarting")


def test_the_rules_become_objects_of_the_operator_as_the_readme_says():
    (script,) = re.findall(
        r"^for file in .*?^done", (DEPLOY / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    made = subprocess.run(
        ["bash", "-c", script], cwd=DEPLOY.parent, capture_output=True, text=True, check=True
    ).stdout
    yaml = YAML(typ="safe")
    found = [document for document in yaml.load_all(made) if document]
    assert {document["kind"] for document in found} == {"PrometheusRule"}
    assert [d["metadata"]["name"] for d in found] == [f"sae-monitor-{path.stem}" for path in RULES]
    assert [d["spec"] for d in found] == [yaml.load(path.read_text()) for path in RULES]
