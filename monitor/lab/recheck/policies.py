"""The recheck of a folder of policies: does what their locks say hold for another pair than they were fitted to?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from monitor.errors import InputError, NotFound, PolicyError
from monitor.lab.benign_texts import ASIDE, HALVES, SPREAD, documents, excerpt
from monitor.lab.policies import bound_elsewhere, lock_folder, running_of
from monitor.lab.policy_evaluation import signals_of
from monitor.lab.recheck.rules import (
    WORST_FIRST,
    Margins,
    PairedScores,
    RecheckVerdict,
    RuleRecheck,
    Thresholds,
    recheck_rule,
)
from monitor.lab.recheck.scores import (
    CalibrationTexts,
    LeafScores,
    calibration_texts,
    from_lock,
    number_type,
    recorded,
    score_leaves,
)
from monitor.lab.splits import Split
from monitor.pairs import registry
from monitor.policy.files.benign import read_benign_kinds
from monitor.policy.files.examples import BENIGN_FILE
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import LockedRule, LockModel, put, write_lock
from monitor.policy.files.lock_folders import LOCKS, all_locks, checked_name, lock_path
from monitor.policy.files.occurrences import Kind, one_occurrence
from monitor.policy.files.resolve import resolve
from monitor.policy.files.source import Running, Source
from monitor.policy.files.yaml_document import Problem
from monitor.policy.fit.thresholds import Leaf, learnt
from monitor.policy.schema.policy import AskedRate
from monitor.policy.schema.threshold import thresholds_by_length

if TYPE_CHECKING:
    from monitor.lab.pair import Pair
    from monitor.policy.fit.readings import TextReadings

Tell = Callable[[str], None]
Part = Literal["model", "dtype", "dictionary", "maxima"]
SAME_MAXIMUM = 1e-3
"""Recorded maxima that differ by less than this share are the same; see `monitor.policy.files.resolve`."""


@dataclass(frozen=True)
class PairChange:
    """One thing in which the pair differs from that which a lock was fitted to."""

    part: Part
    """`model`, `dictionary`: their digests. `dtype`: the number type. `maxima`: the recorded maxima that are used."""
    then: str
    now: str


@dataclass(frozen=True)
class PolicyRecheck:
    """What became of one policy."""

    policy: str
    verdict: RecheckVerdict | None
    """The worst of its rules; None where it could not be measured."""
    differs: tuple[PairChange, ...] = ()
    """In what the pair differs from that of the lock; empty where nothing is known to differ."""
    rules: tuple[RuleRecheck, ...] = ()
    """Its rules and conditions with thresholds in the lock."""
    problems: tuple[str, ...] = ()
    """Why it could not be measured."""
    notes: tuple[str, ...] = ()
    """What somebody who relies on the verdict must know."""
    written: str = ""
    """The lock file that was written; empty where none was."""

    @property
    def more(self) -> Mapping[str, int | None]:
        """For an inconclusive policy, how many more texts of each kind would probably decide; None where unknown."""
        found: dict[str, int | None] = {}
        for check in (one for rule in self.rules for one in rule.checks if one.more != 0):
            known = found.get(check.kind, 0)
            found[check.kind] = None if known is None or check.more is None else max(known, check.more)
        return found


@dataclass(frozen=True)
class Recheck:
    """What became of all policies."""

    model: str
    """The model's name."""
    dtype: str
    """Number type in which it ran."""
    digests: Mapping[str, str]
    """Of `model` and `dictionary`."""
    compared: str
    """What the scores of now were compared with, in words."""
    policies: tuple[PolicyRecheck, ...]
    notes: tuple[str, ...] = ()
    """Which policies were left out, and why."""

    @property
    def verdict(self) -> RecheckVerdict | None:
        """The worst of all policies that were measured; None where one could not be measured."""
        found = [one.verdict for one in self.policies]
        return None if None in found else worst([one for one in found if one is not None])


