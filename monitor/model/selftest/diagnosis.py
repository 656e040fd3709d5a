"""Find out why a self-test failed: undo each likely mistake in turn, and rank those that restore the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from monitor.dictionary.sae import SparseAutoencoder
from monitor.dictionary.storage.stored_autoencoder import StoredAutoencoder
from monitor.errors import DictionaryError, ModelError
from monitor.model.load.hook_points import ATTN_OUT, MLP_OUT, Place, parse_place
from monitor.model.load.model import LoadedModel
from monitor.model.runtime import LoadedPair
from monitor.model.selftest.capture import capture
from monitor.model.selftest.causes import Cause, evidence
from monitor.model.selftest.expected import Expected, far
from monitor.model.selftest.experiments import Experiment, try_arithmetic
from monitor.model.selftest.measurement import Measurement, ResidualRows, measure, rows_of
from monitor.model.selftest.texts import Texts

_LAYERS = 2
"""Number of layers before and after the given one that are tried."""
_LARGE = 1 << 26
"""Number of encoder weights from which experiments on the CPU use fewer tokens."""
_FITTED = 0.4
"""Added to the rank of an experiment in which a number was fitted; its success is weaker evidence."""
_SUPPORTED = 0.9
"""Rank of a cause with direct evidence that no experiment can test."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A possible cause, with the experiment that came closest to the expected numbers."""

    cause: Cause
    what: str
    """What was tried, or what the direct evidence is."""
    measured: Measurement | None
    """Numbers of the experiment; None where there is direct evidence only."""
    off: float
    """Greatest deviation, divided by the one that is allowed; at most 1 where the experiment restores the numbers."""
    rank: float
    """Sort key, most likely first: `off`, plus 0.4 for a fitted number, less 0.5 for direct evidence."""

    @property
    def restores(self) -> bool:
        """True where an experiment undid the mistake, and the numbers were then right."""
        return self.measured is not None and self.off <= 1


def diagnose(pair: LoadedPair, texts: Texts, rows: ResidualRows, expected: Expected) -> tuple[Suspect, ...]:
    """Possible causes, most likely first.

    For a dictionary that does not fit into memory, only other hook points and other BOS tokens are tried, because the
    other experiments change its weights.
    """
    tried = [*_other_places(pair, texts, expected), *other_tokens(pair, texts)]
    sae = _resident(pair.dictionary.autoencoder)
    if sae is None:
        return _ranked(tried, frozenset(), expected)
    loaded = pair.loaded
    if sae.encoder.numel() > _LARGE and loaded.device.type == "cpu":
        rows = rows.thinned(768)
    tried += try_arithmetic(rows, sae, expected)
    layer = loaded.layers[pair.place.layer]
    seen = evidence(sae, pair.dictionary.card, loaded.model, layer, texts.bos)
    return _ranked(tried, seen, expected)


def neighbours(pair: LoadedPair, texts: Texts) -> dict[Place, Measurement]:
    """Measurements of the dictionary at the layer before its own and at the layer after it."""
    return _at(pair, texts, [Place(at) for at in _around(pair, 1)])


def _ranked(tried: Sequence[Experiment], seen: frozenset[Cause], expected: Expected) -> tuple[Suspect, ...]:
    best: dict[Cause, Suspect] = {}
    for attempt in tried:
        off = far(attempt.measured, expected)
        rank = off + (_FITTED if attempt.fitted else 0) - (0.5 if attempt.cause in seen else 0)
        known = best.get(attempt.cause)
        if known is None or rank < known.rank:
            best[attempt.cause] = Suspect(attempt.cause, attempt.what, attempt.measured, off, rank)
    for cause in seen:
        held = best.get(cause)
        if held is None or held.rank > _SUPPORTED:
            best[cause] = Suspect(cause, _EVIDENT[cause], None, _SUPPORTED, _SUPPORTED)
    return tuple(sorted(best.values(), key=lambda suspect: suspect.rank))


