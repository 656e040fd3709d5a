"""Compiled layers: they read what the plain ones read but for rounding, and leave the model as it was."""

import shutil

import pytest
import torch

from monitor.errors import ConfigurationError
from monitor.model.offline import compiled_layers
from monitor.model.offline.compiled_layers import CompiledLayers
from monitor.model.offline.residuals import Harvester
from tests.model.families import family_model

pytestmark = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler"
)


@pytest.fixture(scope="module")
def loaded():
    return family_model("mistral")


@pytest.mark.slow
def test_compiled_layers_read_the_same_but_for_rounding(loaded):
    harvester = Harvester(loaded, 1)
    ids = torch.randint(1, 90, (2, 12), generator=torch.Generator().manual_seed(0))
    plain = harvester.residuals(ids)
    layers = CompiledLayers(loaded, 1)
    with layers.in_place():
        compiled = harvester.residuals(ids)
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
    assert torch.equal(harvester.residuals(ids), plain)


def test_the_model_is_as_it_was_even_where_a_pass_fails(loaded):
    layers, short = CompiledLayers(loaded, 0), torch.zeros(2, dtype=torch.long)
    with layers.in_place():
        assert "forward" in vars(loaded.layers[0])
    with pytest.raises((ValueError, IndexError)), layers.in_place():
        Harvester(loaded, 0).residuals(short)
    assert "forward" not in vars(loaded.layers[0])


def test_without_a_compiler_it_says_what_to_install(loaded, monkeypatch):
    monkeypatch.setattr(compiled_layers.shutil, "which", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"install g\+\+"):
        CompiledLayers(loaded, 0)
