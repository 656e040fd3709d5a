"""Policies that change while the server runs: who runs on which set, and what stays when files are wrong."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor.errors import ConfigurationError
from monitor.model.engine.requests import Lease
from monitor.policy.files.lock_folders import lock_path
from monitor.rpc.assembly import assemble
from monitor.rpc.policies import signature
from monitor.rpc.server import Server, run_in_background
from monitor.settings import load_settings
from monitor.v1 import monitor_pb2 as pb
from tests.children import beside
from tests.rpc.conftest import DEADLINE, fails
from tests.rpc.faulty import Faulty, faulty
from tests.rpc.pairs import SILENT, SPEAKS, small_scene
from tests.waiting import wait_for


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Faulty]:
    """Reloads only when it is asked to."""
    with faulty(tmp_path, reload_seconds=0.0) as server:
        yield server


def folder(server: Faulty) -> Path:
    return Path(server.scene.flags["policies"])


def edit(server: Faulty, name: str, **changes: object) -> None:
    """Change fields of every rule of a policy."""
    path = folder(server) / f"{name}.yaml"
    policy = json.loads(path.read_text())
    for rule in policy["rules"]:
        rule.update(changes)
    path.write_text(json.dumps(policy))


def reload(server: Faulty) -> pb.ReloadPoliciesResponse:
    return server.stub.ReloadPolicies(pb.ReloadPoliciesRequest(), timeout=DEADLINE)


def another_feature(server: Faulty) -> int:
    """A feature that fires on SPEAKS and that no policy names."""
    readings = server.scene.readings(SPEAKS)[1:].amax(0)
    readings[[server.scene.alerting, server.scene.blocking]] = 0
    return int(readings.argmax())


class HeldUp:
    """Gives what `hold` gives, once it may."""

    def __init__(self, hold: Callable[..., Lease]) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        self.given: list[Lease] = []
        self._hold = hold

    def __call__(self, *args: Any) -> Lease:
        lease = self._hold(*args)
        self.began.set()
        assert self.go.wait(DEADLINE)
        self.given.append(lease)
        return lease


class TestASetThatIsRight:
    def test_it_is_in_force_and_named_in_answers(self, asked: Faulty) -> None:
        before = asked.score(SPEAKS)
        edit(asked, "alerting", threshold=50.0)
        response = reload(asked)
        after = asked.score(SPEAKS)
        assert response.changed
        assert response.digests.policies == after.digests.policies != before.digests.policies
        assert {d.policy for d in before.verdict.detections} == {"alerting", "blocking"}
        assert {d.policy for d in after.verdict.detections} == {"blocking"}
        assert asked.stub.ListPolicies(pb.ListPoliciesRequest()).digests == after.digests

    def test_the_same_files_change_nothing(self, asked: Faulty) -> None:
        response = reload(asked)
        assert not response.changed
        assert response.digests == asked.score(SILENT).digests

    def test_features_that_were_not_watched_are_read_exactly(self, asked: Faulty) -> None:
        feature = another_feature(asked)
        policy = json.loads((folder(asked) / "alerting.yaml").read_text())
        policy["metadata"]["name"] = "later"
        policy["features"] = [{"index": feature}]
        (folder(asked) / "later.yaml").write_text(json.dumps(policy))
        (folder(asked) / "alerting.yaml").unlink()
        response = reload(asked)
        assert (list(response.added), list(response.removed)) == (["later"], ["alerting"])
        request = pb.ScoreRequest(input=pb.Input(text=SPEAKS), include_tokens=True)
        scored = asked.stub.Score(request, timeout=DEADLINE)
        exact = asked.scene.readings(SPEAKS)
        for token, row in zip(scored.tokens, exact, strict=True):
            found = {reading.feature: reading.value for reading in token.readings}
            assert set(found) <= {feature, asked.scene.blocking}
            for watched in (feature, asked.scene.blocking):
                assert found.get(watched, 0.0) == pytest.approx(float(row[watched]), rel=1e-4, abs=1e-6)

    def test_requests_finish_on_the_set_that_they_began_with(self, asked: Faulty) -> None:
        edit(asked, "blocking", threshold=90.0)
        began = reload(asked).digests
        call = asked.stream(SILENT, max_new_tokens=100)
        first = next(iter(call))
        edit(asked, "blocking", threshold=1e-6, phases=["response"], mode="enforce")
        policy = json.loads((folder(asked) / "blocking.yaml").read_text())
        policy["rules"] = policy["rules"][:1]
        (folder(asked) / "blocking.yaml").write_text(json.dumps(policy))
        now = reload(asked).digests
        last = [first, *call][-1].final
        assert last.digests == began != now
        assert last.finish_reason in (pb.FINISH_REASON_LENGTH, pb.FINISH_REASON_STOP)
        assert last.verdict.status == pb.CHECK_STATUS_CHECKED
        after = asked.generate(SILENT, max_new_tokens=100)
        assert (after.digests, after.finish_reason) == (now, pb.FINISH_REASON_POLICY)

    @pytest.mark.slow
    def test_a_hundred_reloads_under_traffic_lose_nothing(self, asked: Faulty) -> None:
        answers: list[pb.GenerateResponse] = []

        def ask() -> None:
            answers.append(asked.generate(SILENT, max_new_tokens=5))

        said = set()
        with beside(ask, ask, ask, ask):
            for number in range(100):
                edit(asked, "alerting", threshold=60.0 + number)
                said.add(reload(asked).digests.policies)
        assert len(said) == 100
        assert len(answers) > 8
        assert all(a.verdict.status == pb.CHECK_STATUS_CHECKED for a in answers)
        assert len({a.digests.policies for a in answers}) > 4
        bank = asked.runtime._bank
        assert bank.read == len(bank.watched), "slots of sets that are gone were not given back"

    def test_metrics_follow(self, asked: Faulty) -> None:
        (folder(asked) / "alerting.yaml").unlink()
        reload(asked)
        assert asked.metric("policy_info", policy="alerting") == 0
        assert asked.metric("policy_info", policy="blocking") == 1
        assert asked.metric("policies_last_reload_success") == 1


class TestASetThatIsWrong:
    def test_the_last_good_one_stays(self, asked: Faulty) -> None:
        before = asked.score(SPEAKS)
        edit(asked, "alerting", threshold="high")
        with fails("FAILED_PRECONDITION") as caught:
            reload(asked)
        assert "alerting.yaml:" in caught[0].details()
        assert asked.score(SPEAKS).digests == before.digests
        assert asked.score(SPEAKS).verdict.matched
        assert asked.metric("policies_last_reload_success") == 0
        edit(asked, "alerting", threshold=50.0)
        assert reload(asked).changed
        assert asked.metric("policies_last_reload_success") == 1

    @pytest.mark.slow
    def test_more_features_than_fit_are_refused(self, tmp_path: Path) -> None:
        with faulty(tmp_path, reload_seconds=0.0, reload_features=0) as server:
            policy = json.loads((folder(server) / "alerting.yaml").read_text())
            policy["features"] = [{"index": another_feature(server)}]
            (folder(server) / "alerting.yaml").write_text(json.dumps(policy))
            with fails("FAILED_PRECONDITION") as caught:
                reload(server)
            assert "reload_features" in caught[0].details()
            assert server.score(SPEAKS).verdict.matched

    def test_the_runtime_says_which_setting_helps(self, asked: Faulty) -> None:
        from monitor.records import WatchPlan

        alive = [f for f in range(96) if asked.runtime._bank.recorded_maximum(f) > 0]
        lease = asked.runtime.lease(WatchPlan(tuple(alive)), ())
        lease.release()
        with pytest.raises(ConfigurationError, match="does not exist"):
            asked.runtime.lease(WatchPlan((alive[0], 10_000)), ())


class TestASetThatTakesLongToRead:
    """As one does that names features of a dictionary of many gigabytes."""

    @pytest.fixture
    def held_up(self, asked: Faulty, monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldUp]:
        held = HeldUp(asked.runtime.lease)
        monkeypatch.setattr(asked.runtime, "lease", held)
        yield held
        held.go.set()

    def test_calls_are_answered_meanwhile(self, asked: Faulty, held_up: HeldUp) -> None:
        before = asked.score(SILENT).digests
        edit(asked, "alerting", threshold=50.0)
        call = asked.stub.ReloadPolicies.future(pb.ReloadPoliciesRequest(), timeout=DEADLINE)
        assert held_up.began.wait(DEADLINE)
        assert asked.score(SILENT).digests == before
        assert asked.generate(SILENT, max_new_tokens=3).digests == before
        held_up.go.set()
        assert call.result().digests == asked.score(SILENT).digests != before

    def test_whoever_leaves_meanwhile_leaves_nothing_behind(self, asked: Faulty, held_up: HeldUp) -> None:
        before, bank = asked.score(SILENT).digests, asked.runtime._bank
        policy = json.loads((folder(asked) / "alerting.yaml").read_text())
        policy["features"] = [{"index": another_feature(asked)}]
        (folder(asked) / "alerting.yaml").write_text(json.dumps(policy))
        call = asked.stub.ReloadPolicies.future(pb.ReloadPoliciesRequest(), timeout=DEADLINE)
        assert held_up.began.wait(DEADLINE)
        call.cancel()
        wait_for(lambda: asked.metric("requests_total", method="ReloadPolicies", code="CANCELLED") == 1)
        held_up.go.set()
        wait_for(lambda: held_up.given)
        wait_for(lambda: bank.read == len(bank.watched))
        assert asked.score(SILENT).digests == before
        assert reload(asked).changed, "it can be asked for again"
        assert bank.read > len(bank.watched)

    def test_the_next_reload_waits_until_the_one_whose_caller_left_has_ended(
        self, asked: Faulty, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A thread goes on when its caller leaves. Two at once would load everything twice, into the same slots."""
        inside, most, go, began = [0], [0], threading.Event(), threading.Semaphore(0)
        load = asked.server._reloader._load

        def slow() -> Any:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            began.release()
            assert go.wait(DEADLINE)
            inside[0] -= 1
            return load()

        monkeypatch.setattr(asked.server._reloader, "_load", slow)
        before = asked.score(SILENT).digests
        edit(asked, "alerting", threshold=50.0)

        def left() -> float:
            return asked.metric("requests_total", method="ReloadPolicies", code="CANCELLED")

        for number in range(1, 4):
            call = asked.stub.ReloadPolicies.future(pb.ReloadPoliciesRequest(), timeout=DEADLINE)
            if number == 1:
                assert began.acquire(timeout=DEADLINE)
            else:
                assert not began.acquire(timeout=0.2), "it began beside the one that still runs"
            call.cancel()
            wait_for(lambda n=number: left() == n)  # type: ignore[misc]
        last = asked.stub.ReloadPolicies.future(pb.ReloadPoliciesRequest(), timeout=DEADLINE)
        assert not began.acquire(timeout=0.2)
        assert asked.score(SILENT).digests == before
        go.set()
        assert last.result().changed
        assert most[0] == 1
        assert asked.score(SILENT).digests == last.result().digests


