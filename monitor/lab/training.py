"""The training of a dictionary for a model: the texts it reads, one run into a folder, and one run of a sweep."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from monitor.dictionary.formats import DictionaryCard
from monitor.dictionary.training import processes
from monitor.dictionary.training.report import TrainingReport
from monitor.dictionary.training.run import StepCallback, Storage, TrainingInputs, save_run, train_dictionary
from monitor.dictionary.training.settings import TrainSettings
from monitor.dictionary.training.stream import FORWARD
from monitor.dictionary.training.sweep import summary
from monitor.dictionary.training.text import TextSource, mixed, rows
from monitor.dictionary.training.trainer import StepMetrics
from monitor.errors import ConfigurationError
from monitor.model.load.model import LoadedModel, load_model
from monitor.model.offline.residuals import Harvester

LINE_SECONDS = 30.0
"""Seconds between two progress lines where standard error is no terminal."""
WEIGHTS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""In which types the weights of a dictionary can be stored."""


@dataclass(frozen=True)
class TrainingText:
    """The model whose activations a dictionary learns from, and the texts that the model reads."""

    model: str
    """A folder or a name on the hub."""
    layer: int | None
    """The decoder layer whose output is read; None for the middle one."""
    data: tuple[str, ...]
    """`PATH` or `PATH=SHARE`, shares relative to each other."""
    length: int
    """Tokens in a context, at most the model's."""
    held_out: int
    """Tokens that are kept apart and measured on."""
    device: str