@dataclass(frozen=True)
class PairScores:
    """What the rules of every policy score with one pair."""

    model: str
    """The model's name."""
    dtype: str
    """Number type in which it ran."""
    digests: tuple[str, str]
    """Of model and dictionary."""
    turns: bool
    """Whether the model has a chat template, so that texts were read as turns of conversations."""
    policies: Mapping[str, LeafScores]
    """By policy; without those that could not be scored."""


def worst(verdicts: Sequence[RecheckVerdict]) -> RecheckVerdict:
    """The worst of some verdicts; HOLDS where there are none."""
    return next((one for one in WORST_FIRST if one in verdicts), RecheckVerdict.HOLDS)


class Rechecker:
    """The locked policies of a folder, and the texts that they are rechecked on."""

    def __init__(
        self,
        folder: Path,
        *,
        only: Sequence[str] = (),
        benign: Sequence[Path] = (),
        split: Split = HALVES,
        margins: Margins | None = None,
        locks: str | None = None,
    ) -> None:
        """Read all files.

        Args:
            folder: The policies with their locks.
            only: Names of policies; all where it is empty.
            benign: Files of benign documents beside the folder's `benign.jsonl`.
            split: Which of these documents are read: those that no fit learns from.
            margins: How much may change and still count as the same.
            locks: Name of the folder below `locks/` whose locks are rechecked; where there is one only, it need not be
                said.

        Raises:
            NotFound: There is no policy of such a name.
            PolicyError: A policy is wrong, or none has thresholds in a lock.
            InputError: A file of texts is wrong, or there is no benign text.
        """
        self.folder = folder
        everything = read_folder(folder, _locks(folder, locks))
        if unknown := sorted(set(only) - {source.model.metadata.name for source in everything}):
            raise NotFound(f"no policy called {', '.join(unknown)} in {folder}")
        chosen = [one for one in everything if not only or one.model.metadata.name in only]
        self.sources = [one for one in chosen if one.lock is not None and one.model.needs_lock]
        self.margins = margins or Margins()
        self.notes = tuple(
            f"{one.model.metadata.name}: it was never fitted, so there is nothing to recheck"
            for one in chosen
            if one.model.needs_lock and one.lock is None
        )
        if not self.sources:
            raise PolicyError(
                f"no policy of {folder} has a lock to recheck; run `sae-monitor policy fit` first"
            )
        path = folder / BENIGN_FILE
        self.beside = read_benign_kinds(path) if path.exists() else {}
        self.further = [
            text
            for text in (excerpt(one, *SPREAD) for one in islice(documents(benign, "heldout", split), ASIDE))
            if text.strip()
        ]
        if not self.beside and not self.further:
            raise InputError(f"there is no benign text: put some into {path}, or name files with --benign")

    def texts(self, source: Source, *, turns: bool) -> CalibrationTexts:
        """The texts that a policy is rechecked on, as a model meets them that has a chat template, or none."""
        beside = [one_occurrence(text, kind, turns=turns) for text, kind in self.beside.items()]
        further = [one_occurrence(text, Kind.STATEMENT, turns=turns) for text in self.further]
        return calibration_texts(source, beside, further, turns=turns)

    def scores(self, pair: Pair, tell: Tell) -> PairScores:
        """Score the texts of every policy with a pair, whichever the locks were fitted to."""
        from monitor.lab.readings import PairReader

        reader = PairReader(pair, signals_of(self.sources))
        reader.tell = tell
        running, dtype = running_of(pair), number_type(pair)
        benign: TextReadings | None = None
        found = {}
        for source in self.sources:
            name = source.model.metadata.name
            lifted, problems = _lifted(source, running)
            if problems or bound_elsewhere(source, running):
                continue
            texts = self.texts(source, turns=reader.takes_turns)
            if benign is None:
                rows = [texts.texts[int(i)] for i in texts.benign]
                tell(f"reading {len(rows)} benign texts in {dtype}")
                benign = reader.read(rows)
            tell(f"scoring {name} in {dtype}")
            found[name] = score_leaves(reader, lifted, texts, benign, dtype)
        digests = (running.model, running.dictionary)
        return PairScores(pair.loaded.name, dtype, digests, reader.takes_turns, found)

    def compare(self, pair: Pair, scores: PairScores, *, against: PairScores | None = None) -> Recheck:
        """Say of every policy whether it holds for a pair, given what `scores` came to for it.

        `against` are the scores of the pair that the locks were fitted to. Without them those recorded in the locks are
        taken. PolicyError where no policy applies to the model.
        """
        running = running_of(pair)
        found, notes = [], list(self.notes)
        for source in self.sources:
            if where := bound_elsewhere(source, running):
                notes.append(f"{source.model.metadata.name}: {where}; not measured on this model")
            else:
                found.append(self._policy(source, running, scores, against))
        if not found:
            raise PolicyError("\n".join(["no policy applies to this model:", *notes]))
        compared = "what each lock records"
        if against is not None:
            compared = f"{Path(against.model).name} in {against.dtype}, on the same texts"
        digests = {"model": running.model, "dictionary": running.dictionary}
        return Recheck(pair.loaded.name, scores.dtype, digests, compared, tuple(found), tuple(notes))

    def _policy(
        self, source: Source, running: Running, scores: PairScores, against: PairScores | None
    ) -> PolicyRecheck:
        name, lock = source.model.metadata.name, source.lock
        assert lock is not None
        recorded_then = from_lock(lock)
        then = against.policies.get(name) if against is not None else recorded_then
        known_dtype = (
            against.dtype if against is not None else (lock.reference.dtype if lock.reference else "")
        )
        differs = differences(lock, running, known_dtype, scores.dtype)
        _, problems = _lifted(source, running)
        if problems or name not in scores.policies:
            return PolicyRecheck(name, None, differs, problems=tuple(one.message for one in problems))
        texts, now = self.texts(source, turns=scores.turns), scores.policies[name]
        rules = tuple(
            recheck_rule(
                leaf,
                _locked(lock, leaf),
                _running_thresholds(source, lock, leaf),
                _rule_scores(source, lock, leaf, texts, now, then),
                self.margins,
            )
            for leaf in now.best
        )
        return PolicyRecheck(
            name,
            worst([rule.verdict for rule in rules]),
            differs,
            rules,
            notes=tuple(_notes(source, lock, texts, then, against)),
        )

    def write(self, pair: Pair, found: Recheck, scores: PairScores) -> Recheck:
        """Write locks for a pair: digests into those that hold, new thresholds too into those that are stale.

        Others stay as they are, and so does a policy with a stale threshold that its own file gives.
        """
        running, written = running_of(pair), []
        place = lock_folder(self.folder, running)
        for one in found.policies:
            source = next(s for s in self.sources if s.model.metadata.name == one.policy)
            lock = self._new_lock(source, running, one, scores)
            path = "" if lock is None else str(_put(source, lock, place))
            written.append(replace(one, written=path))
        return replace(found, policies=tuple(written))

    def _new_lock(
        self, source: Source, running: Running, one: PolicyRecheck, scores: PairScores
    ) -> LockModel | None:
        """The lock of a policy for what runs; None where it holds as it is, or where no lock can be written."""
        assert source.lock is not None
        if one.verdict is RecheckVerdict.HOLDS:
            moved = {change.part for change in one.differs} - {"dtype"}
            return rebased(source.lock, running) if moved else None
        if one.verdict is not RecheckVerdict.STALE:
            return None
        new = {(rule.section, rule.name): rule for rule in one.rules if rule.verdict is RecheckVerdict.STALE}
        if any(rule.proposed is None or rule.asked is None for rule in new.values()):
            return None
        if any(rule.verdict is RecheckVerdict.INCONCLUSIVE for rule in one.rules):
            return None
        texts, now = self.texts(source, turns=scores.turns), scores.policies[one.policy]
        return with_thresholds(rebased(source.lock, running), new).model_copy(
            update={"reference": recorded(now, texts.recorded)}
        )

    def record(self, pair: Pair, scores: PairScores) -> list[str]:
        """Record the scores of a pair in the locks that are bound to it, for later rechecks; their files.

        It must be the pair that they were fitted to, in the same number type.
        """
        running, written = running_of(pair), []
        for source in self.sources:
            lock, name = source.lock, source.model.metadata.name
            assert lock is not None
            bound = (lock.model.digest, lock.dictionary.digest) == (running.model, running.dictionary)
            if bound and name in scores.policies:
                texts = self.texts(source, turns=scores.turns)
                held = recorded(scores.policies[name], texts.recorded)
                assert source.lock_file is not None
                new = lock.model_copy(update={"reference": held})
                written.append(str(write_lock(source.path, new, source.lock_file.parent.name)))
        return written


