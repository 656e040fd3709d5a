"""One optimisation step after another.

Knows the order of things in a step: scale, loss and gradients, dead features, average over processes, clip,
Adam, constraint. Does not know where activations come from, nor what is reported.

Gradients are made by hand (`objectives`), so processes are kept together by averaging them in one message of
`torch.distributed` (start with `torchrun`); there is no backward pass that DistributedDataParallel could hook.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from monitor.dictionary.sae import SparseAutoencoder
from monitor.dictionary.training import objectives, processes
from monitor.dictionary.training.dead import Idle, auxiliary_gradients, resample, resamples
from monitor.dictionary.training.network import Network
from monitor.dictionary.training.objectives import Outcome
from monitor.dictionary.training.schedule import Now, now
from monitor.dictionary.training.settings import Objective, TrainSettings
from monitor.errors import ConfigurationError, DictionaryError


@dataclass(frozen=True)
class Metrics:
    """One step, averaged over processes."""

    step: int
    tokens: int
    """Read so far, this step included."""
    loss: float
    fvu: float
    """Mean ‖x̂ − x‖² of the batch, divided by that of the best constant."""
    l0: float
    dead: float
    """Share of features that are dead by the run's own measure."""
    learning_rate: float
    sparsity: float


class Trainer:
    """Trains one dictionary on batches of raw activations.

    `settings` are resolved here. All processes construct the same trainer and take batches of equal size.
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
                f"a batch of {self.settings.batch} tokens does not divide among {processes.size()} processes"
            )
        self.network = Network(self.settings, d_model, dtype).to(device)
        self.idle = Idle(self.settings.features, device)
        self.scale = 1.0
        """Factor on raw inputs; brings their mean norm to √d."""
        self.step_index = 0
        fused = dtype is torch.float32
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=1.0, betas=(0.9, 0.999), fused=fused)

    @property
    def local_batch(self) -> int:
        """Tokens in a step of this process."""
        return self.settings.batch // processes.size()

    def begin(self, sample: Tensor) -> None:
        """Measure scale and mean on raw activations `[tokens, d]`, before the first step."""
        sample = sample.to(self.network.encoder)
        norm = float(processes.mean(sample.norm(dim=1).mean()))
        if not norm > 0:
            raise DictionaryError("the activations to train on are all zero")
        self.scale = sample.shape[1] ** 0.5 / norm
        self.network.begin(processes.mean(sample.mean(0)) * self.scale)

    def run(self, batches: Iterator[Tensor]) -> Iterator[Metrics]:
        """Train until the run's last step or the last batch; batches are raw `[local_batch, d]`."""
        while self.step_index < self.settings.steps:
            batch = next(batches, None)
            if batch is None:
                return
            yield self.step(batch)

    @torch.no_grad()
    def step(self, batch: Tensor) -> Metrics:
        """One step on raw activations `[local_batch, d]`. DictionaryError where the loss is not finite."""
        x = batch.to(self.network.encoder) * self.scale
        current = now(self.settings, self.step_index)
        outcome = objectives.evaluate(self.network, x, self.settings, current.sparsity)
        self.idle.update(outcome.fired, x.shape[0] * processes.size())
        dead = self.idle.dead(self.settings.dead_after or 0)
        self._apply(outcome, self._revived(x, outcome, dead), current)
        metrics = self._metrics(x, outcome, dead, current)
        self.step_index += 1
        return metrics

    def dictionary(self) -> SparseAutoencoder:
        """The dictionary for raw activations, as trained so far."""
        return self.network.folded(self.scale)

    def _revived(self, x: Tensor, outcome: Outcome, dead: Tensor) -> dict[str, Tensor]:
        """Resample whom nothing else can wake, now and then; gradients for the other dead."""
        seed = self.settings.seed + self.step_index
        relu = self.settings.objective is Objective.PAPER
        if resamples(self.settings, self.step_index):
            asleep = self.idle.dead((1 if relu else 2) * (self.settings.dead_after or 0))
            chosen = resample(self.network, x, outcome.error, asleep, seed)
            self._forget(chosen)
            self.idle.tokens[chosen] = 0
            dead = dead.index_fill(0, chosen, False)
        return {} if relu else auxiliary_gradients(self.network, x, outcome.error, dead, seed)

    def _forget(self, features: Tensor) -> None:
        """Adam's moments of these features start anew."""
        for parameter, state in self.optimiser.state.items():
            if parameter.shape[0] == self.settings.features:
                state["exp_avg"][features] = 0
                state["exp_avg_sq"][features] = 0

    def _apply(self, outcome: Outcome, more: dict[str, Tensor], current: Now) -> None:
        for name, parameter in self.network.named_parameters():
            gradient = outcome.gradients[name]
            parameter.grad = gradient + more[name] if name in more else gradient
        parameters = list(self.network.parameters())
        processes.average([p.grad for p in parameters if p.grad is not None])
        self.network.project_gradient()
        torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = current.learning_rate
        self.optimiser.step()
        self.network.constrain()

    def _metrics(self, x: Tensor, outcome: Outcome, dead: Tensor, current: Now) -> Metrics:
        spread = (x - x.mean(0)).square().sum() / x.shape[0]
        sums = torch.stack([outcome.loss, outcome.squared_error, spread, outcome.l0.to(x.dtype)])
        loss, error, spread_all, l0 = processes.mean(sums).tolist()
        if not torch.isfinite(torch.tensor(loss)):
            raise DictionaryError(
                f"the loss is {loss} at step {self.step_index}; lower the learning rate "
                f"(now {current.learning_rate:.2g}) or look for broken activations"
            )
        return Metrics(
            step=self.step_index,
            tokens=(self.step_index + 1) * self.settings.batch,
            loss=loss,
            fvu=error / spread_all,
            l0=l0,
            dead=float(dead.double().mean()),
            learning_rate=current.learning_rate,
            sparsity=current.sparsity,
        )
