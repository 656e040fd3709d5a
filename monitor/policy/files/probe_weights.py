"""Weights of a probe in a policy or a lock: in place, or in a safetensors file beside whichever of the two names it."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, deserialize

from monitor.policy.files.lock import put
from monitor.policy.files.lock_folders import policy_of
from monitor.policy.files.yaml_document import read_bounded
from monitor.policy.schema.probe import MOST_INLINE, ProbeModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TENSOR = "weights"
MAX_PROBE_BYTES = 16 * 1024 * 1024


def probe_path(lock: Path) -> Path:
    """`NAME.probe.safetensors` beside the lock of NAME."""
    return lock.with_name(policy_of(lock) + ".probe.safetensors")


def store_probe(
    lock: Path, weights: Sequence[float] | NDArray[np.float64], *, bias: float, scale: float
) -> ProbeModel:
    """A probe for the lock at a path, from weights `[d_model]`; more than 1,024 go into a file beside the lock."""
    import numpy as np
    from safetensors.numpy import save

    row = np.asarray(weights, np.float32)
    if len(row) <= MOST_INLINE:
        return ProbeModel(weights=[float(w) for w in row], bias=bias, scale=scale)
    path, raw = probe_path(lock), save({TENSOR: row})
    put(path, raw)
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    return ProbeModel(weights_file=path.name, digest=digest, bias=bias, scale=scale)


def read_weights(probe: ProbeModel, folder: Path) -> tuple[float, ...]:
    """The weights of a probe; `folder` holds their file, if there is one. ValueError says what is wrong with it."""
    if probe.weights is not None:
        return tuple(probe.weights)
    path = folder / str(probe.weights_file)
    try:
        raw = read_bounded(path, MAX_PROBE_BYTES)
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_PROBE_BYTES:
        raise ValueError(
            f"{path.name} is larger than {MAX_PROBE_BYTES} bytes; it should hold one row of weights"
        )
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    if digest != probe.digest:
        raise ValueError(f"{path.name} has the digest {digest[:19]}…, not {str(probe.digest)[:19]}…")
    try:
        tensors = dict(deserialize(raw))  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is not a safetensors file: {error}") from error
    row = tensors.get(TENSOR)
    if row is not None and row["dtype"] == "F32" and len(row["shape"]) == 1:
        values = tuple(value for (value,) in struct.iter_unpack("<f", row["data"]))
        if all(map(math.isfinite, values)):
            return values
    raise ValueError(f"{path.name} must hold one tensor `{TENSOR}` [d_model] of finite float32 numbers")
