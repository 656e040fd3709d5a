"""The bundled pair, opened once."""

from __future__ import annotations

import pytest

from monitor.lab.pair import Pair, open_pair


@pytest.fixture(scope="session")
def opened() -> Pair:
    """The bundled model with its dictionary, on the CPU."""
    return open_pair(device="cpu")