@contextmanager
def together() -> Iterator[None]:
    """Join the other processes where `torchrun` started this one, and leave them at the end.

    Where nothing fails, all leave at the same time.
    """
    if dist.is_available() and dist.is_torchelastic_launched() and not dist.is_initialized():
        processes.join("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    except BaseException:
        processes.leave(together=False)
        raise
    processes.leave(together=True)


def open_subject(given: TrainingText) -> TrainingInputs:
    """Load the model and prepare the text. Raises ModelError or ConfigurationError."""
    sources = [TextSource.parse(text) for text in given.data]
    loaded = load_model(given.model, device=_device(given.device))
    harvester = Harvester(loaded, given.layer)
    length = min(given.length, loaded.context)
    bos = loaded.text.bos
    return TrainingInputs(
        rows=partial(_rows, loaded, sources, length, bos, False),
        held_out=_held_out(_rows(loaded, sources, length, bos, True), given.held_out, length),
        residuals=partial(_rough, harvester),
        exact_residuals=harvester.residuals,
        logits=partial(_logits, harvester),
        bos=bos,
        d_model=loaded.d_model,
        device=loaded.device,
        card=DictionaryCard(
            model_name=_name(given.model),
            hook_name=f"blocks.{harvester.layer}.hook_resid_post",
            layer=harvester.layer,
            prepend_bos=bos is not None,
            context_size=length,
            dataset=", ".join(source.path.name for source in sources),
        ),
    )


def storage_of(folder: Path, *, restart: bool = False, weights: str = "float32") -> Storage:
    """Where a run is kept; ConfigurationError where weights cannot be stored so."""
    if weights not in WEIGHTS:
        raise ConfigurationError(f"--weights {weights} is not one of {', '.join(WEIGHTS)}")
    return Storage(folder, restart, weights=WEIGHTS[weights])


def is_first() -> bool:
    """Whether this process is the one that writes and prints, of several that train together."""
    return processes.rank() == 0


def train_into(
    storage: Storage, settings: TrainSettings, subject: TrainingInputs, on_step: StepCallback, *, plot: bool
) -> TrainingReport:
    """Train a dictionary, measure it and write it with its report; `plot` adds training.png.

    A run that was stopped goes on from its checkpoint. Of several processes, the first one writes.
    """
    report = train_dictionary(settings, subject, storage, on_step)
    if is_first():
        save_run(report, storage)
        if plot:
            from monitor.dictionary.training.plots import draw_training

            draw_training(report.as_json(), storage.folder / "training.png")
    return report


def train_for_sweep(
    out: Path, settings: TrainSettings, subject: TrainingInputs, on_step: StepCallback
) -> dict[str, Any]:
    """The numbers of one run of a sweep, from its folder in `out` where it is finished already.

    ConfigurationError where the folder holds a run with other settings.
    """
    folder = out / f"{settings.features}-{settings.tokens}-{settings.learning_rate:g}"
    row = folder / "row.json"
    asked = json.loads(json.dumps(dataclasses.asdict(settings)))
    if row.is_file():
        return _finished(row, asked)
    found = summary(train_into(storage_of(folder), settings, subject, on_step, plot=False), subject.d_model)
    if is_first():
        row.write_text(json.dumps(found | {"asked": asked}) + "\n", "utf-8")
    return found


def _finished(row: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a run that is finished. ConfigurationError where it was another one."""
    found: dict[str, Any] = json.loads(row.read_text("utf-8"))
    before = found.pop("asked", {})
    other = [
        f"{name} {before.get(name)}, not {value}"
        for name, value in asked.items()
        if before.get(name) != value
    ]
    if other:
        raise ConfigurationError(
            f"{row.parent} holds a run with {'; '.join(other)}; give another --out, or delete it"
        )
    return found


class ProgressLines:
    """Plain progress lines for output that is no terminal: at the first step, every 30 seconds and at the last step."""

    def __init__(
        self,
        settings: TrainSettings,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._write, self._clock = settings, write, clock
        self._started = self._last_line = clock()
        self._tokens_before: int | None = None
        write(
            f"training {settings.features:,} features on {settings.tokens:,} tokens; "
            f"a line follows every {LINE_SECONDS:.0f} seconds"
        )

    def __call__(self, metrics: StepMetrics) -> None:
        """Write a line where one is due."""
        now, last = self._clock(), metrics.step == self._settings.steps - 1
        if self._tokens_before is None:
            self._tokens_before = metrics.tokens - self._settings.batch
        elif now - self._last_line < LINE_SECONDS and not last:
            return
        self._last_line = now
        self._write(self._line(metrics, metrics.tokens - self._tokens_before, now - self._started))
        if last:
            self._write("training is complete; measuring the dictionary on held-out text")

    def _line(self, metrics: StepMetrics, tokens: int, seconds: float) -> str:
        """`tokens` were trained on in `seconds`; a resumed run began with more."""
        rate = tokens / max(seconds, 1e-9)
        left = timedelta(seconds=round((self._settings.tokens - metrics.tokens) / rate))
        return (
            f"{metrics.tokens:,} of {self._settings.tokens:,} tokens  {numbers_of(metrics)}  "
            f"{rate:,.0f} tokens/s  {left} remaining"
        )


def numbers_of(metrics: StepMetrics) -> str:
    """Fraction of variance unexplained, active features at a token and dead features, in one line."""
    return f"FVU {metrics.fvu:.4f}  L0 {metrics.l0:.1f}  dead {100 * metrics.dead:.1f} %"


def _device(asked: str) -> str:
    """Of several processes on one machine, each takes its own GPU."""
    if asked == "auto" and torch.cuda.is_available() and dist.is_initialized():
        return f"cuda:{dist.get_node_local_rank()}"
    return asked


def _name(model: str) -> str:
    """A hub name as it is; of a folder its last part, since paths differ between machines."""
    return Path(model).resolve().name if Path(model).exists() else model


def _rows(
    loaded: LoadedModel, sources: Sequence[TextSource], length: int, bos: int | None, held_out: bool
) -> Iterator[Tensor]:
    return rows(mixed(sources, held_out=held_out), loaded.text.batch, length, bos)


def _held_out(found: Iterator[Tensor], tokens: int, length: int) -> list[Tensor]:
    kept = list(islice(found, max(1, -(-tokens // length))))
    if not kept:
        raise ConfigurationError("the text is too short for a single row; give more")
    return [torch.stack(kept[start : start + FORWARD]) for start in range(0, len(kept), FORWARD)]


def _rough(harvester: Harvester, ids: Tensor) -> Tensor:
    """Residuals in bfloat16 arithmetic where that is faster: an error that is small beside the dictionary's."""
    with torch.autocast(harvester.loaded.device.type, torch.bfloat16):
        return harvester.residuals(ids)


@torch.no_grad()
def _logits(harvester: Harvester, ids: Tensor, replace: object) -> Tensor:
    return harvester.logits(ids, replace)  # type: ignore[arg-type]
