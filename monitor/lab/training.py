"""The training of a dictionary for a model: the texts it reads, one run into a folder, and one run of a sweep."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from monitor.dictionary.bundle import load_dictionary
from monitor.dictionary.formats import DictionaryCard
from monitor.dictionary.packed_text import PackedText, batches, pack
from monitor.dictionary.training import processes
from monitor.dictionary.training.quality import CROSS_ENTROPY_BATCHES
from monitor.dictionary.training.report import TrainingReport
from monitor.dictionary.training.run import RunProgress, Storage, TrainingInputs, save_run, train_dictionary
from monitor.dictionary.training.settings import TrainSettings
from monitor.dictionary.training.stream import FORWARD, Residuals
from monitor.dictionary.training.sweep import summary
from monitor.dictionary.training.text import TextSource, mixed
from monitor.errors import ConfigurationError
from monitor.model.load.hook_points import Place
from monitor.model.load.model import LoadedModel, load_model
from monitor.model.offline.compiled_layers import CompiledLayers
from monitor.model.offline.residuals import Harvester
from monitor.model.prompts import DocumentReader
from monitor.model.runtime import LoadedPair
from monitor.model.selftest.result import SelfTest
from monitor.model.selftest.self_test import self_test
from monitor.model.selftest.verified_records import save_record

MOST_HELD_OUT, FEWEST_HELD_OUT = 200_000, 8_192
"""Bounds of the number of tokens that a dictionary is measured on by default."""
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
    compile: bool = False
    """Whether the model's layers are compiled first, to read the text that is learnt from."""
    cache: Path | None = None
    """Where a GGUF file is unpacked; None for the user's cache folder."""


