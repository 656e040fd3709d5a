"""The prefix cache: what it holds is scored all the same, and verdicts are those without it, token for token."""

import random
import threading

import numpy as np
import pytest

from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import Lease, ScoreJob
from monitor.records import Action, Clamp, Coverage, Decision, WatchPlan, Where
from tests.model.tiny import VOCABULARY, Recorder, dictionary
from tests.vllm.running import family, on_vllm, plain_readings, same
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
BLOCK = 32


def tokens(seed, count):
    chance = random.Random(seed)
    return tuple(chance.randrange(2, VOCABULARY) for _ in range(count))


BASE = (0, *tokens("base", 2 * BLOCK + 10))


@pytest.fixture(scope="module")
def llama(vllm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    return family("llama", folder), folder


@pytest.fixture(scope="module", params=[False, True], ids=["synchronous", "overlapping"])
def run(llama, request):
    with on_vllm(
        *llama, dictionary(), clampable=[40], caching=True, reserve=16, overlapping=request.param
    ) as started:
        yield started


class Positions:
    """Where the requests of passes began to run."""

    def __init__(self, run):
        self.first = []
        gate = run.engine._batcher.gate
        real = gate.lay_out

        def lay_out(parts, ids):
            self.first += [part.position for part in parts if part.count > 1 or part.position == 0]
            return real(parts, ids)

        gate.lay_out = lay_out
        self.undo = lambda: setattr(gate, "lay_out", real)


@pytest.fixture
def began(run):
    seen = Positions(run)
    yield seen.first
    seen.undo()


def finished(call, loaded):
    """Everything was shown to the rules once, in order, and is what plain passes read."""
    end = call.finished()
    assert end.error is None
    assert end.coverage.complete
    blocks = call.observer.blocks
    assert [block.start for block in blocks] == list(
        np.cumsum([0, *(len(block.token_ids) for block in blocks[:-1])])
    )
    assert tuple(token for block in blocks for token in block.token_ids) == end.ids
    same(call.readings, plain_readings(loaded, dictionary(), end.ids))
    return end


def call(run, ids, **more):
    return run.call(ids, **({"new": 3, "include_tokens": False} | more))


def test_a_shared_beginning_is_taken_from_the_cache_and_scored(run, llama, began):
    first = finished(call(run, BASE + tokens(1, 9)), llama[0])
    second = finished(call(run, BASE + tokens(2, 9)), llama[0])
    assert began == [0, 2 * BLOCK]
    assert first.coverage.tokens_run == second.coverage.tokens_run


def test_what_the_store_lacks_is_run_again(run, llama, began):
    finished(call(run, BASE + tokens(3, 9)), llama[0])
    run.engine._batcher.gate._rows.clear()
    finished(call(run, BASE + tokens(4, 9)), llama[0])
    finished(call(run, BASE + tokens(5, 9)), llama[0])
    assert began[1:] == [0, 2 * BLOCK]


def test_a_hit_goes_as_far_as_the_store(run, llama, began):
    finished(call(run, BASE + tokens(6, 9)), llama[0])
    kept = run.engine._batcher.gate._rows._rows
    first = (0, *BASE[1:BLOCK])
    for block in [block for block, (_, rows) in kept.items() if rows.ids != first]:
        del kept[block]
    finished(call(run, BASE + tokens(7, 9)), llama[0])
    assert began[1:] == [BLOCK]


def test_a_decision_on_cached_tokens_comes_before_the_first_new_one(run, began):
    class Blocks(Recorder):
        def observe(self, block):
            super().observe(block)
            return Decision(action=Action.BLOCK)

    asked = BASE + tokens(8, 9)
    call(run, asked).finished()
    end = call(run, asked, observer=Blocks()).finished()
    assert end.tokens_generated == 0
    assert end.coverage == Coverage(2 * BLOCK, 2 * BLOCK, tokens_sinks=1)
    wait_for(lambda: not run.engine._batcher._core.scheduler.has_requests())
    assert began[1:] == [2 * BLOCK], "the pass that was being laid out when it ended"


def test_another_policy_set_reads_cached_tokens_anew(run, llama, began):
    ids = BASE + tokens(9, 9)
    finished(call(run, ids), llama[0])
    others = (70, 71, 72)
    release = run.bank.hold(others)
    lease = Lease(run.bank.columns(WatchPlan(others)), release)
    again = run.call(ids, new=2, include_tokens=False, lease=lease)
    end = again.finished()
    assert began[1:] == [0]
    assert end.coverage.complete
    found = np.concatenate([block.readings for block in again.observer.blocks])
    same(found, plain_readings(llama[0], dictionary(), end.ids, others))
    lease.release()


def test_a_policy_set_that_reads_the_same_takes_the_prefix_from_the_cache(run, llama, began):
    finished(call(run, BASE + tokens(11, 9)), llama[0])
    plan = WatchPlan(run.bank.fixed)
    held = run.bank.others.hold(plan), run.bank.hold(plan.features)
    finished(call(run, BASE + tokens(12, 9)), llama[0])
    for let_go in held:
        let_go()
    finished(call(run, BASE + tokens(13, 9)), llama[0])
    assert began[1:] == [2 * BLOCK] * 2


@pytest.mark.parametrize("where", list(Where))
def test_clamped_keys_and_values_are_nobody_elses(run, llama, began, where):
    asked = (0, *tokens(f"clamped {where}", 3 * BLOCK))
    clamp = Clamp(40, -5.0, where)
    first = call(run, asked, clamps=[clamp]).finished()
    assert finished(call(run, asked), llama[0]).coverage.tokens_run == len(asked) + 3
    again = call(run, asked, clamps=[clamp]).finished()
    assert began == [0, 0, 0]
    assert first.ids == again.ids


class Suppresses(Recorder):
    """Clamps from the end of the first pass that it sees on."""

    def observe(self, block):
        super().observe(block)
        clamp = Clamp(40, -30.0, Where.EVERYWHERE)
        return Decision(action=Action.SUPPRESS, clamps=(clamp,), suppressing=("policy",))


def test_suppression_that_begins_in_a_prompt_does_not_reach_others(run, llama, began):
    asked = (0, *tokens("suppressed", 3 * BLOCK + 20))
    suppressed = call(run, asked, observer=Suppresses(), new=1)
    suppressed.finished()
    assert len(suppressed.observer.blocks) > 1, "the prompt ran in one pass, so nothing was clamped in it"
    finished(call(run, asked), llama[0])


def test_suppression_that_begins_in_a_cached_prefix_does_not_reach_others(run, llama, began):
    """Its first pass, which is clamped, was scheduled before the rules saw the prefix."""
    asked = (0, *tokens("suppressed in the cache", 3 * BLOCK + 10))
    finished(call(run, asked), llama[0])
    # The third block's keys and values are gone, and what was read of it is still known.
    batcher = run.engine._batcher
    (third,) = [
        key for key, (_, rows) in batcher.gate._rows._rows.items() if rows.ids == asked[2 * BLOCK : 3 * BLOCK]
    ]
    manager = batcher._core.scheduler.kv_cache_manager
    manager.evict_blocks({block.block_id for block in manager.block_pool.get_cached_block(third, [0])})
    suppressed = call(run, asked, observer=Suppresses(), new=1)
    assert suppressed.finished().tokens_clamped >= BLOCK + 10
    finished(call(run, asked), llama[0])
    assert began == [0, 3 * BLOCK, 2 * BLOCK, 2 * BLOCK]


def test_scored_texts_share_too(run, llama, began):
    ids = BASE + tokens(10, 9)
    for _ in range(2):
        done, found, seen = threading.Event(), [], Recorder()

        def emit(outcomes, found=found, done=done):
            found.extend(outcomes)
            done.set()

        run.scorer.submit(ScoreJob(f"text {_}", ids, seen, seen), emit)
        assert done.wait(60)
        assert found[0][1].coverage.complete
        readings = np.concatenate([block.readings for block in seen.blocks])
        same(readings, plain_readings(llama[0], dictionary(), ids))
    assert began[-1] == 2 * BLOCK


def test_random_traffic_with_evictions_is_scored_as_without_a_cache(llama):
    chance = random.Random(5)
    beginnings = [(0, *tokens(f"system {n}", chance.choice((20, 40, 70)))) for n in range(4)]
    asked = [
        beginnings[chance.randrange(4)] + tokens(f"tail {n}", chance.randrange(1, 30)) for n in range(40)
    ]
    tight = {"num_gpu_blocks_override": 14}
    with on_vllm(
        *llama, dictionary(), caching=True, options=tight, limits=Limits(running=6, batch_tokens=64)
    ) as run:
        seen = Positions(run)
        calls = [call(run, ids, new=12) for ids in asked[:20]]
        for one in calls:
            finished(one, llama[0])
        calls += (later := [call(run, ids, new=12) for ids in asked[20:]])
        for one in later:
            finished(one, llama[0])
        assert any(seen.first), "nothing came from the cache, so nothing was tested"
    with on_vllm(*llama, dictionary(), limits=Limits(running=6, batch_tokens=64)) as without:
        for one, ids in zip(calls, asked, strict=True):
            plain = call(without, ids, new=12)
            assert plain.finished().ids == one.finished().ids
            assert plain.finished().coverage == one.finished().coverage
