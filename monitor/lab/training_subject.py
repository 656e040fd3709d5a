"""A model and text files as what the trainer wants: functions and rows of ids.

Joins `monitor.model` with `monitor.dictionary.training`, which do not know each other. Does not train.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch import distributed as dist

from monitor.dictionary.formats import DictionaryCard
from monitor.dictionary.training import processes
from monitor.dictionary.training.run import TrainingInputs
from monitor.dictionary.training.stream import FORWARD
from monitor.dictionary.training.text import TextSource, mixed, rows
from monitor.errors import ConfigurationError
from monitor.model.load.model import LoadedModel, load_model
from monitor.model.offline.residuals import Harvester


@dataclass(frozen=True)
class Reading:
    """What is read, and how."""

    model: str
    layer: int | None
    data: tuple[str, ...]
    """`PATH` or `PATH=SHARE`."""
    length: int
    held_out: int
    """Tokens to measure on."""
    device: str


@contextmanager
def together() -> Iterator[None]:
    """Among the other processes where `torchrun` started this one; where nothing fails, they leave together."""
    if dist.is_available() and dist.is_torchelastic_launched() and not dist.is_initialized():
        processes.join("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    except BaseException:
        processes.leave(together=False)
        raise
    processes.leave(together=True)


def open_subject(reading: Reading) -> TrainingInputs:
    """Load the model and prepare the text. ModelError, ConfigurationError."""
    sources = [TextSource.parse(text) for text in reading.data]
    loaded = load_model(reading.model, device=_device(reading.device))
    harvester = Harvester(loaded, reading.layer)
    length = min(reading.length, loaded.context)
    bos = _bos(loaded)
    return TrainingInputs(
        rows=partial(_rows, loaded, sources, length, bos, False),
        held_out=_held_out(_rows(loaded, sources, length, bos, True), reading.held_out, length),
        residuals=partial(_rough, harvester),
        exact_residuals=harvester.residuals,
        logits=partial(_logits, harvester),
        bos=bos,
        d_model=loaded.d_model,
        device=loaded.device,
        card=DictionaryCard(
            model_name=_name(reading.model),
            hook_name=f"blocks.{harvester.layer}.hook_resid_post",
            layer=harvester.layer,
            prepend_bos=bos is not None,
            context_size=length,
            dataset=", ".join(source.path.name for source in sources),
        ),
    )


def _device(asked: str) -> str:
    """Of several processes on one machine, each takes its own GPU."""
    if asked == "auto" and torch.cuda.is_available() and dist.is_initialized():
        return f"cuda:{dist.get_node_local_rank()}"
    return asked


def _name(model: str) -> str:
    """A hub name as it is; of a folder its last part, since paths differ between machines."""
    return Path(model).resolve().name if Path(model).exists() else model


def _bos(loaded: LoadedModel) -> int | None:
    """The token that the tokenizer puts before a text; None where it puts none."""
    ids, bos = loaded.tokenizer("a")["input_ids"], loaded.tokenizer.bos_token_id
    return int(bos) if ids and bos is not None and ids[0] == bos else None


def _rows(
    loaded: LoadedModel, sources: Sequence[TextSource], length: int, bos: int | None, held_out: bool
) -> Iterator[Tensor]:
    def tokenise(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = loaded.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    return rows(mixed(sources, held_out=held_out), tokenise, length, bos)


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