def _locks(folder: Path, asked: str | None) -> str:
    """Whose locks of a folder are rechecked; InputError where that must be said and is not."""
    if asked is not None:
        return checked_name(asked)
    names = sorted({path.parent.name for path in all_locks(folder)})
    if len(names) > 1 and registry.DEFAULT not in names:
        raise InputError(
            f"{folder / LOCKS} holds locks of several pairs; say with --locks whose to recheck: {', '.join(names)}"
        )
    return names[0] if len(names) == 1 else registry.DEFAULT


def _put(source: Source, lock: LockModel, place: str) -> Path:
    """Write a lock into a folder of locks, and the weights of its probe, where those are a file elsewhere."""
    path = lock_path(source.path, place)
    if (
        lock.probe is not None
        and lock.probe.weights_file is not None
        and source.lock_file not in (None, path)
    ):
        put(
            path.with_name(lock.probe.weights_file),
            (source.probe_folder / lock.probe.weights_file).read_bytes(),
        )
    return write_lock(source.path, lock, place)


def differences(lock: LockModel, running: Running, then_dtype: str, now_dtype: str) -> tuple[PairChange, ...]:
    """In what a pair differs from that of a lock; `then_dtype` is empty where nobody knows."""
    found = []
    if lock.model.digest != running.model:
        found.append(PairChange("model", lock.model.digest, running.model))
    if then_dtype and then_dtype != now_dtype:
        found.append(PairChange("dtype", then_dtype, now_dtype))
    if lock.dictionary.digest != running.dictionary:
        found.append(PairChange("dictionary", lock.dictionary.digest, running.dictionary))
    far = max(_maximum_changes(lock, running), key=lambda pair: abs(pair[1] / pair[0] - 1), default=None)
    if far is not None and abs(far[1] / far[0] - 1) > SAME_MAXIMUM:
        found.append(PairChange("maxima", f"{far[0]:.5g}", f"{far[1]:.5g}"))
    return tuple(found)


