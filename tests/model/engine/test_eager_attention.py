"""Families without another attention than the eager one: scored, generated from and read, side by side."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from monitor.model.engine.requests import ScoreJob
from monitor.model.engine.scorer import Scorer
from tests.model.families import family_model
from tests.model.running import LAYER, running
from tests.model.tiny import CONFIGS, Recorder, dictionary, encode_all, loaded_model, maxima, prompt


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gemma2", "gpt_oss", "llama"])
def test_texts_are_scored_while_the_engine_runs(kind: str) -> None:
    loaded, sae = loaded_model(kind) if kind in CONFIGS else family_model(kind), dictionary()
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        handle = loaded.layers[LAYER].register_forward_hook(lambda *given: seen.append(given[-1]))
        loaded.model(input_ids=torch.tensor([prompt(51)]), use_cache=False)
        handle.remove()
    hidden = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    wanted = (encode_all(sae, hidden[0]) / maxima().double())[:, 3:19].numpy()
    observer, ended = Recorder(), threading.Event()

    def done(_: object) -> None:
        ended.set()

    with running(loaded, sae) as run:
        scorer = Scorer(loaded, run.bank, run.tap)
        scorer.start()
        beside = [run.call(prompt(n), new=20) for n in range(3)]
        scorer.submit(ScoreJob("a", prompt(51), observer, observer), done)
        assert ended.wait(60)
        for call in beside:
            assert call.finished().coverage.complete
        scorer.stop(5)
    assert observer.failures == []
    np.testing.assert_allclose(observer.blocks[0].readings, wanted, atol=1e-3)
