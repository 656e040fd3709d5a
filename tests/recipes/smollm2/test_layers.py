"""Residuals of several layers from one pass: the same as those of each layer alone, and read again from the files."""

from pathlib import Path

import pytest
import torch

from monitor.model.load.model import LoadedModel, load_model
from monitor.model.offline.residuals import Harvester
from monitor.recipes.smollm2.layers import LayerCache
from tests.recipes.smollm2.small import write_chat_model


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(write_chat_model(tmp_path_factory.mktemp("model")), device="cpu")


def test_every_layer_is_what_it_is_alone(loaded: LoadedModel, tmp_path: Path) -> None:
    ids = torch.randint(1, 257, (3, 16))
    cache = LayerCache(loaded, (0, 1, 2), tmp_path)
    for layer in (1, 0, 2):
        with torch.autocast("cpu", torch.bfloat16):
            alone = Harvester(loaded, layer).residuals(ids)
        assert torch.equal(cache.of(layer)(ids), alone.to(torch.bfloat16).float())


def test_the_model_runs_once_for_all_layers(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, other = torch.randint(1, 257, (2, 8)), torch.randint(1, 257, (2, 8))
    first = LayerCache(loaded, (0, 2), tmp_path).of(0)(ids)
    monkeypatch.setattr(Harvester, "residuals", lambda *_: pytest.fail("the model ran again"))
    again = LayerCache(loaded, (0, 2), tmp_path)
    assert torch.equal(again.of(0)(ids), first)
    assert again.of(2)(ids).shape == (2, 8, 32)
    with pytest.raises(pytest.fail.Exception):
        again.of(0)(other)