def held_out_for(tokens: int) -> int:
    """How many tokens to measure a dictionary on that is trained on so many: a tenth, within bounds."""
    return min(MOST_HELD_OUT, max(FEWEST_HELD_OUT, tokens // 10))


@dataclass(frozen=True)
class TrainingSubject:
    """A loaded model with the text that a dictionary is trained on."""

    loaded: LoadedModel
    place: Place
    """The hook point that the dictionary will read."""
    inputs: TrainingInputs
    reader: DocumentReader
    """What reads the text."""
    held_out_left_out: int
    """Texts that the chat template left out of the held-out conversations."""

    @property
    def measured(self) -> int:
        """Tokens that are read in measuring: all held-out ones, and those of the cross-entropies once more."""
        batches = self.inputs.held_out
        return sum(batch.tokens for batch in (*batches, *batches[:CROSS_ENTROPY_BATCHES]))


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


def open_subject(given: TrainingText) -> TrainingSubject:
    """Load the model and prepare the text. Raises ModelError or ConfigurationError."""
    sources = [TextSource.parse(text) for text in given.data]
    loaded = load_model(given.model, device=_device(given.device), cache=given.cache)
    harvester = Harvester(loaded, given.layer)
    length = min(given.length, loaded.context)
    reader = DocumentReader(loaded)
    begin = loaded.text.begin
    held_out = _held_out(pack(mixed(sources, held_out=True), reader, length, begin), given.held_out, length)
    inputs = TrainingInputs(
        rows=lambda: pack(mixed(sources, held_out=False), reader, length, begin),
        held_out=held_out,
        residuals=rough_residuals(harvester, compile=given.compile),
        exact_residuals=harvester.residuals,
        logits=partial(_logits, harvester),
        d_model=loaded.d_model,
        device=loaded.device,
        card=DictionaryCard(
            model_name=_name(given.model),
            hook_name=f"blocks.{harvester.layer}.hook_resid_post",
            layer=harvester.layer,
            prepend_bos=loaded.text.bos is not None,
            context_size=length,
            dataset=", ".join(source.path.name for source in sources),
        ),
    )
    return TrainingSubject(loaded, harvester.place, inputs, reader, reader.left_out)


def storage_of(folder: Path, *, restart: bool = False, weights: str = "float32") -> Storage:
    """Where a run is kept; ConfigurationError where weights cannot be stored so."""
    if weights not in WEIGHTS:
        raise ConfigurationError(f"--weights {weights} is not one of {', '.join(WEIGHTS)}")
    return Storage(folder, restart, weights=WEIGHTS[weights])


def is_first() -> bool:
    """Whether this process is the one that writes and prints, of several that train together."""
    return processes.rank() == 0


def train_into(
    storage: Storage,
    settings: TrainSettings,
    subject: TrainingSubject,
    progress: RunProgress,
    *,
    plot: bool,
) -> TrainingReport:
    """Train a dictionary, measure it and write it with its report; `plot` adds training.png.

    A run that was stopped goes on from its checkpoint. Of several processes, the first one writes.
    """
    before = subject.reader.left_out
    report = train_dictionary(settings, subject.inputs, storage, progress)
    left_out = subject.held_out_left_out + subject.reader.left_out - before
    report = dataclasses.replace(report, texts_left_out=left_out)
    if is_first():
        save_run(report, storage)
        if plot:
            from monitor.dictionary.training.plots import draw_training

            draw_training(report.as_json(), storage.folder / "training.png")
    return report


def verify_trained(folder: Path, subject: TrainingSubject) -> SelfTest:
    """Measure a dictionary that was just trained as the self-test does, and record it beside the dictionary.

    Every later command that opens the pair compares with the record. Nothing is recorded where the test fails. The
    training's own measures are no expectation here, since they are of other texts.
    """
    found = load_dictionary(folder, measured=False)
    card = dataclasses.replace(found.card, l0=None, explained_variance=None)
    pair = LoadedPair(subject.loaded, dataclasses.replace(found, card=card), subject.place)
    test = self_test(pair, thorough=True, records=())
    if test.passed:
        save_record(folder, test.record)
    return test


def train_for_sweep(
    out: Path, settings: TrainSettings, subject: TrainingSubject, progress: RunProgress
) -> dict[str, Any]:
    """The numbers of one run of a sweep, from its folder in `out` where it is finished already.

    ConfigurationError where the folder holds a run with other settings.
    """
    folder = out / f"{settings.features}-{settings.tokens}-{settings.learning_rate:g}"
    row = folder / "row.json"
    asked = json.loads(json.dumps(dataclasses.asdict(settings)))
    if row.is_file():
        return _finished(row, asked)
    report = train_into(storage_of(folder), settings, subject, progress, plot=False)
    found = summary(report, subject.inputs.d_model)
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


def _device(asked: str) -> str:
    """Of several processes on one machine, each takes its own GPU."""
    if asked == "auto" and torch.cuda.is_available() and dist.is_initialized():
        return f"cuda:{dist.get_node_local_rank()}"
    return asked


def _name(model: str) -> str:
    """A hub name as it is; of a folder its last part, since paths differ between machines."""
    return Path(model).resolve().name if Path(model).exists() else model


def _held_out(found: Iterator[PackedText], tokens: int, length: int) -> list[PackedText]:
    kept = list(batches(islice(found, max(1, -(-tokens // length))), FORWARD))
    if not kept:
        raise ConfigurationError("the text is too short for a single row; give more")
    return kept


def rough_residuals(harvester: Harvester, *, compile: bool = False) -> Residuals:
    """A function from ids `[rows, length]` to residuals in bfloat16 arithmetic, where that is faster.

    Its error is small beside the dictionary's. `compile`: the layers are compiled at the first call.
    """
    layers = CompiledLayers(harvester.loaded, harvester.layer) if compile else None

    def residuals(ids: Tensor) -> Tensor:
        placed = layers.in_place() if layers is not None else nullcontext()
        with placed, torch.autocast(harvester.loaded.device.type, torch.bfloat16):
            return harvester.residuals(ids)

    return residuals


@torch.no_grad()
def _logits(harvester: Harvester, ids: Tensor, replace: object) -> Tensor:
    return harvester.logits(ids, replace)  # type: ignore[arg-type]
