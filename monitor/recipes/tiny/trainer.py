"""The training loop: weights, optimizers, state, and checkpoints from which a run goes on."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from monitor.recipes.tiny.gradients import Gradients, LocalGradients, WorkerGradients
from monitor.recipes.tiny.plan import Budget, PretrainingPlan
from monitor.recipes.tiny.sampler import RowSampler

Progress = Callable[["Pretrainer", float], None]


@dataclass(slots=True)
class Counters:
    """How far a run has come."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float = float("nan")


class Pretrainer:
    """One run: a model, its optimizers, its data and its counters.

    Gradients come from `workers` processes, or with 0 from this one (and then a run repeats bit by bit).
    """

    def __init__(
        self, plan: PretrainingPlan, config: LlamaConfig, sampler: RowSampler, workers: int = 0
    ) -> None:
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.sampler = sampler
        self.counters = Counters()
        self.model = LlamaForCausalLM(config)
        self.weights = dict(self.model.named_parameters())
        self.optimizers = _optimizers(self.weights, plan)
        self._gradients: Gradients = (
            WorkerGradients(plan, config, self.weights, workers)
            if workers
            else LocalGradients(plan, config, self.weights)
        )

    def step(self, progress: float) -> None:
        """One update of all weights at this point of the run."""
        mixture = self.plan.mixture(progress)
        loss = self._gradients(self.sampler.batch(self.plan.rows, mixture))
        torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        for optimizer, peak in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * self.plan.rate(progress)
            optimizer.step()
            optimizer.zero_grad()
        self.counters.steps += 1
        self.counters.tokens += self.plan.tokens_per_step
        self.counters.loss = loss

    def run(self, budget: Budget, tell: Progress) -> None:
        """Steps until the budget is used up; `tell` is called after each step with the progress.

        Raises:
            FloatingPointError: The loss is no longer a number.
        """
        before = self.counters.seconds
        started = time.monotonic()
        while (progress := budget.progress(self.counters.seconds, self.counters.tokens)) < 1:
            self.step(progress)
            self.counters.seconds = before + time.monotonic() - started
            if not self.counters.loss < float("inf"):
                raise FloatingPointError(
                    f"loss is {self.counters.loss} at step {self.counters.steps}: lower the learning rates "
                    "and resume from the last checkpoint"
                )
            tell(self, min(1.0, budget.progress(self.counters.seconds, self.counters.tokens)))

    def save(self, path: Path) -> None:
        """Writes everything that `restore` needs; a crash while writing leaves the last checkpoint whole."""
        state = {
            "weights": {name: weight.detach() for name, weight in self.weights.items()},
            "optimizers": [optimizer.state_dict() for optimizer, _ in self.optimizers],
            "sampler": self.sampler.state(),
            "counters": {name: getattr(self.counters, name) for name in Counters.__slots__},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, path)

    def restore(self, path: Path) -> None:
        """Goes on where the checkpoint was written.

        Raises:
            FileNotFoundError: There is no checkpoint.
            RuntimeError: It belongs to a model of another shape.
        """
        state: dict[str, Any] = torch.load(path, weights_only=True)
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state["weights"][name])
        for (optimizer, _), saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.sampler.restore(state["sampler"])
        self.counters = Counters(**state["counters"])


def _optimizers(
    weights: dict[str, Tensor], plan: PretrainingPlan
) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms, each with its peak rate."""
    matrices = [w for name, w in weights.items() if w.ndim == 2 and ".layers." in name]
    others = [w for name, w in weights.items() if not (w.ndim == 2 and ".layers." in name)]
    muon = torch.optim.Muon(matrices, lr=plan.muon_rate, weight_decay=plan.weight_decay, momentum=0.95)
    adam = torch.optim.AdamW(others, lr=plan.adam_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return [(muon, plan.muon_rate), (adam, plan.adam_rate)]
