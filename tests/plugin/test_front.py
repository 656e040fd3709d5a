"""What the plug-in does in vLLM's API server."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from prometheus_client import CollectorRegistry

from monitor.model.load.model import load_model
from monitor.plugin import front
from monitor.plugin.refusals import Refusal
from monitor.telemetry.metrics import server_state as metrics
from tests.children import ending
from tests.deploy.processes import free_port
from tests.plugin.monitored import written_settings
from tests.rpc.pairs import SILENT, demo_scene
from tests.waiting import wait_for

RUNNER = "VLLM_USE_V2_MODEL_RUNNER"


def config(worker=front.WORKER, scheduler=front.SCHEDULER):
    return SimpleNamespace(
        parallel_config=SimpleNamespace(worker_cls=worker),
        scheduler_config=SimpleNamespace(scheduler_cls=scheduler),
    )


def test_without_the_setting_nothing_is_touched(monkeypatch):
    for name in ("SAE_MONITOR_VLLM_PLUGIN", "SAE_MONITOR_SETTINGS", RUNNER):
        monkeypatch.delenv(name, raising=False)
    front.register()
    assert RUNNER not in os.environ


@pytest.mark.parametrize("given", ["0", "1"])
def test_vllm_takes_its_first_model_runner_unless_told_otherwise(vllm, monkeypatch, given):
    monkeypatch.setattr(vllm.InputProcessor.process_inputs, "monitored", True, raising=False)
    monkeypatch.setenv("SAE_MONITOR_VLLM_PLUGIN", "true")
    monkeypatch.setenv(RUNNER, given)
    front.register()
    assert os.environ[RUNNER] == given
    monkeypatch.delenv(RUNNER)
    front.register()
    assert os.environ[RUNNER] == "0"


def test_a_server_that_was_started_without_the_flags_says_which():
    assert front.why_unmonitored(config()) == ""
    assert "--worker-cls monitor.plugin" in front.why_unmonitored(
        config(worker="vllm.v1.worker.gpu_worker.Worker")
    )
    assert "--scheduler-cls monitor.plugin" in front.why_unmonitored(config(scheduler=None))


class Server:
    """What of vLLM's API server the plug-in changes, put back at the end of a test."""

    def __init__(self, names, monkeypatch):
        from vllm import SamplingParams
        from vllm.v1.engine.async_llm import AsyncLLM

        self.asked = SamplingParams()
        self.made = SimpleNamespace(
            sampling_params=self.asked, lora_request=None, mm_features=None, request_id="one"
        )
        self.engine = AsyncLLM
        monkeypatch.setattr(names.InputProcessor, "process_inputs", lambda processor: self.made)
        monkeypatch.setattr(names.InputProcessor, "__init__", lambda processor, vllm_config: None)
        monkeypatch.setattr(names.RequestOutputCollector, "put", names.RequestOutputCollector.put)
        monkeypatch.setattr(AsyncLLM, "check_health", AsyncLLM.check_health)
        self.registry = CollectorRegistry()
        gauge = metrics.watched_gauge(self.registry)
        monkeypatch.setattr(metrics, "watched_gauge", lambda: gauge)
        self.names = names

    def process(self, config):
        return self.names.InputProcessor.process_inputs(SimpleNamespace(vllm_config=config))

    def status(self, config):
        """Status and text of the answer to a request."""
        with pytest.raises(Exception) as error:
            self.process(config)
        return answered(error.value)


def answered(error):
    from vllm.entrypoints.serve.exception_handling.error_response import create_error_response

    found = create_error_response(error).error
    return found.code, found.message


@pytest.fixture
def server(vllm, monkeypatch):
    monkeypatch.delenv("SAE_MONITOR_SETTINGS", raising=False)
    monkeypatch.setenv("SAE_MONITOR_VLLM_PLUGIN", "true")
    made = Server(vllm, monkeypatch)
    front.register()
    front.register()
    return made


@pytest.mark.slow
def test_what_cannot_be_monitored_is_refused_with_a_status_and_the_reason(server):
    assert server.process(config()) is server.made
    server.asked.logprobs = 3
    assert server.status(config())[0] == 400
    assert "does not take logprobs" in server.status(config())[1]
    server.asked.logprobs, server.asked.extra_args = None, {"sae_monitor_clamps": "[]"}
    code, said = server.status(config())
    assert (code, "its setting vllm_xargs" in said) == (400, True)
    code, said = server.status(config(scheduler=None))
    assert (code, "started without --scheduler-cls" in said) == (503, True)


