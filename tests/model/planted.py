"""Mistakes that people make when they join a dictionary to a model, planted in a pair that is right."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from monitor.dictionary.sae import Activation, SparseAutoencoder
from monitor.model.load.hook_points import MLP_OUT, Place
from monitor.model.runtime import LoadedPair
from monitor.model.selftest.causes import Cause

Change = Callable[[LoadedPair], LoadedPair]


def unchanged(parts: LoadedPair) -> LoadedPair:
    return parts


@dataclass(frozen=True)
class Planted:
    """A mistake: what makes a right pair (the pair itself unless said otherwise) wrong, and what should be named."""

    name: str
    cause: Cause
    wrong: Change
    right: Change = unchanged


def sae_of(change: Callable[[SparseAutoencoder], SparseAutoencoder]) -> Change:
    def changed(parts: LoadedPair) -> LoadedPair:
        sae = change(parts.dictionary.autoencoder)
        return replace(parts, dictionary=replace(parts.dictionary, autoencoder=sae))

    return changed


def layer(by: int) -> Change:
    return lambda parts: replace(parts, place=replace(parts.place, layer=parts.place.layer + by))


def without_bos(parts: LoadedPair) -> LoadedPair:
    return replace(parts, loaded=replace(parts.loaded, tokenizer=_NoBos(parts.loaded.tokenizer)))


class _NoBos:
    """A tokenizer that was saved without its BOS."""

    def __init__(self, tokenizer: object) -> None:
        self._tokenizer = tokenizer
        self.bos_token_id = None

    def __getattr__(self, name: str) -> object:
        return getattr(self._tokenizer, name)

    def __call__(self, text: str, **options: object) -> object:
        return self._tokenizer(text, **{**options, "add_special_tokens": False})


def as_topk(sae: SparseAutoencoder) -> SparseAutoencoder:
    """Of the same weights, a dictionary that keeps the 32 largest."""
    return replace(sae, activation=Activation.TOPK, threshold=None, k=32)


def as_relu(sae: SparseAutoencoder) -> SparseAutoencoder:
    return replace(sae, activation=Activation.RELU, threshold=None, k=None)


def zero_thresholds(sae: SparseAutoencoder) -> SparseAutoencoder:
    return replace(sae, threshold=torch.zeros_like(sae.threshold))


def scaled(factor: float) -> Callable[[SparseAutoencoder], SparseAutoencoder]:
    """Weights for an input that is `factor` times as long, as a norm that was not folded leaves them."""

    def change(sae: SparseAutoencoder) -> SparseAutoencoder:
        return replace(
            sae,
            encoder=sae.encoder / factor,
            decoder=sae.decoder * factor,
            decoder_bias=sae.decoder_bias * factor,
        )

    return change


def centred(sae: SparseAutoencoder) -> SparseAutoencoder:
    """The same dictionary, written as one that subtracts its decoder bias from the input."""
    shift = sae.encoder @ sae.decoder_bias
    return replace(sae, input_bias=sae.decoder_bias, encoder_bias=sae.encoder_bias + shift)


def rounded(weights: Tensor, bits: int) -> Tensor:
    """Each row on as many levels as `bits` allow."""
    step = weights.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (weights / step).round() * step


def coarse(bits: int) -> Callable[[SparseAutoencoder], SparseAutoencoder]:
    return lambda sae: replace(sae, encoder=rounded(sae.encoder, bits), decoder=rounded(sae.decoder, bits))


def coarse_model(bits: int) -> Change:
    """All matrices of the decoder layers rounded, in a copy."""

    def changed(parts: LoadedPair) -> LoadedPair:
        import copy

        from monitor.model.load.decoder import decoder_layers

        model = copy.deepcopy(parts.loaded.model)
        layers = decoder_layers(model)
        for module in layers.modules():
            if isinstance(module, nn.Linear):
                module.weight.data = rounded(module.weight.data, bits)
        return replace(parts, loaded=replace(parts.loaded, model=model, layers=layers))

    return changed


PLANTED = (
    Planted("threshold dropped", Cause.THRESHOLD, sae_of(zero_thresholds)),
    Planted("JumpReLU read as ReLU", Cause.THRESHOLD, sae_of(as_relu)),
    Planted("TopK read as ReLU", Cause.TOPK, sae_of(as_relu), sae_of(as_topk)),
    Planted("layer off by one, too late", Cause.LAYER, layer(+1)),
    Planted("layer off by one, too early", Cause.LAYER, layer(-1)),
    Planted("norm not folded", Cause.SCALING, sae_of(scaled(0.5))),
    Planted("norm folded twice", Cause.SCALING, sae_of(scaled(1.7))),
    Planted("BOS missing", Cause.NO_BOS, without_bos),
    Planted(
        "MLP output instead of the residual stream",
        Cause.POINT,
        lambda p: replace(p, place=Place(p.layer, MLP_OUT)),
    ),
    Planted(
        "encoder bias dropped",
        Cause.ENCODER_BIAS,
        sae_of(lambda s: replace(s, encoder_bias=s.encoder_bias * 0)),
    ),
    Planted(
        "decoder bias not subtracted",
        Cause.INPUT_BIAS,
        sae_of(lambda s: replace(s, input_bias=None)),
        sae_of(centred),
    ),
    Planted(
        "decoder bias subtracted though it should not be",
        Cause.INPUT_BIAS,
        sae_of(lambda s: replace(s, input_bias=s.decoder_bias)),
    ),
    Planted(
        "decoder bias dropped",
        Cause.DECODER_BIAS,
        sae_of(lambda s: replace(s, decoder_bias=s.decoder_bias * 0)),
    ),
    Planted(
        "encoder and decoder swapped",
        Cause.SWAPPED,
        sae_of(lambda s: replace(s, encoder=s.decoder, decoder=s.encoder)),
    ),
    Planted("dictionary on four bits", Cause.COARSE_DICTIONARY, sae_of(coarse(4))),
    Planted("model on four bits", Cause.COARSE_MODEL, coarse_model(4)),
)
