"""Dictionary training compared with SAELens's trainer: `python -m monitor.bench.dictionary_training`.

Both train a BatchTopK dictionary on the same activations, with the same batch size, k, warm-up and decay. Both
dictionaries are measured as they are saved (JumpReLU), on held-out activations. SAELens runs with several learning
rates, with and without autocast, and its best run counts. Times are of the training loop alone. This needs sae-lens
(the extra `interop`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor

from monitor.dictionary.formats import read_dictionary
from monitor.dictionary.sae import SparseAutoencoder
from monitor.dictionary.training.objectives import SLOWEST
from monitor.dictionary.training.settings import TrainSettings
from monitor.dictionary.training.trainer import DictionaryTrainer

AUTOCAST = {"on": (True,), "off": (False,), "both": (False, True)}


@dataclass(frozen=True)
class TrainingTask:
    """What both trainers are given."""

    train: Tensor
    """Activations to train on, `[tokens, d]`."""
    held_out: Tensor
    """Activations to measure on, `[tokens, d]`."""
    features: int
    k: int
    batch: int
    steps: int

    def batches(self) -> Iterator[Tensor]:
        """The training batches, in the same order every time. After the last one they begin again."""
        whole = self.train.shape[0] // self.batch
        for step in range(10**9):
            at = step % whole * self.batch
            yield self.train[at : at + self.batch].float()


@dataclass(frozen=True)
class TrainedScore:
    """Measures of one trained dictionary."""

    name: str
    """Name of the trainer."""
    rate: float
    """Learning rate."""
    fvu: float
    """Fraction of variance unexplained."""
    l0: float
    """Mean number of active features per token."""
    dead: float
    """Share of features that are never active on the held-out activations."""
    seconds: float
    """Wall-clock time of training."""
    cpu_seconds: float
    """CPU time of training."""


def ours(task: TrainingTask, rate: float | None) -> TrainedScore:
    """Train with this project's trainer."""
    settings = TrainSettings(
        task.features, task.steps * task.batch, k=task.k, batch=task.batch, learning_rate=rate
    )
    trainer = DictionaryTrainer(settings, task.train.shape[1])

    def loop() -> None:
        batches = task.batches()
        trainer.initialise(next(batches))
        for _ in trainer.run(batches):
            pass

    spent = _timed(loop)
    return _score("sae-monitor", trainer.settings.learning_rate or 0.0, trainer.dictionary(), task, spent)


