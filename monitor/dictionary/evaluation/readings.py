"""`LabelledReadings`: texts with labels, pooled readings and mean residuals, on which detectors are fitted and scored.

A reading is a feature's activation in units of its recorded maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.intp] | NDArray[np.bool_]


@dataclass(frozen=True)
class LabelledReadings:
    """Rows of one source, one per text; the first axis of every array is rows."""

    texts: tuple[str, ...]
    replies: tuple[str, ...]
    """The judged part of each text: the assistant's reply in a response, the whole text in every other kind."""
    labels: NDArray[np.bool_]
    """`[rows]`: True where the concept is present."""
    units: NDArray[np.intp]
    """`[rows]`: number of each row's group; see `LabelledSource`."""
    maximum: Floats
    """`[rows, features]`: highest reading over the judged part, in units of the feature's maximum."""
    mean: Floats
    """`[rows, features]`: mean reading over the judged part, in the same units."""
    residual: Floats
    """`[rows, d_model]`: mean residual over the judged part."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Rows) -> LabelledReadings:
        """These rows alone; `rows` are indices or a mask."""
        chosen = np.arange(len(self))[rows]
        return LabelledReadings(
            texts=_taken(self.texts, chosen),
            replies=_taken(self.replies, chosen),
            labels=self.labels[chosen],
            units=self.units[chosen],
            maximum=self.maximum[chosen],
            mean=self.mean[chosen],
            residual=self.residual[chosen],
        )


def _taken(texts: Sequence[str], rows: NDArray[np.intp]) -> tuple[str, ...]:
    return tuple(texts[row] for row in rows)
