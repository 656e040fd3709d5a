"""Residuals of texts against the hidden states of transformers."""

import pytest
import torch

from monitor.errors import ModelError
from monitor.model.offline.residuals import Harvester
from tests.model.tiny import loaded_model


class TestHarvest:
    def test_residuals_are_the_hidden_states_after_the_layer(self) -> None:
        loaded = loaded_model()
        ids = torch.randint(2, 250, (3, 20))
        wanted = loaded.model(ids, output_hidden_states=True, use_cache=False)
        harvester = Harvester(loaded)
        assert harvester.layer == 2
        assert torch.equal(harvester.residuals(ids), wanted.hidden_states[3])
        assert torch.equal(harvester.logits(ids), wanted.logits)
        assert torch.equal(harvester.logits(ids, lambda x: x), wanted.logits)
        assert not torch.equal(harvester.logits(ids, torch.zeros_like), wanted.logits)

    def test_a_layer_that_does_not_exist(self) -> None:
        with pytest.raises(ModelError, match="layers 0 to 3"):
            Harvester(loaded_model(), 4)
