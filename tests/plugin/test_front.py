"""What the plug-in does in vLLM's API server."""

from types import SimpleNamespace

import pytest

from monitor.plugin import front


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


@pytest.mark.slow
def test_what_cannot_be_monitored_is_refused_once_the_setting_is_there(vllm, monkeypatch):
    monkeypatch.delenv("SAE_MONITOR_SETTINGS", raising=False)
    monkeypatch.setenv("SAE_MONITOR_VLLM_PLUGIN", "true")
    asked = SimpleNamespace(logprobs=None, prompt_logprobs=None, extra_args=None)
    made = SimpleNamespace(sampling_params=asked, lora_request=None, mm_features=None)
    monkeypatch.setattr(vllm.InputProcessor, "process_inputs", lambda self: made)
    front.register()
    front.register()
    process, server = vllm.InputProcessor.process_inputs, SimpleNamespace(vllm_config=config())
    assert process(server) is made
    asked.logprobs = 3
    with pytest.raises(ValueError, match="does not take logprobs"):
        process(server)
    asked.logprobs, asked.extra_args = None, {"sae_monitor_clamps": "[]"}
    with pytest.raises(ValueError, match="vllm_xargs"):
        process(server)
    with pytest.raises(ValueError, match="started without"):
        process(SimpleNamespace(vllm_config=config(scheduler=None)))


@pytest.mark.slow
def test_the_flags_name_what_is_there(vllm):
    from monitor.plugin.scheduler import HostedScheduler
    from monitor.plugin.worker import HostedWorker

    assert front.why_unmonitored(config(HostedWorker, HostedScheduler)) == ""
