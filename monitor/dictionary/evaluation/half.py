"""What detectors see of some rows: texts, pooled readings, mean residuals, labels.

Knows arrays and how they are cut by rows. Does not know where they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.intp] | NDArray[np.bool_]


@dataclass(frozen=True)
class Half:
    """Rows of one source; the first axis of every array is rows."""

    texts: tuple[str, ...]
    replies: tuple[str, ...]
    """The judged part of each text: the answer of a response, the whole of everything else."""
    labels: NDArray[np.bool_]
    units: NDArray[np.intp]
    maximum: Floats
    """`[rows, features]`: highest reading over the judged part, in units of the feature's maximum."""
    mean: Floats
    """`[rows, features]`: mean reading over the judged part."""
    residual: Floats
    """`[rows, d_model]`: mean residual over the judged part."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Rows) -> Half:
        """These rows alone, given as indices or as a mask."""
        chosen = np.arange(len(self))[rows]
        return Half(
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
