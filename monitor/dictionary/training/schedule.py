"""What changes during a run: learning rate and sparsity penalty.

Knows shares of a run. Does not know what uses them.
"""

from __future__ import annotations

from dataclasses import dataclass

from monitor.dictionary.training.settings import TrainSettings


@dataclass(frozen=True)
class Now:
    """The changing numbers at one step."""

    learning_rate: float
    sparsity: float


def now(settings: TrainSettings, step: int) -> Now:
    """The numbers at `step`, counted from 0, of a run with `resolved()` settings."""
    assert settings.learning_rate is not None
    assert settings.sparsity is not None
    done = (step + 1) / settings.steps
    rise = min(1.0, done / settings.warm_up) if settings.warm_up else 1.0
    left = (settings.steps - step) / settings.steps
    fall = min(1.0, left / settings.decay) if settings.decay else 1.0
    dense = max(0.0, 1 - done / settings.sparsity_warm_up) if settings.sparsity_warm_up else 0.0
    return Now(
        learning_rate=settings.learning_rate * rise * fall,
        sparsity=settings.sparsity * (1 - dense),
    )
