"""Effects of a prompt's features on the next token: by ablation, by attribution, and directly on the logits.

Each is a change of the token's logit relative to the mean over the vocabulary. Ablation runs the model again with the
feature at 0 on all tokens but attention sinks, which no clamp edits; it is exact. Attribution, Σ_t a_t · (∂logit/∂x_t ·
W_dec), is its first-order estimate from one backward pass, as Templeton et al. (2024) rank features. The direct effect
is what the feature at the last position adds through the final norm and the unembedding alone, without later layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monitor.dictionary.residual_signals import sinks
from monitor.dictionary.sae import SparseAutoencoder
from monitor.model.load.hook_points import hidden_of
from monitor.model.offline.edits import ablated
from monitor.model.offline.residuals import Harvester

Head = Callable[[Tensor], Tensor]
"""Final norm and unembedding: residuals after the last layer `[rows, d_model]` to logits `[rows, vocabulary]`."""


@dataclass(frozen=True)
class Effect:
    """What one feature of a prompt does to the next token."""

    feature: int
    activations: Tensor
    """`[time]` the feature's activation at each token."""
    ablation: Tensor
    """`[vocabulary]` logits with the feature minus logits without it, less their mean."""
    after: Tensor
    """`[vocabulary]` probabilities of the next token without the feature."""
    direct: Tensor | None
    """`[vocabulary]` direct effect on the logits; None where no `head` was given."""


class Prompted:
    """A prompt that was run once, and the effects of its features on the next token."""

    def __init__(
        self,
        harvester: Harvester,
        autoencoder: SparseAutoencoder,
        maximum: Tensor,
        ids: Sequence[int],
        head: Head | None = None,
        *,
        limit: float = math.inf,
    ) -> None:
        """`limit` is the pair's norm limit, above which a residual is an attention sink's."""
        self._limit = limit
        self._harvester, self._autoencoder, self._maximum, self._head = harvester, autoencoder, maximum, head
        self._ids = torch.tensor([list(ids)])
        kept: list[Tensor] = []

        def watch(x: Tensor) -> Tensor:
            kept.append(x.detach().requires_grad_(True))
            return kept[0]

        last: list[Tensor] = []
        handle = harvester.loaded.layers[-1].register_forward_hook(
            lambda _module, _args, output: last.append(hidden_of(output).detach())
        )
        try:
            with torch.enable_grad():
                self._logits = harvester.logits(self._ids, watch)[0, -1].float()
        finally:
            handle.remove()
        self._x, self._last = kept[0], last[0][0, -1:]
        with torch.no_grad():
            x = self._x.detach()[0].float()
            self._sinks = sinks(x, torch.arange(len(x)), limit)
            self.activations = autoencoder.encode(x).masked_fill(self._sinks[:, None], 0.0)
            """`[time, features]` activations of all features at each token; 0 at attention sinks."""
            self._scale = autoencoder.normalise(x)[2]

    @property
    def probabilities(self) -> Tensor:
        """`[vocabulary]` probabilities of the next token."""
        return self._logits.detach().softmax(-1)

    def attribution(self, token: int) -> Tensor:
        """`[time, features]` first-order effect of each feature at each position on the logit of `token`.

        It is 0 at attention sinks, which no clamp edits.
        """
        wanted = self._logits[token] - self._logits.mean()
        (gradient,) = torch.autograd.grad(wanted, self._x, retain_graph=True)
        reach = gradient[0].float() @ self._autoencoder.decoder.T.float()
        return self.activations * (reach if self._scale is None else reach * self._scale)

    @torch.no_grad()
    def effect(self, feature: int) -> Effect:
        """Run the prompt again without one feature and compare."""
        loaded = self._harvester.loaded
        edit = ablated(self._autoencoder, self._maximum, [feature], loaded.device, limit=self._limit)
        after = self._harvester.logits(self._ids, lambda x: edit(x, 0))[0, -1].float()
        change = self._logits.detach() - after
        return Effect(
            feature,
            self.activations[:, feature],
            change - change.mean(),
            after.softmax(-1),
            self._direct(feature),
        )

    def _direct(self, feature: int) -> Tensor | None:
        if self._head is None:
            return None
        scale = 1.0 if self._scale is None else self._scale[-1]
        push = self.activations[-1, feature] * self._autoencoder.decoder[feature].float() * scale
        # The derivative along the feature's direction at the actual residual: the norm divides by the whole residual,
        # so applying the head to the direction alone would be wrong.
        jvp: Any = torch.autograd.functional.jvp
        with torch.enable_grad():
            change: Tensor = jvp(self._head, self._last.float(), push[None].to(self._last))[1]
        return change[0] - change[0].mean()
