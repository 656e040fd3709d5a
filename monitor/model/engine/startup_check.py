"""The checks at the start: whether the model reads a token by what stands before it and by nothing else, and the engine
computes what the model computes.

A family that continuous batching runs wrongly, or that crashes it at the first decoded token, is found here, not in the
middle of somebody's request. Two requests run at once, and one prompt is longer than a pass.
"""

from __future__ import annotations

import inspect
import random
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from monitor.errors import ModelError
from monitor.model.engine.chunks import HookPoint, alike
from monitor.model.engine.liveness import Nobody
from monitor.model.engine.requests import Emit, Event, Finished, GenerationRequest
from monitor.model.engine.serial import CachedPasses, recurrent
from monitor.model.load.hook_points import hidden_of
from monitor.model.load.model import LoadedModel
from monitor.records import FinishReason, Sampling

_ROUNDINGS = 16
"""Logits of two passes that compute the same may differ by so many times what rounding a number changes."""
_NEW = 4
"""Tokens that are generated after each prompt."""
_TIE = 0.05
"""A chosen token may be so far below the best, as a share of the range of all logits: rounding breaks ties."""
_LONGEST = 1 << 14
"""Most tokens of the long prompt; a plain pass over it must fit in memory."""
_TRIES = 3
"""Texts that a model must read otherwise in parts: in one of them a router may stand where rounding decides."""
_PICKED, _MOST_TEXTS = 4096, 32
"""Tokens of all texts that are tried where attention picks some of the tokens before, and most of these texts."""


class _SubmittingEngine(Protocol):
    @property
    def rows(self) -> int: ...

    def submit(self, request: GenerationRequest, emit: Emit) -> None: ...


