import pytest
import torch

from monitor.dictionary.training import dead_features
from monitor.dictionary.training.settings import Objective
from monitor.dictionary.training.trainer import DictionaryTrainer
from tests.dictionary.training.planted_features import FEATURES, WIDTH, World, settings, trained


@pytest.mark.slow
@pytest.mark.parametrize("objective", [Objective.BATCHTOPK, Objective.JUMPRELU, Objective.PAPER])
def test_dead_features_come_back(objective):
    world = World()
    chosen = settings(objective, steps=700, dead_after=20 * 256, sparsity=0.1, features=48)
    trainer = DictionaryTrainer(chosen, WIDTH)
    trainer.initialise(world.batch(0))
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
    dead_features.resample(trainer.network, torch.randn(4, WIDTH), error, gone, seed=0)
    direction = torch.zeros(WIDTH)
    direction[3] = 1.0
    torch.testing.assert_close(
        torch.nn.functional.normalize(trainer.network.decoder[[2]], dim=1)[0].detach(), direction
    )
    trainer._reset_moments(torch.tensor([2, 9]))
    moments = trainer.optimiser.state[trainer.network.decoder]["exp_avg"]
    assert moments[2].abs().max() == 0
    assert moments[3].abs().max() > 0
