"""Conversion of a dictionary of any format into a SAELens folder, which is read back and compared with the original."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from monitor.dictionary.bundle import Dictionary, load_dictionary
from monitor.dictionary.cards import statistics as recorded
from monitor.dictionary.formats import save_saelens
from monitor.dictionary.sae import SparseAutoencoder
from monitor.errors import DictionaryError

_ROWS = 256
AGREEMENT = 1e-5
"""Largest accepted difference, relative to the largest number compared."""


@dataclass(frozen=True)
class Conversion:
    """The converted dictionary, and how far it differs from the original on test residuals."""

    dictionary: Dictionary
    activations: float
    """Largest difference of an activation, relative to the largest activation."""
    reconstruction: float
    """Largest difference of a reconstruction's component, relative to the largest component."""
    active: float
    """Share of the compared activations that were not zero."""
    refolded: bool
    """True where decoder norms were folded into the encoder, so that the original's statistics no longer apply."""
    statistics: bool
    """True where the original's statistics were copied."""


@torch.no_grad()
def convert(source: Dictionary, folder: Path) -> Conversion:
    """Write the dictionary to `folder`, read it again and compare.

    Raises DictionaryError, and removes what was written, where the SAELens layout cannot express the dictionary or
    the comparison fails. Raises it too where the folder already holds a dictionary.
    """
    if (folder / "cfg.json").exists():
        raise DictionaryError(f"{folder} holds a dictionary already; give a new folder")
    whole = source.autoencoder.whole()
    original = _by_norm_folded(whole)
    save_saelens(folder, original, source.card)
    try:
        made = load_dictionary(folder, format="saelens")
        probes = _probes(original)
        acts, out = original.encode(probes), original.reconstruct(probes)
        written = made.autoencoder.whole()
        found = Conversion(
            made,
            _difference(written.encode(probes), acts),
            _difference(written.reconstruct(probes), out),
            float((acts != 0).double().mean()),
            original is not whole,
            False,
        )
        _check(found)
    except DictionaryError:
        for name in ("cfg.json", "sae_weights.safetensors"):
            (folder / name).unlink(missing_ok=True)
        raise
    return _with_statistics(found, source, folder)


def _by_norm_folded(sae: SparseAutoencoder) -> SparseAutoencoder:
    """Fold decoder norms into the encoder where features are ranked by them; decoder rows then have length 1."""
    if not sae.rank_by_decoder_norm:
        return sae
    norms = sae.decoder.norm(dim=-1).clamp_min(1e-8)
    return replace(
        sae,
        encoder=sae.encoder * norms.unsqueeze(1),
        encoder_bias=sae.encoder_bias * norms,
        decoder=sae.decoder / norms.unsqueeze(1),
        rank_by_decoder_norm=False,
    )


def _probes(sae: SparseAutoencoder) -> Tensor:
    """Test residuals: decoder rows of evenly spaced features at two lengths, and noise of similar length."""
    draw = torch.Generator().manual_seed(0)
    step = max(1, sae.features // _ROWS)
    rows = sae.decoder[::step][:_ROWS]
    length = rows.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    reach = (sae.encoder_bias.abs().mean() + _height(sae)) / sae.encoder.norm(dim=-1).mean().clamp_min(1e-6)
    directions = rows / length
    noise = torch.randn(rows.shape, generator=draw) / sae.d_model**0.5
    return sae.decoder_bias + torch.cat(
        [directions * 16 * reach, directions * 64 * reach, noise * 32 * reach]
    )


def _height(sae: SparseAutoencoder) -> Tensor:
    """The mean threshold; 1 where there are no thresholds."""
    return torch.ones(()) if sae.threshold is None else sae.threshold.mean() + 1e-3


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().amax() / expected.abs().amax().clamp_min(1e-12))


def _check(found: Conversion) -> None:
    if found.active == 0:
        raise DictionaryError(
            "no feature was active on any test residual, so nothing could be compared; nothing was written"
        )
    worst = max(found.activations, found.reconstruction)
    if not worst <= AGREEMENT:
        raise DictionaryError(
            f"the converted dictionary differs from the original by {worst:.2g}, and at most {AGREEMENT:g} is allowed; "
            "nothing was written"
        )


def _with_statistics(found: Conversion, source: Dictionary, folder: Path) -> Conversion:
    """Copy the statistics under the new digest, where the converted dictionary has the same activations."""
    if source.statistics is None or found.refolded:
        return found
    recorded.save(folder, replace(source.statistics, dictionary_digest=found.dictionary.digest))
    return replace(found, dictionary=load_dictionary(folder, format="saelens"), statistics=True)
