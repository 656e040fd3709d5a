"""The checks at the start: whether the model reads from left to right, and the engine computes what the model computes.

A family that continuous batching runs wrongly, or that crashes it at the first decoded token, is found here, not in the
middle of somebody's request. Two requests run at once, and one prompt is longer than a pass.
"""

from __future__ import annotations

import inspect
import threading
import uuid
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from monitor.errors import ModelError
from monitor.model.engine.liveness import Nobody
from monitor.model.engine.requests import Emit, Event, Finished, GenerationRequest
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
