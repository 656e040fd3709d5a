"""The whole server over a real model, a real dictionary and policies from files, through real sockets."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from monitor.errors import ConfigurationError
from monitor.model.selftest.self_test import self_test
from monitor.records import Clamp, Where
from monitor.rpc.server import in_background
from monitor.settings import load_settings
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.model.tiny import plain_clamped
from tests.rpc.conftest import DEADLINE, connected, fails, fields, generation, scrape
from tests.rpc.pairs import SILENT, SPEAKS, Scene, demo_scene, small_scene


@dataclass
class Live:
    """A running server over a scene."""

    scene: Scene
    metrics: str
    channel: grpc.Channel

    @property
    def stub(self) -> Any:
        return MonitorServiceStub(self.channel)

    def score(self, text: str, **more: Any) -> pb.ScoreResponse:
        return self.stub.Score(pb.ScoreRequest(input=pb.Input(text=text), **more), timeout=DEADLINE)

    def generate(self, text: str, **more: Any) -> pb.GenerateResponse:
        request = pb.GenerateRequest(generation=generation(text, **more))
        return self.stub.Generate(request, timeout=DEADLINE)

    def metric(self, name: str, **labels: str) -> float:
        found = scrape(self.metrics)
        return sum(
            v
            for (n, pairs), v in found.items()
            if n == f"sae_monitor_{name}" and labels.items() <= dict(pairs).items()
        )


@pytest.fixture(scope="module", params=["llama", "falcon", "demo"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp(request.param)
    # The passes of a Falcon run one request, those of the others many.
    scene = demo_scene(folder) if request.param == "demo" else small_scene(folder, request.param)
    if scene is None:
        pytest.skip("the bundled dictionary is not there")
    with in_background(load_settings(scene.flags)) as addresses, connected(addresses.grpc) as channel:
        yield Live(scene, addresses.metrics, channel)


@pytest.mark.slow
def test_a_text_that_speaks_of_it_matches_and_another_does_not(live):
    spoken, silent = live.score(SPEAKS).verdict, live.score(SILENT).verdict
    assert spoken.status == silent.status == pb.CHECK_STATUS_CHECKED
    assert {(d.policy, d.rule, d.mode) for d in spoken.detections} == {
        ("alerting", "word", pb.MODE_ENFORCE),
        ("blocking", "asked", pb.MODE_SHADOW),
    }
    assert spoken.action == pb.ACTION_ALERT
    assert not silent.matched
    assert silent.coverage.tokens_run == silent.coverage.tokens_scored > 2


def test_readings_equal_a_plain_forward_of_the_text_alone(live):
    expected = live.scene.readings(SPEAKS)
    response = live.score(SPEAKS, include_tokens=True)
    assert len(response.tokens) == len(expected)
    for token, row in zip(response.tokens, expected, strict=True):
        readings = {reading.feature: reading.value for reading in token.readings}
        for feature in (live.scene.alerting, live.scene.blocking):
            assert readings.get(feature, 0.0) == pytest.approx(float(row[feature]), rel=1e-4, abs=1e-6)


def test_inspect_agrees_with_score(live):
    request = pb.InspectRequest(input=pb.Input(text=SPEAKS), top_k=256)
    inspected = live.stub.Inspect(request, timeout=DEADLINE)
    scored = live.score(SPEAKS, include_tokens=True)
    assert [t.text for t in inspected.tokens] == [t.text for t in scored.tokens]
    seen = 0
    for whole, token in zip(inspected.tokens, scored.tokens, strict=True):
        values = [reading.value for reading in whole.features]
        assert values == sorted(values, reverse=True)
        found = {reading.feature: reading.value for reading in whole.features}
        for reading in token.readings:
            if reading.feature in found:
                seen += 1
                assert found[reading.feature] == pytest.approx(reading.value, rel=1e-4)
    assert seen


def test_stream_and_single_answer_agree(live):
    call = generation(SILENT, max_new_tokens=12, include_tokens=True, logprobs=2)
    messages = list(live.stub.GenerateStream(pb.GenerateStreamRequest(generation=call), timeout=DEADLINE))
    whole = live.stub.Generate(pb.GenerateRequest(generation=call), timeout=DEADLINE)
    assert "".join(m.chunk.text for m in messages) == whole.text
    tokens = [token for m in messages for token in m.chunk.tokens]
    assert [(t.position, t.token_id, t.phase) for t in tokens] == [
        (t.position, t.token_id, t.phase) for t in whole.tokens
    ]
    told = [one for m in messages for one in m.chunk.logprobs]
    assert [(one.token, one.text_offset) for one in told] == [
        (one.token, one.text_offset) for one in whole.logprobs
    ]
    assert messages[-1].final.finish_reason == whole.finish_reason
    assert messages[-1].final.verdict.coverage == whole.verdict.coverage
    assert whole.verdict.status == pb.CHECK_STATUS_CHECKED


@pytest.mark.parametrize("clamped", [False, True])
def test_log_probabilities_are_those_of_a_plain_forward_of_the_text_alone(live, clamped):
    parts, feature = live.scene.parts, live.scene.alerting
    wanted = pb.Clamp(feature=feature, target=-1.0, where=pb.CLAMP_WHERE_EVERYWHERE)
    asked = {"max_new_tokens": 12, "temperature": 1.2, "seed": 4, "include_tokens": True, "logprobs": 20}
    answer = live.generate(SPEAKS, **asked, clamps=[wanted] if clamped else [])
    ids = [token.token_id for token in answer.tokens]
    behind = parts.loaded.layers[parts.layer].register_forward_hook(
        clamping(
            parts.dictionary.autoencoder,
            (Clamp(feature, -1.0, Where.EVERYWHERE),) if clamped else (),
            parts.dictionary.statistics.maximum,
        )
    )
    try:
        with torch.no_grad():
            plain = parts.loaded.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    finally:
        behind.remove()
    told = answer.logprobs
    assert [one.token.token_id for one in told] == [
        t.token_id for t in answer.tokens if t.phase == pb.PHASE_RESPONSE
    ]
    spelled = b"".join(one.token.data for one in told).decode("utf-8", "ignore")
    assert spelled.strip() == answer.text.replace("\ufffd", "").strip()
    for one in told:
        row = plain[one.position - 1]
        assert one.token.logprob == pytest.approx(float(row[one.token.token_id]), abs=2e-3)
        for likely, value in zip(one.likeliest, row.topk(20).values.tolist(), strict=True):
            assert likely.logprob == pytest.approx(value, abs=2e-3)
            assert likely.logprob == pytest.approx(float(row[likely.token_id]), abs=2e-3)


def clamping(sae, clamps, unit):
    """A hook that sets features by the definition."""

    def edit(_module, _args, output):
        x, *rest = output if isinstance(output, tuple) else (output,)
        edited = plain_clamped(sae, x, clamps, unit).to(x.dtype)
        return (edited, *rest) if isinstance(output, tuple) else edited

    return edit


def test_a_conversation_is_answered(live):
    turns = [pb.ChatMessage(role=pb.ROLE_USER, content="Tell me about the rain.")]
    request = pb.Generation(
        input=pb.Input(conversation=pb.Conversation(messages=turns)),
        sampling=pb.Sampling(max_new_tokens=8),
        include_tokens=True,
    )
    response = live.stub.Generate(pb.GenerateRequest(generation=request), timeout=DEADLINE)
    assert response.verdict.status == pb.CHECK_STATUS_CHECKED
    ids = [token.token_id for token in response.tokens]
    assert ids[0] == live.scene.parts.loaded.tokenizer.bos_token_id
    assert ids[1] != ids[0]


def test_a_clamp_reports_what_is_left_of_the_feature(live):
    clamp = pb.Clamp(feature=live.scene.alerting, target=-1.0)
    response = live.generate(SPEAKS, max_new_tokens=1, include_tokens=True, clamps=[clamp])
    clamped = [
        reading
        for token in response.tokens
        for reading in token.readings
        if reading.feature == live.scene.alerting and reading.HasField("value_after_clamp")
    ]
    assert clamped
    assert all(reading.value > 0 for reading in clamped)
    # How much is left depends on the scene's decoder; exact values are tested beside the tap.
    assert all(reading.value_after_clamp < reading.value for reading in clamped)


def test_sampling_with_a_seed_can_be_repeated(live):
    asked = {"max_new_tokens": 16, "temperature": 1.0, "seed": 11}
    first, again = live.generate(SILENT, **asked), live.generate(SILENT, **asked)
    assert first.text == again.text


@pytest.mark.slow
def test_many_calls_of_every_kind_at_once(live):
    def one(number):
        text = SPEAKS if number % 2 else SILENT
        if number % 3:
            return live.score(text).verdict
        return live.generate(text, max_new_tokens=4).verdict

    with ThreadPoolExecutor(16) as pool:
        verdicts = list(pool.map(one, range(96)))
    assert all(v.status == pb.CHECK_STATUS_CHECKED for v in verdicts)
    prompts = [any(d.phase == pb.PHASE_PROMPT for d in v.detections) for v in verdicts]
    assert prompts == [bool(number % 2) for number in range(96)]


def test_unknown_features_and_long_texts_are_bad_requests(live):
    with fails("INVALID_ARGUMENT") as caught:
        live.generate(SILENT, clamps=[pb.Clamp(feature=2**31, target=-1.0)])
    assert fields(caught[0]) == ["generation.clamps[0].feature"]
    with fails("INVALID_ARGUMENT") as caught:
        live.score("a long text " * 1000)
    assert fields(caught[0]) == ["input.text"]
    cut = live.stub.Score(
        pb.ScoreRequest(input=pb.Input(text="a long text " * 1000, truncate=True)), timeout=DEADLINE
    )
    coverage = cut.verdict.coverage
    assert coverage.tokens_run == live.scene.parts.loaded.context
    assert coverage.tokens_truncated > 0


def test_a_cancelled_generation_leaves_the_server_serving(live):
    call = live.stub.GenerateStream(
        pb.GenerateStreamRequest(generation=generation(SILENT, max_new_tokens=100)), timeout=DEADLINE
    )
    next(call)
    call.cancel()
    assert live.score(SILENT).verdict.status == pb.CHECK_STATUS_CHECKED


@pytest.mark.slow
def test_metrics_moved(live):
    before = live.metric("tokens_scored_total", phase="prompt")
    run = live.score(SPEAKS).verdict.coverage.tokens_run
    assert live.metric("tokens_scored_total", phase="prompt") == before + run
    feature = str(live.scene.alerting)
    assert live.metric("feature_activation_count", policy="alerting", feature=feature) > 0
    assert live.metric("feature_activation_max", policy="alerting", feature=feature) > 0
    assert live.metric("detections_total", policy="alerting", rule="word", phase="prompt") > 0
    assert live.metric("monitor_failures_total") == 0
    assert live.metric("dictionary_l0") == pytest.approx(self_test(live.scene.parts).measured.l0)
    batching = "separate" if "falcon" in live.scene.flags["model"] else "continuous"
    assert live.metric("engine_info", batching=batching) == live.metric("engine_info") == 1
    assert live.metric("build_info", dictionary_digest=live.scene.parts.dictionary.digest) == 1


def test_health_and_reflection(live):
    stub = health_pb2_grpc.HealthStub(live.channel)
    for service in ("", "monitor.v1.MonitorService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="monitor.v1.MonitorService")
    (answer,) = reflection_pb2_grpc.ServerReflectionStub(live.channel).ServerReflectionInfo(
        iter([asked]), timeout=DEADLINE
    )
    assert answer.file_descriptor_response.file_descriptor_proto


PROCESS = """
import json, sys
from monitor.rpc.server import serve
from monitor.settings import load_settings

