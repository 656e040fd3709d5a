"""Forward passes to the tapped layer over texts of any length: long texts run in chunks, with a cache between them.

No pass takes much longer than any other, and between two of them the model is free for whoever waits for it.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

import torch
from torch import Tensor

from monitor.errors import ModelError, TooLong, Violation
from monitor.model.engine.serial import kinds_of, recurrent
from monitor.model.load.hook_points import hidden_of
from monitor.model.load.model import LoadedModel
from monitor.model.tap.tap import LayerReached

PASS = {True: 2048, False: 4096}
"""Most tokens of a pass, on the CPU and elsewhere. Generations wait for its end; `monitor.bench.load` scores a third
less with 512."""
_LEAST = 128
"""Fewest tokens of a chunk that is not a text's last."""
_WHOLE = 4
"""A text that cannot be cut may be so many passes long."""
FORGETS = "its recurrent layers forget what came before a second part"
_CACHE = "past_key_values"
_REHEARSED = (24, 17, 1, 22)
"""Tokens of the chunks in which a text is run at the start, and held against one pass over all of them."""
_APART = {torch.float32: 1e-2, torch.float64: 1e-3}
"""Largest relative difference between residuals of a token that was computed in two ways; a past that is not read
gives one of about 1."""
_APART_ELSE = 0.1


class HookPoint(Protocol):
    """A module, or the input or output of one, whose tensor is read."""

    def register_forward_hook(self, hook: Callable[..., Any]) -> Any:
        """Install a hook that is called with the tensor in each pass."""


