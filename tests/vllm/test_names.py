"""What this project relies on in vLLM; a failure here means that vLLM has changed."""

import inspect
import re

import pytest
import torch

from monitor.errors import ConfigurationError
from monitor.pairs.registry import named

pytestmark = pytest.mark.slow


def source(thing):
    return inspect.getsource(thing)


def test_the_version_was_tested(vllm):
    vllm.check_version()
    with pytest.raises(ConfigurationError, match=r"finds 0\.99\.0"):
        vllm.check_version("0.99.0")


def test_another_kind_of_device_than_that_of_vllm_is_refused(vllm):
    here = vllm.current_platform.device_type
    vllm.check_device(torch.device(here))
    with pytest.raises(
        ConfigurationError, match=f"chose meta, .* runs models on {here}; write `device: {here}`"
    ):
        vllm.check_device(torch.device("meta"))


def test_async_scheduling_is_switched_off_for_cpus_by_the_platform(vllm):
    """Which `bare_core` undoes for a core that overlaps."""
    from vllm.platforms.cpu import CpuPlatform

    assert "scheduler_config.async_scheduling = False" in source(CpuPlatform.check_and_update_config)


def test_a_step_of_a_core_that_overlaps(vllm):
    """A pass is laid out, and its tokens drawn, before what the one before it drew is taken in, but for structured
    output, where they are drawn after it. Passes are taken in in order."""
    from vllm.config import VllmConfig
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    step = source(vllm.EngineCore.step_with_batch_queue)
    order = [
        "self.scheduler.schedule(",
        "self.model_executor.execute_model(",
        "future = self.model_executor.sample_tokens(",
        "batch_queue.appendleft((future, scheduler_output, exec_future))",
        "batch_queue.pop()",
        "self.scheduler.update_from_output(",
        "future = self.model_executor.sample_tokens(",
    ]
    place = 0
    for part in order:
        place = step.index(part, place) + 1
    assert "return 2" in source(VllmConfig.max_concurrent_batches.fget)
    assert UniProcExecutor.supports_async_scheduling()


def test_a_scheduler_that_overlaps_differs_in_two_methods(vllm):
    """Which `GatedScheduler` takes from one kind or the other. From vLLM 0.33 on the second is the same in both."""
    own = {name for name, what in vars(vllm.AsyncScheduler).items() if inspect.isfunction(what)} - {
        "__init__"
    }
    assert "_update_after_schedule" in own
    assert own <= {"_update_after_schedule", "_update_request_with_output"}
    for kind in (vllm.Scheduler, vllm.AsyncScheduler):
        given = list(inspect.signature(kind._update_request_with_output).parameters)
        assert given == ["self", "request", "new_token_ids", "is_stale"]
        assert list(inspect.signature(kind._update_after_schedule).parameters) == ["self", "scheduler_output"]
    assert "self.scheduler_config" in source(vllm.Scheduler.__init__)


def test_a_request_that_runs_again(vllm):
    """As `run_again` has it: what passes in flight draw for it is dropped, and their tokens never become its next."""
    from vllm.v1.worker.gpu_input_batch import InputBatch
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    preempt = source(vllm.Scheduler._preempt_request)
    assert "request.num_stale_output_tokens = request.num_in_flight_tokens" in preempt
    assert "request.num_computed_tokens = 0" in preempt
    assert "self.waiting.prepend_request(request)" in preempt
    assert "if output_is_stale and request.drop_stale_output:" in source(vllm.Scheduler.update_from_output)
    reset = source(vllm.Scheduler.reset_prefix_cache)
    assert "self._preempt_request(request, timestamp, drop_stale_output=True)" in reset
    assert "self.prev_step_scheduled_req_ids.clear()" in reset
    data = source(vllm.Scheduler._make_cached_request_data)
    assert "if req_id not in self.prev_step_scheduled_req_ids:" in data
    update = source(GPUModelRunner._update_states)
    assert "unscheduled_req_ids = cached_req_ids - (scheduled_req_ids - resumed_req_ids)" in update
    assert "resumed_token_ids = req_data.all_token_ids[req_id]" in update
    assert "self.prev_req_id_to_index.pop(req_id, None)" in source(InputBatch.remove_request)


def test_what_a_pass_ran_is_read_from_the_device(vllm):
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    scattered = source(GPUModelRunner._prepare_input_ids)
    assert "self.input_ids.gpu" in scattered
    assert "prev_sampled_token_ids" in scattered
    assert "v.gpu = v.cpu" in source(CPUModelRunner._postprocess_tensors)
    assert callable(vllm.PlatformWorker.sample_tokens)


