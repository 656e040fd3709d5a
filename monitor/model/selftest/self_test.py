"""The self-test: measure the dictionary on fixed texts, compare with what is expected, and say what is wrong.

The caller decides whether a failure stops the server.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from monitor.dictionary.storage.stored_autoencoder import StoredAutoencoder
from monitor.errors import SelfTestFailed
from monitor.model.load.hook_points import Place
from monitor.model.runtime import LoadedPair, place_of
from monitor.model.selftest.capture import capture, one_pass
from monitor.model.selftest.diagnosis import diagnose, neighbours, other_tokens
from monitor.model.selftest.expected import (
    WELL,
    ComparedNumber,
    ExpectedSource,
    compare,
    expected_of,
)
from monitor.model.selftest.measurement import Measurement, ResidualRows, measure, measure_sample, rows_of
from monitor.model.selftest.result import FailedCheck, SelfTest
from monitor.model.selftest.texts import Texts, texts_for
from monitor.model.selftest.verified_records import Record, best_record, load_records

_BETTER = 0.02
"""A dictionary that explains this much more variance at a neighbouring layer, and explains it well, belongs there."""
WORST = -0.5
"""Least explained variance that passes where nothing is recorded. Zeros in the place of every residual explain about 0:
below this, a dictionary that somebody trained for the model is read wrong, or was trained for another."""


def self_test(
    pair: LoadedPair, *, thorough: bool = False, records: Sequence[Record] | None = None
) -> SelfTest:
    """Run the fixed texts up to the dictionary's hook point and compare the numbers with the best source there is.

    Without a record of this pair, or with `thorough`, the neighbouring layers are measured too; the dictionary must not
    explain them better. If a dictionary is too large for memory, only a sample of its features is read, except with
    `thorough`. `records` are used instead of those in `verified.json`. Raises ModelError where the hook point does not
    give one row for each token.
    """
    texts = texts_for(pair.loaded)
    _check_reached_once(pair, texts)
    residuals = capture(pair.loaded, [pair.place], texts.ids)[pair.place]
    known = load_records(pair.dictionary.path) if records is None else records
    rows = rows_of(residuals, limit=_known_limit(pair, known), kinds=texts.kinds).to(pair.loaded.device)
    record = _record(pair, texts, _measure(pair, rows, thorough), rows.limit)
    best = best_record(known, record)
    expected = expected_of(pair.dictionary.card, best, record.dtype)
    lines = compare(record.measured, expected)
    recorded = expected.source in (ExpectedSource.RECORDED, ExpectedSource.RECORDED_ELSEWHERE)
    problems = _problems(pair, record.measured, rows, lines, texts, recorded=recorded)
    if record.measured.whole and (thorough or expected.source is not ExpectedSource.RECORDED):
        problems += _better_elsewhere(record.measured, neighbours(pair, texts))
    if record.measured.whole and not recorded:
        problems += _other_bos(pair, texts, record.measured)
    if expected.source is ExpectedSource.NONE:
        expected = replace(expected, least=max(record.measured.explained_variance + _BETTER, WELL))
    suspects = diagnose(pair, texts, rows, expected) if problems else ()
    return SelfTest(record, expected, lines, tuple(problems), suspects)


def require_fit(pair: LoadedPair) -> SelfTest:
    """The result of the self-test; SelfTestFailed, with what is wrong, where it is not passed."""
    test = self_test(pair)
    if not test.passed:
        raise SelfTestFailed(
            f"the self-test failed: {test.explained()}\n`sae-monitor dictionary verify` shows all of it; "
            "--skip-self-test goes on without it"
        )
    return test


def _measure(pair: LoadedPair, rows: ResidualRows, thorough: bool) -> Measurement:
    sae = pair.dictionary.autoencoder
    if isinstance(sae, StoredAutoencoder) and sae.separable and not thorough:
        return measure_sample(rows, sae)
    return measure(rows, sae)


def with_norm_limit(pair: LoadedPair) -> LoadedPair:
    """The pair with its norm limit, above which a residual is an attention sink's.

    It is what training, describing or `dictionary verify` recorded, else what the fixed texts of the self-test show.
    """
    limit = _known_limit(pair, load_records(pair.dictionary.path))
    if limit is None:
        residuals = capture(pair.loaded, [pair.place], texts_for(pair.loaded).ids)[pair.place]
        limit = rows_of(residuals).limit
    return replace(pair, norm_limit=limit)


def _known_limit(pair: LoadedPair, records: Sequence[Record]) -> float | None:
    """The norm limit that is recorded for the pair; None where none is."""
    if math.isfinite(pair.norm_limit):
        return pair.norm_limit
    found = pair.dictionary.norm_limit
    if found is not None and pair.place == place_of(pair.dictionary.card, None, pair.loaded.middle):
        return found
    here = (pair.dictionary.digest, pair.loaded.digest, str(pair.place))
    limits = (r.norm_limit for r in records if (r.dictionary, r.model, r.place) == here)
    return next((limit for limit in limits if limit is not None), None)


def _record(pair: LoadedPair, texts: Texts, measured: Measurement, limit: float) -> Record:
    loaded = pair.loaded
    dtype = str(loaded.dtype).removeprefix("torch.")
    return Record(
        pair.dictionary.digest, loaded.digest, str(pair.place), dtype, texts.digest, measured, limit
    )


def _check_reached_once(pair: LoadedPair, texts: Texts) -> None:
    """Raise ModelError unless a whole forward pass reaches the hook point once, with one row for each token."""
    with torch.no_grad():
        one_pass(pair.loaded, [pair.place], torch.tensor([texts.ids[0]]), whole=True)


def _problems(
    pair: LoadedPair,
    found: Measurement,
    rows: ResidualRows,
    lines: tuple[ComparedNumber, ...],
    texts: Texts,
    *,
    recorded: bool,
) -> list[FailedCheck]:
    problems = [
        FailedCheck(
            line.check, f"{line.name} is {line.measured:.4g}; expected {line.expected:.4g} ({line.allowed})"
        )
        for line in lines
        if line.expected is not None and line.off > 1
    ]
    if found.whole and not recorded and not found.explained_variance >= WORST:
        what = (
            f"explained variance is {found.explained_variance:.4g}: what it reconstructs is further from the residuals "
            "than their mean is"
        )
        problems.append(FailedCheck("variance", what))
    if not rows.finite:
        what = (
            "the residual stream holds values that are not finite; the dtype may be too small for this model"
        )
        problems.append(FailedCheck("finite", what))
    return problems


def _better_elsewhere(here: Measurement, beside: dict[Place, Measurement]) -> list[FailedCheck]:
    return [
        FailedCheck(
            "layer",
            f"it explains {there.explained_variance:.3f} of the variance at {place}, and "
            f"{here.explained_variance:.3f} here",
        )
        for place, there in beside.items()
        if there.explained_variance > max(here.explained_variance + _BETTER, WELL)
    ]


def _other_bos(pair: LoadedPair, texts: Texts, here: Measurement) -> list[FailedCheck]:
    """Whether the dictionary reads texts better with BOS, or without it, where its card says so and the tokenizer not.

    The first tokens of texts show it most.
    """
    wanted = pair.dictionary.card.prepend_bos
    if wanted is None or wanted is (texts.bos is not None):
        return []
    tried = list(other_tokens(pair, texts))
    best = max(tried, key=lambda one: one.measured.early_explained_variance, default=None)
    if best is None:
        return []
    there = best.measured.early_explained_variance
    if not there > here.early_explained_variance + _BETTER:
        return []
    what = (
        f"{best.what} it explains {there:.3f} of the variance of first tokens, as its card says, and "
        f"{here.early_explained_variance:.3f} as this tokenizer begins texts"
    )
    return [FailedCheck("bos", what)]
