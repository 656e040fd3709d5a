"""A dictionary loaded with everything that belongs to it: weights, card, recorded statistics and digest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from monitor.dictionary.cards import statistics as recorded
from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.digest import digest
from monitor.dictionary.formats import DictionaryCard, OpenedDictionary, read_dictionary
from monitor.dictionary.sae import InputNorm, SparseAutoencoder
from monitor.errors import DictionaryError


@dataclass(frozen=True)
class Dictionary:
    """A loaded dictionary."""

    autoencoder: SparseAutoencoder
    card: DictionaryCard
    statistics: FeatureStatistics | None
    """Recorded maximum and density of each feature; None until `sae-monitor dictionary describe` has run."""
    digest: str
    """`sha256:…` over weights and configuration, not over statistics, cards and labels; see `digest`."""
    path: Path
    """The folder of its statistics, cards and labels. It is the dictionary's own folder, unless the dictionary is one
    file among others or in a hub repository. It may not exist yet."""
    source: str = ""
    """The source as the caller wrote it; empty means `path`."""
    format: str = ""
    """Name of the file format."""
    files: tuple[Path, ...] = ()
    """The files that define its numbers."""

    @property
    def norm_limit(self) -> float | None:
        """Norm above which a residual is an attention sink's, as training or else describing had it; None if unknown.

        Both are of the hook point that the card names.
        """
        if self.card.norm_limit is not None:
            return self.card.norm_limit
        return None if self.statistics is None else self.statistics.norm_limit

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Dictionary:
        """The same dictionary on another device, or with weights of another type; see `SparseAutoencoder.to`."""
        return replace(self, autoencoder=self.autoencoder.to(device, dtype))

    def fits(self, d_model: int, *, subtracts_mean: bool = True) -> Dictionary:
        """This dictionary as it reads a model whose residual stream is `d_model` wide.

        Where the model's norms do not subtract the mean of a token (`subtracts_mean`), TransformerLens never centres
        its weights, whatever it was told, so that a dictionary's inputs are not centred either.

        Raises DictionaryError where it reads another width.
        """
        if self.autoencoder.d_model != d_model:
            trained = f", trained on {self.card.model_name}," if self.card.model_name else ""
            raise DictionaryError(
                f"the dictionary in {self.source or self.path}{trained} reads a residual stream "
                f"{self.autoencoder.d_model} wide, and the model's is {d_model} wide: use the dictionary of this model"
            )
        if self.autoencoder.input_norm is InputNorm.CENTRED and not subtracts_mean:
            return replace(self, autoencoder=replace(self.autoencoder, input_norm=InputNorm.NONE))
        return self


def load_dictionary(
    path: Path | str,
    *,
    format: str | None = None,
    device: torch.device | str = "cpu",
    measured: bool = True,
) -> Dictionary:
    """Load a dictionary with weights in float32 on `device`. A very large one stays in its files and is read on demand.

    Args:
        path: a folder, a weights file, or `hub:org/name[@revision][/folder]`. `org/name` alone also means the hub
            where no such path exists.
        format: name of the file format; only needed where the files do not show it.
        device: the device for the weights.
        measured: False leaves the recorded statistics unread. `dictionary describe` needs that to replace statistics
            that belong to another dictionary.

    Raises:
        DictionaryError: a file is missing, cut short, of the wrong shape or holds pickled code; the format is unknown
            or ambiguous; the statistics belong to another dictionary; or the hub cannot be reached.
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


def _vectors(stored: OpenedDictionary) -> list[torch.Tensor]:
    """Biases and thresholds, which the digest of a large dictionary covers."""
    sae = stored.autoencoder
    found = (sae.encoder_bias, sae.decoder_bias, sae.threshold, sae.gate_bias)
    return [tensor for tensor in found if tensor is not None]


def _statistics(folder: Path, features: int, identity: str) -> FeatureStatistics | None:
    found = recorded.load(folder)
    if found is None:
        return None
    if found.features != features or found.dictionary_digest not in ("", identity):
        raise DictionaryError(
            f"the statistics in {folder} belong to another dictionary ({found.features} features, "
            f"{found.dictionary_digest or 'no digest'}); run `sae-monitor dictionary describe` on this one again"
        )
    return found
