"""The fit of a folder of policies to a pair: which texts it reads, and the locks that it writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from monitor.errors import NotFound, PolicyError
from monitor.lab.benign_texts import HALVES, BenignTexts, benign_texts
from monitor.lab.data_folder import DataFolder
from monitor.lab.pair import Pair
from monitor.lab.policies import bound_elsewhere, lock_folder, running_of
from monitor.lab.policy_evaluation import idle_sources, signals_of
from monitor.lab.readings import PairReader, later_residuals
from monitor.lab.recheck.scores import number_type, reference_of
from monitor.lab.splits import Split
from monitor.policy.files.benign import read_benign_kinds
from monitor.policy.files.examples import BENIGN_FILE
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import DictionaryRef, LockModel, ModelRef, write_lock
from monitor.policy.files.lock_folders import lock_path
from monitor.policy.files.occurrences import Document, Kind, one_occurrence
from monitor.policy.files.probe_weights import store_probe
from monitor.policy.files.resolve import unfit
from monitor.policy.files.source import Source
from monitor.policy.files.yaml_document import PolicyProblems
from monitor.policy.fit import FitSettings, Inputs, LabelledTexts, ProbeDetector, fit_policy
from monitor.policy.fit.detectors import probe_detector
from monitor.policy.fit.readings import TextReadings, join_texts
from monitor.policy.fit.rows import ReadTexts
from monitor.policy.schema.policy import ProbeModel

Tell = Callable[[str], None]


@dataclass(frozen=True)
class FittedPolicies:
    """What a fit came to."""

    locks: tuple[LockModel, ...]
    """The locks that were written."""
    failures: tuple[str, ...] = ()
    """Why each of the other policies could not be fitted."""

    def check(self) -> None:
        """PolicyError with every failure, where there is one."""
        if self.failures:
            count = len(self.failures)
            head = f"{count} {'policy' if count == 1 else 'policies'} could not be fitted:"
            raise PolicyError("\n".join([head, *self.failures]))


class PolicyFit:
    """The policies of a folder that are to be fitted, and the texts that they are fitted with."""

    def __init__(
        self,
        folder: Path,
        *,
        only: Sequence[str] = (),
        benign: Sequence[Path] = (),
        extra: DataFolder | None = None,
        split: Split | None = None,
    ) -> None:
        """Read all files.

        Args:
            folder: The policies.
            only: Names of policies; all where it is empty.
            benign: Files of benign documents beside the folder's `benign.jsonl`.
            extra: Labelled rows that teach as well; all of them, where nobody gave a share.
            split: Which of the documents of `benign` are read; half of them by default.

        Raises:
            NotFound: There is no policy of such a name.
            InputError: There are too few benign texts, or a file is wrong.
        """
        everything = read_folder(folder, None)
        self._folder = folder
        sources = _chosen(everything, only)
        self.sources = [source for source in sources if source.model.needs_lock]
        self.extra = extra if extra is None or extra.split_asked else replace(extra, split=Split(1.0))
        """Labelled rows that teach beside the examples, and which of them may; None where there are none."""
        self.notes: tuple[str, ...] = ()
        """Which files of `extra` are not used, and why."""
        if extra is not None:
            self.notes = (*extra.notes, *idle_sources(extra, everything))
        self.texts: BenignTexts = benign_texts(folder, benign, split or HALVES)
        self.kinds = _kinds(folder)

    def run(
        self,
        pair: Pair,
        settings: FitSettings,
        progress: Tell,
        written: Tell,
        *,
        locks: str | None = None,
    ) -> FittedPolicies:
        """Fit every policy and write its lock. `progress` is told what it is at, `written` what came of it.

        `locks` names the folder below `locks/` that they are written to; without it see `lock_folder`.
        """
        running = running_of(pair)
        place = lock_folder(self._folder, running, locks)
        reader = PairReader(pair, signals_of(self.sources))
        reader.tell = progress
        progress(f"reading {len(self.texts.learnt) + len(self.texts.aside)} benign texts")
        inputs = _inputs(reader, self.texts, self.kinds)
        beside = _beside(reader, inputs, self.texts, self.kinds)
        made: list[LockModel] = []
        failed: list[str] = []
        for number, source in enumerate(self.sources, 1):
            name = source.model.metadata.name
            progress(f"fitting {name} ({number} of {len(self.sources)})")
            started = time.monotonic()
            if where := bound_elsewhere(source, running):
                # Its lock belongs to that model and stays.
                written(f"{name}: {where}; not fitted to this model")
                continue
            try:
                if problems := unfit(source, running):
                    raise PolicyProblems(problems)
                lock = _fit(source, inputs, self.extra_rows(source), settings, place)
                lock = _recorded(source, lock, reader, beside, place)
            except PolicyError as error:
                failed.append(str(error))
                continue
            path = write_lock(source.path, lock, place)
            made.append(lock)
            written(f"{path} ({time.monotonic() - started:.0f} s)")
        return FittedPolicies(tuple(made), tuple(failed))

    def extra_rows(self, source: Source) -> LabelledTexts | None:
        """The labelled rows that teach a policy; None where none are given, or it is not learnt from examples."""
        if self.extra is None or source.model.concept is None:
            return None
        return self.extra.extra_rows(source.model.metadata.name, source.model.metadata.category)


def _fit(
    source: Source, inputs: Inputs, extra: LabelledTexts | None, settings: FitSettings, place: str
) -> LockModel:
    """The lock of one policy for the folder `place`; a probe with many weights goes into a file there."""

    def store(probe: ProbeDetector) -> ProbeModel:
        return store_probe(lock_path(source.path, place), probe.weights, bias=probe.bias, scale=probe.scale)

    named = source.model.probe
    pinned = probe_detector(named, source.path.parent) if named is not None else None
    return fit_policy(source.model, source.examples, inputs, extra, settings, store=store, pinned=pinned)


def _recorded(
    source: Source, lock: LockModel, reader: PairReader, beside: ReadTexts, place: str
) -> LockModel:
    """The lock for the folder `place` with what its rules score, which a later recheck compares with."""
    dtype = number_type(reader.pair)
    source = replace(source, lock=lock, lock_file=lock_path(source.path, place))
    held = reference_of(reader, source, beside.texts, beside.read, dtype)
    return lock.model_copy(update={"reference": held})


def _beside(reader: PairReader, inputs: Inputs, texts: BenignTexts, kinds: Mapping[str, Kind]) -> ReadTexts:
    """The benign texts of `benign.jsonl`, which `kinds` names; those that the fit has not met are read now."""
    parts = [(texts.learnt, inputs.benign, inputs.benign_readings)]
    if inputs.aside_readings is not None:
        parts.append((texts.aside, inputs.aside, inputs.aside_readings))
    met: list[Document] = []
    read: list[TextReadings] = []
    left = dict(kinds)
    for own, documents, readings in parts:
        rows = [row for row, text in enumerate(own) if left.pop(text, None) is not None]
        met += [documents[row] for row in rows]
        read += [readings.take(np.asarray(rows))] if rows else []
    if left:
        others = [one_occurrence(text, kind, turns=reader.takes_turns) for text, kind in left.items()]
        met += others
        read.append(reader.read(others))
    return ReadTexts(met, join_texts(read) if read else TextReadings.empty())


def _chosen(sources: Sequence[Source], only: Sequence[str]) -> list[Source]:
    names = {source.model.metadata.name for source in sources}
    unknown = sorted(set(only) - names)
    if unknown:
        raise NotFound(f"no policy called {', '.join(unknown)}; there are {', '.join(sorted(names))}")
    return [source for source in sources if not only or source.model.metadata.name in only]


def _inputs(reader: PairReader, texts: BenignTexts, kinds: Mapping[str, Kind]) -> Inputs:
    """What all policies are fitted with; `kinds` says of some benign texts where they occur."""
    pair = reader.pair
    learnt, aside = (
        [one_occurrence(text, kinds.get(text, Kind.STATEMENT), turns=reader.takes_turns) for text in some]
        for some in (texts.learnt, texts.aside)
    )
    read = reader.read(learnt)
    return Inputs(
        reader=reader,
        model=ModelRef(name=Path(pair.loaded.name).name, digest=pair.loaded.digest),
        dictionary=DictionaryRef(
            digest=pair.dictionary.digest, features=pair.dictionary.autoencoder.features
        ),
        benign=learnt,
        benign_readings=read,
        benign_density=read.tokens.density(),
        aside=aside,
        aside_readings=reader.read(aside) if aside else None,
        later=later_residuals(reader),
    )


def _kinds(folder: Path) -> dict[str, Kind]:
    """Where the benign texts of a folder occur."""
    path = folder / BENIGN_FILE
    return read_benign_kinds(path) if path.exists() else {}