def _maximum_changes(lock: LockModel, running: Running) -> list[tuple[float, float]]:
    """For each feature of a lock its recorded maximum then and now."""
    if running.maxima is None:
        return []
    pins = [pin for part in (lock.rules, lock.conditions) for rule in part.values() for pin in rule.pins]
    entries = [*lock.features, *lock.suppress, *pins]
    known = [one for one in entries if one.index < len(running.maxima) and one.maximum > 0]
    return [(one.maximum, float(running.maxima[one.index])) for one in known]


def rebased(lock: LockModel, running: Running) -> LockModel:
    """The lock with the digests and the recorded maxima of what runs."""
    maxima = running.maxima

    def now(entry: object) -> object:
        index, maximum = getattr(entry, "index", 0), getattr(entry, "maximum", 0.0)
        known = maxima is not None and index < len(maxima) and (maxima[index] > 0 or maximum == 0)
        fresh = float(maxima[index]) if known and maxima is not None else maximum
        return entry.model_copy(update={"maximum": fresh})  # type: ignore[attr-defined]

    def rules(part: Mapping[str, LockedRule]) -> dict[str, LockedRule]:
        return {
            name: rule.model_copy(update={"pins": [now(p) for p in rule.pins]}) for name, rule in part.items()
        }

    return lock.model_copy(
        update={
            "model": lock.model.model_copy(
                update={
                    "digest": running.model,
                    "name": running.names[-1] if running.names else lock.model.name,
                }
            ),
            "dictionary": lock.dictionary.model_copy(
                update={"digest": running.dictionary, "features": running.features}
            ),
            "features": [now(one) for one in lock.features],
            "suppress": [now(one) for one in lock.suppress],
            "rules": rules(lock.rules),
            "conditions": rules(lock.conditions),
        }
    )


