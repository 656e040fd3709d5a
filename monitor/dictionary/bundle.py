"""A dictionary with everything that is kept beside it.

Knows how to load a folder whole: weights, card, statistics, digest. Does not know checkpoint families
(`formats`), nor which model runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from monitor.dictionary.cards import statistics as recorded
from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.digest import digest
from monitor.dictionary.formats import Card, Stored, read_dictionary
from monitor.dictionary.sae import SparseAutoencoder
from monitor.errors import DictionaryError


@dataclass(frozen=True)
class Dictionary:
    """A loaded dictionary."""

    autoencoder: SparseAutoencoder
    card: Card
    statistics: FeatureStatistics | None
    """Recorded maximum and density of each feature; None before `dictionary describe`."""
    digest: str
    """`sha256:` over weights and configuration, not over what this project adds beside them."""
    path: Path
    """Folder in which statistics, cards and labels are kept: the dictionary's own, unless it is a single file of
    many or in a hub repository. May not exist yet."""
    source: str = ""
    """As the caller named it; empty is `path`."""
    format: str = ""
    """Name of the checkpoint family."""
    files: tuple[Path, ...] = ()
    """The files that its numbers came from."""

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Dictionary:
        """The same dictionary with its weights elsewhere; see `SparseAutoencoder.to`."""
        return replace(self, autoencoder=self.autoencoder.to(device, dtype))

    def fits(self, d_model: int) -> Dictionary:
        """Itself; DictionaryError where the model's residual stream has another width."""
        if self.autoencoder.d_model != d_model:
            trained = f", trained on {self.card.model_name}," if self.card.model_name else ""
            raise DictionaryError(
                f"the dictionary in {self.source or self.path}{trained} reads a residual stream "
                f"{self.autoencoder.d_model} wide, and the model's is {d_model} wide: use the dictionary of this model"
            )
        return self


def load_dictionary(
    path: Path | str,
    *,
    format: str | None = None,
    device: torch.device | str = "cpu",
    measured: bool = True,
) -> Dictionary:
    """Load a dictionary, weights in float32 on `device`; one too large to hold is read on demand.

    Args:
        path: a folder, a weights file, or `hub:org/name[@revision][/folder]` (`org/name` where no such path exists).
        format: name of the checkpoint family, where the files alone do not tell.
        device: where the weights go.
        measured: False leaves out the recorded statistics, and so any of another dictionary: to measure anew.

    Raises:
        DictionaryError: missing folder or file, pickled code, cut short, wrong shapes, unknown or ambiguous kind,
            statistics of another dictionary, or a hub that cannot be reached.
    """
    stored = read_dictionary(path, format)
    identity = digest(stored.files, stored.facts, _vectors(stored))
    return Dictionary(
        autoencoder=stored.autoencoder.to(device),
        card=stored.card,
        statistics=_statistics(stored.home, stored.autoencoder.features, identity) if measured else None,
        digest=identity,
        path=stored.home,
        source=str(path),
        format=stored.format,
        files=stored.files,
    )


def _vectors(stored: Stored) -> list[torch.Tensor]:
    """Biases and thresholds, as the digest of a large dictionary wants them."""
    sae = stored.autoencoder
    found = (sae.encoder_bias, sae.decoder_bias, sae.threshold, sae.gate_bias)
    return [tensor for tensor in found if tensor is not None]


def _statistics(folder: Path, features: int, identity: str) -> FeatureStatistics | None:
    found = recorded.load(folder)
    if found is None:
        return None
    if found.features != features or found.dictionary_digest not in ("", identity):
        raise DictionaryError(
            f"the statistics in {folder} are of another dictionary ({found.features} features, "
            f"{found.dictionary_digest or 'no digest'}); run `sae-monitor dictionary describe` on this one again"
        )
    return found
