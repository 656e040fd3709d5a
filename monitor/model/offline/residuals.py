"""The residual stream of many texts, for training, describing and fitting. No serving.

Knows one place in one model and how to stop a forward pass there. Does not know dictionaries: what is done with
the residuals, and what they are replaced by, is the caller's business.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from monitor.errors import ModelError
from monitor.model.load.hook_points import Place, hidden_of, replace_hidden, site_of
from monitor.model.load.model import LoadedModel


class _Reached(Exception):
    """Ends a forward pass at the layer."""


class Harvester:
    """The tensor at a place; a number means the residual stream after that layer (`blocks.L.hook_resid_post`)."""

    def __init__(self, loaded: LoadedModel, layer: int | Place | None = None) -> None:
        self.loaded = loaded
        self.place = layer if isinstance(layer, Place) else Place(loaded.middle if layer is None else layer)
        self.layer = self.place.layer
        self.site = site_of(loaded.layers, self.place)
        self.d_model = loaded.d_model

    @torch.no_grad()
    def residuals(self, ids: Tensor) -> Tensor:
        """Residuals `[batch, time, d_model]`, float32, of token ids `[batch, time]`; the forward stops at the layer.

        On the model's first device, wherever the layer computes.

        Padding on the right is harmless (attention is causal); drop those rows afterwards.
        """
        kept: list[Tensor] = []
        # Hooks belong to the module: an engine that runs the same layer on another thread must not be stopped.
        mine = threading.get_ident()

        def stop(_module: object, _args: object, output: Any) -> None:
            if threading.get_ident() != mine:
                return
            kept.append(hidden_of(output))
            raise _Reached

        # Between two passes of others: one that finds a hook half installed or half removed calls it wrongly.
        with self.loaded.passes:
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

    def logits(self, ids: Tensor, replace: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Logits `[batch, time, vocabulary]` of a whole forward; `replace` maps the residual at the layer.

        What is mapped lies on the model's first device. Gradients flow where the caller's mode allows them.
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

        with self.loaded.passes:
            handle = None if edit is None else self.site.register_forward_hook(edit)
            try:
                logits: Tensor = self.loaded.model(
                    input_ids=ids.to(self.loaded.device), use_cache=False
                ).logits
            finally:
                if handle is not None:
                    handle.remove()
        return logits


def pack(texts: Iterable[str], loaded: LoadedModel, length: int) -> Iterator[Tensor]:
    """Rows `[length]` of token ids: documents one after the other, each beginning with the model's BOS token.

    What does not fill the last row is dropped.
    """
    held: list[int] = []
    for text in texts:
        held.extend(loaded.tokenizer(text)["input_ids"])
        while len(held) >= length:
            yield torch.tensor(held[:length])
            del held[:length]
