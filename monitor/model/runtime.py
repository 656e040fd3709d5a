"""A model with its dictionary, loaded and ready to generate, score and inspect.

`load_pair` loads and checks both. `Runtime` puts the tap, the engine and the scorer around them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import structlog
import torch

from monitor.dictionary.bundle import Dictionary, load_dictionary
from monitor.dictionary.formats import DictionaryCard
from monitor.dictionary.residual_signals import sinks
from monitor.dictionary.storage.stored_autoencoder import StoredAutoencoder, readable_size
from monitor.errors import ConfigurationError, DictionaryError, ModelError, MonitorError, MonitoringFailed
from monitor.model.compute_threads import release
from monitor.model.engine.cache_room import NoRoom
from monitor.model.engine.detokenizer import Vocabulary
from monitor.model.engine.engine import Engine
from monitor.model.engine.liveness import can_see
from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import Lease
from monitor.model.engine.startup_check import check_causal, check_prefixes, rehearse
from monitor.model.engine.streams import StreamScorer
from monitor.model.load.hook_points import Place, names_a_place, parse_place
from monitor.model.load.model import LoadedModel, load_model
from monitor.model.offline.residuals import Harvester
from monitor.model.prompts import Prompter
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.clamps import Allowed, check_clamps
from monitor.model.tap.error_term import ErrorTermDropper
from monitor.model.tap.late_probes import LaterTaps
from monitor.model.tap.tap import Tap
from monitor.records import (
    CallerClamps,
    Clamp,
    Detection,
    Failure,
    FeatureReading,
    Signal,
    SuppressionNeeds,
    TokenSpellings,
    TokenText,
    TokenTexts,
    WatchPlan,
)

_log = structlog.get_logger(__name__)

PROBE = "The sun rose over the hills."
"""Text that is scored and generated from to test whether tokens can be scored at all."""
_ENCODED = 1 << 22
"""Activations that are held at once while a text is inspected."""


@dataclass(frozen=True)
class LoadedPair:
    """A loaded model and the dictionary that was trained on it. Policies are resolved against this pair."""

    loaded: LoadedModel
    dictionary: Dictionary
    place: Place
    """Hook point whose tensor the dictionary encodes."""
    norm_limit: float = math.inf
    """Norm above which a residual is an attention sink's (see `sinks`); infinite as long as it is not known. The
    self-test's `with_norm_limit` measures it where neither training nor describing recorded it."""

    @property
    def layer(self) -> int:
        """Index of the decoder layer that the hook point belongs to."""
        return self.place.layer


@dataclass(frozen=True, slots=True)
class InspectedToken:
    """A token of an inspected text with its strongest features, in descending order of their readings."""

    position: int
    token_id: int
    text: str
    """Where a character spans tokens, the last of them has it and others have none."""
    features: tuple[FeatureReading, ...]
    sink: bool = False
    """An attention sink, which no dictionary reads: it has no features."""


def load_pair(
    model: str | Path,
    dictionary: str | Path,
    *,
    layer: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    format: str | None = None,
    cache: Path | None = None,
) -> LoadedPair:
    """Load a model and its dictionary and check that they fit each other. Raises ModelError or DictionaryError.

    The tapped layer is `layer`; without it the layer that the dictionary was trained on; if that is unknown, the
    middle layer. Which tensor of that layer is read (residual stream, MLP output or attention output) depends on the
    dictionary alone.
    """
    loaded = load_model(model, device=device, dtype=dtype, cache=cache)
    found = load_dictionary(dictionary, format=format).fits(
        loaded.d_model, subtracts_mean=loaded.subtracts_mean
    )
    if found.statistics is None:
        raise DictionaryError(
            f"the dictionary in {dictionary} has no statistics.safetensors, so its features have no unit; run "
            "`sae-monitor dictionary describe` on it first"
        )
    place = place_of(found.card, layer, loaded.middle)
    loaded.site(place)  # raises where this model has no such layer or module
    known = found.norm_limit if place == place_of(found.card, None, loaded.middle) else None
    return LoadedPair(loaded, found, place, math.inf if known is None else known)


