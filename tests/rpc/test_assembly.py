"""What the server does with the self-test: refuse, warn, or say that nobody looked."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from monitor.errors import ConfigurationError, SelfTestFailed
from monitor.model.runtime import LoadedPair, load_pair
from monitor.pairs import tiny
from monitor.rpc.assembly import assemble, checked
from monitor.settings import load_settings
from monitor.telemetry.metrics.metrics import Metrics
from tests.rpc.pairs import small_scene


@pytest.fixture(scope="module")
def parts() -> LoadedPair:
    return load_pair(str(tiny.model_path()), tiny.dictionary_path(), device="cpu")


@pytest.mark.slow
def test_a_pair_that_does_not_fit_does_not_start_and_says_why(parts: LoadedPair) -> None:
    wrong = replace(parts, place=replace(parts.place, layer=parts.place.layer + 2))
    with pytest.raises(SelfTestFailed) as refused:
        checked(wrong, skip=False)
    assert isinstance(refused.value, ConfigurationError)
    said = str(refused.value)
    assert "explained variance is" in said
    assert f"1. wrong layer: at {parts.place}" in said
    assert "--skip-self-test" in said


def test_skipping_is_logged_and_a_metric(parts: LoadedPair) -> None:
    wrong = replace(parts, place=replace(parts.place, layer=0))
    with structlog.testing.capture_logs() as logs:
        health = checked(wrong, skip=True)
    assert [(log["event"], log["log_level"]) for log in logs] == [("self-test skipped", "warning")]
    assert health.skipped
    assert _exported(health)["sae_monitor_self_test_skipped"] == 1


def test_what_was_measured_is_exported(parts: LoadedPair) -> None:
    health = checked(parts, skip=False)
    found = _exported(health)
    assert found["sae_monitor_self_test_skipped"] == 0
    assert found["sae_monitor_dictionary_l0"] == health.l0
    assert found["sae_monitor_dictionary_explained_variance_ratio"] == health.explained_variance
    assert dict(health.checks) == dict.fromkeys(dict(health.checks), True)
    assert found["sae_monitor_self_test_passed", "variance"] == 1


def test_a_pair_of_which_nothing_is_known_is_warned_about(tmp_path: Path) -> None:
    scene = small_scene(tmp_path)
    with structlog.testing.capture_logs() as logs:
        assemble(load_settings(scene.flags))
    [log] = [log for log in logs if log["event"].startswith("self-test")]
    assert (log["event"], log["log_level"]) == ("self-test without expected values", "warning")
    assert "dictionary verify" in log["do"]


def test_settings_of_vllm_for_the_built_in_engine_are_warned_about(tmp_path: Path) -> None:
    scene = small_scene(tmp_path)
    given = {"vllm_options": '{"block_size": 32}', "vllm_plugin": True, "vllm_xargs": False}
    with structlog.testing.capture_logs() as logs:
        assemble(load_settings(scene.flags | {"vllm_options": "{}"}))
        assert not [log for log in logs if log["event"] == "a setting has no effect"]
        assemble(load_settings(scene.flags | given))
    unused = [log for log in logs if log["event"] == "a setting has no effect"]
    assert [(log["setting"], log["log_level"]) for log in unused] == [
        ("vllm_options", "warning"),
        ("vllm_plugin", "warning"),
    ]
    assert "engine: vllm" in unused[0]["why"]
    assert "plug-in of `vllm serve`" in unused[1]["why"]


def test_a_set_of_which_nobody_knows_what_it_costs_is_warned_about(tmp_path: Path) -> None:
    scene = small_scene(tmp_path)
    with structlog.testing.capture_logs() as logs:
        assemble(load_settings(scene.flags))
    [log] = [log for log in logs if log["event"] == "false positives of the policies"]
    assert log["log_level"] == "warning"
    assert "the 2 policies fire together: `sae-monitor policy budget` shares one rate" in log["note"]


def _exported(health: object) -> dict[object, float]:
    from types import SimpleNamespace

    from monitor.rpc.server import connect_metrics

    metrics = Metrics()
    queue = SimpleNamespace(
        queue_depth=lambda: 0, running=lambda: 0, passes=lambda: 0, cache_used=lambda: 0.0, why_separate=""
    )
    connect_metrics(metrics, load_settings({}), SimpleNamespace(engine=queue, scorer=queue), health)
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    return {(s.name, s.labels["check"]) if "check" in s.labels else s.name: s.value for s in samples}


@pytest.mark.slow
def test_vllm_that_is_not_installed_is_named_with_what_to_install(tmp_path: Path) -> None:
    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("vLLM is installed")
    scene = small_scene(tmp_path)
    with pytest.raises(ConfigurationError, match="pip install 'sae-monitor"):
        assemble(load_settings(scene.flags | {"engine": "vllm"}))
    guarding = load_settings(scene.flags | {"engine": "vllm", "upstream": "http://127.0.0.1:1"})
    with pytest.raises(ConfigurationError, match="built-in engine"):
        assemble(guarding)
