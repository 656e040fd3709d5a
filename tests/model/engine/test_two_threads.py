"""Scoring and generating at the same time over one model: each reads what it would have read alone."""

import threading
from collections import OrderedDict

import numpy as np
import pytest
import torch

from monitor.model.engine.scorer import Scorer
from monitor.model.load.hook_points import Place, Side
from monitor.model.offline.residuals import Harvester
from tests.model.engine.test_scorer import Waiting, plain
from tests.model.running import LAYER, Running, running
from tests.model.tiny import dictionary, loaded_model, prompt

GENERATED = 60


def scorer_beside(run: Running) -> Scorer:
    return Scorer(run.engine._loaded, run.bank, run.tap, batch_tokens=256)


@pytest.mark.slow
def test_texts_scored_beside_generations_read_as_alone() -> None:
    texts = [prompt(n, longest=60) for n in range(6)]
    wanted = [plain("llama", "jumprelu", ids) for ids in texts]
    with running(loaded_model(), dictionary()) as run:
        scorer = scorer_beside(run)
        scorer.start()
        waiting = Waiting(scorer)
        calls = [run.call(prompt(n), new=GENERATED) for n in range(8)]
        rounds = 0
        while not all(call.done.is_set() for call in calls):
            names = [f"{rounds}-{n}" for n in range(len(texts))]
            for name, ids in zip(names, texts, strict=True):
                waiting.submit(name, ids)
            for name, readings in zip(names, wanted, strict=True):
                assert waiting.result(name).coverage.complete
                [block] = waiting.observers[name].blocks
                np.testing.assert_allclose(block.readings, readings, rtol=1e-4, atol=1e-5)
            rounds += 1
        scorer.stop(5)
        for call in calls:
            assert call.finished().coverage.complete
            everything = call.ids + tuple(t.token_id for t in call.tokens)[len(call.ids) :]
            exact = plain("llama", "jumprelu", everything)
            np.testing.assert_allclose(call.readings, exact[: len(call.readings)], rtol=1e-4, atol=1e-5)
    assert rounds > 1, "the generations were over before a text was scored beside them"


@pytest.mark.slow
def test_inspecting_beside_a_generation_disturbs_neither() -> None:
    loaded = loaded_model()
    harvester, ids = Harvester(loaded, LAYER), torch.tensor([prompt(3)])
    wanted = harvester.residuals(ids)
    with running(loaded, dictionary()) as run:
        calls = [run.call(prompt(n), new=GENERATED) for n in range(8)]
        while not all(call.done.is_set() for call in calls):
            assert torch.equal(harvester.residuals(ids), wanted)
        assert all(call.finished().coverage.complete for call in calls)
        assert all(call.finished().error is None for call in calls)
        assert run.engine.healthy()


@pytest.mark.slow
def test_no_pass_of_another_thread_meets_a_hook_that_is_half_installed() -> None:
    """Torch notes a hook first and how to call it afterwards; a pass between the two would call it wrongly."""
    loaded, ids = loaded_model(), torch.tensor([prompt(3)])
    noting, ran = threading.Event(), threading.Event()
    errors: list[Exception] = []

    class Slow(OrderedDict):
        def __setitem__(self, key: object, value: object) -> None:
            noting.set()
            ran.wait(0.5)
            super().__setitem__(key, value)

    def engine() -> None:
        assert noting.wait(60)
        try:
            with loaded.passes, torch.no_grad():
                loaded.model(input_ids=ids, use_cache=False)
        except Exception as error:  # noqa: BLE001  (told below)
            errors.append(error)
        ran.set()

    loaded.layers[0]._forward_pre_hooks_with_kwargs = Slow()
    beside = threading.Thread(target=engine)
    beside.start()
    try:
        Harvester(loaded, Place(0, side=Side.INPUT)).residuals(ids)
    finally:
        noting.set()
        beside.join()
    assert not errors


def test_why_passes_are_locked() -> None:
    """The library writes `is_causal` into the shared configuration for the length of an engine's pass.

    A plain pass of another thread would then attend in both directions. Where this fails on an upgrade,
    `LoadedModel.passes` may no longer be needed.
    """
    loaded = loaded_model()
    seen: list[object] = []

    def hook(*_: object) -> None:
        seen.append(getattr(loaded.model.config, "is_causal", None))

    handle = loaded.layers[0].register_forward_hook(hook)
    with running(loaded, dictionary()) as run:
        run.call(prompt(1), new=2).finished()
    handle.remove()
    assert set(seen) == {False}
    assert getattr(loaded.model.config, "is_causal", None) is None