def place_of(card: DictionaryCard, layer: int | None, middle: int) -> Place:
    """The hook point of a dictionary: as its card says, but in `layer` where one is given.

    Where the card names no tensor, it is the residual stream after `layer`, else after the card's layer, else after
    `middle`. Raises ModelError where the card names a tensor that cannot be tapped.
    """
    if card.hook_name is None or (layer is not None and not names_a_place(card.hook_name)):
        return Place(next(value for value in (layer, card.layer, middle) if value is not None))
    place = parse_place(card.hook_name)
    return place if layer is None else replace(place, layer=layer)


class Runtime:
    """One model with one tap, an engine that generates and a scorer that only reads."""

    inspects = True
    """Whether all features of a text can be read, and not only those that are watched."""

    def __init__(
        self,
        pair: LoadedPair,
        watch: WatchPlan,
        clampable: Sequence[int] = (),
        *,
        limits: Limits | None = None,
        waiting: int = 256,
        reserve: int = 0,
        needs: SuppressionNeeds | None = None,
        callers: CallerClamps = CallerClamps.ANY,
        drop: bool = False,
        reads_only: bool = False,
        streams: int = 0,
    ) -> None:
        """A runtime of this pair, not started.

        `reads_only`: nothing is ever generated or clamped, so what stands behind the tapped layer is let go. `streams`:
        so many texts may be read at once as they grow (`StreamScorer`).
        """
        loaded, self.dictionary, self.layer = pair.loaded, pair.dictionary, pair.layer
        assert self.dictionary.statistics is not None
        self._maximum = self.dictionary.statistics.maximum
        self.loaded = loaded
        self.watch = watch
        precise = torch.float64 if loaded.dtype is torch.float64 else torch.float32
        site = loaded.site(pair.place)
        bank = self._bank = FeatureBank(
            self.dictionary.autoencoder,
            self._maximum,
            watch.features,
            clampable,
            reserve=reserve,
            plan=watch,
            device=loaded.device_of(site.module),
            dtype=precise,
        )
        self.tap = Tap(bank, site, norm_limit=pair.norm_limit)
        self._later = LaterTaps(loaded.layers, self.tap, self.layer)
        self.engine = self._make_engine(limits or Limits(), waiting)
        self._callers, self._drop = callers, drop
        self._reads_only = reads_only
        self.layers = len(loaded.layers)
        """Of the model, also where those behind the tapped one were let go."""
        self.prepare(replace(needs or SuppressionNeeds(), whole=drop or bool(needs and needs.whole)))
        self.scorer = self._make_scorer(limits or Limits(), 4 * waiting, streams)
        self.tokenise = Prompter(loaded)
        self._vocabulary = Vocabulary(loaded.tokenizer)
        self.harvester = Harvester(loaded, pair.place)
        self._probe = self.tokenise(PROBE, truncate=True, room=2, reply=False).ids

    def _make_engine(self, limits: Limits, waiting: int) -> Engine:
        return Engine(self.loaded, self._bank, self.tap, limits=limits, waiting=waiting, later=self._later)

    def _make_scorer(self, limits: Limits, waiting: int, streams: int) -> StreamScorer:
        return StreamScorer(
            self.loaded,
            self._bank,
            self.tap,
            waiting=waiting,
            streams=streams,
            held_tokens=None if limits.running else limits.cache_tokens,
            memory=limits.memory,
            alone=not self.engine.generates,
        )

    @property
    def context(self) -> int:
        """Maximum number of tokens of a request, prompt and response together."""
        return self.loaded.context

    @cached_property
    def longest_token(self) -> int:
        """Bytes of text that one token stands for at the most.

        In a vocabulary a token is written at least as long as its text: bytes and spaces have characters of their own.
        """
        return max(len(token.encode()) for token in self.loaded.tokenizer.get_vocab())

    @property
    def model_digest(self) -> str:
        """`sha256:` over the model's files."""
        return self.loaded.digest

    @property
    def dictionary_digest(self) -> str:
        """`sha256:` over the dictionary's files."""
        return self.dictionary.digest

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens, such as BOS and the markers between chat messages. They stand for no text."""
        return self.loaded.text.special_ids

    @property
    def token_text(self) -> TokenText:
        """A function from a token id to its text."""
        return self._vocabulary.text

    def placed(self, text: str) -> Sequence[tuple[int, int]]:
        """Where each token of a text stands in it: its first character, and the first behind it. (0, 0): nowhere."""
        return self.loaded.text.placed(text)[1]

    def placed_behind(self, token: int, text: str) -> tuple[Sequence[int], Sequence[tuple[int, int]]]:
        """Token ids of a text that stands behind a token, and where each stands in it. Raises InputError."""
        begins = token in self.special_ids and not self.loaded.text.first_only
        return self.loaded.text.placed_inner(text, continued=not begins)

    @property
    def token_spelling(self) -> TokenSpellings:
        """A function from a token id to its spelling."""
        return self._vocabulary.spelling

    @property
    def token_texts(self) -> TokenTexts:
        """A function from consecutive token ids to their texts."""
        return self._vocabulary.pieces

    def respelled(self, found: Detection, ids: Sequence[int]) -> Detection:
        """A detection whose evidence shows whole characters where tokens are parts of them. `ids`: of the request."""
        return self._vocabulary.respelled(found, ids)

    def start(self) -> None:
        """Attach the tap, start both threads, and compare short generations with plain forward passes.

        A model that continuous batching runs wrongly, or not at all, is run one request per pass. Raises ModelError
        where that does not compute what the model does either.
        """
        self.tap.attach()
        self._later.attach()
        try:
            self.harvester.residuals(
                torch.tensor([self._probe])
            )  # raises where the hook point gives no residuals
            check_causal(self.loaded, self._probe)
            check_prefixes(self.loaded, self.tap.site, self._probe, cached=self.engine.generates)
            self._start_engine()
        except MonitorError:
            self.engine.stop(0)
            raise
        except Exception as error:
            self.engine.stop(0)
            name, what = type(self.loaded.model).__name__, f"{type(error).__name__}: {error}"
            raise ModelError(f"{name} cannot be generated from ({what})") from error
        if self._reads_only:
            self._let_go_of_the_rest()
        self.scorer.start()
        release()

    def _let_go_of_the_rest(self) -> None:
        """Free the weights that no pass to the tapped layer needs: later layers, and a head of its own."""
        model, layers = self.loaded.model, self.loaded.layers
        del layers[self.layer + 1 :]
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        if head is not None and head.weight.data_ptr() != embedding.weight.data_ptr():
            head.weight = torch.nn.Parameter(head.weight.new_empty(0), requires_grad=False)
        for weight in (*model.parameters(), *model.buffers()):
            if weight.device.type == "cpu":
                # Weights are pages of a mapped file, which stays whole in memory for as long as one of them is used.
                weight.data = weight.data.clone()

    def _start_engine(self) -> None:
        try:
            self._rehearsed()
        except Exception as error:
            if self.engine.why_separate or isinstance(error, NoRoom):
                raise
            why = f"continuous batching failed its test at the start ({_briefly(error)})"
            self.engine.run_separately(why)
            self._rehearsed()
            # Only now: where both fail, the message is that of the last.
            _log.warning("every pass of this model runs one request, and requests take turns", why=why)

    def _rehearsed(self) -> None:
        self.engine.start()
        if self.engine.generates:
            rehearse(self.engine, self.loaded, self._probe)

    def stop(self, grace: float) -> None:
        """Refuse new requests, wait up to `grace` seconds for running ones, then remove the tap."""
        self.engine.stop(grace)
        self.scorer.stop(grace)
        self.tap.detach()
        self._later.detach()

    def prepare(self, needs: SuppressionNeeds) -> None:
        """Load what a policy set's suppression needs besides slots: probes at later layers, and the whole dictionary.

        Policies that drop the error term need the whole dictionary. Raises ModelError, DictionaryError or
        ConfigurationError where a need cannot be met.
        """
        if self._reads_only:
            return
        self._later.add(plan.probe for plan in needs.plans if plan.probe is not None)
        if not needs.whole or self.tap.dropper is not None:
            return
        if self.engine.captured:
            raise ConfigurationError(
                "a policy drops the error term, which cannot be added to captured CUDA graphs; restart the server"
            )
        self.tap.dropper = ErrorTermDropper(self.dictionary.autoencoder, self._bank.device, self._bank.dtype)

    def lease(self, watch: WatchPlan, clampable: Sequence[int]) -> Lease:
        """Reserve tap slots for a policy set's features, probes and signals until the lease is released.

        Requests that began under an older policy set keep their own lease. Raises ConfigurationError where the running
        tap has too little room.
        """
        named = (*watch.features, *(f for f in clampable if f not in set(watch.features)))
        others = self._bank.others
        if Signal.RECONSTRUCTION_ERROR in watch.signals and not others.whole and self.engine.captured:
            raise ConfigurationError(
                "a policy reads the reconstruction error, which cannot be added to captured CUDA graphs; restart the "
                "server"
            )
        with ExitStack() as held:
            held.callback(others.hold(watch))
            held.callback(self._bank.hold(named))
            columns = self._bank.columns(watch), others.where(watch)
            return Lease(columns[0], held.pop_all().close, columns[1])

    def first_lease(self) -> Lease:
        """The lease of the policy set that this runtime was constructed with."""
        return Lease(self._bank.first, self._bank.dismiss_first, self._bank.first_others)

    def unscored_passes(self) -> int:
        """Number of forward passes since the start in which at least one token could not be scored."""
        return self.engine.unscored_passes() + self.scorer.unscored_passes()

    def can_see(self, timeout: float = 5.0) -> bool:
        """True where tokens are scored now: passes since the last fault show it, or a few tokens of its own do.

        Blocks for up to `timeout` seconds for each of scoring and generating.
        """
        engine = self.engine if self.engine.generates else None
        return can_see(engine, self.scorer, self._probe, timeout)

    def check_clamps(self, clamps: Sequence[Clamp]) -> None:
        """Raise BadRequest, with fields such as `clamps[0].feature`, where a clamp of a request cannot be applied."""
        allowed = Allowed(self._callers, self._drop)
        check_clamps(clamps, self.dictionary.autoencoder.features, self._maximum, allowed=allowed)

    @torch.no_grad()
    def inspect(
        self, ids: Sequence[int], top_k: int, gone: Callable[[], bool] = lambda: False
    ) -> tuple[InspectedToken, ...]:
        """The `top_k` strongest features of every token, in units of their recorded maxima. Blocks.

        Encodes with the whole dictionary, some tokens at a time; ends early once `gone` says that nobody waits any
        more. Features that were never active over its corpus have no unit and are left out, and attention sinks have
        no features: no dictionary reads them. Raises DictionaryError where the dictionary is too large for memory,
        because every call would read all of its files; TooLong where the model cannot run so long a text;
        MonitoringFailed where the residuals are not finite, because no feature would look active.
        """
        autoencoder = self.dictionary.autoencoder
        if isinstance(autoencoder, StoredAutoencoder) and not autoencoder.resident:
            raise DictionaryError(
                f"inspecting needs all {autoencoder.features} features, {readable_size(autoencoder.cost)} in float32, "
                "and this dictionary is read from its files: name features, or watch them with a policy"
            )
        unit = torch.where(self._maximum > 0, 1 / self._maximum, torch.zeros(()))
        step = max(1, _ENCODED // autoencoder.features)
        texts = self._vocabulary.pieces(ids)
        found: list[InspectedToken] = []
        for _, residuals in self.scorer.chunks.residuals(ids, gone):
            for part in torch.split(residuals.cpu(), step):
                positions = torch.arange(len(found), len(found) + len(part))
                if gone():
                    break
                if not bool(part.isfinite().all()):
                    raise MonitoringFailed("the text could not be inspected", Failure.NON_FINITE)
                values, features = (autoencoder.encode(part) * unit).topk(
                    min(top_k, autoencoder.features), dim=-1
                )
                beyond = sinks(part, positions, self.tap.norm_limit).tolist()
                found += _inspected(len(found), ids, texts, values.tolist(), features.tolist(), beyond)
        return tuple(found)


def _inspected(
    first: int,
    ids: Sequence[int],
    texts: Sequence[str],
    values: Sequence[Sequence[float]],
    features: Sequence[Sequence[int]],
    beyond: Sequence[bool],
) -> Iterator[InspectedToken]:
    """Tokens from a position on, with their strongest features and readings, both in descending order."""
    for position, (mine, read, sink) in enumerate(zip(features, values, beyond, strict=True), first):
        active = () if sink else tuple(FeatureReading(f, v) for f, v in zip(mine, read, strict=True) if v > 0)
        yield InspectedToken(position, ids[position], texts[position], active, sink)


def _briefly(error: Exception) -> str:
    """The first sentence of what went wrong."""
    kind = "" if isinstance(error, MonitorError) else f"{type(error).__name__}: "
    return kind + (str(error).strip().splitlines() or [""])[0].split(". ")[0]
