"""The residual stream behind a dictionary's layer, for fitting and measuring later probes.

Knows which layer that is, batches and padding. Does not know what a policy is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monitor.model.offline.residuals import Harvester

if TYPE_CHECKING:
    from monitor.lab.readings import PairReader

KEPT = 1 << 30
"""Bytes of residuals that are kept, so that texts shared by policies are read once."""


class LaterResiduals:
    """Residuals of texts at the layer half way from the dictionary's to the last."""

    def __init__(self, reader: PairReader, layer: int) -> None:
        self.layer = layer
        self._reader = reader
        self._harvester = Harvester(reader.pair.loaded, layer)
        self._kept: dict[str, NDArray[np.float32]] = {}
        self._bytes = 0

    def residuals(self, texts: Sequence[str]) -> list[NDArray[np.float64]]:
        """Residuals `[tokens, d_model]` of each text, first positions left out."""
        found = {text: self._kept[text] for text in texts if text in self._kept}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        for which, ids, lengths in self._reader.batches(missing):
            residual = self._harvester.residuals(ids)
            for row, (number, length) in enumerate(zip(which, lengths, strict=True)):
                found[missing[number]] = self._keep(missing[number], residual[row, 1:length].cpu().numpy())
        return [found[text].astype(np.float64) for text in texts]

    def _keep(self, text: str, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._bytes + rows.nbytes <= KEPT:
            self._kept[text] = rows
            self._bytes += rows.nbytes
        return rows


def later_residuals(reader: PairReader) -> LaterResiduals | None:
    """The reader behind a pair's layer; None where the dictionary stands at the last layer."""
    tapped, last = reader.pair.harvester.layer, len(reader.pair.loaded.layers) - 1
    layer = later_layer(tapped, last)
    return None if layer is None else LaterResiduals(reader, layer)


def later_layer(tapped: int, last: int) -> int | None:
    """The layer half way from the tapped one to the last, rounded up; None where there is none."""
    return None if tapped >= last else tapped + (last - tapped + 1) // 2
