"""Start an engine on a tiny model and collect what it emits."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from monitor.dictionary.sae import SparseAutoencoder
from monitor.model.engine.detokenizer import Vocabulary
from monitor.model.engine.engine import Engine
from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import Event, Finished, GenerationRequest, Lease, Released
from monitor.model.load.model import LoadedModel
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.tap import Tap
from monitor.records import Clamp, Sampling, ScoredToken, WatchPlan, token_records
from tests.model.tiny import Recorder, maxima, tokenizer

LAYER = 2
WATCHED = tuple(range(3, 19))
TEXTS = Vocabulary(tokenizer()).pieces


@dataclass
class Call:
    """One generation: what was asked, and every event."""

    ids: tuple[int, ...]
    observer: Recorder
    events: list[Event] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def emit(self, events: Sequence[tuple[str, Event]]) -> None:
        for _, event in events:
            self.events.append(event)
            if isinstance(event, Finished):
                self.done.set()

    def finished(self, timeout: float = 60.0) -> Finished:
        assert self.done.wait(timeout), "the generation never finished"
        last = self.events[-1]
        assert isinstance(last, Finished)
        assert sum(isinstance(event, Finished) for event in self.events) == 1
        return last

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Released))

    @property
    def tokens(self) -> list[ScoredToken]:
        parts = [event.tokens for event in self.events if isinstance(event, Released)]
        return token_records(parts, TEXTS)

    @property
    def readings(self) -> np.ndarray:
        return np.concatenate([block.readings for block in self.observer.blocks])


@dataclass
class Running:
    """A started engine with its parts."""

    engine: Engine
    tap: Tap
    bank: FeatureBank
    unit: Tensor
    count: int = 0

    def call(
        self,
        ids: tuple[int, ...],
        *,
        new: int = 12,
        clamps: Sequence[Clamp] = (),
        observer: Recorder | None = None,
        observed: object = None,
        include_tokens: bool = True,
        lease: Lease | None = None,
        logprobs: int | None = None,
        **sampling: object,
    ) -> Call:
        self.count += 1
        call = Call(ids, observer or Recorder())
        request = GenerationRequest(
            f"r{self.count}",
            ids,
            Sampling(max_new_tokens=new, **sampling),
            call.observer,
            observed or call.observer,
            tuple(clamps),
            include_tokens=include_tokens,
            lease=lease,
            logprobs=logprobs,
        )
        self.engine.submit(request, call.emit)
        return call


@contextmanager
def running(
    loaded: LoadedModel,
    sae: SparseAutoencoder,
    *,
    watched: Sequence[int] = WATCHED,
    clampable: Sequence[int] = (),
    limits: Limits | None = None,
    waiting: int = 256,
    plan: WatchPlan | None = None,
    norm_limit: float = math.inf,
    reserve: int = 0,
    **options: object,
) -> Iterator[Running]:
    unit = maxima(sae.features)
    features = watched if plan is None else plan.features
    bank = FeatureBank(sae, unit, features, clampable, reserve=reserve, plan=plan, device=loaded.device)
    tap = Tap(bank, loaded.layers[LAYER], norm_limit=norm_limit)
    engine = Engine(
        loaded, bank, tap, limits=limits or Limits(running=16, batch_tokens=96), waiting=waiting, **options
    )
    tap.attach()
    engine.start()
    try:
        yield Running(engine, tap, bank, unit)
    finally:
        engine.stop(0)
        tap.detach()