def theirs(task: TrainingTask, rate: float, autocast: bool) -> TrainedScore:
    """Train with SAELens's trainer, and read the dictionary that it saves."""
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sae = BatchTopKTrainingSAE(
        BatchTopKTrainingSAEConfig(
            d_in=task.train.shape[1],
            d_sae=task.features,
            k=task.k,
            normalize_activations="expected_average_only_in",
            topk_threshold_lr=max(SLOWEST, 20 / task.steps),  # its own 0.01 does not converge in short runs
        )
    )
    config = SAETrainerConfig(
        total_training_samples=task.steps * task.batch,
        train_batch_size_samples=task.batch,
        lr=rate,
        lr_end=rate / 100,
        lr_scheduler_name="constant",
        lr_warm_up_steps=task.steps // 20,
        lr_decay_steps=task.steps // 4,
        autocast=autocast,
        dead_feature_window=max(20, task.steps // 20),
        n_batches_for_norm_estimate=4,
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer: Any = SAETrainer(cfg=config, sae=sae, data_provider=task.batches())
    with contextlib.redirect_stderr(io.StringIO()):
        spent = _timed(trainer.fit)
    with tempfile.TemporaryDirectory() as folder:
        sae.save_inference_model(folder)
        found = read_dictionary(Path(folder)).autoencoder
    return _score(f"SAELens{' autocast' if autocast else ''}", rate, found, task, spent)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


@torch.no_grad()
def _score(
    name: str, rate: float, sae: SparseAutoencoder, task: TrainingTask, spent: tuple[float, float]
) -> TrainedScore:
    x = task.held_out.float()
    error, active, fired = 0.0, 0.0, torch.zeros(task.features, dtype=torch.bool)
    for part in torch.split(x, 4096):
        a = sae.encode(part)
        error += float((sae.decode(a, part) - part).double().square().sum())
        active += float((a > 0).sum())
        fired |= (a > 0).any(0)
    spread = float((x - x.mean(0)).double().square().sum())
    return TrainedScore(name, rate, error / spread, active / len(x), float((~fired).double().mean()), *spent)


def synthetic(tokens: int, held_out: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Activations `[tokens, width]` to train on and to measure on: sparse sums of random directions."""
    random = torch.Generator().manual_seed(seed)
    true = 12 * width
    directions = torch.nn.functional.normalize(torch.randn(true, width, generator=random), dim=1)
    frequency = (torch.arange(true) + 10.0) ** -0.8
    frequency *= 40 / frequency.sum()

    def some(count: int) -> Tensor:
        active = torch.rand(count, true, generator=random) < frequency
        return (active * (0.5 + 2 * torch.rand(count, true, generator=random))) @ directions + 0.2

    return torch.cat([some(4096) for _ in range(-(-tokens // 4096))]), some(held_out)


def main() -> None:
    """Train with both trainers and print the results."""
    asked = _arguments()
    torch.set_num_threads(asked.threads)
    if asked.activations is not None:
        stored = load_file(asked.activations)
        train, held_out = stored["train"], stored["held_out"]
    else:
        train, held_out = synthetic(200 * 4096, 20_000, 256)
    task = TrainingTask(train, held_out, asked.features, asked.k, asked.batch, asked.steps)
    scores = []
    for _ in range(asked.repeat):
        scores += [
            theirs(task, rate, autocast) for autocast in AUTOCAST[asked.autocast] for rate in asked.rates
        ]
        scores.append(ours(task, asked.our_rate))
    _print(scores, task)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--activations",
        type=Path,
        help="safetensors file with `train` and `held_out`, both [tokens, d]; without it, synthetic activations",
    )
    parser.add_argument("--features", type=int, default=4096, help="number of features")
    parser.add_argument("--k", type=int, default=32, help="mean number of active features per token")
    parser.add_argument("--batch", type=int, default=4096, help="tokens per step")
    parser.add_argument("--steps", type=int, default=200, help="number of steps")
    parser.add_argument("--threads", type=int, default=1, help="number of torch threads")
    parser.add_argument("--repeat", type=int, default=1, help="how often all runs are repeated")
    parser.add_argument(
        "--autocast", choices=AUTOCAST, default="both", help="whether SAELens runs with bfloat16 autocast"
    )
    parser.add_argument(
        "--our-rate",
        type=float,
        default=None,
        help="learning rate of this trainer; by default its own choice",
    )
    parser.add_argument(
        "--rates",
        type=lambda text: [float(part) for part in text.split(",")],
        default=[1e-3],
        help="learning rates of SAELens, separated by commas",
    )
    return parser.parse_args()


def _print(scores: list[TrainedScore], task: TrainingTask) -> None:
    mine = [score for score in scores if score.name == "sae-monitor"]
    table = Table(title=f"{task.steps} steps of {task.batch}, {task.features} features, k {task.k}", box=None)
    for column in (
        "trainer",
        "rate",
        "FVU",
        "L0",
        "never active",
        "tokens/s",
        "tokens/CPU s",
        "speed of ours",
    ):
        table.add_column(column, justify="left" if column == "trainer" else "right")
    tokens = task.steps * task.batch
    fastest = min(score.cpu_seconds for score in mine)
    for score in scores:
        numbers = f"{score.rate:g}", f"{score.fvu:.4f}", f"{score.l0:.1f}", f"{100 * score.dead:.1f} %"
        speed = f"{tokens / score.seconds:,.0f}", f"{tokens / score.cpu_seconds:,.0f}"
        table.add_row(score.name, *numbers, *speed, f"{score.cpu_seconds / fastest:.1f}×")
    console = Console()
    console.print(table)
    other = min((score for score in scores if score not in mine), key=lambda score: score.fvu)
    best = min(mine, key=lambda score: score.fvu)
    console.print(
        f"FVU {best.fvu:.4f} against SAELens's best {other.fvu:.4f}; "
        f"{other.cpu_seconds / best.cpu_seconds:.1f} times its speed (CPU time)"
    )


if __name__ == "__main__":
    main()
