"""The check at the start: one short generation shows whether the engine computes what the model computes.

A family that continuous batching runs wrongly, or that crashes it at the first decoded token, is found here and
refused, not in the middle of somebody's request.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import torch

from monitor.errors import ModelError
from monitor.model.engine.liveness import Nobody
from monitor.model.engine.requests import Emit, Event, Finished, GenerationRequest
from monitor.model.offline.residuals import Harvester
from monitor.records import FinishReason, Sampling

_NEW = 4
"""Tokens that are generated."""
_TIE = 0.05
"""A chosen token may be so far below the best, as a share of the range of all logits: rounding breaks ties."""
_NAME = "rehearsal"


class _SubmittingEngine(Protocol):
    def submit(self, request: GenerationRequest, emit: Emit) -> None: ...


def rehearse(engine: _SubmittingEngine, plain: Harvester, ids: Sequence[int], timeout: float = 300.0) -> None:
    """Generate a few tokens greedily and hold them against plain forward passes. Blocks.

    ModelError where the generation fails, is not scored in full, or chooses tokens that the model would not.
    """
    tokens: list[int] = []
    ends: list[Finished] = []
    ended = threading.Event()

    def emit(events: Sequence[tuple[str, Event]]) -> None:
        for _, event in events:
            if isinstance(event, Finished):
                ends.append(event)
                ended.set()
            elif event.tokens is not None:
                tokens.extend(event.tokens.token_ids)

    nobody = Nobody()
    sampling = Sampling(max_new_tokens=_NEW)
    request = GenerationRequest(_NAME, tuple(ids), sampling, nobody, nobody, include_tokens=True)
    engine.submit(request, emit)
    name = type(plain.loaded.model).__name__
    if not ended.wait(timeout):
        raise ModelError(f"{name} generated nothing within {timeout:g} s of starting; it cannot be served")
    end = ends[0]
    if end.reason is FinishReason.ERROR or not end.coverage.complete:
        cause = str(end.error or "tokens were not scored")
        raise ModelError(f"{name} cannot be generated from: {cause}; the error is in the log above")
    _check(plain, tokens, len(ids), name)


@torch.no_grad()
def _check(plain: Harvester, ids: list[int], prompt: int, name: str) -> None:
    if len(ids) == prompt:
        return
    logits = plain.logits(torch.tensor([ids]))[0, prompt - 1 : -1].float().cpu()
    chosen = logits.gather(-1, torch.tensor(ids[prompt:])[:, None])[:, 0]
    behind = (logits.amax(-1) - chosen) / (logits.amax(-1) - logits.amin(-1))
    if not bool((behind <= _TIE).all()):
        raise ModelError(
            f"{name} does not compute the same in the engine as in a plain pass; it cannot be served"
        )
