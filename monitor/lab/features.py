"""Looking at features with texts: what tells two sets apart, what fires together, what a feature does to the output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from monitor.dictionary.bundle import Dictionary
from monitor.dictionary.cards import card_file, firing_file
from monitor.dictionary.cards.labels import Labels
from monitor.dictionary.cards.neighbours import nearest
from monitor.dictionary.explore.contrast import FeatureContrast, TextPooling
from monitor.dictionary.explore.contrast import contrast as rank
from monitor.dictionary.explore.search import SearchHit
from monitor.dictionary.explore.search import search as find
from monitor.dictionary.explore.text_pooling import pool as pool_texts
from monitor.dictionary.labeller.dictionary_labels import FeatureLabel, label_dictionary
from monitor.errors import InputError
from monitor.lab.pair import Pair, feature_card, need_feature, need_statistics, open_labels
from monitor.model.offline.effects import Effect, Prompted

Progress = Callable[[int], None]
"""Is told how many further texts were read."""


def contrast_texts(
    pair: Pair,
    texts: Sequence[str],
    positive: Sequence[bool],
    *,
    pool: TextPooling = TextPooling.MAX,
    both_ways: bool = False,
    progress: Progress | None = None,
) -> list[FeatureContrast]:
    """Features by how well they separate positive from negative texts, the best first.

    Args:
        pair: From `open_pair`.
        texts: Both sides in any order.
        positive: For each text, whether it is of the positive side; two of each side at least.
        pool: How the tokens of a text make one number.
        both_ways: Whether features that mark the negatives are ranked among the others.
        progress: Is told how many further texts were read.

    Raises:
        InputError: A side has fewer than two texts, or a text has no token to read.
    """
    count = sum(positive)
    if count < 2 or len(texts) - count < 2:
        raise InputError(
            f"{count} positive and {len(texts) - count} negative texts; a contrast needs two of each side"
        )
    ids = pair.all_ids(texts, "contrast")
    pooled = pool_texts(
        ids, pair.residuals, pair.dictionary.autoencoder, limit=pair.norm_limit, progress=progress
    )
    return rank(pooled, list(positive), pool, both_ways=both_ways)


@dataclass(frozen=True)
class FoundFeature:
    """A feature that fires on given texts, and where."""

    hit: SearchHit
    peaks: tuple[str | None, ...]
    """For each text the token on which it fires most; None where it does not fire."""


def nearest_features(dictionary: Dictionary, feature: int, limit: int) -> list[tuple[int, float]]:
    """At most `limit` other features and the cosines of their decoder rows with this one's, nearest first.

    Raises NotFound where the dictionary does not have the feature.
    """
    need_feature(dictionary, feature)
    others, cosines = nearest(dictionary.autoencoder.decoder, torch.tensor([feature]), limit)
    return list(zip(others[0].tolist(), cosines[0].tolist(), strict=True))


def label_features(dictionary: Dictionary) -> Iterator[FeatureLabel]:
    """New automatic labels from the dictionary's cards, and from the places that `dictionary describe` drew.

    DictionaryError where the dictionary has no cards, or where either is of another dictionary.
    """
    feature_card(dictionary, 0)
    firings = firing_file.load(dictionary.path, dictionary.digest)
    return label_dictionary(list(card_file.load_cards(dictionary.path)), firings)


def search_texts(
    pair: Pair, texts: Sequence[str], limit: int, progress: Progress | None = None
) -> list[FoundFeature]:
    """Features that fire on all texts together but rarely otherwise, at most so many, the best first.

    `progress` is told how many further texts were read.
    """
    if not all(text.strip() for text in texts):
        raise InputError("a text is empty; give texts with at least one word")
    statistics = need_statistics(pair.dictionary)
    ids = pair.all_ids(texts, "search")
    pooled = pool_texts(
        ids, pair.residuals, pair.dictionary.autoencoder, limit=pair.norm_limit, progress=progress
    )
    return [FoundFeature(hit, _peaks(pair, hit, ids)) for hit in find(pooled, statistics, limit=limit)]


def _peaks(pair: Pair, hit: SearchHit, ids: list[list[int]]) -> tuple[str | None, ...]:
    return tuple(
        pair.speller.pieces(text)[peak] if peak else None for peak, text in zip(hit.peaks, ids, strict=True)
    )


@dataclass(frozen=True)
class TokenEffect:
    """What a feature does to one next token. Effects are on the token's logit against the mean of all logits."""

    text: str
    probability: float
    without: float
    """The token's probability with the feature taken away."""
    ablation: float
    """The exact difference that taking it away makes."""
    attribution: float
    """The same to first order, by gradients."""
    direct: float | None
    """The part that needs no later layer; None where the model's last norm was not found."""


