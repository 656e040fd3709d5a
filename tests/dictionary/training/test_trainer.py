"""The loop: it learns, folds exactly, goes on as if never stopped, and gives the same on two processes."""

import dataclasses

import pytest
import torch

from monitor.dictionary.sae import Activation
from monitor.dictionary.training import checkpoint, dead
from monitor.dictionary.training.settings import Objective, TrainSettings
from monitor.dictionary.training.trainer import Trainer
from monitor.errors import ConfigurationError, DictionaryError
from tests.dictionary.training.world import FEATURES, WIDTH, World


def settings(objective=Objective.BATCHTOPK, steps=300, **changes):
    base = TrainSettings(
        FEATURES, steps * 256, objective, k=4, batch=256, buffer=256, learning_rate=3e-3, sparsity_warm_up=0.2
    )
    return dataclasses.replace(base, **changes)


def trained(world, chosen, steps=None, trainer=None):
    trainer = trainer or Trainer(chosen, WIDTH)
    if trainer.step_index == 0:
        trainer.begin(world.batch(0))
    metrics = None
    last = chosen.steps if steps is None else steps
    while trainer.step_index < last:
        metrics = trainer.step(world.batch(trainer.step_index))
    return trainer, metrics


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


@pytest.mark.parametrize("objective", [Objective.BATCHTOPK, Objective.JUMPRELU, Objective.PAPER])
def test_dead_features_come_back(objective):
    world = World()
    chosen = settings(objective, steps=700, dead_after=20 * 256, sparsity=0.1, features=48)
    trainer = Trainer(chosen, WIDTH)
    trainer.begin(world.batch(0))
    killed = torch.arange(10)
    with torch.no_grad():
        trainer.network.encoder_bias[killed] -= 50.0
    shares = []
    for step in range(500):
        metrics = trainer.step(world.batch(step))
        shares.append(metrics.dead)
    assert max(shares) >= 10 / 48
    fired = (trainer.dictionary().encode(torch.cat([world.batch(i) for i in range(900, 920)])) > 0).any(0)
    assert int(fired[killed].sum()) >= 8


def test_resampling_points_at_what_was_missing_and_forgets_momentum():
    trainer, _ = trained(World(), settings(Objective.PAPER), steps=5)
    gone = torch.zeros(FEATURES, dtype=torch.bool)
    gone[[2, 9]] = True
    error = torch.zeros(4, WIDTH)
    error[1, 3] = -2.0
    dead.resample(trainer.network, torch.randn(4, WIDTH), error, gone, seed=0)
    direction = torch.zeros(WIDTH)
    direction[3] = 1.0
    torch.testing.assert_close(
        torch.nn.functional.normalize(trainer.network.decoder[[2]], dim=1)[0].detach(), direction
    )
    trainer._forget(torch.tensor([2, 9]))
    moments = trainer.optimiser.state[trainer.network.decoder]["exp_avg"]
    assert moments[2].abs().max() == 0
    assert moments[3].abs().max() > 0


@pytest.mark.parametrize("objective", list(Objective))
def test_a_resumed_run_equals_one_that_never_stopped(objective, tmp_path):
    world, chosen = World(), settings(objective, steps=60, dead_after=10 * 256)
    whole, _ = trained(world, chosen)
    first, _ = trained(world, chosen, steps=25)
    checkpoint.save(tmp_path, first)
    second = Trainer(chosen, WIDTH)
    assert checkpoint.load(tmp_path, second)
    assert second.step_index == 25
    trained(world, chosen, trainer=second)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
    assert torch.equal(whole.idle.tokens, second.idle.tokens)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    trainer, _ = trained(World(), settings(), steps=2)
    checkpoint.save(tmp_path, trainer)
    with pytest.raises(ConfigurationError, match=r"k 4, now 3.*--restart"):
        checkpoint.load(tmp_path, Trainer(settings(k=3), WIDTH))
    (tmp_path / checkpoint.FILE).write_bytes(b"nonsense")
    with pytest.raises(ConfigurationError, match="broken"):
        checkpoint.load(tmp_path, Trainer(settings(), WIDTH))


def test_no_checkpoint(tmp_path):
    assert not checkpoint.load(tmp_path, Trainer(settings(), WIDTH))


def test_a_loss_that_is_not_finite_stops_the_run():
    trainer, _ = trained(World(), settings(Objective.PAPER), steps=2)
    with pytest.raises(DictionaryError, match="lower the learning rate"):
        trainer.step(torch.full((256, WIDTH), float("inf")))


def test_all_zero_activations_are_refused():
    with pytest.raises(DictionaryError, match="all zero"):
        Trainer(settings(), WIDTH).begin(torch.zeros(4, WIDTH))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": 0}, "features is 0"),
        ({"k": FEATURES + 1}, "more than"),
        ({"tokens": 10}, "less than one batch"),
        ({"buffer": 1}, "smaller than a batch"),
        ({"decay": 1.5}, "decay is 1.5"),
    ],
)
def test_settings_that_cannot_train_are_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        settings(**changes)
