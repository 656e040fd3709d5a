"""The residual stream of many texts, for training dictionaries, describing features and fitting policies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from monitor.errors import ModelError
from monitor.model.load.hook_points import Place, hidden_of, replace_hidden
from monitor.model.load.model import LoadedModel


class _Reached(Exception):
    """Raised by the hook to end a forward pass once the layer was reached."""


class Harvester:
    """Reads, and may replace, the tensor at one hook point of a model.

    A number means the residual stream after that layer (`blocks.L.hook_resid_post`), None that of the middle layer.
    """

    def __init__(self, loaded: LoadedModel, layer: int | Place | None = None) -> None:
        self.loaded = loaded
        self.place = layer if isinstance(layer, Place) else Place(loaded.middle if layer is None else layer)
        self.layer = self.place.layer
        self.site = loaded.site(self.place)
        self.d_model = loaded.d_model

    @torch.no_grad()
    def residuals(self, ids: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Residuals `[batch, time, d_model]` in float32 of token ids `[batch, time]`, on the model's first device.

        The forward pass ends at the hook point. `lengths` are those of the texts where some rows are padded on the
        right. Padding then changes no other token, because attention is causal; drop its rows afterwards.
        """
        kept: list[Tensor] = []
        # The hook is called for every thread; an engine that runs this layer on another thread must not be stopped.
        mine = threading.get_ident()

        def stop(_module: object, _args: object, output: Any) -> None:
            if threading.get_ident() != mine:
                return
            kept.append(hidden_of(output))
            raise _Reached

        # No other thread may be in a forward pass while a hook is registered or removed.
        with self.loaded.reading(_lengths(ids, lengths)):
            handle = self.site.register_forward_hook(stop)
            try:
                self.loaded.model(input_ids=ids.to(self.loaded.device), use_cache=False)
            except _Reached:
                pass
            finally:
                handle.remove()
        if not kept:
            raise ModelError(f"the forward pass never reached {self.place}; the model cannot be tapped there")
        return kept[0].to(self.loaded.device).float()

    def logits(
        self,
        ids: Tensor,
        replace: Callable[[Tensor], Tensor] | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Logits `[batch, time, vocabulary]` of a whole forward pass over token ids `[batch, time]`.

        `replace` maps the residuals `[batch, time, d_model]` at the hook point to others; they are on the model's first
        device. `lengths` as for `residuals`. Gradients are recorded where the caller has enabled them.
        """
        edit: Callable[..., Any] | None = None
        if replace is not None:
            mine = threading.get_ident()

            def edit(_module: object, _args: object, output: Any) -> Any:
                if threading.get_ident() != mine:
                    return None
                hidden = hidden_of(output)
                edited = replace(hidden.to(self.loaded.device))
                return replace_hidden(output, edited.to(hidden.device))

        with self.loaded.reading(_lengths(ids, lengths)):
            handle = None if edit is None else self.site.register_forward_hook(edit)
            try:
                logits: Tensor = self.loaded.model(
                    input_ids=ids.to(self.loaded.device), use_cache=False
                ).logits
            finally:
                if handle is not None:
                    handle.remove()
        return logits


def _lengths(ids: Tensor, lengths: Sequence[int] | None) -> Sequence[int]:
    return [ids.shape[1]] * ids.shape[0] if lengths is None else lengths