def test_a_step_of_the_core(vllm):
    step = source(vllm.EngineCore.step)
    order = [
        "self.scheduler.schedule(",
        "self.model_executor.execute_model(",
        "self.model_executor.sample_tokens(",
        "self.scheduler.update_from_output(",
    ]
    places = [step.index(part) for part in order]
    assert places == sorted(places)
    assert {"preprocess_add_request", "add_request", "shutdown"} <= set(dir(vllm.EngineCore))


def test_what_is_compared_and_timed(vllm):
    from vllm.v1.executor.uniproc_executor import UniProcExecutor
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    made = source(vllm.EngineCore.__init__)
    assert "self.step if self.batch_queue is None else self.step_with_batch_queue" in " ".join(made.split())
    assert "self.driver_worker = " in source(UniProcExecutor._init_executor)
    execute = source(GPUModelRunner.execute_model)
    assert "self.model.compute_logits(" in execute
    assert "self._sample(" in source(GPUModelRunner.sample_tokens)


def test_the_runner_lays_a_pass_out_before_it_calls_the_model(vllm):
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    execute = source(GPUModelRunner.execute_model)
    assert execute.index("self._update_states(") < execute.index("self._prepare_inputs(")
    assert execute.index("self._prepare_inputs(") < execute.index("self._model_forward(")
    assert execute.count("self._model_forward(") == 1
    assert "req_ids = self.input_batch.req_ids" in execute
    assert "tokens = [scheduler_output.num_scheduled_tokens[i] for i in req_ids]" in execute
    assert "self.model(" in source(GPUModelRunner._model_forward)
    prepare = source(GPUModelRunner._prepare_inputs)
    assert "num_computed_tokens_cpu" in prepare
    assert "self.input_ids.cpu" in prepare
    assert "return self.sampler(" in source(GPUModelRunner._sample)


def test_each_request_draws_from_the_last_of_its_rows(vllm):
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    assert "logits_indices = query_start_loc - 1" in source(GPUModelRunner._prepare_inputs) or (
        "logits_indices = query_start_loc[1:] - 1" in source(GPUModelRunner._prepare_inputs)
    )


def test_the_scheduler(vllm):
    scheduler = vllm.Scheduler
    for name in ("schedule", "update_from_output", "finish_requests", "has_requests", "get_kv_cache_usage"):
        assert callable(getattr(scheduler, name))
    assert re.search(
        r"self\.kv_cache_manager\.get_computed_blocks\(\s*request(, max_cache_hit_length)?\s*\)",
        source(scheduler),
    )
    update = source(scheduler.update_from_output)
    assert "if request is None or request.is_finished():" in update
    made = source(scheduler.__init__)
    for name in (
        "self.vllm_config",
        "self.cache_config",
        "self.kv_cache_config",
        "self.requests",
        "self.running",
    ):
        assert name in made
    assert "hash_block_size" in inspect.signature(scheduler.__init__).parameters


def test_blocks_are_named_by_tokens_salt_and_what_came_before(vllm):
    from vllm.v1.core import kv_cache_utils
    from vllm.v1.core.block_pool import BlockPool
    from vllm.v1.core.kv_cache_manager import KVCacheManager
    from vllm.v1.request import Request

    assert "cache_salt" in source(kv_cache_utils.generate_block_hash_extra_keys)
    hasher = source(kv_cache_utils.get_request_block_hasher)
    assert "len(request.block_hashes) * hash_block_size" in hasher
    assert "request.block_hashes[-1] if request.block_hashes else None" in hasher
    assert "self.block_hashes.extend(self._block_hasher(self))" in source(Request.update_block_hashes)
    assert {"empty_kv_cache_blocks"} <= set(source(KVCacheManager.__init__).replace("self.", "").split())
    assert callable(KVCacheManager.create_kv_cache_blocks)
    given = list(inspect.signature(KVCacheManager.get_computed_blocks).parameters)
    assert given in (["self", "request"], ["self", "request", "max_cache_hit_length"])
    assert callable(KVCacheManager.get_block_ids)
    assert "self.block_pool.evict_blocks(block_ids)" in source(KVCacheManager.evict_blocks)
    assert "self._maybe_evict_cached_block(block)" in source(BlockPool.evict_blocks)


