"""Matrices in files, of every number type."""

import pytest
import torch
from safetensors.torch import save_file

from monitor.dictionary.formats.files import read_weights

SHAPE = (37, 9000)
"""Wide enough that single columns are picked rather than all of it read."""


@pytest.fixture(params=[torch.bfloat16, torch.float16, torch.float32, torch.float64])
def stored(request, tmp_path):
    numbers = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).to(request.param)
    save_file({"before": torch.ones(3), "matrix": numbers}, tmp_path / "a.safetensors")
    return numbers, read_weights(tmp_path / "a.safetensors")["matrix"]
