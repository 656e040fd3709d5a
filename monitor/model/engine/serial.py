"""The serial batcher: one request per forward pass, for models that transformers' continuous batching cannot run.

Each request keeps the key-value cache that the model itself makes. The batcher has the same methods as `paged.Batcher`
and reports each pass to the same `Steps`.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
import torch
from torch import Tensor

from monitor.errors import ModelError
from monitor.model.compute_threads import release
from monitor.model.engine.cache_room import room_on
from monitor.model.engine.paged import Limits, Steps
from monitor.model.load.devices import why_spread
from monitor.model.load.model import LoadedModel
from monitor.model.tap.span import Span

_CHUNK = {"cpu": 512, "cuda": 2048}
"""Most tokens of a pass where the operator sets none."""
_PROBE = 16
"""Tokens of the pass that shows what a model's cache is."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Turn:
    """A request: what it has run is in its cache, what it will run stands behind it in `ids`."""

    request_id: str
    ids: list[int]
    """Its prompt and what was drawn so far."""
    room: int
    """Most tokens that its cache will hold."""
    position: int = 0
    """Number of tokens in its cache."""
    cache: Any = None
    regime: tuple[int, int] = (0, 0)
    """Lengths of sequences whose rotary frequencies the cache was made with."""


class SeparateBatcher:
    """Owns the thread on which requests take turns. Every request keeps its own keys and values until `remove`.

    A request is let in, first come first served, once there is room for all that it may run: it never waits again,
    and none is evicted.
    """

    static = False
    """No pass is a CUDA-graph replay."""

    def __init__(self, loaded: LoadedModel, limits: Limits, steps: Steps) -> None:
        self._loaded, self._limits, self._steps = loaded, limits, steps
        self._cached = CachedPasses(loaded)
        self._chunk = _chunk(loaded, limits)
        self._capacity = 0
        self._waiting: dict[str, _Turn] = {}
        self._turns: dict[str, _Turn] = {}
        """Whose turn it is comes first."""
        self._wake = threading.Condition()
        self._stopping = self._failed = False
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        """Look at the model's cache, decide how many tokens are held at once, start the thread. ModelError."""
        probe = [0] * min(_PROBE, self._loaded.context)
        with torch.no_grad():
            cache, _ = self._cached.run(probe, None, len(probe))
        if cache is None:
            raise ModelError(
                f"{type(self._loaded.model).__name__} hands out no cache, so what one request has read cannot be "
                "kept apart from the others'; it cannot be served"
            )
        self._capacity = self._tokens_that_fit(cache, len(probe))
        self._steps.ready(self._chunk)
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End the thread after the pass that runs; requests that still run are dropped."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def alive(self) -> bool:
        """True where the thread runs and takes requests."""
        return self._thread.is_alive() and not (self._stopping or self._failed)

    def running(self) -> int:
        """Requests that take turns."""
        return len(self._turns)

    def cache_used(self) -> float:
        """Share of the key-value cache that requests hold, 0 to 1. Any thread."""
        with self._wake:
            held = sum(turn.room for turn in self._turns.values())
        return min(1.0, held / self._capacity) if self._capacity else 0.0

    def add(self, request_id: str, prompt_ids: Sequence[int], max_new_tokens: int) -> None:
        """Queue a request. It draws tokens until `remove`: end-of-text and stop strings are the caller's business."""
        run = _Turn(request_id, list(prompt_ids), len(prompt_ids) + max_new_tokens)
        with self._wake:
            self._waiting[request_id] = run
            self._wake.notify()

    def remove(self, request_id: str) -> None:
        """Drop a request before the next pass and free its cache. Any thread."""
        with self._wake:
            self._waiting.pop(request_id, None)
            run = self._turns.pop(request_id, None)
            if run is not None:
                run.cache = None

    def _loop(self) -> None:
        try:
            with torch.no_grad():
                while (run := self._next()) is not None:
                    self._pass(run)
        except BaseException as error:  # noqa: BLE001  (whatever it is, every request must hear of it)
            self._failed = True
            _log.exception("a pass failed; the engine ends")
            self._steps.died(error)

    def _next(self) -> _Turn | None:
        """Whose turn it is; waits for somebody. None: stop."""
        with self._wake:
            while not self._stopping:
                self._admit()
                for name in self._turns:
                    run = self._turns[name] = self._turns.pop(name)
                    return run
                if not self._wake.wait(0.5):
                    release()
        return None

    def _admit(self) -> None:
        held = sum(run.room for run in self._turns.values())
        while self._waiting and len(self._turns) < self._limits.running:
            name, run = next(iter(self._waiting.items()))
            held += run.room
            if held > self._capacity and self._turns:  # alone, everybody has room
                return
            self._turns[name] = self._waiting.pop(name)

    def _pass(self, run: _Turn) -> None:
        self._begin_again_if_outgrown(run)
        ids = run.ids[run.position : run.position + self._chunk]
        span = Span(run.request_id, 0, len(ids), run.position, run.position + len(ids) == len(run.ids))
        self._steps.before([span], len(ids))
        if not self._runs(run):  # it ended while the pass was laid out
            return
        cache, logits = self._cached.run(ids, run.cache, len(run.ids), run.position)
        token = int(self._steps.draw(logits)[0]) if span.draws else None
        run.position += len(ids)
        if token is not None:
            run.ids.append(token)
        with self._wake:
            run.cache = cache if self._runs(run) else None
        del cache
        self._steps.after([span], [token], ids)

    def _begin_again_if_outgrown(self, run: _Turn) -> None:
        """Drop a cache that was made with the rotary frequencies of shorter sequences, and run the sequence again."""
        regime = self._loaded.rope.regime(len(run.ids))
        if regime != run.regime:
            run.position, run.cache, run.regime = 0, None, regime

    def _tokens_that_fit(self, cache: Any, held: int) -> int:
        """How many tokens can be cached on the devices where the cache of `held` tokens lies. ModelError."""
        limits, context = self._limits, self._loaded.context
        sizes: dict[torch.device, int] = {}
        for tensor in _tensors(cache):
            sizes[tensor.device] = sizes.get(tensor.device, 0) + tensor.nbytes
        return min(
            (
                room_on(device, size / held, memory=limits.memory).tokens(
                    limits.running, context, limits.cache_tokens
                )
                for device, size in sizes.items()
                if size
            ),
            default=limits.cache_tokens or limits.running * context,
        )

    def _runs(self, run: _Turn) -> bool:
        return self._turns.get(run.request_id) is run