def test_what_is_refused_is_called_by_its_setting(vllm):
    from vllm.config import CacheConfig, ModelConfig, ParallelConfig, SchedulerConfig, VllmConfig

    fields = lambda kind: set(kind.__dataclass_fields__)  # noqa: E731
    assert {
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "data_parallel_size",
        "prefill_context_parallel_size",
        "decode_context_parallel_size",
        "nnodes",
    } <= fields(ParallelConfig)
    assert "async_scheduling" in fields(SchedulerConfig)
    assert "kv_sharing_fast_prefill" in fields(CacheConfig)
    assert {
        "speculative_config",
        "lora_config",
        "kv_transfer_config",
        "weight_transfer_config",
        "additional_config",
    } <= fields(VllmConfig)
    assert "enable_sleep_mode" in fields(ModelConfig)
    assert hasattr(ParallelConfig, "use_ubatching")
    assert "additional_config" in source(VllmConfig.compute_hash)


def test_what_names_takes_from_the_engine_is_there(vllm):
    for name in vllm.__all__:
        assert hasattr(vllm, name)


def test_an_error_that_a_caller_is_told_of(vllm):
    """What the plug-in raises, and puts in the place of outputs, is answered with its own status and text."""
    from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
    from vllm.v1.engine.async_llm import AsyncLLM

    for status in (400, 403, 429, 503):
        found = create_error_response(vllm.http_error(status, "write something else")).error
        assert (found.code, found.message) == (status, "write something else")
    assert "except (VLLMClientError, GracefulHTTPError" in source(AsyncLLM.generate)
    assert "raise output" in source(vllm.RequestOutputCollector.get)
    assert "raise output" in source(vllm.RequestOutputCollector.get_nowait)
    assert str(vllm.FinishReason.ERROR) == "error"


def test_health_asks_the_engine(vllm):
    from vllm.entrypoints.serve.instrumentator import health

    assert "await client.check_health()" in source(health.health)
    assert "except EngineDeadError:" in source(health.health)
    assert "Response(status_code=503)" in source(health.health)


def test_the_ends_of_texts_are_taken_from_both_configurations(vllm):
    from types import SimpleNamespace

    made = SimpleNamespace(
        try_get_generation_config=lambda: {"eos_token_id": [3, 4]},
        hf_text_config=SimpleNamespace(eos_token_id=5),
    )
    assert vllm.end_ids(SimpleNamespace(model_config=made)) == {3, 4, 5}


def test_a_worker_without_a_gpu_stays_in_the_process_of_its_core_where_the_guide_says(vllm):
    from vllm.platforms.cpu import CpuPlatform

    told = source(CpuPlatform.check_and_update_config)
    assert 'os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "1") == "1"' in told
    assert 'parallel_config.distributed_executor_backend = "mp"' in told


