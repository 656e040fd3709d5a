"""Edits without the error term: the residual of a token becomes what the dictionary makes of it after clamping.

Knows a whole dictionary and clamps by slot. Does not know requests, buffers or hooks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monitor.dictionary.sae import SparseAutoencoder
from monitor.errors import DictionaryError

MOST_BYTES = 16 << 30
"""Largest encoder and decoder that are held on the device for this; beyond it the operator must use `keep`."""


class ErrorTermDropper:
    """x' = decode(edited encode(x)), with every feature of the dictionary."""

    def __init__(self, autoencoder: SparseAutoencoder, device: torch.device, dtype: torch.dtype) -> None:
        """Holds the dictionary whole; DictionaryError where it is too large for that."""
        size = needed_bytes(autoencoder, dtype)
        if size > MOST_BYTES:
            raise DictionaryError(
                f"`error_term: drop` needs the whole dictionary on the device: {size / 2**30:.1f} GiB, and at most "
                f"{MOST_BYTES >> 30} GiB are held; write `error_term: keep`"
            )
        self._whole = autoencoder.whole().to(device, dtype)

    def rows(self, x: Tensor, chosen: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Residuals `[rows, d_model]` without their error terms, from residuals of the same shape.

        `chosen` and `target` are `[rows, slots]`: where the feature in a slot is set, and to which activation;
        `index` `[slots]` says which feature that is. Computed in the dictionary's dtype.
        """
        whole = self._whole
        x = x.to(whole.decoder.dtype)
        activations = whole.encode(x)
        difference = torch.where(chosen, target - activations[:, index], 0)
        # Free slots all name feature 0; adding nothing for them is harmless, writing to it would not be.
        return whole.decode(activations.index_add(1, index, difference), x)


def needed_bytes(autoencoder: SparseAutoencoder, dtype: torch.dtype) -> int:
    """Memory of encoder and decoder of a dictionary in a dtype."""
    gated = 0 if autoencoder.gate_encoder is None else 1
    return (2 + gated) * autoencoder.features * autoencoder.d_model * dtype.itemsize