_EVIDENT = {
    Cause.THRESHOLD: "all thresholds are 0",
    Cause.ENCODER_BIAS: "the encoder bias is 0 for every feature",
    Cause.DECODER_BIAS: "the decoder bias is 0 everywhere",
    Cause.NO_BOS: "the dictionary was trained with BOS, and the tokenizer puts none",
    Cause.EXTRA_BOS: "the dictionary was trained without BOS, and the tokenizer puts one",
    Cause.COARSE_DICTIONARY: "the dictionary's weights have few distinct values",
    Cause.COARSE_MODEL: "the model's weights are quantised",
}


def _other_places(pair: LoadedPair, texts: Texts, expected: Expected) -> Iterator[Experiment]:
    here = pair.place
    places = {Place(at): Cause.LAYER for at in _around(pair, _LAYERS)}
    for point in ("", MLP_OUT, ATTN_OUT):
        place = Place(here.layer, point)
        if place != here and _exists(pair.loaded, place):
            places[place] = Cause.POINT
    recorded = None if expected.place is None else parse_place(expected.place)
    if recorded is not None and recorded != here:
        places[recorded] = (
            Cause.LAYER if (recorded.point, recorded.side) == (here.point, here.side) else Cause.POINT
        )
    for place, found in _at(pair, texts, list(places)).items():
        yield Experiment(places[place], f"at {place}", found)


def _around(pair: LoadedPair, reach: int) -> list[int]:
    here, count = pair.place.layer, len(pair.loaded.layers)
    return [at for at in range(here - reach, here + reach + 1) if 0 <= at < count and Place(at) != pair.place]


def _exists(loaded: LoadedModel, place: Place) -> bool:
    try:
        loaded.site(place)
    except ModelError:
        return False
    return True


def _at(pair: LoadedPair, texts: Texts, places: Sequence[Place]) -> dict[Place, Measurement]:
    if not places:
        return {}
    captured = capture(pair.loaded, places, texts.ids)
    sae = pair.dictionary.autoencoder
    return {
        place: measure(rows_of(found, kinds=texts.kinds).to(pair.loaded.device), sae)
        for place, found in captured.items()
        if found[0].shape[-1] == sae.d_model
    }


def other_tokens(pair: LoadedPair, texts: Texts) -> Iterator[Experiment]:
    """Experiments: BOS before every text where there is none, or no BOS where there is one."""
    sae = pair.dictionary.autoencoder
    if texts.bos is not None:
        found = capture(pair.loaded, [pair.place], [ids[1:] for ids in texts.ids])[pair.place]
        rows = rows_of(found, kinds=texts.kinds).to(pair.loaded.device)
        yield Experiment(Cause.EXTRA_BOS, "without BOS", measure(rows, sae))
        return
    limit = pair.loaded.context
    for bos in _possible_bos(pair.loaded):
        found = capture(pair.loaded, [pair.place], [(bos, *ids)[:limit] for ids in texts.ids])[pair.place]
        rows = rows_of(found, kinds=texts.kinds).to(pair.loaded.device)
        yield Experiment(Cause.NO_BOS, f"with token {bos} before every text", measure(rows, sae))


def _possible_bos(loaded: LoadedModel) -> list[int]:
    """Token ids that may serve as BOS: the configuration's BOS, or the end-of-text tokens that some families use."""
    text = loaded.model.config.get_text_config()
    named = [
        getattr(text, "bos_token_id", None),
        loaded.tokenizer.eos_token_id,
        getattr(text, "eos_token_id", None),
    ]
    flat = [item for value in named for item in (value if isinstance(value, list) else [value])]
    return list(dict.fromkeys(int(item) for item in flat if item is not None))[:3]


def _resident(sae: SparseAutoencoder) -> SparseAutoencoder | None:
    """The dictionary with its weights in memory; None where they do not fit."""
    if not isinstance(sae, StoredAutoencoder):
        return sae
    try:
        return sae.whole()
    except DictionaryError:
        return None