class _Rehearsal:
    """One request of the rehearsal and what comes of it."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.prompt = len(ids)
        self.ids: list[int] = []
        """The tokens that were released, those of the prompt first."""
        self._ends: list[Finished] = []
        self._ended = threading.Event()
        nobody = Nobody()
        sampling = Sampling(max_new_tokens=_NEW)
        self.request = GenerationRequest(
            f"rehearsal-{uuid.uuid4().hex}", tuple(ids), sampling, nobody, nobody, include_tokens=True
        )

    def emit(self, events: Sequence[tuple[str, Event]]) -> None:
        for _, event in events:
            if isinstance(event, Finished):
                self._ends.append(event)
                self._ended.set()
            elif event.tokens is not None:
                self.ids.extend(event.tokens.token_ids)

    def finish(self, name: str, timeout: float) -> None:
        """Wait for the end. ModelError where there is none, or some token was not scored."""
        if not self._ended.wait(timeout):
            raise ModelError(
                f"{name} generated nothing within {timeout:g} s of starting; it cannot be served"
            )
        end = self._ends[0]
        if end.reason is FinishReason.ERROR or not end.coverage.complete:
            cause = str(end.error or "tokens were not scored")
            raise ModelError(f"{name} cannot be generated from: {cause}; the error is in the log above")


def rehearse(
    engine: _SubmittingEngine, plain: LoadedModel, ids: Sequence[int], timeout: float = 300.0
) -> None:
    """Generate a few tokens greedily after two prompts and hold them against plain forward passes. Blocks.

    One prompt is `ids`; the other repeats it until it is longer than a pass, unless the context is not. ModelError
    where a generation fails, is not scored in full, or chooses tokens that the model would not.
    """
    most = min(plain.context - _NEW, _LONGEST)
    wanted = engine.rows + len(ids)
    length = wanted if wanted <= most else min(2 * len(ids), most)
    long = (list(ids) * (length // len(ids) + 1))[:length]
    generations = [_Rehearsal(prompt) for prompt in (ids, long)]
    for generation in generations:
        engine.submit(generation.request, generation.emit)
    name = type(plain.model).__name__
    for generation in generations:
        generation.finish(name, timeout)
    for generation in generations:
        _check(plain, generation, name)


@torch.no_grad()
def check_causal(plain: LoadedModel, ids: Sequence[int]) -> None:
    """Raise ModelError where tokens are read otherwise if others follow.

    Encoders that can be loaded as language models attend in both directions. What they read of a token would change
    with every token that is generated, and with the padding behind a shorter text.
    """
    # Two passes of one shape, so that rounding is the same in both wherever no token sees a later one.
    first, second = (_logits(plain, [*ids, *rest], 2 * len(ids))[: len(ids)] for rest in (ids, ids[::-1]))
    rounding = _ROUNDINGS * torch.finfo(plain.dtype).eps * first.abs().amax()
    if not bool((first - second).abs().amax() <= rounding):
        raise ModelError(
            f"{type(plain.model).__name__} reads a token otherwise if others follow, so it does not continue texts "
            "from left to right; it cannot be monitored"
        )


@torch.no_grad()
def check_prefixes(plain: LoadedModel, site: HookPoint, ids: Sequence[int], *, cached: bool = True) -> None:
    """Raise ModelError where tokens are read otherwise in a longer text, or behind a cache.

    `site` is the hook point that is read; `cached`: there are passes behind a cache. The beginning of a text is run
    alone, and what follows it behind the cache that this leaves; both are held against one pass over all of it.
    Attention that picks the best of the tokens before may pick others in a longer text: where scores are equal, their
    number decides. It is tried with many texts, in which it has to pick.
    """
    picks = _picked(plain)
    cut = picks + max(len(ids), min(picks, 64)) if picks else len(ids)
    length = min(cut + len(ids), plain.context)
    cut = min(cut, length - 2)
    if cut < 1 or plain.rope.regime(cut) != plain.rope.regime(length):
        return
    count = max(1, min(_MOST_TEXTS, _PICKED // length)) if picks else _TRIES
    texts = (random.Random(seed).choices(ids[1:] or ids, k=length - 1) for seed in range(count))
    differ = (_differs(plain, site, [ids[0], *text], cut, cached) for text in texts)
    if not (any(differ) if picks else all(differ)):
        return
    why = (
        f"{type(plain.model).__name__} reads a token of a longer text, or of one that runs in parts, otherwise than "
        "the same beginning alone"
    )
    if not picks:
        raise ModelError(
            f"{why}, so what is read of it means nothing; it cannot be monitored. Use another model"
        )
    raise ModelError(
        f"{why}: its attention picks {picks} of the tokens before, and where their scores are equal the length of the "
        f"text decides which. Set context_limit to {picks}, where it attends to all of them, or use a model that "
        "always does"
    )


def _picked(plain: LoadedModel) -> int:
    """How many tokens the attention of a model picks in a text that has more; 0 where it picks none."""
    picks = getattr(plain.model.config.get_text_config(), "index_topk", None)
    return picks if isinstance(picks, int) and 0 < picks < plain.context else 0


def _differs(plain: LoadedModel, site: HookPoint, text: Sequence[int], cut: int, cached: bool) -> bool:
    """True where a text is read otherwise whole than its first `cut` tokens alone, or the rest behind these."""
    with _residuals(plain, site) as read:
        _logits(plain, text, 1)
        whole = read()
        if not cached:
            _logits(plain, text[:cut], 1)
            return not alike(read(), whole[:cut], plain.dtype)
        run = CachedPasses(plain).run
        past, _ = run(text[:cut], None, cut)
        if not alike(read(), whole[:cut], plain.dtype):
            return True
        # As tokens are generated, and then a part of a prompt, unless the model runs none in parts.
        for size in (1, 1 if recurrent(plain.model) else len(text) - cut - 1):
            past, _ = run(text[cut : cut + size], past, len(text), cut)
            if not alike(read(), whole[cut : cut + size], plain.dtype):
                return True
            cut += size
    return False


@contextmanager
def _residuals(plain: LoadedModel, site: HookPoint) -> Iterator[Callable[[], Tensor]]:
    """Gives what the last pass of this thread read at a hook point, `[tokens, d_model]` in float32."""
    kept: list[Tensor] = []
    mine = threading.get_ident()

    def keep(_module: object, _args: object, output: object) -> None:
        if threading.get_ident() == mine:
            kept[:] = [hidden_of(output)[0].float().cpu()]

    # No other thread may be in a forward pass while a hook is registered or removed.
    with plain.passes:
        handle = site.register_forward_hook(keep)
        try:
            yield kept.pop
        finally:
            handle.remove()


def _check(plain: LoadedModel, generation: _Rehearsal, name: str) -> None:
    if not (new := generation.ids[generation.prompt :]):
        return
    logits = _logits(plain, generation.ids[:-1], len(new))
    chosen = logits.gather(-1, torch.tensor(new)[:, None])[:, 0]
    behind = (logits.amax(-1) - chosen) / (logits.amax(-1) - logits.amin(-1))
    if not bool((behind <= _TIE).all()):
        raise ModelError(
            f"{name} does not compute the same in the engine as in a plain pass; it cannot be served"
        )


@torch.no_grad()
def _logits(plain: LoadedModel, ids: Sequence[int], last: int) -> Tensor:
    """Logits `[last, vocabulary]` of the last tokens in a plain pass over all of them."""
    accepted = inspect.signature(plain.model.forward).parameters
    fewer = {"logits_to_keep": last} if "logits_to_keep" in accepted else {}
    given = torch.tensor([list(ids)], device=plain.device)
    with plain.reading([len(ids)]):
        logits: Tensor = plain.model(input_ids=given, use_cache=False, **fewer).logits
    return logits[0, -last:].float().cpu()
