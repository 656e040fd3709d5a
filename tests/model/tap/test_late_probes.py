"""Probes on later layers: which are read, in which column, and where none is free."""

import numpy as np
import pytest
import torch

from monitor.errors import ModelError
from monitor.model.load.hook_points import hidden_of
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.late_probes import COLUMNS, LaterTaps
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import LaterProbe
from tests.model.running import LAYER, running
from tests.model.tiny import (
    WIDTH,
    dictionary,
    loaded_model,
    maxima,
    prompt,
)


def run_layers(run):
    return run.engine._loaded.layers


@pytest.mark.parametrize(("layer", "width"), [(LAYER, WIDTH), (4, WIDTH), (3, WIDTH + 1)])
def test_probes_that_cannot_be_read_are_refused(layer, width) -> None:
    with running(loaded_model(), dictionary()) as run:
        later = LaterTaps(run_layers(run), run.tap, LAYER)
        with pytest.raises(ModelError, match="policy fit"):
            later.add([LaterProbe(layer, np.ones(width, np.float32), 0.0, 1.0, 4.0)])


def test_probes_beyond_those_that_fit_are_not_read() -> None:
    def probe(layer: int, bias: float) -> LaterProbe:
        return LaterProbe(layer, np.ones(WIDTH, np.float32), bias, 1.0, 4.0)

    with running(loaded_model(), dictionary()) as run:
        later = LaterTaps(run_layers(run), run.tap, 1)
        # The same probe of two policies is read once.
        later.add([probe(2, 0.0), probe(2, 0.0)])
        running_now = [probe(2, 0.0), *(probe(2, 1.0 + n) for n in range(COLUMNS - 1))]
        later.acquire(running_now)
        assert later.column(probe(2, 0.0)) == 0
        assert later.column(probe(2, float(COLUMNS - 1))) == COLUMNS - 1
        later.add([probe(3, 0.0)])  # of a layer that no probe reads yet
        assert later.column(probe(3, 0.0)) is None
        later.release(running_now[5:6])
        later.add([probe(3, 0.0)])
        assert later.column(probe(3, 0.0)) == 5
        assert later.column(running_now[5]) is None
        assert later.column(running_now[6]) == 6


def test_a_column_that_changes_its_probe_reads_the_new_one() -> None:
    def probe(layer: int, bias: float) -> LaterProbe:
        return LaterProbe(layer, np.full(WIDTH, bias, np.float32), bias, 1.0, 4.0)

    with running(loaded_model(), dictionary()) as run:
        later = LaterTaps(run_layers(run), run.tap, 1)
        later.attach()
        later.add(probe(2, float(n)) for n in range(COLUMNS))
        later.add([probe(3, 100.0)])
        buffers = TapBuffers(run.bank, 4, static=True, later=COLUMNS)
        run.tap.use(buffers)
        x = torch.randn(1, 4, WIDTH, generator=torch.Generator().manual_seed(0))
        later._hook(2)(None, None, x)
        later._hook(3)(None, None, x)
        run.tap.use(None)
        later.detach()
    wanted = torch.tensor([100.0, *map(float, range(1, COLUMNS))])
    exact = x[0].sum(-1, keepdim=True) * wanted + wanted
    torch.testing.assert_close(buffers.later, exact, rtol=1e-4, atol=1e-3)


def probe(layer=2, bias=0.25, seed=0):
    weights = np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)
    return LaterProbe(layer, weights, bias, 1.0, 4.0)


@pytest.fixture
def taps():
    """Hooks on the later layers of a model whose second layer is tapped, without an engine."""
    loaded = loaded_model()
    tap = Tap(FeatureBank(dictionary(), maxima(), (3, 4)), loaded.layers[1])
    later = LaterTaps(loaded.layers, tap, 1)
    later.attach()
    yield loaded, tap, later
    later.detach()


def test_scores_are_those_of_the_residuals_in_passes_that_clamp_and_in_no_other(taps):
    loaded, tap, later = taps
    probes = [probe(2), probe(3, 1.0, 1), probe(3, -1.0, 2)]
    later.add(probes)
    ids = torch.tensor([prompt(3)])
    states = {}
    for layer in (2, 3):
        loaded.layers[layer].register_forward_hook(
            lambda _m, _a, out, at=layer: states.update({at: hidden_of(out)})
        )
    loaded.model(ids)
    buffers = TapBuffers(tap.bank, ids.shape[1], later=COLUMNS)
    tap.use(buffers)
    buffers.later.fill_(7.0)
    loaded.model(ids)
    assert bool((buffers.later == 7.0).all()), "a pass without clamps reads none"
    buffers.clamping = True
    loaded.model(ids)
    for one in probes:
        expected = states[one.layer][0] @ torch.from_numpy(one.weights) + one.bias
        torch.testing.assert_close(buffers.later[:, later.column(one)], expected, atol=1e-4, rtol=1e-4)
    tap.use(None)


def test_hooks_stand_only_on_layers_that_are_read_and_go_again(taps):
    loaded, _, later = taps
    assert [len(layer._forward_hooks) for layer in loaded.layers] == [0, 0, 0, 0]
    later.add([probe(3)])
    later.attach()
    assert [len(layer._forward_hooks) for layer in loaded.layers] == [0, 0, 0, 1]
    later.detach()
    later.add([probe(2)])
    assert [len(layer._forward_hooks) for layer in loaded.layers] == [0, 0, 0, 0]
    assert later.column(None) is None


def test_after_a_graph_was_captured_no_probe_gets_a_column(taps):
    _, _, later = taps
    later.add([probe(2)])
    later.freeze()
    later.acquire([probe(2), probe(3)])
    assert (later.column(probe(2)), later.column(probe(3))) == (0, None)
    later.release([probe(2), probe(3)])
