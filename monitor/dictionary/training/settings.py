"""`TrainSettings`: all settings of a training run with their defaults, and the objectives to choose from."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace

from monitor.errors import ConfigurationError


class Objective(enum.StrEnum):
    """The loss that is minimised. Inputs x are scaled to norm √d on average, e = x̂ − x, and means are over tokens.

    paper      mean(‖e‖² + λ·Σ a_i‖W_dec_i‖), a = relu(p)                          (Templeton et al., 2024)
    jumprelu   mean(‖e‖² + λ·‖a‖₀), a = p·1[p > θ], θ trained                      (Rajamanoharan et al., 2024)
    batchtopk  mean(‖e‖²), a = relu(p) at the k·batch largest p_i‖W_dec_i‖, else 0 (Bussmann et al., 2024)
    """

    PAPER = "paper"
    JUMPRELU = "jumprelu"
    BATCHTOPK = "batchtopk"


def _usual_sparsity(objective: Objective, d_model: int) -> float:
    """A default λ that has a similar effect at every width d.

    It follows from how the terms of the loss grow: ‖e‖² with d, Σ a‖W‖ with √d, and ‖a‖₀ not at all. The paper's
    λ of 5 is taken to be for a width of 4096.
    """
    if objective is Objective.PAPER:
        return 5.0 * math.sqrt(d_model / 4096)
    return d_model / 512 if objective is Objective.JUMPRELU else 0.0


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one run. Lengths are in tokens or shares of the run, so that they do not depend on the batch size."""

    features: int
    tokens: int
    """Number of tokens to train on, over all processes."""
    objective: Objective = Objective.BATCHTOPK
    k: int = 32
    """BatchTopK: mean number of active features per token."""
    sparsity: float | None = None
    """λ of the other two objectives; None takes a default that depends on objective and width."""
    learning_rate: float | None = None
    """Peak learning rate of Adam; None takes 2e-3 · (4096 / features)^½."""
    batch: int = 4096
    """Number of tokens in a step, over all processes."""
    warm_up: float = 0.05
    """Share of the run over which the learning rate rises from zero."""
    sparsity_warm_up: float = 0.1
    """Share of the run over which λ rises from zero."""
    decay: float = 0.25
    """Share of the run, at its end, over which the learning rate falls to zero."""
    dead_after: int | None = None
    """Number of tokens without firing after which a feature counts as dead. None takes a twentieth of the run, but at
    least 20 batches and at most ten million tokens."""
    bandwidth: float = 0.05
    """JumpReLU: width of the kernel that estimates the thresholds' gradient, in units of √d/16."""
    buffer: int = 262_144
    """Number of activations that are held and shuffled at a time, per process."""
    clip: float = 1.0
    """The gradient is scaled down to this norm where it is larger."""
    seed: int = 0
    """Decides the initial weights and the order of activations."""
    precision: str = "bfloat16"
    """Type in which active features are searched for. Their values and all gradients are float32."""

    def __post_init__(self) -> None:
        """Raise ConfigurationError for settings with which nothing can be trained."""
        whole = {"features": self.features, "tokens": self.tokens, "batch": self.batch, "k": self.k}
        for name, value in whole.items():
            if value < 1:
                raise ConfigurationError(f"{name} is {value}; it must be at least 1")
        if self.tokens < self.batch:
            raise ConfigurationError(
                f"{self.tokens} tokens are less than one batch of {self.batch}; give more tokens, or a smaller batch"
            )
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ConfigurationError(f"the learning rate is {self.learning_rate}; it must be above 0")
        if self.sparsity is not None and not 0 <= self.sparsity < math.inf:
            raise ConfigurationError(f"sparsity is {self.sparsity}; it must be 0 or more")
        if self.k > self.features:
            raise ConfigurationError(
                f"k is {self.k}, more than the {self.features} features; give a smaller k"
            )
        if self.buffer < self.batch:
            raise ConfigurationError(
                f"the buffer of {self.buffer} tokens is smaller than a batch of {self.batch}; give a larger one"
            )
        for name in ("warm_up", "sparsity_warm_up", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it is a share of the run, 0 to 1")

    @property
    def steps(self) -> int:
        """Number of steps in the run."""
        return self.tokens // self.batch

    def resolved(self, d_model: int) -> TrainSettings:
        """The same settings with every None replaced by the default at this width."""
        rate = self.learning_rate or 2e-3 * math.sqrt(4096 / self.features)
        usual = _usual_sparsity(self.objective, d_model)
        sparsity = usual if self.sparsity is None else self.sparsity
        dead_after = self.dead_after or min(10_000_000, max(self.tokens // 20, 20 * self.batch))
        return replace(self, learning_rate=rate, sparsity=sparsity, dead_after=dead_after)
