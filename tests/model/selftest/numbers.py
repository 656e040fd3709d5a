"""Measurements and residuals of small random dictionaries."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from monitor.model.selftest.measurement import Measurement, ResidualRows, rows_of
from monitor.model.selftest.verified_records import Record
from tests.model.tiny import WIDTH

FOUND = Measurement(1000, 30.0, 0.8, 31.0, 0.7, 25.0, 0.0)
RECORD = Record("sha256:d", "sha256:m", "blocks.1.hook_resid_post", "float32", "sha256:t", FOUND)


def rows_from(*texts: torch.Tensor, kinds: Sequence[str] | None = None) -> ResidualRows:
    """The rows of texts behind their first tokens."""
    return rows_of(texts, kinds=kinds)


def random_rows(count: int = 200, seed: int = 3) -> ResidualRows:
    """Residuals of texts of 20 tokens."""
    made = torch.Generator().manual_seed(seed)
    return rows_from(*(torch.randn(count, WIDTH, generator=made) * 2 + 0.3).split(20))
