"""Requests to the engine and the scorer, and what comes back.

Events and outcomes are delivered pass by pass, on the engine's or the scorer's thread: whoever takes them must return
quickly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitor.errors import MonitorError
from monitor.records import (
    Action,
    Blocks,
    Clamp,
    Coverage,
    Decision,
    Detection,
    Failure,
    FinishReason,
    ObservedRequest,
    Observer,
    Sampling,
    ScoredTokens,
    Suppression,
    SuppressionPlan,
    TokenLogprobs,
)


def _unnoticed() -> None:
    """Nobody asks when a request began to run."""


KEPT = "a request's share was not given back in full"
"""What the operator is told where a request has ended and something that it held could not be released."""

Columns = slice | NDArray[np.intp]
"""Columns of a pass's readings `[rows, slots]`, in the order of a watch plan."""


@dataclass(eq=False)
class Lease:
    """A policy set's hold on the slots that it reads and clamps; `release` it once no request runs on the set.

    Whoever reads through it acquires it meanwhile: a request whose caller has left stays in a pass a moment longer.
    Thread-safe.
    """

    columns: Columns
    _release: Callable[[], None]
    others: NDArray[np.intp] | None = None
    """Where its probes and signals stand among those that are read."""
    _holders: int = field(default=1, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def acquire(self) -> None:
        """Hold the slots once more; `release` undoes it."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Undo one `acquire`, or the hold itself. The last one gives the slots to later policy sets."""
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            self._release()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A prompt to continue, watched by an observer."""

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    observer: Observer
    """What scores its tokens, for all requests of a policy set."""
    observed: ObservedRequest
    """The request, as the observer knows it."""
    clamps: tuple[Clamp, ...] = ()
    """The caller's clamps, beside those of the policies."""
    plans: tuple[SuppressionPlan, ...] = ()
    """What to look at while a policy suppresses, by policy."""
    include_tokens: bool = False
    logprobs: int | None = None
    """How many of the likeliest tokens to tell of at each token of the response, with their log-probabilities and that
    of the token itself. None tells nothing."""
    tokens_truncated: int = 0
    lease: Lease | None = None
    """What the observer is shown; None: the columns of the first policy set."""
    admitted: Callable[[], None] = _unnoticed
    """Called before its first pass, so that somebody may note when it began to run."""


class Released(NamedTuple):
    """Scored text that may be shown, and detections as they happen."""

    text: str
    tokens: ScoredTokens | None = None
    """Where the caller asked for them."""
    detections: tuple[Detection, ...] = ()
    """With evidence that may not be shown: see `released`."""
    released: int = 0
    """Where there are detections: positions below this one were released."""
    logprobs: tuple[TokenLogprobs, ...] = ()
    """Where the caller asked for them: of the tokens whose text is now released to its end."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a generation."""

    reason: FinishReason
    coverage: Coverage
    released: int
    """Positions below this one were released to the caller."""
    tokens_generated: int = 0
    tokens_clamped: int = 0
    """Tokens whose residual was edited."""
    suppressions: tuple[Suppression, ...] = ()
    """What became of the clamps of every policy that suppressed."""
    error: MonitorError | None = None
    ids: tuple[int, ...] = ()
    """Token ids of the prompt and of what was released of the response."""


Event = Released | Finished
Emit = Callable[[Sequence[tuple[str, Event]]], None]
"""Takes what a pass has for whoever submitted requests with it: request ids and events, in order."""


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """Tokens to score without generating."""

    request_id: str
    ids: tuple[int, ...]
    observer: Observer
    """What scores its tokens, for all requests of a policy set."""
    observed: ObservedRequest
    """The request, as the observer knows it."""
    prompt: int | None = None
    """How many of the tokens a caller wrote; the others count as a response. None: all."""
    include_tokens: bool = False
    tokens_truncated: int = 0
    lease: Lease | None = None
    """What the observer is shown; None: the columns of the first policy set."""
    admitted: Callable[[], None] = _unnoticed
    """Called before the pass that it is in, so that somebody may note when it began to run."""


@dataclass(frozen=True, slots=True)
class ScoreOutcome:
    """What scoring found; the verdict is the observer's."""

    coverage: Coverage
    tokens: ScoredTokens | None = None
    """Where the caller asked for them."""
    error: MonitorError | None = None


@dataclass(frozen=True, slots=True)
class StreamJob:
    """A sequence that is read as it grows: its tokens come in parts, of the prompt and then of the response."""

    request_id: str
    observer: Observer
    """What scores its tokens, for all requests of a policy set."""
    observed: ObservedRequest
    """The request, as the observer knows it."""
    lease: Lease | None = None
    """What the observer is shown; None: the columns of the first policy set."""
    admitted: Callable[[], None] = _unnoticed
    """Called before its first pass, so that somebody may note when it began to run."""


@dataclass(frozen=True, slots=True)
class StreamRead:
    """How far a sequence has been read, after a pass that read some of it."""

    coverage: Coverage
    """Of all that was fed and ran so far."""
    action: Action
    """The strongest enforced action so far."""
    detections: tuple[Detection, ...] = ()
    """New ones."""
    error: MonitorError | None = None
    """Why nothing more of it will be read; its rules have been told."""


Read = Callable[[Sequence[tuple[str, StreamRead]]], None]
"""Takes what a pass has for whoever opened streams with it: request ids and how far each was read."""

Done = Callable[[Sequence[tuple[str, ScoreOutcome]]], None]
"""Takes what a pass has for whoever submitted jobs with it: request ids and outcomes."""


def pass_failed(observer: Observer, observed: ObservedRequest, position: int) -> Decision:
    """What the rules say of a request whose tokens from a position on were not scored, because something failed.

    An observer that cannot take that in can no longer say what is closed, so the request is withheld.
    """
    nothing = np.zeros(1, np.int64)
    try:
        blocks = Blocks(
            slots=np.asarray([observed.slot], np.intp),
            responses=np.zeros(1, bool),
            starts=nothing + position,
            firsts=nothing,
            counts=nothing,
            token_ids=nothing[:0],
            readings=np.zeros((0, 0), np.float32),
            faults={0: Failure.PASS_FAILED},
        )
        return observer.observe_batch(blocks)[0]
    except Exception:  # noqa: BLE001  (nobody may wait for ever, and nothing unscored may look clean)
        return Decision(action=Action.BLOCK, failure=Failure.RULE_ERROR)
