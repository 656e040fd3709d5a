"""What a plain forward pass of the model computes, held against vLLM at the start.

A tap in the wrong place, weights that vLLM read otherwise, or a family that it computes otherwise, is found here and
not in somebody's request.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.dictionary.residual_signals import residual_norm
from monitor.errors import ModelError
from monitor.model.engine.liveness import Nobody
from monitor.model.engine.requests import Emit, Event, Finished, GenerationRequest, Lease
from monitor.model.offline.residuals import Harvester
from monitor.model.runtime import LoadedPair
from monitor.records import Blocks, Decision, Sampling

_APART = {torch.float32: 0.01, torch.float64: 0.01}
_APART_ELSE = 0.1
"""Largest relative difference between the norms of a token's residual that were computed in two ways."""
_TIE = 0.05
"""A chosen token may be so far below the best, as a share of the range of all logits: rounding breaks ties."""

Submit = Callable[[GenerationRequest, Emit], None]


@dataclass(frozen=True, eq=False)
class Reference:
    """A short text as a plain forward pass of the model computes it."""

    ids: tuple[int, ...]
    norms: NDArray[np.float32]
    """`[tokens]` of the residual stream at the tapped layer."""
    logits: NDArray[np.float32]
    """`[vocabulary]` behind the last token."""
    name: str
    """Of the model's class."""
    most: float
    """Largest relative difference of norms that is allowed."""


@torch.no_grad()
def reference_of(pair: LoadedPair, ids: Sequence[int]) -> Reference:
    """Compute it; the model must still have its weights."""
    loaded = pair.loaded
    given = torch.tensor([list(ids)])
    residuals = Harvester(loaded, pair.place).residuals(given)[0]
    with loaded.reading([len(ids)]):
        logits = loaded.model(input_ids=given.to(loaded.device), use_cache=False).logits[0, -1]
    norms = residual_norm(residuals.float())
    most = _APART.get(loaded.dtype, _APART_ELSE)
    return Reference(
        tuple(ids), norms.cpu().numpy(), logits.float().cpu().numpy(), type(loaded.model).__name__, most
    )


class _Norms(Nobody):
    """Keeps the norms that it is shown; what was not scored ends its request."""

    def __init__(self) -> None:
        self.read: list[NDArray[np.float32]] = []

    def observe_batch(self, blocks: Blocks) -> dict[int, Decision]:
        self.read += [blocks.readings[blocks.rows(number)][:, 0].copy() for number in range(len(blocks))]
        return super().observe_batch(blocks)


def compare(submit: Submit, wanted: Reference, lease: Lease, timeout: float = 600.0) -> None:
    """Run the text in the engine and hold it against the reference. `lease` reads the residual's norm. ModelError."""
    ended, events, norms = threading.Event(), list[Event](), _Norms()

    def emit(found: Sequence[tuple[str, Event]]) -> None:
        events.extend(event for _, event in found)
        if isinstance(events[-1], Finished):
            ended.set()

    name = f"reference-{uuid.uuid4().hex}"
    request = GenerationRequest(
        name, wanted.ids, Sampling(max_new_tokens=1), norms, norms, include_tokens=True, lease=lease
    )
    submit(request, emit)
    if not ended.wait(timeout):
        raise ModelError(
            f"{wanted.name} generated nothing inside vLLM within {timeout:g} s; it cannot be served"
        )
    last = events[-1]
    assert isinstance(last, Finished)
    if last.error is not None or not last.coverage.complete:
        raise ModelError(
            f"{wanted.name} cannot be scored inside vLLM: {last.error or 'tokens were not read'}"
        )
    read = np.concatenate(norms.read)[: len(wanted.ids)]
    # Not `>`: what is no number must not pass.
    if not (np.abs(read - wanted.norms) <= wanted.most * wanted.norms).all():
        raise ModelError(
            f"inside vLLM the residual stream of {wanted.name} is not what a plain forward pass computes at the tapped "
            "layer; it cannot be monitored there. Use the built-in engine"
        )
    _check_token(wanted, last.ids[len(wanted.ids) :])


def _check_token(wanted: Reference, new: Sequence[int]) -> None:
    """Raise ModelError where the model would not have chosen the first new token. None: it ended the text."""
    if new:
        logits = wanted.logits
        behind = (logits.max() - logits[new[0]]) / (logits.max() - logits.min())
        if not behind <= _TIE:
            raise ModelError(
                f"{wanted.name} does not compute the same inside vLLM as in a plain pass; it cannot be served there"
            )
