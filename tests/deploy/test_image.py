"""The image, the compose file and the systemd unit, as far as they can be checked without an engine."""

import json
import re
import shutil
import subprocess

import pytest
from ruamel.yaml import YAML

from monitor.settings import PREFIX, Settings
from tests.deploy.tools import DEPLOY, found, run

ROOT = DEPLOY.parent
DOCKERFILE = DEPLOY / "Dockerfile"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
UNIT = DEPLOY / "systemd" / "sae-monitor.service"


def instructions(name):
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith(f"{name} ")]


def test_hadolint_finds_nothing():
    assert run("hadolint", "--failure-threshold", "info", DOCKERFILE) == ""


def test_what_is_copied_exists_and_is_in_the_context():
    allowed = re.findall(r"^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    copied = [path for line in instructions("COPY") if "--from" not in line for path in line.split()[:-1]]
    assert "monitor" in copied
    for path in copied:
        assert (ROOT / path).exists(), path
        assert any(path == name or path.startswith(f"{name}/") for name in allowed), path


def test_it_runs_without_root_and_knows_how_to_be_stopped():
    assert instructions("USER") == ["10001:10001"]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert not [line for line in instructions("FROM") if ":latest" in line or ":" not in line.split()[0]]


def settings_named(text):
    """Names of settings in environment variables."""
    found = set(re.findall(rf"\b{PREFIX}([A-Z_]+)\b", text))
    assert found
    return {name.lower() for name in found}


@pytest.mark.parametrize("path", [DOCKERFILE, COMPOSE, UNIT], ids=lambda path: path.name)
def test_every_variable_is_a_setting(path):
    assert settings_named(path.read_text()) <= set(Settings.model_fields)


def composed():
    """The compose file with its variables set and its shared parts merged."""
    text = COMPOSE.read_text()
    text = re.sub(r"\$\{(\w+):-(\w+)\}", r"\2", text)
    return YAML(typ="safe").load(re.sub(r"\$\{(\w+):\?[^}]+\}", r"\1", text))


def test_the_compose_file_follows_the_specification():
    spec = pytest.importorskip("compose_spec", reason="compose-spec is not installed")
    plain = composed()
    plain.pop("x-hardened")
    # JSON is YAML.
    parsed = spec.PyCompose.from_yaml(json.dumps(plain))
    parsed.validate()
    assert set(parsed.service_names()) == {"sae-monitor", "prometheus", "alertmanager", "grafana"}
    plain["services"]["grafana"]["cap_dropp"] = ["ALL"]
    with pytest.raises(ValueError, match="cap_dropp"):
        spec.PyCompose.from_yaml(json.dumps(plain))


def test_everything_composed_is_hardened_and_on_this_machine_only():
    for name, service in composed()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert "latest" not in service["image"]


def test_what_is_mounted_exists_and_every_volume_is_declared():
    content = composed()
    for service in content["services"].values():
        for volume in service["volumes"]:
            if volume["type"] == "bind":
                assert (COMPOSE.parent / volume["source"]).exists(), volume["source"]
                assert volume["read_only"] is True
            else:
                assert volume["source"] in content["volumes"]


def test_grafana_finds_the_dashboards_and_their_source():
    folder = DEPLOY / "grafana" / "provisioning"
    source = YAML(typ="safe").load((folder / "datasources" / "prometheus.yml").read_text())
    assert source["datasources"][0]["type"] == "prometheus"
    (provider,) = YAML(typ="safe").load((folder / "dashboards" / "sae-monitor.yml").read_text())["providers"]
    mounts = {volume["target"] for volume in composed()["services"]["grafana"]["volumes"]}
    assert {provider["options"]["path"], "/etc/grafana/provisioning"} <= mounts


@pytest.mark.real
def test_the_composed_prometheus_differs_in_addresses_only(tmp_path):
    shutil.copytree(DEPLOY / "prometheus" / "rules", tmp_path / "rules")
    shutil.copy(COMPOSE.parent / "prometheus.yml", tmp_path)
    run("promtool", "check", "config", tmp_path / "prometheus.yml")
    ours, theirs = (
        (folder / "prometheus.yml").read_text() for folder in (DEPLOY / "prometheus", COMPOSE.parent)
    )
    body = theirs.partition("\n")[2]
    assert body.replace("alertmanager:", "127.0.0.1:").replace("sae-monitor:9464", "127.0.0.1:9464") == ours


def test_systemd_accepts_the_unit_and_calls_it_confined(tmp_path):
    analyse = found("systemd-analyze")
    unit = tmp_path / UNIT.name
    # What it starts is not installed here.
    unit.write_text(UNIT.read_text().replace("/opt/sae-monitor/bin/sae-monitor serve", "/bin/true serve"))
    checked = subprocess.run(
        [analyse, "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    graded = [analyse, "security", "--offline=true", "--threshold=20", UNIT]
    rated = subprocess.run(graded, capture_output=True, text=True, check=False)
    assert rated.returncode == 0, rated.stdout[-400:]
