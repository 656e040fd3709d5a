"""The map of a feature's neighbourhood: its nearest features by decoder cosine, laid out in the plane and drawn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from monitor.dictionary.cards.neighbours import nearest
from monitor.errors import ConfigurationError

_INK, _PAPER, _FOCUS = "#20242b", "#ffffff", "#b3132b"
_LONGEST = 28


@dataclass(frozen=True)
class Neighbourhood:
    """A feature and its nearest features, with positions in the plane."""

    features: tuple[int, ...]
    """The feature itself, then the others, nearest first."""
    cosines: NDArray[np.float64]
    """`[n]`: each feature's decoder cosine with the first; 1 for the first itself."""
    positions: NDArray[np.float64]
    """`[n, 2]`: coordinates in the plane, without a unit."""


def neighbourhood(decoder: Tensor, feature: int, size: int) -> Neighbourhood:
    """The `size` nearest features of one, laid out by t-SNE on cosine distance (van der Maaten & Hinton, 2008).

    `decoder` is `[features, d_model]`. The result is the same every time on one machine: t-SNE begins with principal
    components and has a fixed seed.
    """
    from sklearn.manifold import TSNE

    others, cosines = nearest(decoder, torch.tensor([feature], device=decoder.device), size)
    features = [feature, *others[0].tolist()]
    unit = normalize(decoder[features].float(), dim=-1).double().cpu().numpy()
    # On unit vectors squared Euclidean distance is 2 − 2·cosine, so the order of distances is that of cosines.
    projector = TSNE(
        n_components=2,
        perplexity=min(15.0, (len(features) - 1) / 3),
        init="pca",
        random_state=0,
        learning_rate="auto",
    )
    positions = np.asarray(projector.fit_transform(unit), np.float64)
    return Neighbourhood(tuple(features), np.r_[1.0, cosines[0].double().cpu().numpy()], positions)


def draw(around: Neighbourhood, labels: Sequence[str], density: Sequence[float] | None, out: Path) -> None:
    """Draw the map to the file `out`: a dot per feature, coloured by cosine, larger where the feature fires more often.

    Args:
        around: the features.
        labels: a label for each of them, or an empty text.
        density: share of tokens at which each is active; None draws all dots in one size.
        out: the picture's file; its ending decides the format.

    Labels are drawn in order of nearness, where they cover nothing. Raises ConfigurationError where matplotlib is not
    installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError("pictures need matplotlib: pip install 'sae-monitor[plots]'") from None

    figure = Figure(figsize=(11, 9), dpi=150, facecolor=_PAPER, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    dots = axes.scatter(
        around.positions[1:, 0], around.positions[1:, 1], s=_sizes(density, len(labels))[1:],
        c=around.cosines[1:], cmap="YlOrRd", vmin=0.0, edgecolors=_INK, linewidths=0.4, zorder=2,
    )  # fmt: skip
    axes.scatter(
        around.positions[0, 0],
        around.positions[0, 1],
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
    """Area of each dot in points², which grows with the logarithm of the feature's density."""
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
    """Write each label on the first of four sides of its dot where it covers no other label or dot."""
    taken = [_box_around(point, 4.0) for point in axes.transData.transform(around.positions)]
    for index, (position, feature, label) in enumerate(
        zip(around.positions, around.features, labels, strict=True)
    ):
        style = {"fontsize": 10, "fontweight": "bold"} if index == 0 else {"fontsize": 6.5}
        text = axes.annotate(
            f"{_short(label)} [{feature}]" if label else f"[{feature}]",
            position,
            xytext=(0, 0), textcoords="offset points", color=_FOCUS if index == 0 else _INK, zorder=5, **style,
        )  # fmt: skip
        box = _find_room(axes, text, renderer, taken, index)
        if box is None:
            text.remove()
        else:
            taken.append(box)


def _find_room(axes: Any, text: Any, renderer: Any, taken: list[Any], own: int) -> Any:
    """Move the text to a free side of its dot and return its box; None where no side is free.

    The text of the first dot is always drawn.
    """
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
