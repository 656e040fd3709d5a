"""The charts of one policy: methods with intervals, recall curves, scores of texts, false positives by length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from monitor.policy.files.lock import CURVE, PolicyCard
from monitor.policy.fit.evaluation import CORPUS, REQUESTS, UNLIKE, BenignRate
from monitor.policy.report.charts import METHODS, IntervalRow, curves, distributions, intervals
from monitor.policy.report.markup import element, safe
from monitor.policy.report.records import Scores

FEWEST = 50
"""A corpus of another kind with fewer texts is not drawn, because its interval would fill the chart."""


def measures(card: PolicyCard) -> str:
    """The charts of a card: AUROC, recall and recall curves of all methods."""
    names = [name for name in METHODS if name in card.methods]
    methods = card.methods
    areas = [
        _interval(name, methods[name].auroc, methods[name].auroc_low, methods[name].auroc_high)
        for name in names
    ]
    recalls = [
        _interval(
            name, methods[name].recall, methods[name].recall_low, methods[name].recall_high, percent=True
        )
        for name in names
    ]
    kinds = f"{card.positive} positives, {card.negative} negatives, {card.hard_negative} look-alikes"
    figures = [
        figure(
            "Recall where 1 % of benign texts fire",
            "held-out examples, 95 % intervals",
            intervals("Recall at 1 % false positives by method", recalls, 0.0, 1.0),
        ),
        figure(
            "AUROC against own negatives and look-alikes",
            "0.5 is chance",
            intervals("AUROC by method", areas, 0.4, 1.0, mark=0.5),
        ),
    ]
    if card.curves:
        figures.append(
            figure(
                "Recall against false positives",
                "the line marks 1 %; logarithmic below",
                curves("Recall by share of benign texts that fire", CURVE, card.curves),
            )
        )
    head = element(
        "h3", "Measured on its own examples, each by a detector that never saw the example's group"
    )
    return (
        head
        + element("p", safe(f"{kinds} in {card.groups} groups"), class_="note")
        + element("div", *figures, class_="charts")
    )


def _interval(name: str, value: float, low: float, high: float, *, percent: bool = False) -> IntervalRow:
    text = f"{value:.0%} ({low:.0%}–{high:.0%})" if percent else f"{value:.2f} ({low:.2f}–{high:.2f})"
    return IntervalRow(METHODS[name], name, value, low, high, text)


def how_far(found: Sequence[Scores]) -> str:
    """Histograms of how far texts come; empty where there are no scores."""
    rows = [
        (scores.name, css, scores.shares)
        for scores, css in zip(found, ("positive", "negative", "benign"), strict=False)
        if scores.shares
    ]
    if not rows:
        return ""
    chart = distributions("Scores as shares of the threshold", rows)
    own = any(scores.name.startswith("own ") for scores in found)
    return element("h3", "How far its own examples come" if own else "How far unseen texts come") + figure(
        "Highest score of a text as a share of the threshold",
        "right of the line the rule fires; heights are relative within a row",
        chart,
    )


def false_positives(rates: Sequence[BenignRate]) -> str:
    """A chart of how often the policy fires on unseen benign texts, by length; empty where nothing was measured."""
    if not rates:
        return ""
    asked = rates[0].asked
    rows = list(by_length(rates))
    most = max([*(row.high for row in rows), 2 * (asked or 0.0), 0.02])
    chart = intervals(
        "Share of unseen benign texts that fire, by length", rows, 0.0, min(1.0, most), mark=asked
    )
    note = "95 % intervals" + (
        f"; the line is the rate that was asked for, {asked:.1%}" if asked is not None else ""
    )
    return element("h3", "False positives on benign texts that set no threshold") + figure(
        "Share that fires", note, chart
    )


def by_length(rates: Sequence[BenignRate]) -> Iterable[IntervalRow]:
    """Rows for benign requests, for all corpora by length, and for each corpus of a kind that no fit has read."""
    for name, mine in _gathered(rates):
        texts, fired = sum(r.texts for r in mine), sum(r.fired for r in mine)
        one = BenignRate("", "", None, "", 0, None, texts, fired)
        low, high = one.interval
        yield IntervalRow(name, "policy", fired / texts, low, high, f"{fired / texts:.1%} of {texts}")


def _gathered(rates: Sequence[BenignRate]) -> Iterable[tuple[str, list[BenignRate]]]:
    requests = [r for r in rates if r.kind == REQUESTS]
    if requests:
        yield "requests", requests
    others = [r for r in rates if r.kind == CORPUS]
    for low, high in sorted({(r.longer_than, r.up_to) for r in others}, key=lambda pair: pair[0]):
        name = f"over {low} tokens" if high is None else f"{low + 1} to {high} tokens"
        yield name, [r for r in others if r.longer_than == low]
    for source in dict.fromkeys(r.source for r in rates if r.kind == UNLIKE):
        mine = [r for r in rates if r.source == source]
        if sum(r.texts for r in mine) >= FEWEST:
            yield source, mine


def figure(title: str, note: str, chart: str) -> str:
    """A chart with its title and a note."""
    return element("figure", element("figcaption", safe(title), element("small", safe(note))), chart)