def ready(addresses):
    print(json.dumps([addresses.grpc, addresses.metrics]), flush=True)

serve(load_settings(json.loads(sys.argv[1])), ready)
"""


@contextmanager
def process(folder: Path, **changes: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its address."""
    flags = {name: str(value) for name, value in small_scene(folder).flags.items()}
    running = subprocess.Popen(
        [sys.executable, "-c", PROCESS, json.dumps(flags | {"log_format": "json"} | changes)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert running.stdout is not None
        line = running.stdout.readline()
        if not line:
            pytest.fail(running.communicate()[1])
        yield running, json.loads(line)[0]
    finally:
        running.kill()
        running.communicate()


@pytest.mark.slow
def test_a_process_serves_until_sigterm_and_lets_a_stream_finish(tmp_path):
    with process(tmp_path) as (running, address), connected(address) as channel:
        request = pb.GenerateStreamRequest(generation=generation(SILENT, max_new_tokens=60))
        stream = MonitorServiceStub(channel).GenerateStream(request, timeout=DEADLINE)
        next(stream)
        running.send_signal(signal.SIGTERM)
        rest = list(stream)
        _, logged = running.communicate(timeout=20)
    assert rest[-1].WhichOneof("event") == "final"
    assert running.returncode == 0
    events = [json.loads(line)["event"] for line in logged.splitlines() if line.startswith("{")]
    said = ["false positives of the policies", "self-test without expected values", "serving", "stopping"]
    assert events == said
    assert SILENT not in logged


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"context_limit": 100_000}, "lower the limit"),
        ({"dictionary": None}, "give --model and --dictionary together, or --pair NAME"),
        ({"layer": 99}, "layer 99 does not exist"),
    ],
)
def test_settings_that_do_not_fit_are_configuration_errors(tmp_path, changes, said):
    flags = small_scene(tmp_path).flags | changes
    with pytest.raises(ConfigurationError, match=said), in_background(load_settings(flags)):
        pass


@pytest.mark.slow
def test_a_context_limit_holds(tmp_path):
    flags = small_scene(tmp_path).flags | {"context_limit": 40}
    with in_background(load_settings(flags)) as addresses, connected(addresses.grpc) as channel:
        with fails("INVALID_ARGUMENT"):
            MonitorServiceStub(channel).Score(
                pb.ScoreRequest(input=pb.Input(text="x" * 60)), timeout=DEADLINE
            )
        request = pb.GenerateRequest(generation=generation("x" * 30, max_new_tokens=60))
        response = MonitorServiceStub(channel).Generate(request, timeout=DEADLINE)
    assert response.verdict.coverage.tokens_run <= 40
