"""What the plug-in does in vLLM's API server."""

import asyncio
from types import SimpleNamespace

import pytest
import torch
from prometheus_client import CollectorRegistry

from monitor.plugin import front
from monitor.plugin.refusals import Refusal
from monitor.telemetry.metrics import server_state as metrics


def config(worker=front.WORKER, scheduler=front.SCHEDULER):
    return SimpleNamespace(
        parallel_config=SimpleNamespace(worker_cls=worker),
        scheduler_config=SimpleNamespace(scheduler_cls=scheduler),
    )


def test_without_the_setting_nothing_is_touched(monkeypatch):
    monkeypatch.delenv("SAE_MONITOR_VLLM_PLUGIN", raising=False)
    monkeypatch.delenv("SAE_MONITOR_SETTINGS", raising=False)
    front.register()


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
