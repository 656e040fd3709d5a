"""The self-test: measure, compare, and say what is wrong.

Knows a loaded pair and the records beside the dictionary. Does not know whether a failure stops the start: the
caller decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from monitor.dictionary.storage.lazy import StoredAutoencoder
from monitor.model.load.hook_points import Place
from monitor.model.runtime import Parts
from monitor.model.selftest.capture import capture, one_pass
from monitor.model.selftest.causes import Cause
from monitor.model.selftest.diagnosis import Suspect, diagnose, neighbours
from monitor.model.selftest.expected import Expected, Line, Source, compare, expected_of
from monitor.model.selftest.measure import Measurement, Rows, measure, measure_sample, rows_of
from monitor.model.selftest.records import Record, best_record, load_records
from monitor.model.selftest.result import Problem, SelfTest
from monitor.model.selftest.texts import Texts, texts_for

_BETTER, _WELL = 0.02, 0.3
"""A neighbouring layer of which the dictionary explains so much more, and at least so much, is its own."""


def self_test(parts: Parts, *, thorough: bool = False, records: Sequence[Record] | None = None) -> SelfTest:
    """Run the fixed texts up to the dictionary's place and hold the numbers against the best source there is.

    Without a record of this pair, or `thorough`, the neighbouring layers are read too: none may be explained better.
    A dictionary that stays in its files is sampled, unless `thorough`. `records` stand
    for those beside the dictionary. Raises ModelError where the place does not
    give one row per token.
    """
    texts = texts_for(parts.loaded)
    _fires_once(parts, texts)
    residuals = capture(parts.loaded, [parts.place], texts.ids)[parts.place]
    rows = rows_of(residuals, skip=int(texts.bos is not None)).to(parts.loaded.device)
    record = _record(parts, texts, _measure(parts, rows, thorough))
    known = load_records(parts.dictionary.path) if records is None else records
    best = best_record(known, record)
    expected = expected_of(parts.dictionary.card, best, record.dtype)
    lines = compare(record.measured, expected)
    recorded = expected.source in (Source.RECORDED, Source.RECORDED_ELSEWHERE)
    problems = _problems(parts, rows, lines, texts, recorded=recorded)
    beside: dict[Place, Measurement] = {}
    if record.measured.whole and (thorough or expected.source is not Source.RECORDED):
        beside = neighbours(parts, texts)
        problems += _better_elsewhere(record.measured, beside)
    suspects = _suspects(parts, texts, rows, expected, beside) if problems else ()
    return SelfTest(record, expected, lines, tuple(problems), suspects)


def _measure(parts: Parts, rows: Rows, thorough: bool) -> Measurement:
    sae = parts.dictionary.autoencoder
    if isinstance(sae, StoredAutoencoder) and sae.separable and not thorough:
        return measure_sample(rows, sae)
    return measure(rows, sae)


def _record(parts: Parts, texts: Texts, measured: Measurement) -> Record:
    loaded = parts.loaded
    dtype = str(loaded.dtype).removeprefix("torch.")
    return Record(parts.dictionary.digest, loaded.digest, str(parts.place), dtype, texts.digest, measured)


def _fires_once(parts: Parts, texts: Texts) -> None:
    """In a pass that runs to its end, the place is reached once, with a row for every token."""
    with torch.no_grad():
        one_pass(parts.loaded, [parts.place], torch.tensor([texts.ids[0]]), whole=True)


def _problems(
    parts: Parts, rows: Rows, lines: tuple[Line, ...], texts: Texts, *, recorded: bool
) -> list[Problem]:
    found = [
        Problem(
            line.check, f"{line.name} is {line.measured:.4g}; expected {line.expected:.4g} ({line.allowed})"
        )
        for line in lines
        if line.expected is not None and line.off > 1
    ]
    if not rows.finite:
        what = (
            "the residual stream holds values that are not finite; the dtype may be too small for this model"
        )
        found.append(Problem("finite", what))
    if parts.dictionary.card.prepend_bos is True and texts.bos is None and not recorded:
        what = "the dictionary was trained with BOS before every text, and this tokenizer puts none"
        found.append(Problem("bos", what))
    return found


def _better_elsewhere(here: Measurement, beside: dict[Place, Measurement]) -> list[Problem]:
    return [
        Problem(
            "layer",
            f"it explains {there.explained_variance:.3f} of the variance at {place}, and "
            f"{here.explained_variance:.3f} here",
        )
        for place, there in beside.items()
        if there.explained_variance > max(here.explained_variance + _BETTER, _WELL)
    ]


def _suspects(
    parts: Parts, texts: Texts, rows: Rows, expected: Expected, beside: dict[Place, Measurement]
) -> tuple[Suspect, ...]:
    if expected.source is not Source.NONE:
        return diagnose(parts, texts, rows, expected)
    best = max(beside, key=lambda place: beside[place].explained_variance, default=None)
    return () if best is None else (Suspect(Cause.LAYER, f"at {best}", beside[best], 0.0, 0.0),)
