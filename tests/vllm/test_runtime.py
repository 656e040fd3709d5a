"""The whole server on vLLM: the tests of the built-in engine's server, over the same sockets."""

import json
import urllib.request
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import pytest

from monitor.errors import ConfigurationError
from monitor.http.door import HttpDoor
from monitor.records import LaterProbe, SuppressionNeeds, SuppressionPlan
from monitor.rpc.assembly import assemble
from monitor.rpc.server import Server, run_in_background
from monitor.settings import load_settings
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import DEADLINE, connected, fails
from tests.rpc.pairs import SILENT, SPEAKS, demo_scene
from tests.rpc.test_end_to_end import (
    Live,
    test_a_cancelled_generation_leaves_the_server_serving,
    test_a_clamp_reports_what_is_left_of_the_feature,
    test_a_conversation_is_answered,
    test_a_text_that_speaks_of_it_matches_and_another_does_not,
    test_log_probabilities_are_those_of_a_plain_forward_of_the_text_alone,
    test_many_calls_of_every_kind_at_once,
    test_metrics_moved,
    test_readings_equal_a_plain_forward_of_the_text_alone,
    test_sampling_with_a_seed_can_be_repeated,
    test_stream_and_single_answer_agree,
    test_unknown_features_and_long_texts_are_bad_requests,
)

SHARED = (
    test_a_text_that_speaks_of_it_matches_and_another_does_not,
    test_readings_equal_a_plain_forward_of_the_text_alone,
    test_stream_and_single_answer_agree,
    test_log_probabilities_are_those_of_a_plain_forward_of_the_text_alone,
    test_a_conversation_is_answered,
    test_a_clamp_reports_what_is_left_of_the_feature,
    test_sampling_with_a_seed_can_be_repeated,
    test_many_calls_of_every_kind_at_once,
    test_unknown_features_and_long_texts_are_bad_requests,
    test_a_cancelled_generation_leaves_the_server_serving,
    test_metrics_moved,
)
"""Tests of the server with the built-in engine, which pytest finds here and gives the server below."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
EAGER = {"enforce_eager": True, "block_size": 32}


@dataclass
class LiveDoors(Live):
    """With an HTTP door."""

    http: str

    def post(self, path, **body):
        request = urllib.request.Request(
            f"{self.http}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            return json.loads(answer.read())


@pytest.fixture(scope="module", params=[False, True], ids=["synchronous", "overlapping"])
def live(vllm, tmp_path_factory, request):
    scene = demo_scene(tmp_path_factory.mktemp("demo"))
    flags = scene.flags | {
        "engine": "vllm",
        "served_model_name": "tiny",
        "vllm_options": EAGER | {"async_scheduling": request.param},
        "max_running": 16,
        "http_listen": "127.0.0.1:0",
    }
    chosen = load_settings(flags)
    parts = assemble(chosen)
    server = Server(chosen, *parts, door=HttpDoor)
    # On CPUs vLLM has to be made to.
    made = vllm.async_scheduling() if request.param else nullcontext()
    with made, run_in_background(server, 5.0) as addresses, connected(addresses.grpc) as channel:
        assert (parts.runtime._batcher._core.batch_queue is not None) is request.param
        # vLLM counts the token that is drawn last, so that a context is one token shorter.
        loaded = replace(scene.parts.loaded, context=scene.parts.loaded.context - 1)
        seen = replace(scene, parts=replace(scene.parts, loaded=loaded))
        yield LiveDoors(seen, addresses.metrics, channel, addresses.http)


def test_inspecting_is_refused_with_what_to_do_instead(live):
    from monitor.vllm.runtime import CoreRuntime

    with fails("FAILED_PRECONDITION") as error:
        live.stub.Inspect(pb.InspectRequest(input=pb.Input(text=SPEAKS), top_k=4), timeout=DEADLINE)
    assert "built-in engine" in error[0].details()
    assert not CoreRuntime.inspects, "the page asks this before it inspects"


def test_the_openai_door_answers_and_is_scored(live):
    answer = live.post("/v1/completions", model="tiny", prompt=SILENT, max_tokens=8, temperature=0)
    whole = live.generate(SILENT, max_new_tokens=8)
    assert answer["choices"][0]["text"] == whole.text
    assert answer["usage"]["completion_tokens"] == 8


def test_the_openai_door_tells_log_probabilities(live):
    asked = {"model": "tiny", "prompt": SILENT, "max_tokens": 8, "temperature": 0}
    told = live.post("/v1/completions", **asked, logprobs=2)["choices"][0]
    whole = live.generate(SILENT, max_new_tokens=8, logprobs=2)
    assert told["logprobs"]["tokens"] == [one.token.text for one in whole.logprobs]
    assert told["logprobs"]["token_logprobs"] == pytest.approx([one.token.logprob for one in whole.logprobs])
    assert told["logprobs"]["text_offset"] == [one.text_offset for one in whole.logprobs]
    greedy = [max(likeliest.values()) for likeliest in told["logprobs"]["top_logprobs"]]
    assert greedy == told["logprobs"]["token_logprobs"]


def test_several_answers_to_one_prompt(live):
    asked = {"model": "tiny", "prompt": SILENT, "max_tokens": 6, "temperature": 1.0, "seed": 5}
    several = live.post("/v1/completions", n=3, **asked)
    texts = [choice["text"] for choice in several["choices"]]
    assert len(set(texts)) == 3
    covered = [verdict["coverage"] for verdict in several["sae_monitor"]["verdicts"]]
    assert len(covered) == 3
    assert all(one["tokens_run"] == one["tokens_scored"] > 6 for one in covered)


def test_a_probe_at_a_layer_that_was_not_compiled_in_is_refused_by_name(vllm):
    from monitor.vllm.runtime import CoreRuntime

    runtime = CoreRuntime.__new__(CoreRuntime)
    runtime._later_layers = (3,)
    plan = SuppressionPlan("p", (40,), LaterProbe(2, np.zeros(4, np.float32), 0.0, 1.0, 4.0))
    with pytest.raises(
        ConfigurationError, match=r"reads layer 2, which cannot be added .* restart the server"
    ):
        runtime.prepare(SuppressionNeeds((plan,)))