class CachedPasses:
    """Passes over one sequence, each behind a cache of what went before, whatever the model calls that."""

    def __init__(self, loaded: LoadedModel) -> None:
        """ModelError where the model takes no cache."""
        self._loaded = loaded
        self._name = cache_name(loaded.model)
        accepted = inspect.signature(loaded.model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._options = {"use_cache": True} | ({"logits_to_keep": 1} if "logits_to_keep" in accepted else {})

    def run(self, ids: Sequence[int], cache: Any, length: int, position: int = 0) -> tuple[Any, Tensor]:
        """The cache after these tokens of a sequence of `length`, and the last one's logits `[1, vocabulary]`."""
        given = torch.tensor([list(ids)], device=self._loaded.device)
        where = self._positions(cache, position, len(ids))
        with self._loaded.reading([length]):
            found = self._loaded.model(input_ids=given, **{self._name: cache}, **self._options, **where)
        logits: Tensor = found.logits[0, -1:].to(self._loaded.device, torch.float32)
        return getattr(found, self._name, None), logits

    def _positions(self, cache: Any, position: int, count: int) -> dict[str, Tensor]:
        """The positions of a pass, where the model would take others: it asks its cache how long the past is.

        A cache whose first layer is recurrent does not count tokens (MiniMax).
        """
        try:
            told = int(cache.get_seq_length()) if self._takes_positions and cache is not None else position
        except (AttributeError, ValueError):  # a cache of another kind, or one that counts no tokens at all
            return {}
        if told == position:
            return {}
        return {"position_ids": torch.arange(position, position + count, device=self._loaded.device)[None]}


class NoBatcher:
    """Runs nothing and holds no cache: for servers that only score texts."""

    static = False
    """No pass is a CUDA-graph replay."""

    def __init__(self, loaded: LoadedModel, limits: Limits, steps: Steps) -> None:
        self._stopped = False

    def start(self) -> None:
        """Nothing to allocate."""

    def stop(self, timeout: float) -> None:
        """Nothing runs."""
        self._stopped = True

    def alive(self) -> bool:
        """True until it is stopped."""
        return not self._stopped

    def running(self) -> int:
        """No request ever runs."""
        return 0

    def cache_used(self) -> float:
        """There is no cache."""
        return 0.0

    def add(self, request_id: str, prompt_ids: Sequence[int], max_new_tokens: int) -> None:
        """The engine refuses requests before they come here."""
        raise ModelError("nothing is generated here")

    def remove(self, request_id: str) -> None:
        """There is no request."""


def _chunk(loaded: LoadedModel, limits: Limits) -> int:
    """Most tokens of a pass. Recurrent layers of some families forget what came before a second chunk."""
    if recurrent(loaded.model):
        return loaded.context
    return min(limits.batch_tokens or _CHUNK.get(loaded.device.type, 2048), loaded.context)


_PAGED = {"full_attention", "sliding_attention"}
"""Kinds of layers that the paged cache has pages for."""
_KEYS_AND_VALUES = _PAGED | {"chunked_attention", "attention", "moe", "sparse", "dense"}
"""Kinds of layers that carry keys and values from token to token, or nothing."""


def why_not_batched(loaded: LoadedModel) -> str:
    """Why continuous batching cannot run this model; empty where it can.

    Attention that does not go through transformers' attention interface ignores the paged cache: some of these
    families crash at the first decoded token, others run and silently read a wrong past. Recurrent layers keep what
    no page holds. The cache itself lies on one device.
    """
    model = loaded.model
    if why := why_spread(model):
        return why
    if loaded.rope.changes_within(loaded.context):
        return f"the rotary frequencies of {type(model).__name__} depend on the length of each sequence"
    name, config = type(model).__name__, model.config.get_text_config()
    if recurrent(model):
        return (
            f"{name} has recurrent layers, whose state the paged cache of continuous batching does not hold"
        )
    if unknown := kinds_of(model) - _PAGED:
        return f"{name} has layers ({', '.join(sorted(unknown))}) that the paged cache of continuous batching lacks"
    if not getattr(model, "_supports_attention_backend", False):
        return f"the attention of {name} cannot read the paged cache of continuous batching"
    if getattr(config, "kv_lora_rank", None) is not None:
        return (
            f"the keys and values of {name} (latent attention) have widths that the paged cache does not hold"
        )
    return ""


def recurrent(model: Any) -> bool:
    """True where some layer carries more from token to token than keys and values."""
    return bool(getattr(model, "_is_stateful", False)) or not kinds_of(model) <= _KEYS_AND_VALUES


def kinds_of(model: Any) -> set[str]:
    """The kinds of layers that the configuration lists; empty where all are of one kind."""
    return set(getattr(model.config.get_text_config(), "layer_types", None) or ())


_NAMES = ("past_key_values", "cache_params", "state")
"""What families call the past, in the arguments and in the results of a pass."""


def cache_name(model: Any) -> str:
    """What the model's forward pass calls the past. ModelError where it takes none."""
    accepted = inspect.signature(model.forward).parameters
    for name in _NAMES:
        if name in accepted:
            return name
    raise ModelError(
        f"the forward pass of {type(model).__name__} takes no cache ({', '.join(_NAMES)}); it cannot generate"
    )


def _tensors(cache: Any) -> Iterator[Tensor]:
    for layer in getattr(cache, "layers", ()):
        yield from (value for value in vars(layer).values() if isinstance(value, Tensor))