@dataclass(frozen=True)
class ActivePosition:
    """A token of the prompt on which a feature is active."""

    position: int
    text: str
    reading: float
    """In units of the feature's recorded maximum."""
    attribution: float


@dataclass(frozen=True)
class FeatureEffect:
    """What one feature of a prompt does to the next token."""

    feature: int
    positions: tuple[ActivePosition, ...]
    explained: TokenEffect
    """The token that was asked about."""
    raised: tuple[TokenEffect, ...]
    lowered: tuple[TokenEffect, ...]


@dataclass(frozen=True)
class RankedFeature:
    """A feature of a prompt among those that matter most to the next token."""

    feature: int
    at: str
    """The token of the prompt where it matters most."""
    reading: float
    """There, in units of its recorded maximum."""
    effect: TokenEffect


class PromptEffects:
    """What the features of a prompt do to the next token."""

    def __init__(self, pair: Pair, prompt: str, token: str | None = None) -> None:
        """`token` is the next token to explain; the likeliest where none is given. InputError where it is several."""
        (self._ids,) = pair.all_ids([prompt], "--prompt")
        unembedding = pair.unembedding
        head = None if unembedding is None else lambda x: unembedding.head(unembedding.norm(x))
        self._maximum: Tensor = need_statistics(pair.dictionary).maximum
        self._pair = pair
        self._prompted = Prompted(
            pair.harvester,
            pair.dictionary.autoencoder,
            self._maximum,
            self._ids,
            head,
            limit=pair.norm_limit,
        )
        self._token = self._next(token)

    @property
    def token(self) -> str:
        """The token that is explained."""
        return self._text(self._token)

    @property
    def probability(self) -> float:
        """Its probability as the next token."""
        return float(self._prompted.probabilities[self._token])

    @cached_property
    def labels(self) -> Labels:
        """Names of features."""
        return open_labels(self._pair.dictionary)

    def of(self, feature: int, top: int) -> FeatureEffect:
        """One feature, with the `top` tokens that it raises and lowers most.

        Raises NotFound where the dictionary has no such feature, InputError where it is active on no token.
        """
        need_feature(self._pair.dictionary, feature)
        if not (self._maximum[feature] > 0 and (self._prompted.activations[:, feature] > 0).any()):
            raise InputError(f"feature {feature} is active on no token of this prompt; it has no effect here")
        found = self._prompted.effect(feature)
        return FeatureEffect(
            feature,
            self._positions(found),
            self._effect(found, self._token),
            tuple(self._effect(found, int(t)) for t in found.ablation.topk(top).indices),
            tuple(self._effect(found, int(t)) for t in (-found.ablation).topk(top).indices),
        )

    def ranking(self, top: int) -> list[RankedFeature]:
        """The features that matter most to the token by attribution, each taken away once.

        Attention sinks count for nothing: dictionaries do not explain them.
        """
        attribution = self._prompted.attribution(self._token)
        usable = (self._maximum > 0).to(attribution.device)
        total = torch.where(usable, attribution.sum(0), 0.0)
        rows = []
        for feature in total.abs().topk(top).indices.tolist():
            found = self._prompted.effect(feature)
            at = int(attribution[:, feature].abs().argmax())
            reading = float(found.activations[at]) / float(self._maximum[feature])
            rows.append(
                RankedFeature(feature, self._text(self._ids[at]), reading, self._effect(found, self._token))
            )
        return rows

    def _positions(self, found: Effect) -> tuple[ActivePosition, ...]:
        attribution = self._prompted.attribution(self._token)[:, found.feature]
        maximum = float(self._maximum[found.feature])
        return tuple(
            ActivePosition(
                position,
                self._text(token),
                float(found.activations[position]) / maximum,
                float(attribution[position]),
            )
            for position, token in enumerate(self._ids)
            if found.activations[position] > 0
        )

    def _effect(self, found: Effect, token: int) -> TokenEffect:
        return TokenEffect(
            self._text(token),
            float(self._prompted.probabilities[token]),
            float(found.after[token]),
            float(found.ablation[token]),
            float(self._prompted.attribution(token)[:, found.feature].sum()),
            None if found.direct is None else float(found.direct[token]),
        )

    def _next(self, wanted: str | None) -> int:
        if wanted is None:
            return int(self._prompted.probabilities.argmax())
        text = self._pair.loaded.text
        ids = [token.token_id for token in text.control.values() if token.text == wanted] or text.inner(
            wanted
        )
        if len(ids) != 1:
            raise InputError(
                f"--token {wanted!r} is {len(ids)} tokens; write one, with the space before it where it has one"
            )
        return int(ids[0])

    def _text(self, token: int) -> str:
        return str(self._pair.loaded.tokenizer.decode([token], clean_up_tokenization_spaces=False))
