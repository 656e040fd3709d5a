"""A model and its dictionary, opened for looking at features; the default pair unless told otherwise."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from monitor.dictionary.bundle import Dictionary, load_dictionary
from monitor.dictionary.cards import labels as labelling
from monitor.dictionary.cards.card_file import FeatureCard, load_card, load_header
from monitor.dictionary.cards.detokenizer import Detokenizer
from monitor.dictionary.cards.labels import Labels
from monitor.dictionary.cards.logit_lens import Unembedding
from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.residual_signals import sinks
from monitor.errors import DictionaryError, InputError, NotFound
from monitor.pairs.registry import chosen_dictionary, chosen_pair

if TYPE_CHECKING:
    from monitor.model.load.model import LoadedModel
    from monitor.model.offline.residuals import Harvester
    from monitor.model.prompts import DocumentReader
    from monitor.model.runtime import LoadedPair, Runtime


_FINAL_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f")


@dataclass(frozen=True, repr=False)
class Pair:
    """A model, its dictionary, and the residual stream at the dictionary's layer."""

    loaded: LoadedModel
    """The model with its tokenizer."""
    dictionary: Dictionary
    harvester: Harvester
    """Runs the model up to the dictionary's layer."""
    name: str = ""
    """Name of the pair (`monitor.pairs.registry`); empty where it has none, or runs with another model than its own."""

    def __repr__(self) -> str:
        """What the two are called, and their sizes."""
        layers, features = len(self.loaded.layers), self.dictionary.autoencoder.features
        return (
            f"Pair({self.loaded.name!r}, layer {self.harvester.layer} of {layers}, d_model {self.loaded.d_model}, "
            f"dictionary of {features} features)"
        )

    @property
    def bos(self) -> int | None:
        """The token that the tokenizer puts before a text; None where it puts none."""
        return self.loaded.text.bos

    def ids(self, text: str) -> list[int]:
        """Token ids of a text as the model reads it, cut to the model's context."""
        return self.loaded.text.ids(text)[: self.loaded.context]

    def all_ids(self, texts: Sequence[str], source: str) -> list[list[int]]:
        """Token ids of texts; InputError where one has nothing to read besides BOS."""
        found = [self.ids(text) for text in texts]
        for number, ids in enumerate(found, 1):
            if len(ids) < 2:
                raise InputError(f"{source}: text {number} has no token to read; give longer texts")
        return found

    @cached_property
    def loaded_pair(self) -> LoadedPair:
        """The two as the self-test takes them."""
        from monitor.model.runtime import LoadedPair

        return LoadedPair(self.loaded, self.dictionary, self.harvester.place)

    @cached_property
    def norm_limit(self) -> float:
        """The norm above which a residual is an attention sink's; see `monitor.dictionary.residual_signals.sinks`."""
        from monitor.model.selftest.self_test import with_norm_limit

        return with_norm_limit(self.loaded_pair).norm_limit

    def sinks(self, residuals: Tensor) -> Tensor:
        """`[…, time]` bool: which tokens are attention sinks, of residuals `[…, time, d_model]` of whole texts."""
        positions = torch.arange(residuals.shape[-2], device=residuals.device)
        return sinks(residuals, positions.expand(residuals.shape[:-1]), self.norm_limit)

    def residuals(self, ids: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Residuals `[batch, time, d_model]` of token ids `[batch, time]`; `lengths` where some rows are padded."""
        return self.harvester.residuals(ids, lengths)

    @property
    def document_reader(self) -> DocumentReader:
        """Token ids of documents, conversations among them, as the model is to read them."""
        from monitor.model.prompts import DocumentReader

        return DocumentReader(self.loaded)

    @property
    def speller(self) -> Detokenizer:
        """Spells token ids."""
        return Detokenizer(
            lambda ids: str(self.loaded.tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        )

    @property
    def unembedding(self) -> Unembedding | None:
        """The last norm and the unembedding; None where this kind of model keeps its last norm elsewhere."""
        head, norm = self.loaded.model.get_output_embeddings(), _final_norm(self.loaded.model)
        return None if head is None or norm is None else Unembedding(_in(norm), _in(head))


def open_dictionary(
    dictionary: str | Path | None = None,
    device: str = "cpu",
    format: str | None = None,
    measured: bool = True,
    pair: str | None = None,
) -> Dictionary:
    """The dictionary of a folder, a file or a hub repository, or that of a pair by its name, or the default one."""
    place = chosen_dictionary(pair, dictionary)
    return load_dictionary(place, format=format, device=device, measured=measured)


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=3)


def open_pair(
    model: str | Path | None = None,
    dictionary: str | Path | None = None,
    device: str = "auto",
    format: str | None = None,
    dtype: str = "auto",
    layer: int | None = None,
    measured: bool = True,
    *,
    pair: str | None = None,
    cache: Path | None = None,
    tell: Callable[[str], None] = _warn,
) -> Pair:
    """Open a pair by its name, or a model and its dictionary; the default pair where nothing is named.

    Args:
        model: A folder, a GGUF file, or a name on the Hugging Face hub. Beside `pair`, weights in place of its own. The
            name of a pair may stand here alone: `open_pair("tiny")`.
        dictionary: A folder, a file, or `hub:ORG/NAME/…`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `spread`.
        format: The dictionary's checkpoint family, where its files do not tell.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        layer: The decoder layer that is read, where the dictionary does not tell.
        measured: Whether the dictionary's recorded statistics are read, without which there are no readings.
        pair: The name of a pair; not together with `dictionary`.
        cache: Where a GGUF file is unpacked; by default the user's cache folder (SAE_MONITOR_CACHE).
        tell: Is told what must be known of the pair, such as that the model is not the one that belongs to it.

    Raises:
        ConfigurationError: Only one of model and dictionary is named, or there is no pair of this name.
        ModelError, DictionaryError: One cannot be loaded, or the two do not fit each other.
    """
    from monitor.model.load.model import load_model
    from monitor.model.offline.residuals import Harvester
    from monitor.model.runtime import place_of

    chosen = chosen_pair(pair, model, dictionary)
    loaded = load_model(chosen.model, device=device, dtype=dtype, cache=cache)
    if note := chosen.note(loaded.digest):
        tell(note)
    opened = load_dictionary(
        chosen.dictionary, format=format, device=str(loaded.device), measured=measured
    ).fits(loaded.d_model, subtracts_mean=loaded.subtracts_mean)
    harvester = Harvester(loaded, place_of(opened.card, layer, loaded.middle))
    return Pair(loaded, opened, harvester, chosen.name(loaded.digest))


def served_pair(runtime: Runtime, name: str = "") -> Pair:
    """The pair that a server runs, for looking at its features beside the requests."""
    return Pair(runtime.loaded, runtime.dictionary, runtime.harvester, name)


def need_statistics(dictionary: Dictionary) -> FeatureStatistics:
    """The dictionary's statistics; DictionaryError that says which command writes them."""
    if dictionary.statistics is None:
        raise DictionaryError(
            f"{dictionary.path} has no feature statistics; write them with `sae-monitor dictionary describe`"
        )
    return dictionary.statistics


def need_feature(dictionary: Dictionary, feature: int) -> int:
    """The feature itself; NotFound where the dictionary does not have it."""
    features = dictionary.autoencoder.features
    if not 0 <= feature < features:
        raise NotFound(f"feature {feature} does not exist; the dictionary has features 0 to {features - 1}")
    return feature


def feature_card(dictionary: Dictionary, feature: int) -> FeatureCard:
    """The feature's card; DictionaryError where the cards are missing or of another dictionary."""
    header = load_header(dictionary.path)
    if header.dictionary_digest != dictionary.digest:
        raise DictionaryError(
            f"the feature cards in {dictionary.path} are of another dictionary ({header.dictionary_digest}); "
            "run `sae-monitor dictionary describe` on this one again"
        )
    return load_card(dictionary.path, feature)


def open_labels(dictionary: Dictionary) -> Labels:
    """The labels beside the dictionary."""
    return labelling.load(dictionary.path, dictionary.digest)


def _final_norm(model: Any) -> nn.Module | None:
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
    found = (getattr(decoder, name, None) for name in _FINAL_NORMS)
    return next((norm for norm in found if isinstance(norm, nn.Module)), None)


def _in(module: nn.Module) -> Any:
    """The module as a function of float32 that computes in its own type."""
    dtype = next(module.parameters()).dtype
    return lambda x: module(x.to(dtype)).float()
