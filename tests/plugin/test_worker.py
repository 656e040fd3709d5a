"""The worker of the plug-in refuses settings of vLLM under which not every token would be scored."""

from types import SimpleNamespace

import pytest

from monitor.errors import ConfigurationError

pytestmark = pytest.mark.slow


def config(**changes):
    parallel = {
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "data_parallel_size": 1,
        "prefill_context_parallel_size": 1,
        "decode_context_parallel_size": 1,
        "nnodes": 1,
        "use_ubatching": False,
        "distributed_executor_backend": "uni",
    }
    flat = {
        "async_scheduling": False,
        "speculative_config": None,
        "lora_config": None,
        "kv_transfer_config": None,
    }
    flat |= {"use_v2_model_runner": False, "runner_type": "generate", "kv_sharing_fast_prefill": False}
    flat |= {"enable_sleep_mode": False, "weight_transfer_config": None}
    values = parallel | flat | changes
    return SimpleNamespace(
        parallel_config=SimpleNamespace(**{name: values[name] for name in parallel}),
        scheduler_config=SimpleNamespace(async_scheduling=values["async_scheduling"]),
        cache_config=SimpleNamespace(kv_sharing_fast_prefill=values["kv_sharing_fast_prefill"]),
        model_config=SimpleNamespace(**{n: values[n] for n in ("runner_type", "enable_sleep_mode")}),
        **{
            n: values[n]
            for n in (
                "speculative_config",
                "lora_config",
                "kv_transfer_config",
                "use_v2_model_runner",
                "weight_transfer_config",
            )
        },
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tensor_parallel_size": 2}, "tensor_parallel_size"),
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size"),
        ({"data_parallel_size": 2}, "data_parallel_size"),
        ({"decode_context_parallel_size": 2}, "context parallelism"),
        ({"nnodes": 2}, "several machines"),
        ({"distributed_executor_backend": "mp"}, "VLLM_ENABLE_V1_MULTIPROCESSING=0"),
        ({"speculative_config": object()}, "speculative"),
        ({"lora_config": object()}, "LoRA"),
        ({"kv_transfer_config": object()}, "transfer"),
        ({"use_v2_model_runner": True}, "VLLM_USE_V2_MODEL_RUNNER=0"),
        ({"use_ubatching": True}, "overlap"),
        ({"runner_type": "pooling"}, "pooling"),
        ({"kv_sharing_fast_prefill": True}, "prefill"),
        ({"enable_sleep_mode": True}, "sleep mode"),
        ({"weight_transfer_config": object()}, "new weights"),
    ],
)
def test_what_is_refused(vllm, change, said):
    vllm.refuse_configuration(config())
    vllm.refuse_configuration(config(async_scheduling=True))
    with pytest.raises(ConfigurationError, match=said):
        vllm.refuse_configuration(config(**change))


def test_the_worker_looks_before_it_loads(vllm, monkeypatch):
    from monitor.plugin.worker import HostedWorker

    worker = HostedWorker.__new__(HostedWorker)
    worker.vllm_config = config(nnodes=2)
    with pytest.raises(ConfigurationError, match="several machines"):
        worker.load_model()
