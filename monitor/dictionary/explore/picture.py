"""Draws a neighbourhood of features.

Knows colours, sizes and how labels keep out of each other's way. Does not know how places were found.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monitor.dictionary.explore.layout import Neighbourhood
from monitor.errors import ConfigurationError

_INK, _PAPER, _FOCUS = "#20242b", "#ffffff", "#b3132b"
_LONGEST = 28


def draw(around: Neighbourhood, labels: Sequence[str], density: Sequence[float] | None, out: Path) -> None:
    """Write the picture: a dot per feature, coloured by cosine, larger where it fires more often.

    Labels are drawn from the nearest feature outwards where there is room. Raises ConfigurationError where
    matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError("pictures need matplotlib; install `sae-monitor[plots]`") from None

    figure = Figure(figsize=(11, 9), dpi=150, facecolor=_PAPER, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    dots = axes.scatter(
        around.places[1:, 0], around.places[1:, 1], s=_sizes(density, len(labels))[1:],
        c=around.cosines[1:], cmap="YlOrRd", vmin=0.0, edgecolors=_INK, linewidths=0.4, zorder=2,
    )  # fmt: skip
    axes.scatter(
        around.places[0, 0],
        around.places[0, 1],
        s=260,
        c=_FOCUS,
        marker="*",
        edgecolors=_INK,
        linewidths=0.6,
        zorder=4,
    )
    axes.set(xticks=[], yticks=[])
    axes.margins(0.08)
    axes.spines[:].set_color("#c8ccd2")
    _title(axes, around, labels[0], density is not None)
    figure.colorbar(dots, ax=axes, shrink=0.5, pad=0.01, label="decoder cosine with the starred feature")
    with warnings.catch_warnings():
        # Labels may hold any character; one that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas.draw()
        _write_labels(axes, canvas.get_renderer(), around, labels)
        figure.savefig(out)


def _sizes(density: Sequence[float] | None, count: int) -> list[float]:
    """Area of each dot in points²: by the logarithm of how often the feature fires."""
    if density is None:
        return [40.0] * count
    return [12.0 + 22.0 * max(0.0, 5.0 + float(np.log10(max(share, 1e-6)))) for share in density]


def _title(axes: Any, around: Neighbourhood, label: str, sized: bool) -> None:
    named = f"  {_short(label, 80)}" if label else ""
    axes.set_title(f"feature {around.features[0]}{named}", loc="left", fontsize=13, color=_INK)
    size = " Larger dots fire more often." if sized else ""
    axes.set_xlabel(
        f"{len(around.features) - 1} nearest features by decoder cosine, t-SNE. Only nearness has a meaning.{size}",
        fontsize=8, color="#5b616b",
    )  # fmt: skip


def _write_labels(axes: Any, renderer: Any, around: Neighbourhood, labels: Sequence[str]) -> None:
    """Label dots in order of nearness, each at the first of four sides where it covers no other label or dot."""
    taken = [_box_around(point, 4.0) for point in axes.transData.transform(around.places)]
    for index, (place, feature, label) in enumerate(zip(around.places, around.features, labels, strict=True)):
        style = {"fontsize": 10, "fontweight": "bold"} if index == 0 else {"fontsize": 6.5}
        text = axes.annotate(
            f"{_short(label)} [{feature}]" if label else f"[{feature}]",
            place, xytext=(0, 0), textcoords="offset points", color=_FOCUS if index == 0 else _INK, zorder=5, **style,
        )  # fmt: skip
        box = _find_room(axes, text, renderer, taken, index)
        if box is None:
            text.remove()
        else:
            taken.append(box)


def _find_room(axes: Any, text: Any, renderer: Any, taken: list[Any], own: int) -> Any:
    """Move the text to a side with room and return its box; None where all sides are taken. The first stays."""
    frame = axes.get_window_extent(renderer)
    others = [box for index, box in enumerate(taken) if index != own]
    box = None
    for across, up, side, height in (
        (6, 0, "left", "center"),
        (-6, 0, "right", "center"),
        (0, 6, "center", "bottom"),
        (0, -6, "center", "top"),
    ):
        text.set(position=(across, up), ha=side, va=height)
        box = text.get_window_extent(renderer)
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        if inside and not any(box.overlaps(other) for other in others):
            return box
    return box if own == 0 else None


def _box_around(point: Any, reach: float) -> Any:
    from matplotlib.transforms import Bbox

    x, y = point
    return Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)


def _short(text: str, longest: int = _LONGEST) -> str:
    plain = text.replace("\n", " ").replace("$", r"\$")
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"
