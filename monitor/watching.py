"""What is read of every token's residual: the columns of `Readings`, in order.

Knows features by index, probes by name and the two signals. Does not know where their values come from.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Signal(enum.StrEnum):
    """A number about a whole residual x at the tapped layer, read before any clamp."""

    RESIDUAL_NORM = "residual_norm"
    """‖x‖₂ / √d_model: the root mean square of the residual. Costs nothing to speak of."""
    RECONSTRUCTION_ERROR = "reconstruction_error"
    """‖x − x̂‖² / ‖x − x̂₀‖², x̂ the dictionary's reconstruction and x̂₀ that of no feature at all: the share of the
    token that no feature explains. Needs the whole dictionary: an encode and a decode of every token."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear probe of the residual stream: one more column, its value (x·weights + bias) / scale."""

    name: str
    """Unique in a watch plan; the policy that it belongs to."""
    weights: tuple[float, ...] = field(repr=False)
    """`[d_model]`"""
    bias: float = 0.0
    scale: float = 1.0
    """What counts as 1, as the recorded maximum does for a feature."""


@dataclass(frozen=True, slots=True)
class WatchPlan:
    """The columns of readings: features that policies name, then probes, then signals, each once."""

    features: tuple[int, ...]
    probes: tuple[Probe, ...] = ()
    signals: tuple[Signal, ...] = ()
    _columns: dict[int | str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Index the columns; refuses a feature, probe or signal named twice."""
        names: list[int | str] = list(self.features)
        names += [*(_key(probe) for probe in self.probes), *(_key(signal) for signal in self.signals)]
        self._columns.update({name: column for column, name in enumerate(names)})
        if len(self._columns) != len(self):
            raise ValueError("a watch plan names each feature, probe and signal once")

    def column(self, watched: int | Probe | Signal) -> int:
        """Column of a watched feature, probe or signal; KeyError where it is not watched."""
        return self._columns[watched if isinstance(watched, int) else _key(watched)]

    def __len__(self) -> int:
        return len(self.features) + len(self.probes) + len(self.signals)


def _key(watched: Probe | Signal) -> str:
    return f"probe {watched.name}" if isinstance(watched, Probe) else f"signal {watched.value}"
