"""The sparse autoencoder that every file format is read into, and its arithmetic: encode, decode, single features."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from monitor.errors import DictionaryError


class Activation(enum.StrEnum):
    """Activation function of the encoder.

    relu      a = relu(p)                                   (Bricken et al., 2023)
    jumprelu  a = p · 1[p > θ], with p clipped at zero      (Rajamanoharan et al., 2024, eq. 4)
    gated     a = 1[x·W_gate + b_gate > 0] · relu(p)        (Rajamanoharan et al., 2024b, eq. 6)
    topk      a = relu(p) where p is among the k largest    (Gao et al., 2024, eq. 3)

    A topk dictionary may instead take the largest of each of k equal groups (`grouped`).
    """

    RELU = "relu"
    JUMPRELU = "jumprelu"
    GATED = "gated"
    TOPK = "topk"


class InputNorm(enum.StrEnum):
    """What is done to each token's residual before encoding, and undone after decoding."""

    NONE = "none"
    LAYER_NORM = "layer_norm"
    """Subtract the mean over the width, divide by (unbiased standard deviation + 1e-5).

    Undone with the bare deviation, as OpenAI's and SAELens's own decoders do."""
    CONSTANT_NORM = "constant_norm"
    """Scale to norm √d_model."""
    CENTRED = "centred"
    """Subtract the mean over the width. So reads a dictionary that was trained on a model whose weights TransformerLens
    had centred (`center_writing_weights`)."""


class FeatureRow(NamedTuple):
    """The weights of one feature. A part that this kind of dictionary does not have is None."""

    encoder: Tensor
    """`[d_model]`"""
    encoder_bias: Tensor
    """`[]`"""
    decoder: Tensor
    """`[d_model]`"""
    threshold: Tensor | None
    """`[]`"""
    gate_encoder: Tensor | None
    """`[d_model]`"""
    gate_bias: Tensor | None
    """`[]`"""


