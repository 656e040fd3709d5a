"""A linear probe as it stands in a lock or a policy: its weights, inline or in a file beside it, bias and scale.

Knows the fields. Does not read the file (`probe_file`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from monitor.policy.schema.base import DIGEST, FieldCheck, Strict, refuse

PROBE_FILE = r"^\w[\w.-]*\.safetensors$"
MOST_INLINE = 1024


class ProbeModel(Strict):
    """A token's reading is (x · weights + bias) / scale, x the residual at the tapped layer."""

    weights: Annotated[list[float], Field(min_length=1, max_length=MOST_INLINE)] | None = None
    """`[d_model]`, for small models."""
    weights_file: Annotated[str, Field(pattern=PROBE_FILE, max_length=200)] | None = None
    """A safetensors file beside this one with one tensor `weights` `[d_model]`, float32."""
    digest: Annotated[str, Field(pattern=DIGEST)] | None = None
    """Of the file's bytes."""
    bias: float = 0.0
    scale: Annotated[float, Field(gt=0)] = 1.0
    """What counts as 1, as the recorded maximum does for a feature."""

    def checks(self) -> Iterable[FieldCheck]:
        """One source of weights, and a digest where it is a file."""
        return (self._one_source, self._digest)

    def _one_source(self) -> None:
        if (self.weights is None) == (self.weights_file is None):
            found = "neither" if self.weights is None else "both"
            raise refuse([], f"write either `weights:` or `weights_file:`; found {found}")

    def _digest(self) -> None:
        both = self.weights is not None and self.weights_file is not None
        if not both and (self.weights_file is None) != (self.digest is None):
            raise refuse(["digest"], "`weights_file` and `digest` (of its bytes) go together")
