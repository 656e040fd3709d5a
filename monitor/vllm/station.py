"""The station: where vLLM's worker and scheduler, which vLLM makes, find what they are to report to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from monitor.errors import ConfigurationError
from monitor.vllm.gate import Gate
from monitor.vllm.operator import VERSION, Seat


@dataclass(eq=False)
class Station:
    """What one engine core of vLLM works for."""

    seat: Seat
    gate: Gate
    draws: bool = True
    """True where the gate draws tokens itself; False where vLLM's sampler does."""


_now: list[Station] = []


@contextmanager
def opened(station: Station) -> Iterator[None]:
    """While vLLM loads its worker and scheduler on this process, they find this station."""
    _now.append(station)
    try:
        yield
    finally:
        _now.remove(station)


def found() -> Station:
    """The station that is open now. Raises ConfigurationError where there is none."""
    if not _now:
        raise ConfigurationError(
            "the monitor's worker and scheduler were started without a monitor; start vLLM by `sae-monitor serve "
            "--engine vllm`"
        )
    return _now[-1]


def salt(config: Any, seat: Seat) -> None:
    """Make the key of vLLM's compile cache one of a model with this tap.

    Else a graph that was compiled without it would be taken from the cache, and nothing would be read.
    """
    mark = {"operator": VERSION, "layer": seat.layer, "later": list(seat.later_layers)}
    config.additional_config = {**config.additional_config, "sae_monitor": mark}