class Chunks:
    """Passes of one model up to a hook point. Any thread.

    `why_whole` says why texts cannot be cut, and is empty where they can. What the structure of the model does not
    show is found by `rehearse`.
    """

    def __init__(self, loaded: LoadedModel, site: HookPoint, most: int | None = None) -> None:
        self._loaded, self._site = loaded, site
        self.most = min(most or PASS[loaded.device.type == "cpu"], loaded.context)
        """Most tokens of a pass over texts that are not cut, and of a chunk."""
        self.why_whole = _why_whole(loaded.model)

    @property
    def longest(self) -> int:
        """Most tokens of a text."""
        return min(_WHOLE * self.most, self._loaded.context) if self.why_whole else self._loaded.context

    @property
    def rows(self) -> int:
        """Most tokens of any pass."""
        return self.longest if self.why_whole else self.most

    def cuts(self, tokens: int) -> bool:
        """True where a text of so many tokens runs in chunks."""
        return tokens > self.most and not self.why_whole

    def check(self, tokens: int) -> None:
        """Raise TooLong where a text of so many tokens cannot be run."""
        if tokens > self.longest:
            raise too_long(self._loaded, tokens, self.longest, self.why_whole)

    def end(self, start: int, tokens: int) -> int:
        """Where the chunk that begins at `start` ends, in a text of so many tokens.

        Later chunks are shorter, because every token of them attends to all before: each costs about the same.
        """
        if self.why_whole:
            return tokens
        fits = (math.isqrt(start**2 + 4 * self.most**2) - start) // 2
        return min(tokens, start + max(min(_LEAST, self.most), min(fits, self.most)))

    def past(self) -> Any:
        """The keys and values of a text that has not begun."""
        from transformers import DynamicCache

        return DynamicCache(config=self._loaded.model.config)

    def run(self, ids: Tensor, lengths: Sequence[int], past: Any = None) -> None:
        """A pass over token ids `[texts, tokens]`; with a `past`, over what follows it, which is added to it.

        `lengths` are those of the whole texts: some rotary embeddings depend on them. The pass ends where a hook raises
        LayerReached. Padding on the right changes no other token.
        """
        cache = {"use_cache": False} if past is None else {"use_cache": True, _CACHE: past}
        with torch.no_grad(), self._loaded.reading(lengths), suppress(LayerReached):
            self._loaded.model(input_ids=ids.to(self._loaded.device), **cache)

    def residuals(
        self, ids: Sequence[int], gone: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[int, Tensor]]:
        """The tensor at the hook point, chunk by chunk: the first position, and `[tokens, d_model]` in float32.

        Ends early once `gone` says that nobody waits any more. Raises TooLong before the first pass.
        """
        self.check(len(ids))
        past = self.past() if self.cuts(len(ids)) else None
        start = 0
        while start < len(ids) and not gone():
            end = len(ids) if past is None else self.end(start, len(ids))
            yield start, self._residual(torch.tensor([ids[start:end]]), len(ids), past)[0]
            start = end

    def rehearse(self) -> None:
        """Run a few tokens whole and in chunks; where the two differ, texts are not cut from now on."""
        if self.why_whole or self._loaded.context < sum(_REHEARSED):
            return
        ids = (
            torch.arange(sum(_REHEARSED)).unsqueeze(0)
            % self._loaded.model.config.get_text_config().vocab_size
        )
        whole = self._residual(ids, ids.shape[1], None)
        try:
            past = self.past()
            cut = torch.cat(
                [self._residual(part, ids.shape[1], past) for part in ids.split(_REHEARSED, dim=1)], dim=1
            )
        except Exception as error:  # noqa: BLE001  (whatever a family cannot do, its texts run whole)
            self.why_whole = f"its pass over a second part fails with {type(error).__name__}"
            return
        if not alike(cut, whole, self._loaded.dtype):
            self.why_whole = "it reads a text in parts otherwise than whole"

    def _residual(self, ids: Tensor, length: int, past: Any) -> Tensor:
        """The tensor at the hook point `[1, tokens, d_model]`, float32, of one pass over a text of some length."""
        return self.read_during(lambda: self.run(ids, [length], past))

    def read_during(self, run: Callable[[], object]) -> Tensor:
        """The tensor at the hook point `[1, tokens, d_model]`, float32, of the pass that `run` makes on this thread."""
        kept: list[Tensor] = []
        # The hook is called for every thread; an engine that runs this layer on another thread must not be stopped.
        mine = threading.get_ident()

        def keep(_module: object, _args: object, output: Any) -> None:
            if threading.get_ident() == mine:
                kept.append(hidden_of(output))
                raise LayerReached

        # No other thread may be in a forward pass while a hook is registered or removed.
        with self._loaded.passes:
            handle = self._site.register_forward_hook(keep)
            try:
                run()
            finally:
                handle.remove()
        if not kept:
            raise ModelError("the forward pass never reached the tapped layer")
        return kept[0].to(self._loaded.device).float()


def alike(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> bool:
    """True where residuals `[..., d_model]` of the same tokens differ by no more than a model of a dtype rounds."""
    most = _APART.get(dtype, _APART_ELSE)
    return bool(((found - wanted).norm(dim=-1) <= most * wanted.norm(dim=-1)).all())


def longest_prompt(loaded: LoadedModel) -> int:
    """Most tokens of a prompt that is generated from: the context, or less where it runs in one pass."""
    return _WHOLE * PASS[loaded.device.type == "cpu"] if recurrent(loaded.model) else loaded.context


def too_long(loaded: LoadedModel, tokens: int, longest: int, why: str = FORGETS) -> TooLong:
    """What is said of a text that would run in one pass and is too long for it."""
    name = type(loaded.model).__name__
    return TooLong(
        Violation(
            "input",
            f"is {tokens} tokens long, and at most {longest} run in one pass here; {name} cannot read a text in parts "
            f"({why}). Send it in parts of its own",
        )
    )


def _why_whole(model: Any) -> str:
    """Why a text cannot be run in chunks, as far as the structure of the model shows; empty where it can."""
    if recurrent(model):
        return FORGETS
    if "chunked_attention" in kinds_of(model):
        return "its layers attend in blocks of fixed size"
    if _CACHE not in inspect.signature(model.forward).parameters:
        return "its forward pass takes no keys and values"
    return ""
