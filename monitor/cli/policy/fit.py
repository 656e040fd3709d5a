"""`sae-monitor policy fit`: writes the lock of every policy of a folder, and prints the cards.

Knows how files, model and fit are joined. Does not know how a detector is learnt.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from monitor.cli.options import DeviceOption, DictionaryOption, FormatOption, ModelOption
from monitor.cli.policy.cards import card_table
from monitor.cli.show.console import stderr_console, stdout_console
from monitor.errors import NotFound, PolicyError
from monitor.lab.benign_texts import BenignTexts, benign_texts
from monitor.lab.pair import open_pair
from monitor.lab.running_policies import bound_elsewhere, running_of
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import DictionaryRef, LockModel, ModelRef, write_lock
from monitor.policy.files.probe_weights import store_probe
from monitor.policy.files.resolve import unfit
from monitor.policy.files.source import Source
from monitor.policy.files.yaml_document import PolicyProblems
from monitor.policy.fit import FitSettings, Inputs, LabelledTexts, ProbeDetector, fit_policy
from monitor.policy.fit.detectors import probe_detector
from monitor.policy.schema.policy import ProbeModel
from monitor.records import Signal

if TYPE_CHECKING:
    from monitor.lab.readings import PairReader

BenignOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--benign",
        help="Further files or folders of benign texts for the thresholds, beside benign.jsonl. Repeatable.",
    ),
]


class Kind(enum.StrEnum):
    """What scores tokens."""

    FEATURES = "features"
    PROBE = "probe"
    AUTO = "auto"


def fit(
    policies: Annotated[Path, typer.Argument(help="Folder of policies.")],
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    extra: Annotated[
        Path | None,
        typer.Option(help="Folder CATEGORY/SOURCE.jsonl; the training half of its rows teaches as well."),
    ] = None,
    benign: BenignOption = None,
    only: Annotated[list[str] | None, typer.Option(help="Names of policies to fit; all by default.")] = None,
    features: Annotated[int, typer.Option(min=1, max=256, help="Most detection features per policy.")] = 48,
    rounds: Annotated[int, typer.Option(min=2, max=200, help="Random halves that vote on features.")] = 12,
    positive_only: Annotated[
        bool, typer.Option("--positive-only", help="No feature may speak against a concept.")
    ] = False,
    detector: Annotated[
        Kind, typer.Option(help="What scores tokens; auto: the probe where it is clearly better.")
    ] = Kind.FEATURES,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: DeviceOption = "auto",
) -> None:
    """Find features, set thresholds, choose clamps and measure every policy; write NAME.lock.yaml beside each."""
    from monitor.cli.show.words import counted

    started = time.monotonic()
    settings = FitSettings(features, rounds, seed, not positive_only, detector.value)
    made = _fit_all(
        policies,
        _Asked(model, dictionary, dictionary_format, extra, benign or [], only or [], device),
        settings,
    )
    console = stdout_console()
    console.print(card_table(made))
    for lock in made:
        if lock.card is not None:
            console.print(f"{lock.policy}: {lock.card.note}", soft_wrap=True)
    console.print(f"{counted(len(made), 'lock')} written in {time.monotonic() - started:.0f} s")


@dataclass(frozen=True)
class _Asked:
    """What the command line says."""

    model: str | None
    dictionary: Path | None
    dictionary_format: str | None
    extra: Path | None
    benign: list[Path]
    only: list[str]
    device: str


def _fit_all(folder: Path, asked: _Asked, settings: FitSettings) -> list[LockModel]:
    """Fit and write every policy asked for; PolicyError at the end for those that could not be fitted."""
    from monitor.lab.readings import PairReader

    sources = _chosen(read_folder(folder, locks=False), asked.only)
    needed = [source for source in sources if source.model.needs_lock]
    texts = benign_texts(folder, asked.benign)
    console = stderr_console()
    with console.status("loading") as status:
        pair = open_pair(asked.model, asked.dictionary, asked.device, asked.dictionary_format)
        reader = PairReader(pair, signals_of(needed))
        status.update(f"reading {len(texts.learnt) + len(texts.aside)} benign texts")
        inputs = _inputs(reader, texts)
        made, failed = [], []
        for number, source in enumerate(needed, 1):
            name = source.model.metadata.name
            status.update(f"fitting {name} ({number} of {len(needed)})")
            started = time.monotonic()
            if where := bound_elsewhere(source, running_of(reader)):
                # Its lock belongs to that model and stays.
                console.print(f"{name}: {where}; not fitted to this model", soft_wrap=True)
                continue
            try:
                if problems := unfit(source, running_of(reader)):
                    raise PolicyProblems(problems)
                lock = _fit(source, inputs, _extra(asked.extra, source), settings)
            except PolicyError as error:
                failed.append(str(error))
                continue
            written = write_lock(source.path, lock)
            made.append(lock)
            console.print(f"{written} ({time.monotonic() - started:.0f} s)", soft_wrap=True)
    if failed:
        stdout_console().print(card_table(made))
        raise PolicyError("\n".join([f"{len(failed)} policies could not be fitted:", *failed]))
    return made


def signals_of(sources: Sequence[Source]) -> set[Signal]:
    """The anomaly signals that policies read."""
    leaves = [leaf for source in sources for leaf in source.model.leaves().values()]
    return {leaf.signal for leaf in leaves if leaf.signal is not None}


def _fit(source: Source, inputs: Inputs, extra: LabelledTexts | None, settings: FitSettings) -> LockModel:
    """The lock of one policy; a probe with many weights goes into a file beside it."""

    def store(probe: ProbeDetector) -> ProbeModel:
        return store_probe(source.path, probe.weights, bias=probe.bias, scale=probe.scale)

    named = source.model.probe
    pinned = probe_detector(named, source.path.parent) if named is not None else None
    return fit_policy(source.model, source.examples, inputs, extra, settings, store=store, pinned=pinned)


def _chosen(sources: Sequence[Source], only: Sequence[str]) -> list[Source]:
    names = {source.model.metadata.name for source in sources}
    unknown = sorted(set(only) - names)
    if unknown:
        raise NotFound(f"no policy called {', '.join(unknown)}; there are {', '.join(sorted(names))}")
    return [source for source in sources if not only or source.model.metadata.name in only]


def _inputs(reader: PairReader, texts: BenignTexts) -> Inputs:
    from monitor.lab.late_residuals import later_residuals

    pair = reader.pair
    read = reader.read(texts.learnt)
    return Inputs(
        reader=reader,
        model=ModelRef(name=Path(pair.loaded.name).name, digest=pair.loaded.digest),
        dictionary=DictionaryRef(
            digest=pair.dictionary.digest, features=pair.dictionary.autoencoder.features
        ),
        benign=texts.learnt,
        benign_readings=read,
        benign_density=read.tokens.density(),
        aside=texts.aside,
        aside_readings=reader.read(texts.aside) if texts.aside else None,
        later=later_residuals(reader),
    )


def _extra(folder: Path | None, source: Source) -> LabelledTexts | None:
    if folder is None or source.model.concept is None:
        return None
    from monitor.lab.extra_rows import extra_rows

    return extra_rows(folder, source.model.metadata.name, source.model.metadata.category)
