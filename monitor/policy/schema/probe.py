"""A linear probe as a policy or a lock writes it: its weights, in place or in a file beside it, with bias and scale."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from monitor.policy.schema.base import DIGEST, FieldCheck, Strict, refuse

PROBE_FILE = r"^\w[\w.-]*\.safetensors$"
MOST_INLINE = 1024


class ProbeModel(Strict):
    """A linear probe. A token's reading is (x · weights + bias) / scale, with x the residual at the tapped layer."""

    weights: Annotated[list[float], Field(min_length=1, max_length=MOST_INLINE)] | None = None
    """The weights, one number for each dimension of the residual stream. For more than 1,024 use `weights_file`."""
    weights_file: Annotated[str, Field(pattern=PROBE_FILE, max_length=200)] | None = None
    """Name of a safetensors file beside this file, with one float32 tensor `weights` of shape `[d_model]`."""
    digest: Annotated[str, Field(pattern=DIGEST)] | None = None
    """SHA-256 of the bytes of `weights_file`; a file with another digest is refused."""
    bias: float = 0.0
    """Added to the product of residual and weights."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """What the result is divided by, so that a strong token reads about 1, as a feature at its maximum does."""

    def checks(self) -> Iterable[FieldCheck]:
        """The part has `weights` or `weights_file`, and a file has a `digest`."""
        return (self._one_source, self._digest)

    def _one_source(self) -> None:
        if (self.weights is None) == (self.weights_file is None):
            found = "neither" if self.weights is None else "both"
            raise refuse([], f"write either `weights:` or `weights_file:`; found {found}")

    def _digest(self) -> None:
        both = self.weights is not None and self.weights_file is not None
        if not both and (self.weights_file is None) != (self.digest is None):
            raise refuse(["digest"], "`weights_file` and `digest` (of its bytes) go together")
