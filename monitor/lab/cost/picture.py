"""Effect against damage as curves; drawing needs matplotlib (the extra `plots`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from monitor.errors import ConfigurationError
from monitor.lab.cost.edits import NOTHING, OWN
from monitor.lab.cost.points import Point

LEAST = 1e-5
"""Damage that is drawn at least: the axis is logarithmic."""


def draw_cost(points: Sequence[Point], title: str, path: Path) -> Path:
    """Three panels over the KL divergence on benign text: behaviour, the policy's own rule, the later probe."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError("pictures need matplotlib: pip install 'sae-monitor[plots]'") from error
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, 3)
    _panel(axes[0], points, "continuations judged unsafe", lambda p: p.unsafe.value, bars=True)
    whole = next((p.own_score for p in points if p.way == NOTHING), None) or 1.0
    own = "mean score of the rule, 1 without an edit"
    _panel(axes[1], points, own, lambda p: None if p.own_score is None else p.own_score / whole)
    _panel(axes[2], points, "held-out positives on which the later probe fires", lambda p: p.later_share)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7, fontsize="small")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path


def _panel(
    axis: Any,
    points: Sequence[Point],
    label: str,
    value: Callable[[Point], float | None],
    *,
    bars: bool = False,
) -> None:
    axis.set(
        xscale="log", xlabel="damage: KL on benign text, nats per token", ylabel=label, ylim=(-0.03, 1.2)
    )
    for number, way in enumerate(dict.fromkeys(p.way for p in points)):
        own = sorted((p for p in points if p.way == way), key=lambda p: p.kl)
        drawn = [(max(p.kl, LEAST), height, p) for p in own if (height := value(p)) is not None]
        if not drawn:
            continue
        x, y = [d[0] for d in drawn], [d[1] for d in drawn]
        if way == NOTHING:
            axis.axhline(y[0], color="0.5", linestyle=":", label=way)
            continue
        thick = 2.2 if way == OWN else 1.2
        (line,) = axis.plot(
            x, y, marker="o", markersize=4, linewidth=thick, color=f"C{number - 1}", label=way
        )
        if bars and way == OWN:
            low, high = [d[2].unsafe.low for d in drawn], [d[2].unsafe.high for d in drawn]
            axis.fill_between(x, low, high, color=line.get_color(), alpha=0.15)
    axis.grid(alpha=0.3)