@pytest.mark.slow
def test_a_wrong_clamp_is_an_error_400_that_says_what_to_write(vllm, monkeypatch):
    monkeypatch.delenv("SAE_MONITOR_SETTINGS", raising=False)
    monkeypatch.setenv("SAE_MONITOR_VLLM_PLUGIN", "true")
    monkeypatch.setenv("SAE_MONITOR_VLLM_XARGS", "true")
    server = Server(vllm, monkeypatch)
    front.register()
    server.asked.extra_args = {"sae_monitor_clamps": '[{"feature": 3, "target": 1000}]'}
    code, said = server.status(config())
    assert code == 400
    assert "vllm_xargs.sae_monitor_clamps[0].target: is 1000; write a number from" in said


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 429, 503])
def test_what_the_engine_core_refuses_reaches_the_caller_with_its_status(server, status):
    from vllm.outputs import CompletionOutput, PoolingOutput, PoolingRequestOutput, RequestOutput
    from vllm.sampling_params import RequestOutputKind

    def ended(reason, stop):
        made = CompletionOutput(0, "", [], None, None, finish_reason=reason, stop_reason=stop)
        return RequestOutput("one", None, [1], None, [made], finished=True)

    box = server.names.RequestOutputCollector(RequestOutputKind.FINAL_ONLY, "one")
    box.put(ended("error", str(Refusal(status, "write something else"))))
    with pytest.raises(Exception) as error:
        asyncio.run(box.get())
    assert answered(error.value) == (status, "write something else")
    for reason, stop in (
        ("error", "another"),
        ("stop", str(Refusal(400, "said by a model"))),
        ("abort", None),
    ):
        box.put(PoolingRequestOutput("one", PoolingOutput(torch.zeros(1)), [1], 0, finished=True))
        assert asyncio.run(box.get()).finished
        box.put(ended(reason, stop))
        assert asyncio.run(box.get()).outputs[0].stop_reason == stop


@pytest.mark.slow
def test_metric_and_health_say_whether_the_engine_is_monitored(server):
    for given, watched in ((config(), 1), (config(worker="auto"), 0)):
        server.names.InputProcessor(vllm_config=given)
        assert server.registry.get_sample_value("sae_monitor_vllm_watched") == watched
        healthy = server.engine.check_health(SimpleNamespace(vllm_config=given, errored=False))
        if watched:
            asyncio.run(healthy)
        else:
            with pytest.raises(server.names.EngineDeadError):
                asyncio.run(healthy)


@pytest.mark.slow
def test_the_flags_name_what_is_there(vllm):
    from monitor.plugin.scheduler import HostedScheduler
    from monitor.plugin.worker import HostedWorker

    assert front.why_unmonitored(config(HostedWorker, HostedScheduler)) == ""


@contextmanager
def serving(folder):
    """`vllm serve` on the demo pair with the plug-in: its process, and its address."""
    scene, port = demo_scene(folder), free_port()
    # Nothing blocks here: what ends a stream is what the test does.
    (scene.flags["policies"] / "blocking.yaml").unlink()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("SAE_MONITOR_")
    } | {
        "SAE_MONITOR_SETTINGS": str(written_settings(folder, scene.flags)),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    command = [sys.executable, "-c", "from vllm.entrypoints.cli.main import main; main()", "serve"]
    command += [str(scene.flags["model"]), "--served-model-name=tiny", "--host=127.0.0.1", f"--port={port}"]
    command += [
        "--dtype=float32",
        "--enforce-eager",
        f"--kv-cache-memory-bytes={64 << 20}",
        "--no-async-scheduling",
    ]
    command += [
        "--gpu-memory-utilization=0.1",
        f"--worker-cls={front.WORKER}",
        f"--scheduler-cls={front.SCHEDULER}",
    ]
    said = (folder / "vllm.log").open("w")
    with (
        said,
        ending(
            subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, text=True, env=environment)
        ) as process,
    ):
        wait_for(lambda: process.poll() is not None or answers(f"http://127.0.0.1:{port}/health"), 900)
        assert process.poll() is None, (folder / "vllm.log").read_text()[-3000:]
        yield process, f"http://127.0.0.1:{port}"


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def engine_core(pid):
    """The process of vLLM's engine core."""
    found = [
        int(child)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for child in path.read_text().split()
    ]
    (core,) = [child for child in found if b"EngineCore" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return core


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_engine_that_is_killed_ends_streams_and_vllm(vllm, tmp_path):
    """`vllm serve` for real: what was streamed is the beginning of what the model says, and no more comes."""
    with serving(tmp_path) as (process, url):
        with urllib.request.urlopen(f"{url}/metrics", timeout=20) as answer:
            assert "sae_monitor_vllm_watched 1.0" in answer.read().decode()
        asked = {"model": "tiny", "prompt": SILENT, "max_tokens": 400, "temperature": 0, "ignore_eos": True}
        request = urllib.request.Request(
            f"{url}/v1/completions",
            json.dumps(asked | {"stream": True, "return_token_ids": True}).encode(),
            {"Content-Type": "application/json"},
        )
        tokens, others, core = [], [], engine_core(process.pid)
        with urllib.request.urlopen(request, timeout=120) as stream:
            for line in stream:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line.removeprefix(b"data: "))
                if "choices" not in event:
                    others.append(event)
                    continue
                tokens += event["choices"][0]["token_ids"]
                if len(tokens) == 5:
                    os.kill(core, signal.SIGKILL)
        assert 5 <= len(tokens) < 400
        assert [event["error"]["code"] for event in others] == [500]
        process.wait(120)
        assert not answers(f"{url}/health")
    loaded = load_model(demo_scene(tmp_path / "again").flags["model"], device="cpu", dtype="float32")
    given = loaded.tokenizer(SILENT)["input_ids"]
    with torch.no_grad():
        logits = loaded.model(input_ids=torch.tensor([[*given, *tokens]])).logits[0]
    assert logits[len(given) - 1 : -1].argmax(-1).tolist() == tokens