def with_thresholds(lock: LockModel, new: Mapping[Leaf, RuleRecheck]) -> LockModel:
    """The lock with new thresholds.

    What it says of held-out texts stays where thresholds were taken along with the scores, because it is as true of
    these. Where they were set anew, the measured share of benign texts takes its place.
    """
    sections = {"rules": dict(lock.rules), "conditions": dict(lock.conditions)}
    for (section, name), rule in new.items():
        assert rule.proposed is not None
        locked = sections[section][name]
        update: dict[str, object] = {"threshold": written_thresholds(rule.proposed)}
        rate = next((one for one in rule.after if one.name == "false_positives"), None)
        if not rule.paired and rate is not None and rate.now is not None:
            update |= {"benign_rate": rate.now.value, "benign_texts": rate.texts}
        sections[section][name] = LockedRule.model_validate(
            locked.model_dump(by_alias=True, mode="json") | update
        )
    return lock.model_copy(update=sections)


def written_thresholds(pairs: Thresholds) -> object:
    """Thresholds as a lock and a policy write them."""
    if len(pairs) == 1:
        return pairs[0][1]
    return [{"up_to": up_to, "threshold": value} for up_to, value in pairs]


def _lifted(source: Source, running: Running) -> tuple[Source, list[Problem]]:
    """The policy as if its lock and its pins were of what runs, and what speaks against measuring it even so."""
    assert source.lock is not None
    lifted = replace(
        source,
        lock=rebased(source.lock, running),
        model=source.model.model_copy(update={"dictionary": None}),
    )
    problems: list[Problem] = []
    resolve(lifted, running, problems)
    return lifted, problems


def _locked(lock: LockModel, leaf: Leaf) -> LockedRule:
    section, name = leaf
    return (lock.rules if section == "rules" else lock.conditions)[name]


def _running_thresholds(source: Source, lock: LockModel, leaf: Leaf) -> Thresholds:
    """The thresholds that run: those of the policy where it gives them, otherwise those of its lock."""
    given = source.model.leaves()[leaf].threshold
    if given is None or isinstance(given, AskedRate):
        return thresholds_by_length(_locked(lock, leaf).threshold)
    return thresholds_by_length(given)


def _rule_scores(
    source: Source,
    lock: LockModel,
    leaf: Leaf,
    texts: CalibrationTexts,
    now: LeafScores,
    then: LeafScores | None,
) -> PairedScores:
    """The scores of one rule now and then; then only of texts that were scored then too."""
    card = None
    learning = list(learnt(source.model))
    if lock.card is not None and learning and leaf == learning[0]:
        card = lock.card.methods.get("policy")
    everything = np.arange(len(texts.texts))
    if then is None or leaf not in then.best:
        return PairedScores(texts, now.of(leaf), None, everything, card)
    places = then.rows(texts.keys)
    before = then.of(leaf).take(np.maximum(places, 0))
    return PairedScores(texts, now.of(leaf), before, np.flatnonzero(places >= 0), card)


def _notes(
    source: Source,
    lock: LockModel,
    texts: CalibrationTexts,
    then: LeafScores | None,
    against: PairScores | None,
) -> Iterator[str]:
    if then is None:
        yield (
            "the lock records no scores to compare text by text, so its held-out numbers stand in, and a loss may stay "
            "hidden; give the pair that it was fitted to with --against-model or --against-dtype, or record its scores "
            "once with `policy recheck --record`"
        )
    if against is not None and against.digests != (lock.model.digest, lock.dictionary.digest):
        yield "the pair that it was compared with is not that which its lock was fitted to"
    calibrated = max((rule.benign_texts for rule in lock.rules.values()), default=0)
    if len(texts.benign) < calibrated:
        yield (
            f"its thresholds were set on {calibrated:,} benign texts, and {len(texts.benign):,} are read here; name "
            "the others with --benign"
        )
    if source.model.suppress is not None:
        yield "what its suppression clamps was not rechecked; `policy cost` measures that"
