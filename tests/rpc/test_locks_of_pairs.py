"""One folder of policies with locks for two pairs: each server takes its own, and refuses by name what has none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from monitor.errors import ConfigurationError, PolicyError
from monitor.pairs.named_pair import NamedPair
from monitor.policy.files.lock import LockModel, write_lock
from monitor.policy.files.lock_folders import lock_path
from monitor.rpc.server import in_background
from monitor.settings import load_settings
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.pairs.registered import registered
from tests.policy.policy_files import CONCEPT, EXAMPLES, lock_for, write_policy
from tests.rpc.conftest import DEADLINE, connected
from tests.rpc.pairs import SILENT, SPEAKS, Scene, small_scene
from tests.waiting import wait_for

KINDS = {"first": "llama", "second": "mistral", "third": "granite"}
ALERTS = CONCEPT.split("    action:")[0] + "    action: alert\n"


def lock_of(scene: Scene, threshold: float) -> LockModel:
    """A lock for the pair of a scene whose rule reads the feature that speaks."""
    data = lock_for(EXAMPLES).model_dump(by_alias=True) | {"suppress": []}
    parts, feature = scene.parts, scene.alerting
    assert parts.dictionary.statistics is not None
    maximum = float(parts.dictionary.statistics.maximum[feature])
    data["model"] = {"name": "small", "digest": parts.loaded.digest}
    data["dictionary"] = {
        "digest": parts.dictionary.digest,
        "features": parts.dictionary.autoencoder.features,
    }
    data["features"] = [{"index": feature, "weight": 1.0, "maximum": maximum}]
    data["rules"]["stated"]["threshold"] = threshold
    return LockModel.model_validate(data)


def loudest(scene: Scene) -> float:
    return float(scene.readings(SPEAKS)[1:, scene.alerting].max())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Scene]]:
    """Three pairs that are known by name and lie elsewhere."""
    found = {}
    with ExitStack() as stack:
        for name, kind in KINDS.items():
            scene = found[name] = small_scene(tmp_path_factory.mktemp(name), kind)
            pair = NamedPair(
                name=name,
                what=f"a random {kind}",
                licence="none",
                model=f"Random {kind}",
                weights=lambda place=scene.flags["model"]: Path(place),
                dictionary=scene.flags["dictionary"],
                digest=scene.parts.loaded.digest,
            )
            stack.enter_context(registered(pair))
        yield found


@pytest.fixture
def folder(tmp_path: Path, scenes: dict[str, Scene]) -> Path:
    """A policy with locks for the first pair and for the second, in folders that are not called so."""
    path = write_policy(tmp_path, ALERTS)
    for name, place in (("first", "b"), ("second", "a")):
        write_lock(path, lock_of(scenes[name], loudest(scenes[name]) / 2), place)
    return tmp_path


@contextmanager
def serving(folder: Path, pair: str, **more: Any) -> Iterator[MonitorServiceStub]:
    flags = {"pair": pair, "policies": folder, "device": "cpu", "reload_seconds": 0.05}
    ports = {"listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0"}
    with (
        in_background(load_settings(flags | ports | more)) as addresses,
        connected(addresses.grpc) as channel,
    ):
        yield MonitorServiceStub(channel)


def score(stub: Any, text: str) -> pb.ScoreResponse:
    return stub.Score(pb.ScoreRequest(input=pb.Input(text=text)), timeout=DEADLINE)


@pytest.mark.slow
def test_each_server_takes_the_locks_of_its_own_pair(scenes: dict[str, Scene], folder: Path) -> None:
    digests = set()
    for name in ("first", "second"):
        with serving(folder, name) as stub:
            spoken, silent = score(stub, SPEAKS), score(stub, SILENT)
        assert [d.policy for d in spoken.verdict.detections] == ["greed"]
        features = {f.feature for d in spoken.verdict.detections for e in d.evidence for f in e.readings}
        assert features == {scenes[name].alerting}
        assert not silent.verdict.matched
        assert spoken.digests.model == scenes[name].parts.loaded.digest
        digests.add(spoken.digests.policies)
    assert len(digests) == 2, "each pair runs its own set"


@pytest.mark.slow
def test_a_pair_without_locks_is_refused_by_the_name_of_the_policy(folder: Path) -> None:
    with pytest.raises(PolicyError) as caught, serving(folder, "third"):
        pass
    said = str(caught.value)
    assert "`greed` has no lock for the running model" in said
    assert "locks/a is of another model and dictionary; locks/b is of another model and dictionary" in said
    assert f"run `sae-monitor policy fit {folder} --pair third`" in said


@pytest.mark.slow
def test_another_model_with_the_dictionary_of_a_pair_is_told_of_recheck(
    scenes: dict[str, Scene], folder: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(scenes["first"].flags["model"], tmp_path / "changed")
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(PolicyError) as caught, serving(folder, "first", model=str(model)):
        pass
    said = str(caught.value)
    assert "locks/b is of another model" in said
    assert f"run `sae-monitor policy recheck {folder} --model MODEL --dictionary DICTIONARY`" in said


@pytest.mark.slow
def test_locks_are_watched_and_those_of_other_pairs_change_nothing(
    scenes: dict[str, Scene], folder: Path
) -> None:
    path = folder / "greed.yaml"
    with serving(folder, "first") as stub:
        before = score(stub, SPEAKS)
        write_lock(path, lock_of(scenes["second"], 80.0), "a")
        lock_path(path, "a").with_name("other.txt").write_text("x")
        asked = stub.ReloadPolicies(pb.ReloadPoliciesRequest(), timeout=DEADLINE)
        assert not asked.changed
        write_lock(path, lock_of(scenes["first"], 80.0), "b")
        wait_for(lambda: score(stub, SPEAKS).digests.policies != before.digests.policies)
        assert not score(stub, SPEAKS).verdict.matched


@pytest.mark.slow
def test_an_old_lock_beside_its_policy_is_refused_with_its_new_place(folder: Path) -> None:
    lock_path(folder / "greed.yaml", "b").rename(folder / "greed.lock.yaml")
    with (
        pytest.raises(ConfigurationError, match=r"move it to .*/locks/PAIR/greed\.lock\.yaml"),
        serving(folder, "first"),
    ):
        pass
