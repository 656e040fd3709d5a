"""A pass is laid out while the one before it runs: what leaves is scored, and is what it is without that."""

import random
import time
from collections import deque

import numpy as np
import pytest

from monitor.errors import ConfigurationError
from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import Released
from monitor.records import Action, Clamp, Decision, FinishReason, Where
from tests.model.tiny import Recorder, dictionary, prompt
from tests.vllm.running import clamped_reference, family, on_vllm, plain_readings, same
from tests.vllm.test_scheduler import tokens

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
CLAMP = Clamp(40, -3.0, Where.EVERYWHERE)
BEGINNINGS = [(0, *tokens(f"system {n}", length)) for n, length in enumerate((20, 40, 70, 90))]


@pytest.fixture(scope="module")
def llama(vllm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    return family("llama", folder), folder


class Decides(Recorder):
    """Clamps at some tokens of a response and not at others, and blocks at one."""

    def __init__(self, prompt, on=(), block=None):
        super().__init__()
        self.prompt, self.on, self.last = prompt, on, block

    def observe(self, block):
        super().observe(block)
        token = block.start + len(block.token_ids) - 1 - self.prompt
        if token == self.last:
            return Decision(action=Action.BLOCK)
        if any(token in stretch for stretch in self.on):
            return Decision(clamps=(CLAMP,), suppressing=("policy",), action=Action.SUPPRESS)
        return Decision()


class Watch:
    """What a core does beside answering."""

    def __init__(self, run):
        self.in_flight, self.again, self.evicted = [], [], []
        batcher = run.engine._batcher
        gate, scheduler = batcher.gate, batcher._core.scheduler
        lay_out, preempt = gate.lay_out, scheduler._preempt_request

        def counted(parts_of_pass, ids):
            self.in_flight.append(len(gate._in_flight))
            return lay_out(parts_of_pass, ids)

        def noted(request, *more, drop_stale_output=False):
            (self.again if drop_stale_output else self.evicted).append(request.request_id)
            return preempt(request, *more, drop_stale_output=drop_stale_output)

        gate.lay_out, scheduler._preempt_request = counted, noted


def asked(number, chance):
    """A request of random traffic, as the arguments of `Running.call`."""
    ids = BEGINNINGS[number % 4] + tokens(f"tail {number}", chance.randrange(1, 30))
    begin, length = chance.randrange(0, 9), chance.randrange(1, 5)
    stretches = (range(begin, begin + length), range(begin + length + 2, begin + length + 4))
    on = stretches if number % 3 == 0 else ()
    block = chance.randrange(0, 12) if number % 5 == 4 else None
    return ids, {
        "new": chance.randrange(1, 24),
        "observer": Decides(len(ids), on, block),
        "include_tokens": number % 4 == 1,
        "logprobs": 3 if number % 6 == 2 else None,
        "seed": number,
        "temperature": float(number % 2),
        "stop": ("e",) if number % 7 == 3 else (),
    }


def answers(run, count):
    chance = random.Random(11)
    calls = [run.call(ids, **more) for ids, more in (asked(number, chance) for number in range(count))]
    return [(call.finished(), call) for call in calls]


@pytest.mark.parametrize("blocks", [None, 16], ids=["room", "tight"])
@pytest.mark.parametrize("caching", [False, True], ids=["no cache", "cache"])
def test_random_traffic_ends_as_it_does_without_overlapping(llama, caching, blocks):
    options = {} if blocks is None else {"num_gpu_blocks_override": blocks}
    limits, found = Limits(running=8, batch_tokens=64), {}
    for overlapping in (False, True):
        with on_vllm(
            *llama,
            dictionary(),
            clampable=[40],
            caching=caching,
            options=options,
            limits=limits,
            overlapping=overlapping,
        ) as run:
            watch = Watch(run)
            found[overlapping] = answers(run, 40)
            assert max(watch.in_flight) == overlapping
            assert bool(watch.again) is overlapping, "no pass was taken back, so nothing was tested"
            assert blocks is None or watch.evicted
            assert run.engine.cache_used() < 0.2
    for (synchronous, first), (end, call) in zip(found[False], found[True], strict=True):
        assert end == synchronous
        assert end.coverage.complete
        assert call.text == first.text
        assert [block.start for block in call.observer.blocks] == sorted(
            {block.start for block in call.observer.blocks}
        )
        told = [
            [one for e in c.events if isinstance(e, Released) for one in e.logprobs] for c in (call, first)
        ]
        assert [one.token_id for one in told[0]] == [one.token_id for one in told[1]]
        assert [one.logprob for one in told[0]] == pytest.approx([one.logprob for one in told[1]], abs=1e-4)
        assert call.readings == pytest.approx(first.readings, rel=2e-3, abs=2e-3)
    ends = [end for end, _ in found[True]]
    assert {end.reason for end in ends} >= {FinishReason.POLICY, FinishReason.LENGTH}
    assert any(end.tokens_clamped for end in ends)


@pytest.mark.parametrize("caching", [False, True], ids=["no cache", "cache"])
def test_a_suppression_that_begins_and_ends_is_that_of_a_clamped_plain_model(llama, caching):
    """The token that the pass in flight drew without the clamp, or with it, is not the one that leaves."""
    loaded, _ = llama
    with on_vllm(*llama, dictionary(), clampable=[40], caching=caching, overlapping=True) as run:
        watch = Watch(run)
        ids = BEGINNINGS[2]
        call = run.call(ids, new=12, observer=Decides(len(ids), (range(3, 99),)))
        beside = [run.call(prompt(n), new=14) for n in range(4)]
        end = call.finished()
        assert watch.again == [run.engine._batcher.gate._names.get("r1", watch.again[0])]
        new = end.ids[len(ids) :]
        # The fourth token is clamped for from the one after it on.
        logits = clamped_reference(loaded, dictionary(), [*ids, *new], CLAMP, begin=len(ids) + 4)
        assert logits[len(ids) - 1 : -1].argmax(-1).tolist() == list(new)
        free = run.call(ids, new=12)
        assert free.finished().ids != end.ids, "the clamp changed nothing, so nothing was tested"
        for one in (*beside, free):
            same(one.readings, plain_readings(loaded, dictionary(), one.finished().ids))


def test_a_suppression_that_begins_in_a_prompt_holds_from_its_next_part_on(llama):
    loaded, _ = llama
    ids = (0, *tokens("long prompt", 110))
    with on_vllm(
        *llama,
        dictionary(),
        clampable=[40],
        caching=True,
        limits=Limits(running=4, batch_tokens=32),
        overlapping=True,
    ) as run:
        watch = Watch(run)
        call = run.call(ids, new=6, observer=Decides(0, (range(1, 999),)), include_tokens=False)
        end = call.finished()
        assert watch.again
        begin = len(call.observer.blocks[0].token_ids)
        assert begin == 32
        new = end.ids[len(ids) :]
        logits = clamped_reference(loaded, dictionary(), end.ids, CLAMP, begin=begin)
        assert logits[len(ids) - 1 : -1].argmax(-1).tolist() == list(new)
        # Nobody else is given its keys and values, or those of the part that was taken back.
        plain = run.call(ids, new=6, include_tokens=False)
        same(
            plain.readings if plain.finished() else None,
            plain_readings(loaded, dictionary(), plain.finished().ids),
        )


def test_what_is_blocked_leaves_nothing_of_the_pass_in_flight(llama):
    with on_vllm(*llama, dictionary(), overlapping=True) as run:
        ids = prompt(9)
        call = run.call(ids, new=30, observer=Decides(len(ids), block=2))
        end = call.finished()
        assert end.reason is FinishReason.POLICY
        assert (end.tokens_generated, end.coverage.tokens_run) == (2, len(ids) + 3)
        assert [block.start for block in call.observer.blocks] == [0, len(ids), len(ids) + 1, len(ids) + 2]


def test_cancelled_requests_end_and_their_passes_in_flight_are_nobodys(llama):
    loaded, _ = llama
    with on_vllm(*llama, dictionary(), overlapping=True, caching=True) as run:
        calls = [run.call(prompt(n), new=40) for n in range(24)]
        for number in range(1, 25, 2):
            run.engine.cancel(f"r{number}")
        for number, call in enumerate(calls):
            end = call.finished()
            assert end.coverage.tokens_run == sum(len(block.token_ids) for block in call.observer.blocks)
            if number % 2:
                same(call.readings, plain_readings(loaded, dictionary(), end.ids))


@pytest.mark.parametrize("given", ["yes", 1, None])
def test_an_argument_that_is_neither_true_nor_false_is_refused(llama, given):
    with (
        pytest.raises(ConfigurationError, match="async_scheduling in vllm_options must be true or false"),
        on_vllm(*llama, dictionary(), options={"async_scheduling": given}),
    ):
        pass


def test_rows_that_a_pass_did_not_run_are_found(llama, monkeypatch):
    """What ran is taken from the device: the host does not know what the pass before draws."""
    from monitor.vllm import parts

    real = parts.ids_that_run
    with on_vllm(*llama, dictionary(), overlapping=True) as run:
        call = run.call(prompt(4), new=6)
        assert call.finished().coverage.complete
        monkeypatch.setattr(parts, "ids_that_run", lambda runner: real(runner) + 1)
        call = run.call(prompt(14), new=6)
        assert call.finished().reason is FinishReason.POLICY
        assert not call.text
        monkeypatch.undo()
        again = run.call(prompt(14), new=6)
        assert again.finished().coverage.complete
        assert np.isfinite(again.readings).all()


class PlayedDevice:
    """A device that takes so many seconds for each pass, one after the other, beside the host."""

    def __init__(self, run, seconds):
        self._free, self._over = 0.0, deque()
        batcher = run.engine._batcher
        gate, scheduler = batcher.gate, batcher._core.scheduler
        launched, update = gate.launched, scheduler.update_from_output

        def queued(ran):
            launched(ran)
            self._free = max(self._free, time.perf_counter()) + seconds
            self._over.append(self._free)

        def awaited(*given):
            time.sleep(max(0.0, self._over.popleft() - time.perf_counter()))
            return update(*given)

        gate.launched, scheduler.update_from_output = queued, awaited


class Slow(Recorder):
    """Rules that take their time."""

    def observe(self, block):
        time.sleep(0.03)
        return super().observe(block)


def test_a_pass_is_scored_while_the_device_runs_the_next(llama):
    """30 ms of scoring beside 60 ms of a device: not one after the other."""
    took = {}
    for overlapping in (False, True):
        with on_vllm(*llama, dictionary(), overlapping=overlapping) as run:
            run.call(prompt(1), new=2).finished()
            PlayedDevice(run, 0.06)
            began = time.perf_counter()
            call = run.call((0, 5, 6, 7), new=30, observer=Slow())
            passes = len(call.finished().ids) - 4 + 1
            took[overlapping] = (time.perf_counter() - began) / passes
    assert took[False] > 0.09
    assert took[True] < 0.85 * took[False]
