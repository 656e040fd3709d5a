"""The runtime on vLLM: the same engine, tap and rules as without it, on the passes of vLLM's core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn, Protocol

from monitor.errors import ConfigurationError, DictionaryError
from monitor.model.engine.engine import Engine
from monitor.model.engine.paged import Batching, Limits, Steps
from monitor.model.load.model import LoadedModel
from monitor.model.prompts import Prompter
from monitor.model.runtime import PROBE, LoadedPair, Runtime
from monitor.records import Signal, SuppressionNeeds, WatchPlan
from monitor.vllm.core import CoreBatcher, CoreOptions
from monitor.vllm.model import without_weights
from monitor.vllm.names import check_device, check_version
from monitor.vllm.operator import Seat
from monitor.vllm.reference import Reference, compare, reference_of
from monitor.vllm.scorer import CoreScorer, SharedSteps, TextBatching


class CoreBatching(Batching, TextBatching, Protocol):
    """What runs generations and texts."""


class CoreRuntime(Runtime):
    """A model that vLLM runs, with the tap in it, an engine that generates and a scorer. It does not inspect texts."""

    scorer: CoreScorer  # type: ignore[assignment]
    inspects = False
    seat: Seat
    """What the operators in its model do."""
    _finds_ends = True

    def __init__(
        self,
        pair: LoadedPair,
        watch: WatchPlan,
        clampable: Sequence[int] = (),
        *,
        core: CoreOptions,
        limits: Limits | None = None,
        needs: SuppressionNeeds | None = None,
        **options: Any,
    ) -> None:
        """A runtime of this pair, not started; `options` are those of `Runtime`. Lets go of the model's weights.

        Raises ConfigurationError where this version of vLLM was not tested, where vLLM runs on another kind of device
        than the pair is on, or where nothing is to be generated.
        """
        check_version()
        check_device(pair.loaded.device)
        if not (limits or Limits()).running:
            raise ConfigurationError(
                "with `--engine vllm`, max_running must be at least 1; to score alone, use the built-in engine"
            )
        ids = Prompter(pair.loaded)(PROBE, truncate=True, room=2, reply=False).ids
        self._reference: Reference = reference_of(pair, ids)
        pair = without_weights(pair)
        self._options = replace(core, longest=pair.loaded.context + 1)
        later = {plan.probe.layer for plan in (needs or SuppressionNeeds()).plans if plan.probe is not None}
        self._later_layers = tuple(sorted(later))
        self._batcher: TextBatching | None = None
        super().__init__(pair, watch, clampable, limits=limits, needs=needs, **options)

    def start(self) -> None:
        """Load the model into vLLM, and hold what it computes of a short text against a plain forward pass.

        Raises ModelError where vLLM cannot run the model, or computes something else.
        """
        self.engine.start()
        self.scorer.start()
        try:
            self.check()
        except BaseException:
            self.engine.stop(0)
            raise

    def check(self) -> None:
        """Hold what vLLM computes of a short text against a plain forward pass. Blocks. Raises ModelError."""
        lease = self.lease(WatchPlan((), (), (Signal.RESIDUAL_NORM,)), ())
        try:
            compare(self.engine.submit, self._reference, lease)
        finally:
            lease.release()

    def stop(self, grace: float) -> None:
        """Refuse new requests, wait up to `grace` seconds for running ones, end the rest."""
        self.engine.stop(grace)
        self.scorer.stop(grace)

    def prepare(self, needs: SuppressionNeeds) -> None:
        """As `Runtime.prepare`. Later probes can be read only at layers that were known when the model was compiled."""
        layers = {plan.probe.layer for plan in needs.plans if plan.probe is not None}
        if new := layers - set(self._later_layers):
            raise ConfigurationError(
                f"a policy's later probe reads layer {min(new)}, which cannot be added to a compiled model; restart "
                "the server"
            )
        super().prepare(needs)

    def inspect(self, ids: Sequence[int], top_k: int, gone: Callable[[], bool] = lambda: False) -> NoReturn:
        """Raise DictionaryError: inspecting encodes whole residuals, and vLLM keeps the watched features alone."""
        raise DictionaryError(
            "this server runs its model inside vLLM, where watched features alone are read; inspect texts on a server "
            "with the built-in engine, or watch the features with a policy"
        )

    def _make_engine(self, limits: Limits, waiting: int) -> Engine:
        seat = self.seat = Seat(self.tap, self.layer, self._later, self._later_layers)

        def batcher(_loaded: LoadedModel, limits: Limits, steps: Steps) -> CoreBatching:
            assert isinstance(steps, Engine)
            shared = SharedSteps(steps, lambda: getattr(self, "scorer", None))
            made = self._batcher = self._make_batcher(limits, shared, seat)
            return made

        return Engine(
            self.loaded,
            self._bank,
            self.tap,
            limits=limits,
            waiting=waiting,
            later=self._later,
            batcher=batcher,
            finds_ends=self._finds_ends,
        )

    def _make_batcher(self, limits: Limits, steps: SharedSteps, seat: Seat) -> CoreBatching:
        return CoreBatcher(limits, steps, self._options, seat)

    def _make_scorer(self, limits: Limits, waiting: int, streams: int) -> CoreScorer:  # type: ignore[override]
        return CoreScorer(self.loaded, self._running_batcher, waiting=waiting)

    def _running_batcher(self) -> TextBatching:
        assert self._batcher is not None
        return self._batcher
