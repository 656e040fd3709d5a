"""Features: found by words or by example texts, shown one by one, on a map of neighbours, and renamed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from monitor.errors import BadRequest, InputError, Violation
from monitor.http.calls import Exchange
from monitor.http.fields import Fields
from monitor.http.page.feature_book import FeatureBook, FeatureBrief, counted_by, need_book
from monitor.http.page.resources import CallerLeft, Gone, PageResources, number, one, query
from monitor.lab.features import contrast_texts, search_texts
from monitor.lab.pair import Pair
from monitor.rpc.wire.problems import Problems

MOST_FOUND = 60
MOST_BRIEFS = 200
MOST_TEXTS = 64
LONGEST_TEXT = 20_000
"""Characters of an example text."""
MOST_CHARACTERS = 100_000
"""Of all example texts of one question."""
MAP = 80
"""Neighbours on a map."""


class PageFeatures:
    """`/api/features…`."""

    def __init__(self, resources: PageResources) -> None:
        self._resources = resources

    @property
    def _book(self) -> FeatureBook:
        return need_book(self._resources.book)

    async def find(self, exchange: Exchange) -> None:
        """`GET /api/features?q=WORDS`: features by number, label and what stands in their contexts."""
        words, book = one(query(exchange), "q"), self._book
        if len(words) > 200:
            raise BadRequest(Violation("q", "write at most 200 characters"))
        found = await self._resources.work(exchange, lambda _: book.find(words, MOST_FOUND))
        await exchange.json({"features": [asdict(brief) for brief in found]})

    async def briefs(self, exchange: Exchange) -> None:
        """`GET /api/features/brief?f=1&f=2`: several features in a line each, and what policies do with them."""
        asked, book = query(exchange).get("f", []), self._book
        if len(asked) > MOST_BRIEFS:
            raise BadRequest(Violation("f", f"name at most {MOST_BRIEFS} features"))
        features = [number(text, "f", 0, book.dictionary.autoencoder.features - 1) for text in asked]
        found = await self._resources.work(
            exchange, lambda _: [self._told(brief) for brief in book.briefs(features)]
        )
        await exchange.json({"features": found})

    async def card(self, exchange: Exchange) -> None:
        """`GET /api/features/N`: contexts, promoted tokens and neighbours."""
        book, feature = self._book, self._feature(exchange)

        def work(_: Gone) -> dict[str, Any]:
            card = book.card(feature)
            told = self._told(book.brief(feature))
            if card is None:
                return told | {"card": None, "neighbours": []}
            near = [asdict(book.brief(other)) | {"cosine": cosine} for other, cosine in card.neighbours]
            return told | {"card": asdict(card), "neighbours": near}

        statistics = book.dictionary.statistics
        corpus = {} if statistics is None else {"tokens": statistics.tokens, "corpus": statistics.corpus}
        await exchange.json(await self._resources.work(exchange, work) | corpus)

    async def neighbours(self, exchange: Exchange) -> None:
        """`GET /api/features/N/map`: the nearest features, laid out in the plane."""
        book, feature = self._book, self._feature(exchange)
        found = await self._resources.work(exchange, lambda _: book.neighbours(feature, MAP))
        points = [
            asdict(point.brief) | {"cosine": point.cosine, "x": point.x, "y": point.y} for point in found
        ]
        await exchange.json({"points": points})

    async def examples(self, exchange: Exchange) -> None:
        """`POST /api/features/examples`: what texts have in common, and others not."""
        body = await self._resources.calls.read(exchange)
        problems = Problems()
        fields = Fields(body, problems)
        positive, negative = fields.texts("with"), fields.texts("without")
        fields.finish()
        if not positive:
            problems.add("with", "is empty; write at least one text that has what you look for")
        if len(positive) + len(negative) > MOST_TEXTS:
            problems.add("with", f"write at most {MOST_TEXTS} texts")
        if any(not text.strip() or len(text) > LONGEST_TEXT for text in (*positive, *negative)):
            problems.add("with", f"a text has 1 to {LONGEST_TEXT} characters")
        if sum(map(len, (*positive, *negative))) > MOST_CHARACTERS:
            problems.add("with", f"write at most {MOST_CHARACTERS} characters in all texts together")
        problems.raise_any()
        book, pair = self._book, self._resources.reading
        self._resources.charge((*positive, *negative))
        rows = await self._resources.work(
            exchange, lambda gone: _telling(book, pair, positive, negative, gone)
        )
        await exchange.json({"how": "contrast" if negative else "search", "features": rows})

    async def rename(self, exchange: Exchange) -> None:
        """`POST /api/features/N/label`: a label of this server's people; an empty one takes theirs away."""
        body = await self._resources.calls.read(exchange)
        problems = Problems()
        fields = Fields(body, problems)
        text = fields.text("label")
        fields.finish()
        problems.raise_any()
        book, feature = self._book, self._feature(exchange)
        await exchange.json(
            asdict(await self._resources.work(exchange, lambda _: book.rename(feature, text)))
        )

    def _feature(self, exchange: Exchange) -> int:
        return number(exchange.path["feature"], "feature", 0, self._book.dictionary.autoencoder.features - 1)

    def _told(self, brief: FeatureBrief) -> dict[str, Any]:
        counted = counted_by(self._resources.parts.active.now.policies.policies, brief.feature)
        return asdict(brief) | {"counted_by": counted}


def _telling(
    book: FeatureBook, pair: Pair, positive: tuple[str, ...], negative: tuple[str, ...], gone: Gone
) -> list[dict[str, Any]]:
    """Features by what texts have in common, or by what tells the two kinds apart, best first."""

    def read(_: int) -> None:
        if gone():
            raise CallerLeft

    if not negative:
        return [
            asdict(book.brief(found.hit.feature))
            | {
                "score": found.hit.score,
                "fired": found.hit.fired,
                "reading": found.hit.reading,
                "peaks": found.peaks,
            }
            for found in search_texts(pair, positive, MOST_FOUND, read)
        ]
    if len(positive) < 2 or len(negative) < 2:
        raise InputError("to tell texts apart, give at least two that have it and two that do not")
    marks = [True] * len(positive) + [False] * len(negative)
    density = book.dictionary.statistics.density if book.dictionary.statistics else None
    ranked = sorted(
        contrast_texts(pair, [*positive, *negative], marks, progress=read),
        # Few texts leave many ties, of which the rarest feature says most.
        key=lambda one: (-one.auroc, 0.0 if density is None else float(density[one.feature])),
    )[:MOST_FOUND]
    return [
        asdict(book.brief(found.feature)) | {"auroc_texts": found.auroc, "low": found.low, "high": found.high}
        for found in ranked
    ]
