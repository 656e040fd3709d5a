"""The same numbers on a CUDA device, with passes run directly and as replayed graphs."""

import pytest
import torch

from monitor.model.engine.paged import Limits
from monitor.model.engine.serial import SeparateBatcher
from tests.model.engine.test_engine import CLAMPS, check
from tests.model.running import running
from tests.model.tiny import dictionary, loaded_model, prompt

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("sae_kind", ["jumprelu", "gated", "topk"])
def test_readings_and_clamps_on_a_device(graphs: bool, sae_kind: str) -> None:
    size = Limits(running=16, batch_tokens=128, cache_tokens=2048, graphs=graphs)
    with running(loaded_model(device="cuda"), dictionary(sae_kind), limits=size) as run:
        assert run.engine._batcher.static is graphs
        calls = [(run.call(prompt(n), new=8, clamps=c), c) for n in range(16) for c in ((), CLAMPS)]
        for call, clamps in calls:
            call.finished()
            check(call, "llama", sae_kind, 8, clamps)


@pytest.mark.parametrize("cache", [None, 256])
def test_requests_take_turns_on_a_device(cache: int | None) -> None:
    size = Limits(running=16, batch_tokens=16, cache_tokens=cache)
    with running(loaded_model(device="cuda"), dictionary(), limits=size, batcher=SeparateBatcher) as run:
        calls = [(run.call(prompt(n), new=8, clamps=c), c) for n in range(6) for c in ((), CLAMPS)]
        for call, clamps in calls:
            call.finished()
            check(call, "llama", "jumprelu", 8, clamps)
