"""The feature bank: encoder and decoder rows of the features that the tap reads or clamps, one slot each.

A slot is a row of these matrices. The watched features come first, then those that policies may clamp, then free slots
for features of policy sets that are loaded later and of requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear

from monitor.dictionary.sae import Activation, InputNorm, SparseAutoencoder
from monitor.errors import DictionaryError
from monitor.model.tap.probe_columns import ProbeColumns
from monitor.model.tap.slots import Slots
from monitor.records import WatchPlan


class FeatureBank:
    """Encoder and decoder rows of the features in use, on the model's device, in float32 (float64 for float64 models).

    For separable dictionaries only the rows in slots are in memory. A TopK dictionary is in memory whole, because
    whether a feature is among the k largest depends on all of them.
    """

    def __init__(
        self,
        autoencoder: SparseAutoencoder,
        maximum: Tensor,
        watched: Sequence[int],
        clampable: Sequence[int] = (),
        *,
        spare: int = 16,
        reserve: int = 0,
        plan: WatchPlan | None = None,
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
        self._allocate(len(self.fixed) + reserve + spare)
        autoencoder.prefetch(self.fixed)
        self._slots = Slots(self.fixed, self._fill, spare=spare, reserve=reserve)
        self.others = ProbeColumns(autoencoder, plan, device=self.device, dtype=dtype)
        """Probes and signals; `plan` is the first policy set's."""
        self.first_others = self.others.where(plan) if plan is not None else None

    @property
    def width(self) -> int:
        """Number of slots, spare ones included."""
        return self.index.shape[0]

    @property
    def first(self) -> slice:
        """Columns of the first policy set's readings."""
        return slice(0, len(self.watched))

    @property
    def in_use(self) -> int:
        """Slots that a pass must compute when something is clamped: up to the last that anybody holds."""
        return self._slots.used

    @property
    def read(self) -> int:
        """Slots that every pass must compute: up to the last that a policy set holds."""
        return self._slots.read

    def slot(self, feature: int) -> int:
        """Slot of a feature that is held. Raises KeyError for any other."""
        return self._slots.slot(feature)

    def features_in(self, slots: NDArray[np.intp]) -> NDArray[np.int64]:
        """Features in some slots."""
        return self._features.numpy()[slots]

    def recorded_maximum(self, feature: int) -> float:
        """Highest activation seen when the dictionary was described; the unit of readings and targets."""
        return float(self._maximum[feature])

    def acquire(self, features: Sequence[int]) -> None:
        """Hold features for one more request. Raises Overloaded, and holds none, where too few spare slots are free."""
        self._slots.acquire_for_request(features)

    def release(self, features: Sequence[int]) -> None:
        """Undo one `acquire`. Slots of features that nobody else holds become free."""
        self._slots.release_for_request(features)

    def hold(self, features: Sequence[int]) -> Callable[[], None]:
        """Hold features for one more policy set, and return a function that releases them.

        Raises ConfigurationError, and holds none, where too few slots are free or a feature has no recorded maximum.
        """
        held = tuple(features)
        # Files are read before the slots are locked: requests that come and go need that lock.
        self._source.prefetch(self._slots.unheld(held))
        try:
            self._slots.acquire_for_policies(held)
        finally:
            self._source.forget()
        return lambda: self._slots.release_for_policies(held)

    def dismiss_first(self) -> None:
        """Release the features, probes and signals of the first policy set."""
        self._slots.release_for_policies(self.fixed)
        self.others.release_first()

    def columns(self, plan: WatchPlan) -> slice | NDArray[np.intp]:
        """Columns of a plan's features in the readings `[rows, slots]` of a pass. Every feature must be held."""
        slots = [self._slots.slot(feature) for feature in plan.features]
        if slots == list(range(len(slots))):
            return slice(0, len(slots))
        return np.asarray(slots, np.intp)

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
        whole = sae.whole().to(self.device, self.dtype) if self.kind is Activation.TOPK else None
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

        row = sae.row(feature)  # once: a large dictionary reads it from its file

        def folded(weights: Tensor, bias: Tensor | None) -> Tensor:
            total = torch.zeros((), dtype=torch.float64) if bias is None else bias.double()
            return total if sae.input_bias is None else total - weights.double() @ sae.input_bias.double()

        self._features[slot] = feature
        self.index[slot] = feature
        self.unit[slot] = 1.0 / self._maximum[feature]
        self.encoder[slot] = row.encoder
        self.decoder[slot] = row.decoder
        self.bias[slot] = folded(row.encoder, row.encoder_bias)
        if row.threshold is not None:
            self.threshold[slot] = row.threshold.relu()
        if row.gate_encoder is not None:
            self.gate_encoder[slot] = row.gate_encoder
            self.gate_bias[slot] = folded(row.gate_encoder, row.gate_bias)


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
