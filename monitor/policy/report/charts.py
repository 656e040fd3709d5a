"""Charts as SVG: intervals, recall curves, and histograms of scores.

Colours are classes of the style sheet, so a chart works in light and dark. Lines are told apart by dashes as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monitor.policy.report.markup import element, safe

METHODS = {
    "policy": "this policy",
    "features": "features",
    "combined": "features and probe",
    "probe": "probe, per token",
    "linear_probe": "linear probe, means",
    "difference_of_means": "difference of means",
    "bag_of_words": "bag of words",
    "random_features": "random features",
}
DRAWN = ("policy", "probe", "features", "bag_of_words", "random_features")
"""Methods whose curves are drawn. More curves would cover each other."""

WIDTH = 560
"""Width of every chart, in units of its view box."""


@dataclass(frozen=True, slots=True)
class IntervalRow:
    """One row of an interval chart: a value with its 95 % interval."""

    name: str
    css: str
    """Suffix of the CSS class `c-…` that gives the colour."""
    value: float
    low: float
    high: float
    text: str = ""
    """Label beside the interval; where it is empty, the value is shown."""


def intervals(
    title: str, rows: Sequence[IntervalRow], low: float, high: float, mark: float | None = None
) -> str:
    """A chart with one row per interval, on an axis from `low` to `high`, with a vertical line at `mark`."""
    left, right, step = 164, 416, 26
    height = step * len(rows) + 34

    def x(value: float) -> float:
        return left + (right - left) * (min(max(value, low), high) - low) / (high - low)

    parts = [_line(x(t), 6, x(t), height - 26, "grid") for t in _ticks(low, high)]
    parts += [_text(x(t), height - 8, _number(t, high - low), "tick", "middle") for t in _ticks(low, high)]
    if mark is not None:
        parts.append(_line(x(mark), 2, x(mark), height - 26, "mark"))
    for number, row in enumerate(rows):
        y = 20 + step * number
        parts += [
            _text(left - 12, y + 4, row.name, "name", "end"),
            _line(x(row.low), y, x(row.high), y, f"whisker c-{row.css}"),
            f'<circle class="dot c-{row.css}" cx="{x(row.value):.1f}" cy="{y}" r="5"/>',
            _text(right + 14, y + 4, row.text or f"{row.value:.2f}", "value", "start"),
        ]
    return _svg(title, WIDTH, height, parts)


def curves(title: str, shares: Sequence[float], lines: Mapping[str, Sequence[float]]) -> str:
    """A chart of recall against the share of benign texts that fire (`shares`), which has a logarithmic axis."""
    left, right, top, bottom = 44, 330, 12, 232
    least = min(s for s in shares if s > 0)

    def x(share: float) -> float:
        return left + (right - left) * (1 - math.log(max(share, least)) / math.log(least))

    def y(recall: float) -> float:
        return bottom - (bottom - top) * recall

    parts = [_line(left, y(r), right, y(r), "grid") for r in (0, 0.25, 0.5, 0.75, 1)]
    parts += [_text(left - 8, y(r) + 4, f"{r:.0%}", "tick", "end") for r in (0, 0.5, 1)]
    shown = [s for s in (0.002, 0.01, 0.05, 0.2, 1.0) if s >= least]
    parts += [_text(x(s), bottom + 18, f"{100 * s:g} %", "tick", "middle") for s in shown]
    parts.append(_line(x(0.01), top, x(0.01), bottom, "mark"))
    parts.append(_text((left + right) / 2, bottom + 38, "benign texts that fire", "axis", "middle"))
    for number, name in enumerate(n for n in DRAWN if n in lines):
        points = [(x(s), y(r)) for s, r in zip(shares, lines[name], strict=True) if s > 0]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline class="curve c-{name}" points="{path}"/>')
        parts.append(_line(right + 22, 26 + 24 * number, right + 52, 26 + 24 * number, f"curve c-{name}"))
        parts.append(_text(right + 60, 30 + 24 * number, METHODS[name], "value", "start"))
    return _svg(title, WIDTH, 280, parts)


def distributions(title: str, rows: Sequence[tuple[str, str, Sequence[float]]], most: float = 2.0) -> str:
    """Histograms of scores as shares of the threshold, one for each (name, css, scores). The axis ends at `most`."""
    left, right, step, bins = 164, 416, 62, 40
    height = step * len(rows) + 40

    def x(value: float) -> float:
        return left + (right - left) * value / most

    parts = []
    for number, (name, css, shares) in enumerate(rows):
        base = 56 + step * number
        counts = [0] * bins
        for share in shares:
            counts[min(bins - 1, max(0, int(bins * share / most)))] += 1
        top = max(max(counts), 1)
        width = (right - left) / bins
        parts += [
            f'<rect class="bar c-{css}" x="{left + width * i:.1f}" y="{base - 42 * c / top:.1f}" '
            f'width="{width - 1:.1f}" height="{42 * c / top:.1f}"/>'
            for i, c in enumerate(counts)
            if c
        ]
        fired = sum(s >= 1 for s in shares) / max(len(shares), 1)
        parts.append(_line(left, base, right, base, "grid"))
        parts.append(_text(left - 12, base - 16, name, "name", "end"))
        parts.append(_text(left - 12, base, f"{len(shares)} texts", "tick", "end"))
        parts.append(
            _text(
                right + 14,
                base - 8,
                f"{fired:.1%} fire" if fired < 0.1 else f"{fired:.0%} fire",
                "value",
                "start",
            )
        )
    parts.append(_line(x(1), 6, x(1), height - 28, "mark"))
    parts += [
        _text(x(v), height - 8, f"{v:g}" + ("+" if v == most else ""), "tick", "middle")
        for v in (0, 0.5, 1, 1.5, most)
    ]
    return _svg(title, WIDTH, height, parts)


def _ticks(low: float, high: float) -> list[float]:
    span = high - low
    step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.25) if span / s <= 6 or s == 0.25)
    first = math.ceil(round(low / step, 6))
    return [round(step * i, 6) for i in range(first, int(round(high / step, 6)) + 1)]


def _number(value: float, span: float) -> str:
    return f"{100 * value:g} %" if span < 0.4 else f"{value:g}"


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, css: str, anchor: str) -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{safe(text)}</text>'


def _svg(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    return element(
        "svg",
        element("title", safe(title)),
        *parts,
        viewBox=f"0 0 {width} {height}",
        role="img",
        class_="chart",
    )
