"""The self-test: measure, compare, and say what is wrong.

Knows a loaded pair and the records beside the dictionary. Does not know whether a failure stops the start: the
caller decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monitor.model.health import DictionaryHealth, dictionary_baseline
from monitor.model.places import Place
from monitor.model.runtime import Parts
from monitor.model.selftest.capture import capture, one_pass
from monitor.model.selftest.causes import Cause
from monitor.model.selftest.diagnosis import Suspect, diagnose, neighbours
from monitor.model.selftest.expected import Expected, Line, Source, compare, expected_of
from monitor.model.selftest.measure import Measurement, Rows, measure, rows_of
from monitor.model.selftest.records import Record, best_record, load_records
from monitor.model.selftest.texts import Texts, texts_for

_BETTER = 0.02
"""A neighbouring layer of which the dictionary explains so much more is the one that it was trained on."""


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What came out."""

    record: Record
    """What was measured, and of what."""
    expected: Expected
    lines: tuple[Line, ...]
    problems: tuple[str, ...]
    """What is wrong, in words; empty where the test passed."""
    suspects: tuple[Suspect, ...]
    """Likely causes, first what restored the numbers; empty where the test passed."""
    health: DictionaryHealth

    @property
    def passed(self) -> bool:
        """True where nothing is wrong; says little where nothing was expected."""
        return not self.problems

    @property
    def measured(self) -> Measurement:
        """The numbers."""
        return self.record.measured


def self_test(parts: Parts, *, thorough: bool = False) -> SelfTest:
    """Run the fixed texts up to the dictionary's place and hold the numbers against the best source there is.

    Without a record of this pair, or `thorough`, the neighbouring layers are read too: none may be explained better.
    Raises ModelError where the place does not give one row per token.
    """
    texts = texts_for(parts.loaded)
    _fires_once(parts, texts)
    residuals = capture(parts.loaded, [parts.place], texts.ids)[parts.place]
    rows = rows_of(residuals, skip=int(texts.bos is not None)).to(parts.loaded.device)
    record = _record(parts, texts, measure(rows, parts.dictionary.autoencoder))
    best = best_record(load_records(parts.dictionary.path), record)
    expected = expected_of(parts.dictionary.card, best, record.dtype)
    lines = compare(record.measured, expected)
    problems = _problems(parts, rows, lines, texts)
    beside = neighbours(parts, texts) if thorough or expected.source is not Source.RECORDED else {}
    problems += _better_elsewhere(record.measured, beside)
    suspects = _suspects(parts, texts, rows, expected, beside) if problems else ()
    return SelfTest(record, expected, lines, tuple(problems), suspects, _health(parts, record.measured))


def _record(parts: Parts, texts: Texts, measured: Measurement) -> Record:
    loaded = parts.loaded
    dtype = str(loaded.dtype).removeprefix("torch.")
    return Record(parts.dictionary.digest, loaded.digest, str(parts.place), dtype, texts.digest, measured)


def _fires_once(parts: Parts, texts: Texts) -> None:
    """In a pass that runs to its end, the place is reached once, with a row for every token."""
    with torch.no_grad():
        one_pass(parts.loaded, [parts.place], torch.tensor([texts.ids[0]]), whole=True)


def _problems(parts: Parts, rows: Rows, lines: tuple[Line, ...], texts: Texts) -> list[str]:
    found = [
        f"{line.name} is {line.measured:.4g}; expected {line.expected:.4g} ({line.allowed})"
        for line in lines
        if line.expected is not None and line.off > 1
    ]
    if not rows.finite:
        found.append(
            "the residual stream holds values that are not finite (the dtype may be too small for this model)"
        )
    if parts.dictionary.card.prepend_bos is True and texts.bos is None:
        found.append("the dictionary was trained with BOS before every text, and this tokenizer puts none")
    return found


def _better_elsewhere(here: Measurement, beside: dict[Place, Measurement]) -> list[str]:
    return [
        f"it explains {there.explained_variance:.3f} of the variance at {place}, and {here.explained_variance:.3f} here"
        for place, there in beside.items()
        if there.explained_variance > here.explained_variance + _BETTER
    ]


def _suspects(
    parts: Parts, texts: Texts, rows: Rows, expected: Expected, beside: dict[Place, Measurement]
) -> tuple[Suspect, ...]:
    if expected.source is Source.NONE:
        best = max(beside, key=lambda place: beside[place].explained_variance, default=None)
        return () if best is None else (Suspect(Cause.LAYER, f"at {best}", beside[best], 0.0, 0.0),)
    return diagnose(parts, texts, rows, expected)


def _health(parts: Parts, measured: Measurement) -> DictionaryHealth:
    return DictionaryHealth(
        l0=measured.l0,
        explained_variance=measured.explained_variance,
        norm_outliers=measured.outliers,
        expected=dictionary_baseline(parts),
    )
