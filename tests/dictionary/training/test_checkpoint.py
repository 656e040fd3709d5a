"""A run that is stopped and resumed equals one that never stopped."""

import pytest
import torch

from monitor.dictionary.training import checkpoint
from monitor.dictionary.training.settings import Objective
from monitor.dictionary.training.trainer import DictionaryTrainer
from monitor.errors import ConfigurationError
from tests.dictionary.training.planted_features import WIDTH, World, settings, trained


@pytest.mark.parametrize("objective", list(Objective))
def test_a_resumed_run_equals_one_that_never_stopped(objective, tmp_path):
    world, chosen = World(), settings(objective, steps=60, dead_after=10 * 256)
    whole, _ = trained(world, chosen)
    first, _ = trained(world, chosen, steps=25)
    checkpoint.save(tmp_path, first)
    second = DictionaryTrainer(chosen, WIDTH)
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
        checkpoint.load(tmp_path, DictionaryTrainer(settings(k=3), WIDTH))
    (tmp_path / checkpoint.FILE).write_bytes(b"nonsense")
    with pytest.raises(ConfigurationError, match="broken"):
        checkpoint.load(tmp_path, DictionaryTrainer(settings(), WIDTH))


def test_no_checkpoint(tmp_path):
    assert not checkpoint.load(tmp_path, DictionaryTrainer(settings(), WIDTH))
