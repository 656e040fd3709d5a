"""Edits that drop the error term: a token's residual becomes the dictionary's reconstruction of it after clamping.

The error term is the part of a residual that the dictionary does not reconstruct. Clamps keep it by default.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monitor.dictionary.sae import SparseAutoencoder
from monitor.errors import DictionaryError

MOST_BYTES = 16 << 30
"""Maximum size of encoder and decoder together, in bytes. For a larger dictionary only `keep` is possible."""


class ErrorTermDropper:
    """Replaces residuals by their edited reconstructions: x' = decode(edited encode(x)), over all features."""

    def __init__(self, autoencoder: SparseAutoencoder, device: torch.device, dtype: torch.dtype) -> None:
        """Load the whole dictionary. Raises DictionaryError where it is larger than MOST_BYTES."""
        size = needed_bytes(autoencoder, dtype)
        if size > MOST_BYTES:
            raise DictionaryError(
                f"`error_term: drop` needs the whole dictionary on the device: {size / 2**30:.1f} GiB, and at most "
                f"{MOST_BYTES >> 30} GiB are held; write `error_term: keep`"
            )
        self._whole = autoencoder.whole().to(device, dtype)

    def rows(self, x: Tensor, chosen: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Edited reconstructions `[rows, d_model]` of residuals of the same shape, in the dictionary's dtype.

        `chosen` `[rows, slots]` says where the feature in a slot is clamped, `target` `[rows, slots]` to which
        activation, and `index` `[slots]` which feature is in the slot.
        """
        whole = self._whole
        x = x.to(whole.decoder.dtype)
        activations = whole.encode(x)
        difference = torch.where(chosen, target - activations[:, index], 0)
        # Free slots have index 0. Adding 0 to feature 0 is harmless; writing to it would not be.
        return whole.decode(activations.index_add(1, index, difference), x)


def needed_bytes(autoencoder: SparseAutoencoder, dtype: torch.dtype) -> int:
    """Bytes that the encoder and decoder of a dictionary need in a dtype."""
    gated = 0 if autoencoder.gate_encoder is None else 1
    return (2 + gated) * autoencoder.features * autoencoder.d_model * dtype.itemsize
