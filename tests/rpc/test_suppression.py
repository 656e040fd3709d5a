"""Suppression through real sockets: clamped, checked, taken back, refused; what callers may ask for."""

import json
from contextlib import contextmanager

import pytest
import torch

from monitor.rpc.server import in_background
from monitor.settings import load_settings
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import connected, fails, fields, scrape
from tests.rpc.pairs import SILENT, SPEAKS, small_scene
from tests.rpc.test_end_to_end import Live

SAY_NO = "I will not go on with this."


@pytest.fixture(scope="module", params=["llama", "falcon"])
def scene(request, tmp_path_factory):
    """Of models whose passes run many requests, or one."""
    return small_scene(tmp_path_factory.mktemp(request.param), request.param)


@contextmanager
def serving(scene, folder, *policies, **settings):
    """A server over a scene with other policies."""
    folder.mkdir()
    for name, fields_of in policies:
        policy = {
            "apiVersion": "monitor/v1",
            "metadata": {
                "name": name,
                "title": name,
                "category": "c",
                "severity": "high",
                "description": "d",
            },
            **fields_of,
        }
        (folder / f"{name}.yaml").write_text(json.dumps(policy))
    flags = {**scene.flags, "policies": folder, **settings}
    with in_background(load_settings(flags)) as addresses, connected(addresses.grpc) as channel:
        yield Live(scene, addresses.metrics, channel)


def suppressing(feature, threshold, *, phases=("prompt", "response"), **suppress):
    rule = {"name": "word", "threshold": threshold, "action": "suppress", "phases": list(phases)}
    return {
        "features": [{"index": feature}],
        "rules": [rule],
        "suppress": {"features": [feature], "target": -1.0, **suppress},
    }


def loudest(scene):
    return float(scene.readings(SPEAKS)[1:, scene.alerting].max()) / 2


@pytest.mark.slow
def test_a_prompt_is_clamped_and_the_verdict_says_what_is_left(scene, tmp_path):
    policy = suppressing(scene.alerting, loudest(scene), when="always")
    with serving(scene, tmp_path / "p", ("greed", policy)) as live:
        answer = live.generate(SPEAKS, max_new_tokens=6, include_tokens=True)
        counted = {
            outcome: live.metric("suppressions_total", policy="greed", outcome=outcome)
            for outcome in outcomes(live)
        }
    (found,) = answer.verdict.suppressions
    assert answer.verdict.status == pb.CHECK_STATUS_CHECKED
    assert (found.policy, list(found.features)) == ("greed", [scene.alerting])
    active = int((scene.readings(SPEAKS)[:, scene.alerting] > 0).sum())
    assert found.tokens_edited >= active > 0
    assert 0 <= found.after < found.before
    assert found.held == found.held_at_layer == (found.after <= 0.1 * found.before + 1e-9)
    assert not found.HasField("probe_score")
    assert sum(counted.values()) == 1


def outcomes(live):
    pairs = [
        dict(labels) for name, labels in scrape(live.metrics) if name == "sae_monitor_suppressions_total"
    ]
    return {found["outcome"] for found in pairs}


def response_of(scene, answer):
    """Readings `[tokens, features]` of the response's tokens."""
    ids = [token.token_id for token in answer.tokens]
    from monitor.model.offline.residuals import Harvester

    parts = scene.parts
    x = Harvester(parts.loaded, parts.layer).residuals(torch.tensor([ids]))
    rows = parts.dictionary.autoencoder.encode(x)[0] / parts.dictionary.statistics.maximum
    prompt = sum(token.phase == pb.PHASE_PROMPT for token in answer.tokens)
    return rows[prompt:], prompt


