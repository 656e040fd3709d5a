"""`DictionaryTrainer`: the steps that train one dictionary, and the schedule of learning rate and sparsity.

A step scales the batch, computes loss and gradients, revives dead features, averages gradients over processes, clips
them, and applies Adam and the norm constraint. Runs on several processes (`torchrun`) average gradients with one
message of `torch.distributed`: gradients are computed by hand (`objectives`), so there is no backward pass that
DistributedDataParallel could hook into.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from monitor.dictionary.sae import SparseAutoencoder
from monitor.dictionary.training import objectives, processes
from monitor.dictionary.training.dead_features import IdleTokens, auxiliary_gradients, resample, resamples
from monitor.dictionary.training.network import Network
from monitor.dictionary.training.objectives import BatchResult
from monitor.dictionary.training.settings import Objective, TrainSettings
from monitor.errors import ConfigurationError, DictionaryError


@dataclass(frozen=True)
class StepRates:
    """The settings that change during a run, at one step."""

    learning_rate: float
    sparsity: float


def rates_at(settings: TrainSettings, step: int) -> StepRates:
    """Learning rate and sparsity penalty at `step`, counted from 0, of a run with `resolved()` settings."""
    assert settings.learning_rate is not None
    assert settings.sparsity is not None
    done = (step + 1) / settings.steps
    rise = min(1.0, done / settings.warm_up) if settings.warm_up else 1.0
    left = (settings.steps - step) / settings.steps
    fall = min(1.0, left / settings.decay) if settings.decay else 1.0
    dense = max(0.0, 1 - done / settings.sparsity_warm_up) if settings.sparsity_warm_up else 0.0
    return StepRates(
        learning_rate=settings.learning_rate * rise * fall,
        sparsity=settings.sparsity * (1 - dense),
    )


@dataclass(frozen=True)
class StepMetrics:
    """Measures of one step, averaged over processes."""

    step: int
    """Number of the step, counted from 0."""
    tokens: int
    """Number of tokens trained on so far, with those of this step."""
    loss: float
    fvu: float
    """Fraction of variance unexplained, of the batch."""
    l0: float
    """Mean number of active features per token."""
    dead: float
    """Share of features that have not fired for `dead_after` tokens."""
    learning_rate: float
    sparsity: float
    """λ at this step."""


class DictionaryTrainer:
    """Trains one dictionary on batches of unscaled residuals.

    Every process constructs the same trainer and passes batches of the same size. Raises ConfigurationError where the
    batch cannot be divided among the processes.
    """

    def __init__(
        self,
        settings: TrainSettings,
        d_model: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.settings = settings.resolved(d_model)
        if self.settings.batch % processes.size():
            raise ConfigurationError(
                f"a batch of {self.settings.batch} tokens cannot be divided equally among {processes.size()} "
                f"processes; give a multiple of {processes.size()}"
            )
        self.network = Network(self.settings, d_model, dtype).to(device)
        self.idle = IdleTokens(self.settings.features, device)
        self.scale = 1.0
        """Factor on the residuals that brings their mean norm to √d."""
        self.step_index = 0
        fused = dtype is torch.float32
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=1.0, betas=(0.9, 0.999), fused=fused)

    @property
    def local_batch(self) -> int:
        """Number of this process's tokens in a step."""
        return self.settings.batch // processes.size()

    def initialise(self, sample: Tensor) -> None:
        """Set input scale and initial biases from a sample of residuals `[tokens, d]`, before the first step."""
        sample = sample.to(self.network.encoder)
        norm = float(processes.mean(sample.norm(dim=1).mean()))
        if not norm > 0:
            raise DictionaryError("the residuals to train on are all zero; give another model or layer")
        self.scale = sample.shape[1] ** 0.5 / norm
        self.network.initialise(processes.mean(sample.mean(0)) * self.scale)

    def run(self, batches: Iterator[Tensor]) -> Iterator[StepMetrics]:
        """Train until the run's last step or the last batch. Batches are unscaled residuals `[local_batch, d]`."""
        while self.step_index < self.settings.steps:
            batch = next(batches, None)
            if batch is None:
                return
            yield self.step(batch)

    @torch.no_grad()
    def step(self, batch: Tensor) -> StepMetrics:
        """Do one step on unscaled residuals `[local_batch, d]`. Raises DictionaryError where the loss is not finite."""
        x = batch.to(self.network.encoder) * self.scale
        current = rates_at(self.settings, self.step_index)
        result = objectives.loss_and_gradients(self.network, x, self.settings, current.sparsity)
        self.idle.update(result.fired, x.shape[0] * processes.size())
        dead = self.idle.dead(self.settings.dead_after or 0)
        self._apply(result, self._dead_feature_gradients(x, result, dead), current)
        metrics = self._metrics(x, result, dead, current)
        self.step_index += 1
        return metrics

    def dictionary(self) -> SparseAutoencoder:
        """The dictionary as trained so far, for unscaled residuals."""
        return self.network.folded(self.scale)

    def _dead_feature_gradients(self, x: Tensor, result: BatchResult, dead: Tensor) -> dict[str, Tensor]:
        """Resample dead features at the steps for it, and return the auxiliary gradients of the other dead features."""
        seed = self.settings.seed + self.step_index
        relu = self.settings.objective is Objective.PAPER
        if resamples(self.settings, self.step_index):
            lasting = self.idle.dead((1 if relu else 2) * (self.settings.dead_after or 0))
            chosen = resample(self.network, x, result.error, lasting, seed)
            self._reset_moments(chosen)
            self.idle.tokens[chosen] = 0
            dead = dead.index_fill(0, chosen, False)
        return {} if relu else auxiliary_gradients(self.network, x, result.error, dead, seed)

    def _reset_moments(self, features: Tensor) -> None:
        """Set Adam's moments of these features to zero."""
        for parameter, state in self.optimiser.state.items():
            if parameter.shape[0] == self.settings.features:
                state["exp_avg"][features] = 0
                state["exp_avg_sq"][features] = 0

    def _apply(self, result: BatchResult, more: dict[str, Tensor], current: StepRates) -> None:
        for name, parameter in self.network.named_parameters():
            gradient = result.gradients[name]
            parameter.grad = gradient + more[name] if name in more else gradient
        parameters = list(self.network.parameters())
        processes.average([p.grad for p in parameters if p.grad is not None])
        self.network.project_gradient()
        torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = current.learning_rate
        self.optimiser.step()
        self.network.constrain()

    def _metrics(self, x: Tensor, result: BatchResult, dead: Tensor, current: StepRates) -> StepMetrics:
        spread = (x - x.mean(0)).square().sum() / x.shape[0]
        sums = torch.stack([result.loss, result.squared_error, spread, result.l0.to(x.dtype)])
        loss, error, spread_all, l0 = processes.mean(sums).tolist()
        if not torch.isfinite(torch.tensor(loss)):
            raise DictionaryError(
                f"the loss is {loss} at step {self.step_index}; lower the learning rate "
                f"(now {current.learning_rate:.2g}), or check that the model's residuals are finite"
            )
        return StepMetrics(
            step=self.step_index,
            tokens=(self.step_index + 1) * self.settings.batch,
            loss=loss,
            fvu=error / spread_all,
            l0=l0,
            dead=float(dead.double().mean()),
            learning_rate=current.learning_rate,
            sparsity=current.sparsity,
        )
