"""The training loop finds planted features, and folding its scale and norms changes no reconstruction."""

import pytest
import torch

from monitor.dictionary.sae import Activation
from monitor.dictionary.training.settings import Objective
from monitor.dictionary.training.trainer import DictionaryTrainer
from monitor.errors import DictionaryError
from tests.dictionary.training.planted_features import FEATURES, WIDTH, World, settings, trained


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "sparsity", "fvu", "found"),
    [
        (Objective.BATCHTOPK, None, 0.1, 0.8),
        (Objective.JUMPRELU, 0.4, 0.1, 0.85),
        (Objective.PAPER, 1.0, 0.12, 0.98),
    ],
)
def test_each_objective_finds_the_true_directions(objective, sparsity, fvu, found):
    world = World()
    trainer, metrics = trained(world, settings(objective, steps=700, sparsity=sparsity))
    assert metrics.fvu < fvu
    assert metrics.l0 < 12
    sae = trainer.dictionary()
    best = (world.directions @ sae.decoder.T).max(dim=1).values
    assert float((best > 0.9).float().mean()) > found


@pytest.mark.parametrize("objective", list(Objective))
def test_scale_and_norms_are_folded_exactly(objective):
    world = World()
    trainer, _ = trained(world, settings(objective), steps=60)
    network, x = trainer.network.double(), world.batch(99).double()
    sae = network.folded(trainer.scale)
    torch.testing.assert_close(sae.decoder.norm(dim=1), torch.ones(FEATURES, dtype=torch.float64))
    pre = x * trainer.scale @ network.encoder.T + network.encoder_bias
    threshold = network.thresholds()
    inside = pre.relu() if threshold is None else pre * (pre > threshold)
    norms = network.decoder.norm(dim=1)
    torch.testing.assert_close(sae.encode(x), inside * norms / trainer.scale)
    out = (inside @ network.decoder + network.decoder_bias) / trainer.scale
    torch.testing.assert_close(sae.reconstruct(x), out)


@pytest.mark.slow
def test_batchtopk_is_saved_as_jumprelu_that_agrees():
    world = World()
    chosen = settings(steps=400)
    trainer, metrics = trained(world, chosen)
    sae = trainer.dictionary()
    assert sae.activation is Activation.JUMPRELU
    x = world.batch(1000)
    for row in (500, 501):
        x = torch.cat([x, world.batch(row)])
    a = sae.encode(x)
    l0 = float((a > 0).sum(1).float().mean())
    assert abs(l0 - 4) < 0.4
    fvu = (sae.reconstruct(x) - x).square().sum() / (x - x.mean(0)).square().sum()
    assert abs(float(fvu) - metrics.fvu) < 0.02


def test_a_loss_that_is_not_finite_stops_the_run():
    trainer, _ = trained(World(), settings(Objective.PAPER), steps=2)
    with pytest.raises(DictionaryError, match="lower the learning rate"):
        trainer.step(torch.full((256, WIDTH), float("inf")))


def test_all_zero_activations_are_refused():
    with pytest.raises(DictionaryError, match="all zero"):
        DictionaryTrainer(settings(), WIDTH).initialise(torch.zeros(4, WIDTH))
