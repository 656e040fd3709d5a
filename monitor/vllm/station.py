"""The station: where vLLM's worker and scheduler, which vLLM makes, find what they are to report to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from monitor.errors import ConfigurationError
from monitor.vllm.gate import PassPart
from monitor.vllm.operator import VERSION, TappedModel


class PassGate(Protocol):
    """What a worker reports a pass to."""

    def lay_out(self, parts: Sequence[PassPart], ids: Sequence[int]) -> None:
        """A pass is about to run these tokens: whose they are and their ids, in the order of its rows."""

    def draw(self, logits: Tensor) -> Tensor | None:
        """Next tokens `[requests]` of a pass from logits `[requests, vocabulary]`; None between passes."""

    def launched(self, ran: Tensor) -> None:
        """The pass is on its way, its tokens were drawn, and it runs the first ids of `ran` `[rows or more]`."""


def _unheard(error: BaseException, _stuck: bool) -> None:
    raise error


@dataclass(eq=False)
class Station:
    """What one engine core of vLLM works for."""

    seat: TappedModel
    gate: PassGate
    draws: bool = True
    """True where the gate draws tokens itself; False where vLLM's sampler does."""
    static: bool = False
    """True where passes may be CUDA-graph replays."""
    failed: Callable[[BaseException, bool], None] = _unheard
    """Told, on a thread of its own, that nothing can be run any more, and whether the thread of passes is stuck."""


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


def salt(config: Any, seat: TappedModel) -> None:
    """Make the key of vLLM's compile cache one of a model with this tap.

    Else a graph that was compiled without it would be taken from the cache, and nothing would be read.
    """
    mark = {"operator": VERSION, "layer": seat.layer, "later": list(seat.later_layers)}
    config.additional_config = {**config.additional_config, "sae_monitor": mark}
