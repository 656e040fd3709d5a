"""Pictures of a training run and of a sweep, drawn from the contents of `training.json` and `sweep.json`.

matplotlib (the extra `plots`) is imported when a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monitor.errors import ConfigurationError


def draw_training(training: dict[str, Any], path: Path) -> Path:
    """Draw four panels: error and L0 over the run, the results, feature densities, decoder cosines.

    `training` is the contents of `training.json`. Returns `path`.
    """
    figure, axes = _canvas(2, 2, (11, 7))
    _history(axes[0][0], training["history"])
    _results(axes[0][1], training)
    _bars(axes[1][0], training["density_histogram_log10"], "share of tokens at which a feature fires, log10")
    _bars(
        axes[1][1],
        training["nearest_decoder_cosine_histogram"],
        "largest decoder cosine with another feature",
    )
    return _save(figure, path)


def draw_sweep(runs: Sequence[dict[str, Any]], path: Path) -> Path:
    """Draw two panels: loss against compute, and loss against learning rate, with a line per size.

    `runs` are rows of `sweep.json`. Returns `path`.
    """
    figure, axes = _canvas(1, 2, (11, 4.2))
    _scaling(axes[0][0], runs)
    _rates(axes[0][1], runs)
    return _save(figure, path)


def _canvas(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError("pictures need matplotlib: pip install 'sae-monitor[plots]'") from error
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path


def _history(axis: Any, history: Sequence[dict[str, Any]]) -> None:
    tokens = [point["tokens"] / 1e6 for point in history]
    axis.plot(tokens, [point["fvu"] for point in history], color="tab:blue", label="FVU")
    axis.plot(tokens, [point["dead"] for point in history], color="tab:red", label="dead share")
    axis.set(xlabel="million tokens", ylim=(0, 1))
    axis.legend(loc="upper right")
    other = axis.twinx()
    other.plot(tokens, [point["l0"] for point in history], color="tab:grey", linewidth=0.8)
    other.set(ylabel="L0 (grey)", yscale="log")


def _results(axis: Any, training: dict[str, Any]) -> None:
    found, settings = training["results"], training["settings"]
    lines = [
        f"{settings['features']} features, {settings['objective']}, {settings['tokens'] / 1e6:.1f} M tokens",
        f"held-out tokens        {found['held_out_tokens']:,}",
        f"L0                     {found['l0']:.1f}",
        f"FVU                    {found['fvu']:.4f}",
        f"cross-entropy clean    {found['ce_clean']:.4f}",
        f"          spliced      {found['ce_spliced']:.4f}",
        f"          zero         {found['ce_zero']:.4f}",
        f"          recovered    {found['ce_recovered']:.4f}",
        f"dead                   {100 * found['dead_share']:.2f} %",
        f"tokens per second      {training['speed']['tokens_per_second']:,}",
    ]
    axis.axis("off")
    axis.text(0.0, 0.98, "\n".join(lines), family="monospace", va="top", transform=axis.transAxes)


def _bars(axis: Any, histogram: dict[str, list[float]], label: str) -> None:
    axis.stairs(histogram["counts"], histogram["edges"], fill=True)
    axis.set(xlabel=label, ylabel="features")


def _scaling(axis: Any, runs: Sequence[dict[str, Any]]) -> None:
    for size in sorted({run["features"] for run in runs}):
        best = _best_by(runs, size, "flops")
        axis.plot(*zip(*best, strict=True), marker="o", markersize=3, label=f"{size} features")
    axis.set(xscale="log", yscale="log", xlabel="training compute, FLOP", ylabel="loss")
    axis.legend()


def _best_by(runs: Sequence[dict[str, Any]], size: int, name: str) -> list[tuple[float, float]]:
    """Pairs of a value of `name` and the lowest loss at it, of runs with `size` features, in ascending order."""
    found: dict[float, float] = {}
    for run in runs:
        if run["features"] == size:
            found[run[name]] = min(found.get(run[name], float("inf")), run["loss"])
    return sorted(found.items())


def _rates(axis: Any, runs: Sequence[dict[str, Any]]) -> None:
    for size in sorted({run["features"] for run in runs}):
        axis.plot(
            *zip(*_best_by(runs, size, "learning_rate"), strict=True), marker="o", markersize=3, label=size
        )
    axis.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="lowest loss")
    axis.legend(title="features")