class TestTheFolderIsWatched:
    @pytest.mark.slow
    def test_a_changed_file_is_in_force_soon(self, tmp_path: Path) -> None:
        with faulty(tmp_path, reload_seconds=0.05) as server:
            before = server.score(SPEAKS).digests
            edit(server, "alerting", threshold=50.0)
            wait_for(lambda: server.score(SPEAKS).digests != before)
            assert {d.policy for d in server.score(SPEAKS).verdict.detections} == {"blocking"}

    @pytest.mark.slow
    def test_a_file_that_changed_while_the_model_was_loaded_is_in_force_soon(self, tmp_path: Path) -> None:
        scene = small_scene(tmp_path)
        settings = load_settings(scene.flags | {"reload_seconds": 0.05})
        assembly = assemble(settings)
        path = tmp_path / "policies" / "alerting.yaml"
        policy = json.loads(path.read_text())
        for rule in policy["rules"]:
            rule["threshold"] = 50.0
        path.write_text(json.dumps(policy))
        server = Server(settings, *assembly)
        with run_in_background(server, 2.0):
            wait_for(lambda: server._active.now.policies.digest != assembly.policies.digest)

    @pytest.mark.slow
    def test_a_wrong_file_is_counted_once_and_changes_nothing(self, tmp_path: Path) -> None:
        with faulty(tmp_path, reload_seconds=0.05) as server:
            before = server.score(SPEAKS).digests
            edit(server, "alerting", threshold="high")
            wait_for(lambda: server.metric("policies_last_reload_success") == 0)
            assert server.score(SPEAKS).digests == before

    def test_a_lock_of_any_pair_that_changes_shows(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("same")
        seen = [signature(tmp_path)]
        for pair in ("first", "second"):
            path = lock_path(tmp_path / "a.yaml", pair)
            path.parent.mkdir(parents=True)
            path.write_text("same")
            seen.append(signature(tmp_path))
        path.write_text("other")
        seen.append(signature(tmp_path))
        assert len(set(seen)) == len(seen)
        assert [name for name, *_ in seen[-1]] == [
            "a.yaml",
            "locks/first/a.lock.yaml",
            "locks/second/a.lock.yaml",
        ]

    def test_a_swapped_link_shows(self, tmp_path: Path) -> None:
        """As Kubernetes updates a mounted ConfigMap."""
        mount = tmp_path / "mount"
        mount.mkdir()
        for version in ("one", "two"):
            (tmp_path / version).mkdir()
            (tmp_path / version / "a.yaml").write_text("same")
        (mount / "..data").symlink_to(tmp_path / "one")
        (mount / "a.yaml").symlink_to(Path("..data") / "a.yaml")
        before = signature(mount)
        (mount / "..new").symlink_to(tmp_path / "two")
        os.replace(mount / "..new", mount / "..data")
        assert before != signature(mount) != ()
        assert signature(tmp_path / "absent") == ()
