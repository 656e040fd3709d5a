"""Two ranks of the pair `tiny` against plain forward passes, and what becomes of requests where a rank fails."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monitor.bench.coverage import CorePassCounter, engine_of
from monitor.bench.engines import on_vllm
from monitor.bench.models import MAKERS
from monitor.model.engine.requests import GenerationRequest
from monitor.model.offline.residuals import Harvester
from monitor.records import Clamp, FinishReason, Sampling, Where
from tests.children import ending
from tests.model.running import Call
from tests.model.tiny import Recorder
from tests.vllm.running import clamped_reference, same
from tests.vllm.test_ranks import alive
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PATIENCE = 600.0
"""Two ranks on one core wait for each other most of the time."""
HEADS, HEAD = 4, 64


class Spread:
    """An engine whose model lies on two ranks, and plain passes of the same model."""

    def __init__(self, subject: Any, engine: Any, watched: list[int]) -> None:
        self.subject, self.engine, self.watched = subject, engine, watched
        self.ran = CorePassCounter(engine)
        self._count = 0

    @property
    def executor(self) -> Any:
        return self.engine._batcher._core.model_executor

    def call(self, ids: tuple[int, ...], *clamps: Clamp, new: int = 8) -> Call:
        self._count += 1
        call = Call(ids, Recorder())
        wanted = Sampling(max_new_tokens=new)
        self.engine.submit(
            GenerationRequest(f"r{self._count}", ids, wanted, call.observer, call.observer, clamps), call.emit
        )
        return call

    def logits(self, ids: tuple[int, ...], clamp: Clamp | None = None) -> torch.Tensor:
        """`[tokens, vocabulary]` of a plain pass, in which one feature is clamped behind the first token."""
        subject = self.subject
        if clamp is None:
            with torch.no_grad():
                return subject.loaded.model(input_ids=torch.tensor([list(ids)])).logits[0]
        unit = float(subject.maximum[clamp.feature])
        return clamped_reference(
            subject.loaded, subject.autoencoder, ids, clamp, layer=subject.layer, unit=unit
        )

    def check(self, call: Call, *clamps: Clamp) -> None:
        """All tokens of a call were read and scored, and each is the one that the plain model draws."""
        end = call.finished(PATIENCE)
        assert end.error is None
        assert end.coverage.complete
        assert len(call.readings) == len(end.ids) == end.coverage.tokens_run
        residual = Harvester(self.subject.loaded, self.subject.layer).residuals(torch.tensor([list(end.ids)]))
        wanted = self.subject.autoencoder.encode(residual[0].float()) / self.subject.maximum
        if not clamps:
            same(call.readings, wanted[:, self.watched].numpy())
        new = end.ids[len(call.ids) :]
        assert new
        drawn = self.logits(end.ids, *clamps)[len(call.ids) - 1 : -1].argmax(-1).tolist()
        assert drawn == list(new)


def prompt(number: int, length: int) -> tuple[int, ...]:
    chance = np.random.default_rng(number)
    return (1, *(int(token) for token in chance.integers(3, 8192, length - 1)))


@contextmanager
def spread(folder: Path, **more: Any) -> Iterator[Spread]:
    subject = MAKERS["demo"]("cpu", "float32")
    subject.loaded.model.save_pretrained(folder)
    options = {"enforce_eager": True, "block_size": 32, "tensor_parallel_size": 2} | more
    with engine_of(subject, 16, None, on_vllm(subject, folder, caching=True, more=options)) as (
        engine,
        watched,
    ):
        engine._end_ids = frozenset()
        yield Spread(subject, engine, watched)


@pytest.fixture(scope="module")
def two(vllm, tmp_path_factory):
    with spread(tmp_path_factory.mktemp("tiny")) as started:
        yield started


def test_each_rank_has_its_part_of_the_weights(two):
    def parts(worker):
        model = worker.model_runner.get_model().model
        layer = model.layers[0]
        # vLLM packs the weights of linear layers for the CPU, and keeps no tensor of them.
        return (
            model.embed_tokens.weight.detach().clone(),
            layer.self_attn.num_heads,
            layer.self_attn.qkv_proj.output_size_per_partition,
            layer.mlp.down_proj.input_size_per_partition,
            {cache.shape for cache in worker.model_runner.kv_caches},
        )

    first, other = two.executor.collective_rpc(parts)
    words = two.subject.loaded.model.get_input_embeddings().weight
    assert len(first[0]) == len(other[0]) == len(words) // 2
    assert torch.equal(torch.cat([first[0], other[0]]), words)
    assert first[1:] == other[1:]
    assert first[1:4] == (HEADS // 2, 3 * HEADS * HEAD // 2, 688 // 2)
    (shape,) = first[4]
    assert HEADS // 2 in shape
    assert HEADS not in shape


def test_the_first_rank_is_here_and_the_other_is_not(two):
    pids = two.executor.collective_rpc(lambda _worker: os.getpid())
    assert pids == [os.getpid(), *two.executor.rank_processes]
    assert len(pids) == 2
    assert not list(Path("/dev/shm").glob(f"*{two.executor._rendezvous.rsplit('/', 1)[1]}*"))


def test_texts_of_all_lengths_that_arrive_at_any_time_are_those_of_plain_passes(two):
    """Beside each other: some clamped, one longer than a pass, one cancelled, others on their way in."""
    clamp = Clamp(two.watched[3], -3.0, Where.EVERYWHERE)
    first = [two.call(prompt(n, length)) for n, length in enumerate((2, 17, 60, 301))]
    clamped = [two.call(prompt(n, 10 + n), clamp) for n in range(10, 12)]
    gone = two.call(prompt(30, 20), new=200)
    wait_for(lambda: len(first[1].events) > 2, PATIENCE)
    two.engine.cancel(f"r{two._count}")
    later = [two.call(prompt(n, 5 * n)) for n in (4, 7)]
    for call in (*first, *later):
        two.check(call)
    for call in clamped:
        two.check(call, clamp)
    assert len(first[3].observer.blocks) > len(first[0].observer.blocks), "it ran in parts"
    assert gone.finished(PATIENCE).reason is FinishReason.CANCELLED
    free = two.call(clamped[0].ids)
    two.check(free)
    assert free.finished().ids != clamped[0].finished().ids, (
        "the clamp changed nothing, so nothing was tested"
    )
    assert clamped[0].finished().tokens_clamped > len(clamped[0].ids) // 2


def test_a_prefix_that_is_cached_on_every_rank_is_scored_and_goes_on_the_same(two):
    shared = prompt(50, 130)
    two.check(two.call((*shared, 20, 21)))
    before = two.ran.cached
    two.check(two.call((*shared, 30, 31)))
    assert two.ran.cached - before >= 128


def test_a_rank_that_edits_otherwise_is_noticed_before_a_token_leaves(two):
    """The last test of this engine, which ends."""
    clamp = Clamp(two.watched[3], -3.0, Where.EVERYWHERE)
    first = os.getpid()

    def spoil(_worker):
        from monitor.vllm.operator import _seats

        if os.getpid() == first:
            return
        shared = _seats[-1].shared
        real = shared.share

        def half(x, mine):
            clamped, edited = real(x, mine)
            return x + (clamped - x) / 2, edited

        shared.share = half

    two.executor.collective_rpc(spoil)
    two.check(two.call(prompt(60, 9)))
    call = two.call(prompt(61, 9), clamp)
    end = call.finished(PATIENCE)
    assert end.reason is FinishReason.ERROR
    assert end.error is not None
    assert not call.text
    assert end.coverage.tokens_scored == 0
    assert "another residual stream" in str(two.engine._batcher._failed)
    assert not two.engine.healthy()
    wait_for(lambda: not any(map(alive, two.executor.rank_processes)))


def test_compiled_ranks_edit_alike_too(vllm, tmp_path):
    with spread(tmp_path, enforce_eager=False) as compiled:
        clamp = Clamp(compiled.watched[3], -3.0, Where.EVERYWHERE)
        compiled.check(compiled.call(prompt(1, 40)))
        compiled.check(compiled.call(prompt(2, 40), clamp), clamp)


OPTIONS = {"tensor_parallel_size": 2, "enforce_eager": True, "block_size": 32}


@contextmanager
def server(bound: int) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """A server with two ranks, its address, and the process of the second."""
    command = [sys.executable, "-m", "monitor", "serve", "--engine=vllm", "--pair=tiny"]
    command += ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--max-running=4"]
    command += [f"--vllm-options={json.dumps(OPTIONS)}"]
    environment = {**os.environ, "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": str(bound)}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    )
    with ending(process):
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if match := re.search(r"^  grpc +(\S+)", line):
                break
        else:
            pytest.fail("".join(said))
        (rank,) = [
            pid for pid in children(process.pid) if b"other_rank" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        try:
            yield process, match[1], rank
        finally:
            with suppress(ProcessLookupError):
                os.kill(rank, signal.SIGKILL)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]


@pytest.mark.parametrize(("number", "bound"), [(signal.SIGKILL, 300), (signal.SIGSTOP, 45)])
def test_a_rank_that_is_killed_or_hangs_ends_the_server_and_no_unscored_token_leaves(vllm, number, bound):
    from monitor.v1 import monitor_pb2 as pb
    from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
    from tests.rpc.conftest import connected, fails, generation

    with server(bound) as (process, address, rank), connected(address) as channel:
        asked = generation("Once upon a time", max_new_tokens=400, include_tokens=True)
        call = MonitorServiceStub(channel).GenerateStream(
            pb.GenerateStreamRequest(generation=asked), timeout=PATIENCE
        )
        seen = [next(call) for _ in range(3)]
        os.kill(rank, number)
        with fails("UNAVAILABLE"):
            for message in call:
                seen.append(message)
        tokens = [token for message in seen for token in message.chunk.tokens]
        assert 0 < len(tokens) < 400
        assert [token.position for token in tokens] == list(range(len(tokens)))
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 3
        assert "rank 1" in said
        assert "Once upon" not in said
        wait_for(lambda: not alive(rank))


def test_a_server_that_is_killed_leaves_no_rank_and_one_that_is_asked_to_go_ends_it(vllm):
    for number in (signal.SIGKILL, signal.SIGTERM):
        with server(300) as (process, _, rank):
            process.send_signal(number)
            process.communicate(timeout=PATIENCE)
            assert process.returncode == (0 if number == signal.SIGTERM else -number)
            wait_for(lambda rank=rank: not alive(rank))
