"""Manifests: built by the real kustomize where there is one, held against the API's schemas, and against ours."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from monitor.policy.files.lock_folders import lock_path, pair_folders
from monitor.rpc.assembly import bundled_policies
from monitor.settings import Settings, decision_folder, load_settings, split_address
from tests.deploy.test_image import DOCKERFILE, settings_named
from tests.deploy.test_rules import rules
from tests.deploy.tools import DEPLOY

FOLDER = DEPLOY / "kubernetes"
OVERLAYS = ("sidecar", "standalone")
OTHERS = {"PodMonitor"}
"""Kinds of the Prometheus operator, whose schemas are not in the API's."""


def documents(text):
    return [found for found in YAML(typ="safe").load_all(text) if found]


def built(overlay):
    """The objects of an overlay; skips where nothing can build it."""
    for command in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(command[0]):
            folder = FOLDER / "overlays" / overlay
            done = subprocess.run([*command, folder], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            return documents(done.stdout)
    pytest.skip("neither kustomize nor kubectl is installed")


def kustomizations():
    return sorted(FOLDER.rglob("kustomization.yaml"))


@pytest.mark.parametrize("path", kustomizations(), ids=lambda path: path.parent.name)
def test_kustomizations_name_what_exists_and_leave_nothing_out(path):
    content = YAML(typ="safe").load(path.read_text())
    named = [*content.get("resources", []), *content.get("components", [])]
    named += [patch["path"] for patch in content.get("patches", [])]
    named += [name for made in content.get("configMapGenerator", []) for name in made["files"]]
    for name in named:
        target = path.parent / name
        assert (target / "kustomization.yaml").is_file() if target.is_dir() else target.is_file(), name
    beside = {found.name for found in path.parent.glob("*.yaml")} - {
        "kustomization.yaml",
        "adapter-rule.yaml",
    }
    assert beside <= set(named)


def sources():
    return [path for path in sorted(FOLDER.rglob("*.yaml")) if path.name not in NOT_MANIFESTS]


NOT_MANIFESTS = {"kustomization.yaml", "settings.yaml", "adapter-rule.yaml", "sidecar.yaml"}


def validated(manifest):
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    if manifest["kind"] not in OTHERS:
        validate.validate(manifest, "1.33", strict=True)


@pytest.mark.parametrize("path", sources(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_sources_follow_the_schemas_of_the_api(path):
    for manifest in documents(path.read_text()):
        validated(manifest)


def test_a_misspelt_field_is_found():
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    (manifest,) = documents((FOLDER / "overlays" / "standalone" / "statefulset.yaml").read_text())
    manifest["spec"]["template"]["spec"]["terminationGracePeriod"] = 1
    with pytest.raises(validate.ValidationError, match="terminationGracePeriod"):
        validate.validate(manifest, "1.33", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_build_and_follow_the_schemas(overlay):
    found = built(overlay)
    for manifest in found:
        validated(manifest)
        assert manifest["metadata"]["namespace"] == "models"
    kinds = {manifest["kind"] for manifest in found}
    assert {"ConfigMap", "NetworkPolicy", "PodMonitor"} <= kinds
    assert ("HorizontalPodAutoscaler" in kinds) == (overlay == "standalone")


def test_overlays_in_one_namespace_do_not_replace_each_other():
    names = [{(m["kind"], m["metadata"]["name"]) for m in built(overlay)} for overlay in OVERLAYS]
    # The settings are the same, and so is the name that their digest is in.
    assert {kind for kind, _ in names[0] & names[1]} <= {"ConfigMap"}


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_rules_know_the_job_of_the_pod_monitor(overlay):
    """The operator names a job by namespace and name of its PodMonitor."""
    (monitor,) = [m["metadata"] for m in built(overlay) if m["kind"] == "PodMonitor"]
    known = {found for rule in rules("alert") for found in re.findall(r'job=~"([^"]+)"', rule["expr"])}
    # vLLM with the plug-in is a job of its own, which no overlay here runs.
    (known,) = {job for job in known if not job.endswith("-vllm")}
    assert re.fullmatch(known, f"{monitor['namespace']}/{monitor['name']}")
    (port,) = [found["port"] for found in _endpoints(overlay)]
    assert port in {found["name"] for found in container(overlay)["ports"]}


def _endpoints(overlay):
    (monitor,) = [m for m in built(overlay) if m["kind"] == "PodMonitor"]
    return monitor["spec"]["podMetricsEndpoints"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_model_may_load_for_as_long_as_the_alert_that_it_is_down_waits(overlay):
    probe = container(overlay)["startupProbe"]
    (down,) = [rule["expr"] for rule in rules("alert") if rule["alert"] == "SaeMonitorDown"]
    assert f"offset {probe['periodSeconds'] * probe['failureThreshold'] // 60}m" in down


def pod(overlay):
    (found,) = [m for m in built(overlay) if m["kind"] in ("Deployment", "StatefulSet")]
    return found, found["spec"]["template"]["spec"]


def container(overlay):
    _, spec = pod(overlay)
    every = [*spec["containers"], *spec.get("initContainers", [])]
    return next(found for found in every if found["name"] == "sae-monitor")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_container_is_confined_probed_and_drained(overlay):
    _, spec = pod(overlay)
    found = container(overlay)
    secured = spec.get("securityContext", {}) | found["securityContext"]
    assert secured["runAsNonRoot"] is True
    assert secured["readOnlyRootFilesystem"] is True
    assert secured["allowPrivilegeEscalation"] is False
    assert secured["capabilities"] == {"drop": ["ALL"]}
    assert secured["seccompProfile"] == {"type": "RuntimeDefault"}
    script = re.search(r"COPY deploy/healthcheck.py (\S+)", DOCKERFILE.read_text())[1]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        command = found[probe]["exec"]["command"]
        assert command[:3] == ["python", script, "127.0.0.1:50051"]
        # Only who takes traffic must serve; a sidecar that cannot log is not mended by killing it.
        assert ("--alive" in command) == (probe == "livenessProbe")
    wait = int(found["lifecycle"]["preStop"]["exec"]["command"][1])
    grace = load_settings({"settings": FOLDER / "base" / "settings.yaml"}).grace_seconds
    assert wait + grace < spec["terminationGracePeriodSeconds"]
    assert found["image"] == "sae-monitor:cpu"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_are_ours_and_every_file_is_in_a_volume(overlay, monkeypatch):
    found = container(overlay)
    given = {entry["name"]: entry["value"] for entry in found["env"]}
    assert settings_named(" ".join(given)) <= set(Settings.model_fields)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    chosen = load_settings({"settings": FOLDER / "base" / "settings.yaml"})
    mounts = [mount["mountPath"] for mount in found["volumeMounts"]]
    paths = [chosen.policies, chosen.decision_log, chosen.callers, chosen.tls_certificate, chosen.tls_key]
    paths += [found["args"][-1]]
    for path in filter(None, paths):
        assert any(str(path).startswith(mount) for mount in mounts), path
    # A file mounted alone would never change; folders of ConfigMaps do.
    assert not any("subPath" in mount for mount in found["volumeMounts"])
    assert chosen.listen.startswith("127.0.0.1" if overlay == "sidecar" else "0.0.0.0")
    assert (chosen.callers is None) == (overlay == "sidecar")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_typed_in_the_container_finds_its_decision_log(overlay, monkeypatch):
    """The runbook's `sae-monitor decisions` names no folder; the image's variables and the pod's must do."""
    chosen = load_settings({"settings": FOLDER / "base" / "settings.yaml"}).decision_log
    monkeypatch.setenv("STATE_DIRECTORY", re.search(r"STATE_DIRECTORY=(\S+)", DOCKERFILE.read_text())[1])
    for entry in container(overlay)["env"]:
        monkeypatch.setenv(entry["name"], entry["value"])
    typed = load_settings({})
    assert str(decision_folder(typed, split_address(typed.listen)[1])) == chosen


def test_the_readme_asks_for_a_certificate_with_every_name_that_callers_dial():
    text = (DEPLOY / "README.md").read_text()
    named = re.search(r"`ca.crt`, with the names? ([^)]+)\)", text)[1]
    services = [m["metadata"] for m in built("standalone") if m["kind"] == "Service"]
    assert len(services) == 2
    for service in services:
        assert f"`{service['name']}.{service['namespace']}.svc`" in named


def test_selectors_select_the_pods_they_mean():
    every = built("standalone")
    labels = pod("standalone")[0]["spec"]["template"]["metadata"]["labels"]
    for manifest in every:
        selector = (
            manifest["spec"].get("selector") or manifest["spec"].get("podSelector")
            if "spec" in manifest
            else None
        )
        if selector:
            assert selector.get("matchLabels", selector).items() <= labels.items(), manifest["kind"]
    (scaler,) = [m for m in every if m["kind"] == "HorizontalPodAutoscaler"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == pod("standalone")[0]["metadata"]["name"]
    (rule,) = YAML(typ="safe").load((FOLDER / "overlays" / "standalone" / "adapter-rule.yaml").read_text())
    assert rule["name"]["as"] == scaler["spec"]["metrics"][0]["pods"]["metric"]["name"]


def test_the_bundled_policies_and_the_locks_of_each_pair_fit_a_config_map():
    """A ConfigMap holds a mebibyte, and keys of letters, digits, dots, dashes and underscores."""
    pairs = pair_folders(bundled_policies())
    assert pairs
    for folder in (bundled_policies(), *pairs):
        files = [path for path in folder.iterdir() if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 900_000
        assert all(re.fullmatch(r"[-._a-zA-Z0-9]+", path.name) for path in files)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_locks_are_mounted_where_the_server_looks_for_them(overlay):
    policies = load_settings({"settings": FOLDER / "base" / "settings.yaml"}).policies
    volumes = {
        volume["name"]: volume["configMap"]["name"]
        for volume in pod(overlay)[1]["volumes"]
        if "configMap" in volume
    }
    mounts = {mount["mountPath"]: volumes.get(mount["name"]) for mount in container(overlay)["volumeMounts"]}
    assert mounts[str(policies)] == "sae-monitor-policies"
    (place,) = [Path(path) for path, name in mounts.items() if name == "sae-monitor-locks"]
    assert lock_path(policies / "any.yaml", place.name).parent == place
    named = re.findall(r"create configmap (\S+) --from-file=(\S+)", (DEPLOY / "README.md").read_text())
    assert dict(named) == {"sae-monitor-policies": "policies/", "sae-monitor-locks": "policies/locks/tiny/"}