@dataclass(frozen=True)
class SparseAutoencoder:
    """A dictionary: `p = (norm(x) − b_in)·W_encᵀ + b_enc`, `a = act(p)`, `x̂ = norm⁻¹(a·W_dec + b_dec)`.

    Row i of `encoder` and `decoder` belongs to feature i, so that reading a few features means reading a few rows.
    All tensors are on one device. Thresholds and encoder biases are float32, whatever the type of the weights.
    """

    activation: Activation
    encoder: Tensor
    """`[features, d_model]`"""
    encoder_bias: Tensor
    """`[features]`"""
    decoder: Tensor
    """`[features, d_model]`"""
    decoder_bias: Tensor
    """`[d_model]`"""
    threshold: Tensor | None = None
    """`[features]`, float32, in units of the pre-activation; JumpReLU only."""
    k: int | None = None
    """Largest number of active features per token; TopK only."""
    gate_encoder: Tensor | None = None
    """`[features, d_model]`; gated only."""
    gate_bias: Tensor | None = None
    """`[features]`; gated only."""
    input_bias: Tensor | None = None
    """`[d_model]`, subtracted from the input before encoding; None subtracts nothing."""
    input_norm: InputNorm = InputNorm.NONE
    rank_by_decoder_norm: bool = False
    """TopK only: True where features are ranked by pre-activation times decoder norm."""
    grouped: bool = False
    """TopK only: True where the largest feature of each of k equal groups of consecutive features is active."""

    def __post_init__(self) -> None:
        """Raise DictionaryError where shapes contradict each other, or a part that the activation needs is missing."""
        features, width = self.encoder.shape
        expected = {
            "encoder_bias": (features,),
            "decoder": (features, width),
            "decoder_bias": (width,),
            "threshold": (features,),
            "gate_encoder": (features, width),
            "gate_bias": (features,),
            "input_bias": (width,),
        }
        for name, shape in expected.items():
            tensor: Tensor | None = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise DictionaryError(
                    f"{name} has shape {tuple(tensor.shape)}; with an encoder of "
                    f"{features} features and width {width} it must be {shape}"
                )
        needed = {Activation.JUMPRELU: "threshold", Activation.TOPK: "k", Activation.GATED: "gate_encoder"}
        part = needed.get(self.activation)
        if part is not None and getattr(self, part) is None:
            raise DictionaryError(f"a {self.activation} dictionary needs `{part}`, and this one has none")
        if self.k is not None and not 0 < self.k <= features:
            raise DictionaryError(f"k is {self.k}; it must lie between 1 and the {features} features")
        if self.grouped and self.k is not None and features % self.k:
            raise DictionaryError(f"{features} features cannot be split into {self.k} equal groups")

    @property
    def features(self) -> int:
        """Number of features."""
        return self.encoder.shape[0]

    @property
    def d_model(self) -> int:
        """Width of the residual stream that this dictionary reads."""
        return self.encoder.shape[1]

    @property
    def separable(self) -> bool:
        """True where a feature can be computed without the others (all kinds but TopK)."""
        return self.activation is not Activation.TOPK

    def normalise(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Normalise input `[..., d_model]`. Returns it with the (shift, scale) that `decode` needs to undo this."""
        if self.input_norm is InputNorm.LAYER_NORM:
            shift = x.mean(-1, keepdim=True)
            x = x - shift
            scale = x.std(-1, keepdim=True)
            return x / (scale + 1e-5), shift, scale
        if self.input_norm is InputNorm.CONSTANT_NORM:
            scale = x.norm(dim=-1, keepdim=True).clamp_min(1e-8) / self.d_model**0.5
            return x / scale, None, scale
        if self.input_norm is InputNorm.CENTRED:
            shift = x.mean(-1, keepdim=True)
            return x - shift, shift, None
        return x, None, None

    def pre_activations(self, x: Tensor) -> Tensor:
        """Pre-activations `[..., features]` of normalised input `[..., d_model]`."""
        return linear(self._centred(x), self.encoder, self.encoder_bias)

    def encode(self, x: Tensor) -> Tensor:
        """Activations `[..., features]` of residuals `[..., d_model]`."""
        x, _, _ = self.normalise(x)
        pre = self.pre_activations(x)
        if self.activation is Activation.TOPK:
            return self._top_k(pre)
        return self._activate(x, pre)

    def decode(self, a: Tensor, like: Tensor) -> Tensor:
        """Reconstruction `[..., d_model]` from activations `[..., features]`.

        `like` `[..., d_model]` are the residuals that were encoded; their normalisation is undone.
        """
        _, shift, scale = self.normalise(like)
        out = linear(a, self.decoder.T, self.decoder_bias)
        if scale is not None:
            out = out * scale
        return out if shift is None else out + shift

    def reconstruct(self, x: Tensor) -> Tensor:
        """`decode(encode(x))`."""
        return self.decode(self.encode(x), x)

    def row(self, feature: int) -> FeatureRow:
        """The weights of one feature. Where the dictionary is still in its files, only these rows are read."""

        def of(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[feature]

        return FeatureRow(
            self.encoder[feature],
            self.encoder_bias[feature],
            self.decoder[feature],
            of(self.threshold),
            of(self.gate_encoder),
            of(self.gate_bias),
        )

    def prefetch(self, features: Sequence[int]) -> None:
        """Announce that `row` will be called for these features, so that they can be read from files in one pass.

        Indices of features that do not exist are ignored.
        """

    def forget(self) -> None:
        """Free the rows that `prefetch` has read and `row` has not returned."""

    def whole(self) -> SparseAutoencoder:
        """The same dictionary with every weight in memory."""
        return self

    def select(self, indices: Tensor) -> SparseAutoencoder:
        """A dictionary of these features alone: `select(i).encode(x) == encode(x)[..., i]`.

        It keeps the whole decoder bias, so its `decode` is a partial reconstruction. Raises DictionaryError for TopK.
        """
        if not self.separable:
            raise DictionaryError(
                "a TopK dictionary needs the pre-activations of all features, so single features cannot be selected"
            )

        def rows(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[indices]

        return replace(
            self,
            encoder=self.encoder[indices],
            encoder_bias=self.encoder_bias[indices],
            decoder=self.decoder[indices],
            threshold=rows(self.threshold),
            gate_encoder=rows(self.gate_encoder),
            gate_bias=rows(self.gate_bias),
        )

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> SparseAutoencoder:
        """The same dictionary on another device, or with weights of another type.

        Thresholds and encoder biases stay float32, unless `dtype` is float64.
        """
        fine = dtype if dtype is torch.float64 else (torch.float32 if dtype is not None else None)
        changed: dict[str, Any] = {}
        for name in ("encoder", "decoder", "decoder_bias", "gate_encoder", "input_bias"):
            tensor: Tensor | None = getattr(self, name)
            if tensor is not None:
                changed[name] = tensor.to(device=device, dtype=dtype)
        for name in ("encoder_bias", "threshold", "gate_bias"):
            tensor = getattr(self, name)
            if tensor is not None:
                changed[name] = tensor.to(device=device, dtype=fine)
        return replace(self, **changed)

    def _centred(self, x: Tensor) -> Tensor:
        return x if self.input_bias is None else x - self.input_bias

    def _activate(self, x: Tensor, pre: Tensor) -> Tensor:
        if self.activation is Activation.JUMPRELU:
            assert self.threshold is not None
            return pre.relu() * (pre > self.threshold.relu())
        if self.activation is Activation.GATED:
            assert self.gate_encoder is not None
            gate = linear(self._centred(x), self.gate_encoder, self.gate_bias)
            return pre.relu() * (gate > 0)
        return pre.relu()

    def _top_k(self, pre: Tensor) -> Tensor:
        assert self.k is not None
        if self.grouped:
            groups = pre.reshape(*pre.shape[:-1], self.k, -1)
            largest = groups.argmax(-1, keepdim=True)
            return torch.zeros_like(groups).scatter(-1, largest, 1.0).view_as(pre) * pre.relu()
        rank = pre * self.decoder.norm(dim=-1) if self.rank_by_decoder_norm else pre
        chosen = rank.topk(self.k, dim=-1).indices
        return torch.zeros_like(pre).scatter(-1, chosen, pre.gather(-1, chosen)).relu()
