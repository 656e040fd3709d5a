"""A model and its dictionary as policies need them: readings of texts, attributions, token texts.

Knows tensors and batches. Does not know what a policy is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from monitor.policy.fit import TextReadings, TokenReadings
from monitor.records import Signal, WatchPlan

if TYPE_CHECKING:
    from monitor.lab.pair import Pair

BATCH_TOKENS = 4096
LONGEST = 512
"""Tokens that are read of a text; the rest is left out."""


class PairReader:
    """Implements `monitor.policy.fit.Reader`, and reads single texts for tests and explanations."""

    def __init__(self, pair: Pair, signals: Collection[Signal] = ()) -> None:
        """`signals` are those that `read` gives; an error of reconstruction costs as much as reading again."""
        from monitor.lab.pair import need_statistics

        self.pair = pair
        self._asked = tuple(signals)
        self._autoencoder = pair.dictionary.autoencoder
        self._maximum = need_statistics(pair.dictionary).maximum.to(pair.loaded.device)
        alive = self._maximum > 0
        self._unit = torch.where(alive, 1.0 / self._maximum.clamp_min(1e-30), torch.zeros_like(self._maximum))

    @property
    def maxima(self) -> NDArray[np.float64]:
        """`[features]` recorded maxima."""
        return np.asarray(self._maximum.double().cpu().numpy())

    @cached_property
    def _labels(self) -> dict[int, str]:
        from monitor.lab.pair import open_labels

        labels = open_labels(self.pair.dictionary)
        return {i: labels.best(i) for i in range(self._autoencoder.features)}

    def label(self, feature: int) -> str:
        """What the dictionary calls a feature."""
        return self._labels.get(feature, "")[:100]

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, cut to the model's context and to what is read."""
        return self.pair.ids(text)[:LONGEST]

    def readings(self, ids: Sequence[int], features: Sequence[int]) -> NDArray[np.float32]:
        """Readings `[tokens, len(features)]` of every token of one text."""
        columns = torch.tensor(list(features), dtype=torch.long, device=self.pair.loaded.device)
        residual = self.pair.residuals(torch.tensor([list(ids)]))[0]
        read = (self._autoencoder.encode(residual) * self._unit)[:, columns]
        return np.asarray(read.cpu().numpy(), np.float32)

    def watched(self, ids: Sequence[int], plan: WatchPlan) -> NDArray[np.float32]:
        """Readings `[tokens, watched]` of every token of one text: features, probes and signals of a watch plan."""
        from monitor.model.tap.probe_columns import ProbeColumns

        device = self.pair.loaded.device
        features = self.readings(ids, plan.features)
        columns = ProbeColumns(self._autoencoder, plan, device=device, dtype=torch.float32)
        where = columns.where(plan)
        if where is None:
            return features
        residual = self.pair.residuals(torch.tensor([list(ids)]))[0]
        others = columns.read(residual).cpu().numpy()[:, where]
        return np.concatenate([features, others], axis=1).astype(np.float32)

    def read(self, texts: Sequence[str]) -> TextReadings:
        """Readings, residuals and anomaly signals of texts, first positions left out."""
        found: dict[int, tuple[sparse.csr_matrix, NDArray[np.float32], dict[str, NDArray[np.float64]]]] = {}
        for which, ids, lengths in self.batches(texts):
            residual = self.pair.residuals(ids)
            for row, (text, length) in enumerate(zip(which, lengths, strict=True)):
                x = residual[row, 1:length]
                active = self._autoencoder.encode(x)
                read = sparse.csr_matrix((active * self._unit).cpu().numpy())
                found[text] = (read, x.float().cpu().numpy().copy(), self._signals(x, active))
        matrices = [found[i][0] for i in range(len(texts))]
        starts = np.concatenate([[0], np.cumsum([m.shape[0] for m in matrices])]).astype(np.intp)
        return TextReadings(
            TokenReadings(sparse.vstack(matrices, format="csr"), starts),
            np.concatenate([found[i][1] for i in range(len(texts))]),
            {
                str(name): np.concatenate([found[i][2][name] for i in range(len(texts))])
                for name in self._asked
            },
        )

    def _signals(self, x: Tensor, active: Tensor) -> dict[str, NDArray[np.float64]]:
        """By signal asked for, its value at every token `[tokens]`; definitions in `Signal`."""
        found = {}
        if Signal.RESIDUAL_NORM in self._asked:
            found[Signal.RESIDUAL_NORM] = x.double().norm(dim=-1) / x.shape[-1] ** 0.5
        if Signal.RECONSTRUCTION_ERROR in self._asked:
            nothing = self._autoencoder.decode(torch.zeros_like(active[:1]), x)
            missed = (x - nothing - self._spoken(x, active)).double().square().sum(-1)
            whole = (x - nothing).double().square().sum(-1).clamp_min(1e-30)
            found[Signal.RECONSTRUCTION_ERROR] = missed / whole
        return {str(name): value.cpu().numpy() for name, value in found.items()}

    def _spoken(self, x: Tensor, active: Tensor) -> Tensor:
        """What the active features add to the reconstruction, `[tokens, d_model]`; few are, so not a full product."""
        scale = self._autoencoder.normalise(x)[2]
        added = sparse.csr_matrix(active.cpu().numpy()) @ self._decoder
        found = torch.from_numpy(np.asarray(added, np.float32)).to(x.device)
        return found if scale is None else found * scale

    @cached_property
    def _decoder(self) -> NDArray[np.float32]:
        """Decoder rows `[features, d_model]`."""
        return np.asarray(self._autoencoder.decoder.float().cpu().numpy())

    def attribution(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """`[features]`: mean over texts and tokens of a_i · (∂ log p(text)/∂x · W_dec_i), nats per token."""
        total = torch.zeros(self._autoencoder.features, dtype=torch.float64, device=self.pair.loaded.device)
        for _, ids, lengths in self.batches(texts):
            residual, gradient = self._gradient(ids, lengths)
            for row, length in enumerate(lengths):
                if length > 1:
                    total += self._effect(residual[row, 1:length], gradient[row, 1:length])
        return np.asarray((total / max(len(texts), 1)).cpu().numpy())

    def _effect(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Mean over the tokens of one text, `[features]`."""
        active = self._autoencoder.encode(x)
        scale = self._autoencoder.normalise(x)[2]
        reach = gradient @ self._autoencoder.decoder.T
        return (active * (reach if scale is None else reach * scale)).double().mean(0)

    def _gradient(self, ids: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Residuals and ∂ log p(text)/∂x, both `[texts, time, d_model]`."""
        kept: list[Tensor] = []

        def watch(x: Tensor) -> Tensor:
            kept.append(x.detach().requires_grad_(True))
            return kept[0]

        with torch.enable_grad():
            logits = self.pair.harvester.logits(ids, watch).float()
            target = ids.to(logits.device)[:, 1:]
            each = torch.log_softmax(logits[:, :-1], -1).gather(-1, target[..., None])[..., 0]
            ends = torch.tensor(list(lengths), device=logits.device)
            real = torch.arange(1, ids.shape[1], device=logits.device)[None, :] < ends[:, None]
            (gradient,) = torch.autograd.grad((each * real).sum(), kept)
        return kept[0].detach().float(), gradient.float()

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Tensor, list[int]]]:
        """Texts of like length together: their numbers, padded ids `[texts, time]`, and lengths."""
        ids = [self.ids(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
        while order:
            longest = max(len(ids[order[-1]]), 1)
            count = max(1, BATCH_TOKENS // longest)
            which, order = order[-count:], order[:-count]
            padded = torch.zeros(len(which), longest, dtype=torch.long)
            for row, i in enumerate(which):
                padded[row, : len(ids[i])] = torch.tensor(ids[i])
            yield which, padded, [len(ids[i]) for i in which]