class TestSeveralRanks:
    def test_a_path_names_an_executor(self, vllm):
        assert "executor_class = resolve_obj_by_qualname(distributed_executor_backend)" in source(
            vllm.Executor.get_class
        )
        found = vllm.Executor.get_class(configuration(vllm.RANKED))
        assert issubclass(found, vllm.UniProcExecutor)

    def test_the_executor_of_one_process(self, vllm):
        made = source(vllm.UniProcExecutor._init_executor)
        order = ["self._distributed_args()", ".init_worker(", ".init_device()", ".load_model()"]
        places = [made.index(part) for part in order]
        assert places == sorted(places)
        assert "WorkerWrapperBase(rpc_rank=0)" in made
        assert "update_block_size_for_backend(self.vllm_config)" in made
        given = inspect.signature(vllm.UniProcExecutor.collective_rpc).parameters
        assert list(given)[1:] == ["method", "timeout", "args", "kwargs", "non_block", "single_value"]
        for name in ("execute_model", "sample_tokens"):
            called = source(getattr(vllm.UniProcExecutor, name))
            assert f'"{name}"' in called
            assert "single_value=True" in called

    def test_the_worker_of_another_rank(self, vllm):
        from vllm.v1.executor.multiproc_executor import WorkerProc
        from vllm.v1.worker.worker_base import WorkerWrapperBase

        assert list(inspect.signature(WorkerWrapperBase.__init__).parameters)[1:] == [
            "rpc_rank",
            "global_rank",
        ]
        assert "kv_cache_configs[self.global_rank]" in source(WorkerWrapperBase.initialize_from_config)
        theirs, ours = source(WorkerProc.__init__), source(vllm.other_worker)
        for name in (
            "vllm_config",
            "local_rank",
            "rank",
            "distributed_init_method",
            "is_driver_worker",
            "shared_worker_lock",
        ):
            assert f'"{name}"' in theirs
            assert f'"{name}"' in ours
        order = ["init_worker(", "init_device()", "load_model()", "update_block_size_for_backend("]
        places = [theirs.index(part) for part in order]
        assert places == sorted(places)

    def test_every_rank_has_all_logits_and_the_whole_stream(self, vllm):
        from vllm.config.compilation import PassConfig
        from vllm.model_executor.layers.logits_processor import LogitsProcessor
        from vllm.platforms import current_platform

        assert current_platform.use_all_gather()
        assert "tensor_model_parallel_all_gather(logits)" in source(LogitsProcessor)
        assert not [name for name in PassConfig.__dataclass_fields__ if name == "sp" or name.endswith("_sp")]

    def test_names_of_shared_memory(self, vllm):
        from vllm.distributed.device_communicators.cpu_communicator import _CPUSHMDistributed
        from vllm.v1.worker.cpu_worker import CPUWorker

        named = source(_CPUSHMDistributed.make_group_name)
        assert 'os.environ["VLLM_DIST_IDENT"]' in named
        assert "-cpushm" in named
        assert 'os.path.basename(init_method.removeprefix("file://"))' in source(CPUWorker.init_device)

    def test_the_time_that_a_pass_may_take(self, vllm, monkeypatch):
        monkeypatch.setenv("VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS", "7")
        from vllm import envs

        envs.disable_envs_cache()
        assert vllm.pass_seconds() == 7.0

    @pytest.mark.parametrize(
        ("name", "value", "why"),
        [
            ("pipeline_parallel_size", 2, "a pipeline_parallel_size above 1"),
            ("data_parallel_size", 2, "a data_parallel_size above 1"),
            ("decode_context_parallel_size", 2, "context parallelism"),
            ("nnodes", 2, "several machines"),
            ("distributed_executor_backend", "ray", "or Ray"),
            ("distributed_executor_backend", "mp", "a tensor_parallel_size above 1 in the plug-in"),
        ],
    )
    def test_what_is_refused_beside_them(self, vllm, name, value, why):
        config = configuration(vllm.RANKED)
        vllm.refuse_configuration(config)
        setattr(config.parallel_config, name, value)
        with pytest.raises(ConfigurationError, match=why):
            vllm.refuse_configuration(config)

    def test_vllms_own_executor_over_ray_runs_on_no_cpu(self, vllm):
        """The guide says so; where this changes, it can be tried."""
        from vllm.platforms import current_platform
        from vllm.v1.executor import ray_utils

        assert "does not support ray" in source(ray_utils.initialize_ray_cluster)
        if current_platform.is_cpu():
            assert not current_platform.ray_device_key

    def test_what_is_left_of_ranks_that_were_killed(self, vllm, tmp_path):
        rendezvous = tmp_path / "vllm_dist_0123"
        rendezvous.touch()
        vllm.forget_rendezvous(f"file://{rendezvous}")
        assert not rendezvous.exists()
        vllm.forget_rendezvous(f"file://{rendezvous}")
        vllm.forget_rendezvous("tcp://127.0.0.1:1")


def configuration(executor, *, overlapping=False):
    """As vLLM's, of two ranks, as far as it is looked at."""
    from types import SimpleNamespace

    parallel = SimpleNamespace(
        tensor_parallel_size=2,
        pipeline_parallel_size=1,
        data_parallel_size=1,
        prefill_context_parallel_size=1,
        decode_context_parallel_size=1,
        nnodes=1,
        distributed_executor_backend=executor,
        use_ubatching=False,
    )
    return SimpleNamespace(
        parallel_config=parallel,
        scheduler_config=SimpleNamespace(async_scheduling=overlapping),
        speculative_config=None,
        lora_config=None,
        kv_transfer_config=None,
        use_v2_model_runner=False,
        model_config=SimpleNamespace(runner_type="generate", enable_sleep_mode=False),
        weight_transfer_config=None,
        cache_config=SimpleNamespace(kv_sharing_fast_prefill=False),
    )


def test_by_itself_vllm_takes_its_second_model_runner_where_there_is_triton(vllm, monkeypatch):
    """As on GPUs. The plug-in, the engine and the benchmark's baseline have it take the first one."""
    from vllm.config import vllm as configuration

    monkeypatch.setattr(configuration, "HAS_TRITON", True)
    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)
    model = str(named("tiny").model_path())
    config = vllm.EngineArgs(model=model, enforce_eager=True).create_engine_config()
    assert config.use_v2_model_runner
    with pytest.raises(ConfigurationError, match="VLLM_USE_V2_MODEL_RUNNER=0"):
        vllm.refuse_configuration(config)
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    assert not config.use_v2_model_runner


def test_several_ranks_do_not_overlap(vllm):
    vllm.refuse_configuration(configuration(vllm.RANKED))
    with pytest.raises(ConfigurationError, match=r"over several ranks \(leave async_scheduling out\)$"):
        vllm.refuse_configuration(configuration(vllm.RANKED, overlapping=True))
