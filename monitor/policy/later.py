"""A later probe as a lock holds it, and as the running program wants it.

Knows the shape. Does not know how a probe is learnt (`fit.later`) or where it is read (`monitor.model`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from monitor.policy.schema_base import Check, Strict, refuse
from monitor.records import LaterProbe


class LockedProbe(Strict):
    """A linear probe behind the tapped layer: what suppression is checked with."""

    layer: Annotated[int, Field(ge=0)]
    """It reads the residual stream after this decoder layer."""
    weights: Annotated[
        str, Field(pattern=r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")
    ]
    """`[d_model]` float32, little-endian, in base64."""
    bias: float
    threshold: float
    half_life: Annotated[float, Field(gt=0)]
    """Of the moving average over token scores, in tokens."""
    benign_rate: Annotated[float, Field(ge=0, le=1)]
    """Share of benign texts that reach the threshold."""
    auroc: Annotated[float, Field(ge=0, le=1)]
    """On the policy's own examples, by cross-validation over groups."""

    def checks(self) -> Iterable[Check]:
        """Its weights are numbers."""
        return (self._whole,)

    def _whole(self) -> None:
        raw = base64.b64decode(self.weights)
        if not raw or len(raw) % 4 or not np.isfinite(np.frombuffer(raw, "<f4")).all():
            raise refuse(["weights"], "these are not finite float32 numbers; run `policy fit` again")


def packed(weights: NDArray[np.float32]) -> str:
    """Weights as a lock writes them."""
    return base64.b64encode(weights.astype("<f4").tobytes()).decode()


def probe_of(locked: LockedProbe | None) -> LaterProbe | None:
    """The probe that runs."""
    if locked is None:
        return None
    weights = np.frombuffer(base64.b64decode(locked.weights), "<f4").astype(np.float32)
    return LaterProbe(locked.layer, weights, locked.bias, locked.threshold, locked.half_life)