@pytest.mark.slow
def test_a_response_is_clamped_from_the_token_after_the_one_that_fires(scene, tmp_path):
    with serving(scene, tmp_path / "none", ("quiet", suppressing(scene.alerting, 1e9))) as live:
        plain = live.generate(SILENT, max_new_tokens=12, include_tokens=True)
    rows, prompt = response_of(scene, plain)
    late = rows[:5].amax(0) == 0
    feature = int((rows[5:].amax(0) * late).argmax())
    at = int((rows[:, feature] > 0).nonzero()[0])
    threshold = float(rows[at, feature]) / 2
    policy = suppressing(feature, threshold, phases=("response",), where="everywhere")
    with serving(scene, tmp_path / "late", ("late", policy)) as live:
        answer = live.generate(SILENT, max_new_tokens=12, include_tokens=True)
    coverage, (detection,) = answer.verdict.coverage, answer.verdict.detections
    assert coverage.tokens_run == coverage.tokens_scored
    assert answer.verdict.status == pb.CHECK_STATUS_CHECKED
    assert detection.position == prompt + at
    # The token that comes next was drawn before the clamp.
    same = prompt + at + 2
    assert [t.token_id for t in answer.tokens[:same]] == [t.token_id for t in plain.tokens[:same]]
    assert answer.verdict.suppressions[0].tokens_edited == coverage.tokens_run - (prompt + at + 1)


@pytest.mark.slow
def test_a_block_carries_its_policys_refusal(scene, tmp_path):
    blocking = {
        "features": [{"index": scene.alerting}],
        "rules": [{"name": "word", "threshold": loudest(scene), "action": "block"}],
        "refusal": SAY_NO,
    }
    with serving(scene, tmp_path / "no", ("blocks", blocking)) as live:
        refused, fine = live.generate(SPEAKS), live.generate(SILENT, max_new_tokens=2)
    assert (refused.finish_reason, refused.text, refused.refusal) == (pb.FINISH_REASON_POLICY, "", SAY_NO)
    assert fine.refusal == ""


@pytest.mark.slow
def test_a_policy_that_drops_the_error_term(scene, tmp_path):
    policy = suppressing(scene.alerting, loudest(scene), error_term="drop", when="always")
    with serving(scene, tmp_path / "drop", ("drops", policy)) as live:
        listed = live.stub.ListPolicies(pb.ListPoliciesRequest()).policies[0]
        answer = live.generate(SPEAKS, max_new_tokens=4)
    assert [clamp.error_term for clamp in listed.clamps] == [pb.ERROR_TERM_DROP]
    assert answer.verdict.suppressions[0].tokens_edited > 0
    assert answer.verdict.status == pb.CHECK_STATUS_CHECKED


class TestWhatCallersMayAsk:
    def clamp(self, scene, **more):
        return pb.Clamp(**({"feature": scene.blocking, "target": -1.0} | more))

    def refused(self, live, clamp):
        with fails("INVALID_ARGUMENT") as caught:
            live.generate(SILENT, clamps=[clamp])
        return fields(caught[0])

    @pytest.mark.slow
    def test_suppressing_by_default(self, scene, tmp_path):
        with serving(scene, tmp_path / "a", ("quiet", suppressing(scene.alerting, 1e9))) as live:
            live.generate(SILENT, clamps=[self.clamp(scene)], max_new_tokens=2)
            up = self.refused(live, self.clamp(scene, target=0.5))
            drop = self.refused(live, self.clamp(scene, error_term=pb.ERROR_TERM_DROP))
            odd = self.refused(live, self.clamp(scene, error_term=9))
        assert set(up) == {"generation.clamps[0].target"}
        assert set(drop) == set(odd) == {"generation.clamps[0].error_term"}

    @pytest.mark.slow
    def test_anything_where_the_operator_says_so(self, scene, tmp_path):
        allowed = {"caller_clamps": "any", "drop_error_term": True}
        with serving(scene, tmp_path / "b", ("quiet", suppressing(scene.alerting, 1e9)), **allowed) as live:
            up = self.clamp(
                scene, target=50.0, where=pb.CLAMP_WHERE_EVERYWHERE, error_term=pb.ERROR_TERM_DROP
            )
            answer, plain = (live.generate(SILENT, clamps=clamps, max_new_tokens=8) for clamps in ([up], []))
        assert answer.verdict.status == pb.CHECK_STATUS_CHECKED
        assert answer.text != plain.text

    @pytest.mark.slow
    def test_nothing_where_the_operator_says_so(self, scene, tmp_path):
        with serving(
            scene, tmp_path / "c", ("quiet", suppressing(scene.alerting, 1e9)), caller_clamps="none"
        ) as live:
            assert set(self.refused(live, self.clamp(scene))) == {"generation.clamps[0]"}
