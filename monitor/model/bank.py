"""The features that the tap computes, as rows of an encoder and a decoder.

Knows slots: the watched features first, then those that policies may clamp, then spare slots for features that
requests clamp. Does not know requests, rows of a batch or hooks.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from monitor.dictionary.autoencoder import Activation, InputNorm, SparseAutoencoder
from monitor.errors import DictionaryError, MonitorError, Overloaded


class FeatureBank:
    """Encoder and decoder rows of the features in use, on the model's device, in float32 (float64 for float64 models).

    For separable dictionaries only the slots' rows are held. A TopK dictionary is held whole, because whether a
    feature is among the k largest depends on all of them.
    """

    def __init__(
        self,
        autoencoder: SparseAutoencoder,
        maximum: Tensor,
        watched: Sequence[int],
        clampable: Sequence[int] = (),
        *,
        spare: int = 16,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.kind = autoencoder.activation
        self.features = autoencoder.features
        self.d_model = autoencoder.d_model
        self.watched = tuple(watched)
        self.fixed = self.watched + tuple(f for f in clampable if f not in set(watched))
        self.device, self.dtype = torch.device(device), dtype
        self._source = autoencoder
        self._maximum = maximum.to(dtype=dtype, device="cpu")
        self._slots = {feature: slot for slot, feature in enumerate(self.fixed)}
        self._users: dict[int, int] = {}
        self._lock = threading.Lock()
        self._free = list(range(len(self.fixed) + spare - 1, len(self.fixed) - 1, -1))
        self._allocate(len(self.fixed) + spare)
        for feature, slot in self._slots.items():
            self._fill(slot, feature)

    @property
    def width(self) -> int:
        """Number of slots, spare ones included."""
        return self.index.shape[0]

    @property
    def in_use(self) -> int:
        """Slots that must be computed when something is clamped: all, unless no spare slot is taken."""
        return self.width if self._users else len(self.fixed)

    def slot(self, feature: int) -> int:
        """Slot of a feature that is held; KeyError where it is not."""
        return self._slots[feature]

    def feature(self, slot: int) -> int:
        """Feature in a slot."""
        return int(self._features[slot])

    def recorded_maximum(self, feature: int) -> float:
        """Highest activation seen when the dictionary was described; the unit of readings and targets."""
        return float(self._maximum[feature])

    def acquire(self, features: Sequence[int]) -> None:
        """Hold features for one more request, all or none; Overloaded where the spare slots are taken by others."""
        held: list[int] = []
        try:
            for feature in features:
                self._hold(feature)
                held.append(feature)
        except MonitorError:
            self.release(held)
            raise

    def release(self, features: Sequence[int]) -> None:
        """Undo one `acquire`; slots without users are free again."""
        with self._lock:
            for feature in features:
                if feature in self._users:
                    self._users[feature] -= 1
                    if self._users[feature] == 0:
                        del self._users[feature]
                        self._free.append(self._slots.pop(feature))

    def _hold(self, feature: int) -> None:
        with self._lock:
            if feature in self._users:
                self._users[feature] += 1
            elif feature not in self._slots:
                self._take(feature)

    def _take(self, feature: int) -> None:
        if not self._free:
            raise Overloaded(
                "too many different features are clamped by requests at once; try again", retry_after=1.0
            )
        slot = self._free.pop()
        try:
            self._fill(slot, feature)
        except DictionaryError:
            self._free.append(slot)
            raise
        self._slots[feature] = slot
        self._users[feature] = 1

    def activations(self, x: Tensor, slots: int) -> tuple[Tensor, Tensor | None]:
        """Activations `[rows, slots]` of the first slots for residuals `[rows, d_model]`, and the norm's scale.

        The scale `[rows, 1]` (None without a norm) turns a difference of activations times the decoder into a
        difference of residuals.
        """
        x = x.to(self.dtype)
        normed, _, scale = self._norm.normalise(x)
        # Zero for finite rows, NaN for all others: an activation function may turn what is not a number into 0.
        return self._activate(normed, slots) + 0 * x.sum(-1, keepdim=True), scale

    def _activate(self, x: Tensor, slots: int) -> Tensor:
        if self.kind is Activation.TOPK:
            return self._whole.encode(x)[:, self.index[:slots]]
        pre = linear(x, self.encoder[:slots], self.bias[:slots])
        if self.kind is Activation.JUMPRELU:
            # Thresholds are not negative, so what passes them is positive.
            return torch.where(pre > self.threshold[:slots], pre, 0)
        if self.kind is Activation.GATED:
            gate = linear(x, self.gate_encoder[:slots], self.gate_bias[:slots])
            return pre.relu() * (gate > 0)
        return pre.relu()

    def _allocate(self, width: int) -> None:
        sae, rows = self._source, (width, self.d_model)
        place: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        self._features = torch.zeros(width, dtype=torch.int64)
        self.index = torch.zeros(width, dtype=torch.int64, device=self.device)
        self.unit = torch.ones(width, **place)  # 1 / recorded maximum
        self.encoder, self.decoder = torch.zeros(rows, **place), torch.zeros(rows, **place)
        self.bias, self.threshold = torch.zeros(width, **place), torch.zeros(width, **place)
        gated = self.kind is Activation.GATED
        self.gate_encoder = torch.zeros(rows if gated else (0, 0), **place)
        self.gate_bias = torch.zeros(width, **place)
        whole = sae.to(self.device, self.dtype) if self.kind is Activation.TOPK else None
        if whole is not None:
            self._whole = _without_norm(whole)
        self._norm = _norm_only(sae)

    def _fill(self, slot: int, feature: int) -> None:
        """Copy a feature into a slot, folding what the encoder subtracts into its bias (in float64)."""
        sae = self._source
        if not 0 <= feature < self.features:
            raise DictionaryError(
                f"feature {feature} does not exist; the dictionary has 0 to {self.features - 1}"
            )
        if self.recorded_maximum(feature) <= 0:
            raise DictionaryError(
                f"feature {feature} was never active when the dictionary was described; it has no unit"
            )

        def folded(rows: Tensor, bias: Tensor | None) -> Tensor:
            total = torch.zeros((), dtype=torch.float64) if bias is None else bias[feature].double()
            return (
                total if sae.input_bias is None else total - rows[feature].double() @ sae.input_bias.double()
            )

        self._features[slot] = feature
        self.index[slot] = feature
        self.unit[slot] = 1.0 / self._maximum[feature]
        self.encoder[slot] = sae.encoder[feature]
        self.decoder[slot] = sae.decoder[feature]
        self.bias[slot] = folded(sae.encoder, sae.encoder_bias)
        if sae.threshold is not None:
            self.threshold[slot] = sae.threshold[feature].relu()
        if sae.gate_encoder is not None:
            self.gate_encoder[slot] = sae.gate_encoder[feature]
            self.gate_bias[slot] = folded(sae.gate_encoder, sae.gate_bias)


def _norm_only(sae: SparseAutoencoder) -> SparseAutoencoder:
    """The dictionary's input norm without its weights."""
    empty = torch.zeros(0, sae.d_model)
    return SparseAutoencoder(
        activation=Activation.RELU,
        encoder=empty,
        encoder_bias=torch.zeros(0),
        decoder=empty,
        decoder_bias=torch.zeros(sae.d_model),
        input_norm=sae.input_norm,
    )


def _without_norm(sae: SparseAutoencoder) -> SparseAutoencoder:
    """The dictionary for input that is normalised already."""
    return replace(sae, input_norm=InputNorm.NONE)
