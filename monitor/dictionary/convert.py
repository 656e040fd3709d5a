"""A dictionary of any family as a SAELens folder, held against the original.

Knows that both must read and write the same. Does not know layouts (`formats`), nor where the dictionary runs.
"""

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
"""Largest difference that passes, relative to the largest number."""


@dataclass(frozen=True)
class Converted:
    """What came out, and how near it is."""

    dictionary: Dictionary
    activations: float
    """Largest difference of an activation, relative to the largest activation."""
    reconstruction: float
    """Largest difference of a reconstruction, relative to the largest number in one."""
    active: float
    """Share of activations of the probes that were not zero: the comparison saw something."""
    refolded: bool
    """True where activations are now in units of decoder rows of length 1, so that old statistics do not hold."""
    statistics: bool
    """True where the original's statistics were taken along."""


@torch.no_grad()
def convert(source: Dictionary, folder: Path) -> Converted:
    """Write `folder` and read it again.

    DictionaryError where a dictionary is in it already, where the layout cannot express this one, or where what is
    read back does not agree; then nothing is left of it.
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
        found = Converted(
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
    """Features ranked by decoder norm with the norms in the encoder: the same order, decoder rows of length 1."""
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
    """Residuals at which features fire: decoder rows of features all over the dictionary, and noise as long as they."""
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
    """The mean threshold."""
    return torch.ones(()) if sae.threshold is None else sae.threshold.mean() + 1e-3


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().amax() / expected.abs().amax().clamp_min(1e-12))


def _check(found: Converted) -> None:
    if found.active == 0:
        raise DictionaryError(
            "no feature was active at any probe, so nothing could be compared; nothing was written"
        )
    worst = max(found.activations, found.reconstruction)
    if not worst <= AGREEMENT:
        raise DictionaryError(
            f"what was written reads back {worst:.2g} away from the original, and {AGREEMENT:g} is allowed; nothing "
            "was written"
        )


def _with_statistics(found: Converted, source: Dictionary, folder: Path) -> Converted:
    """Recorded maxima and densities hold for the same activations, under the new digest."""
    if source.statistics is None or found.refolded:
        return found
    recorded.save(folder, replace(source.statistics, dictionary_digest=found.dictionary.digest))
    return replace(found, dictionary=load_dictionary(folder, format="saelens"), statistics=True)
