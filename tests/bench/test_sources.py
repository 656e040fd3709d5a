"""Detectors within and across sources: who learns from what, and what the tables say."""

import numpy as np
import pytest
from scipy import sparse

from monitor.bench import sources
from monitor.bench.sources import ACROSS, METHODS, WITHIN, Benign, ReadSource, as_tables
from monitor.lab.data_folder import LabelledFile
from monitor.policy.fit.readings import TextReadings, TokenReadings

TOKENS, FEATURES, WIDTH = 6, 12, 5


def readings(count, signal, seed):
    """Texts of six tokens each; where `signal` is 1 the feature 3 and the second residual axis are high."""
    random = np.random.default_rng(seed)
    matrix = random.random((count * TOKENS, FEATURES)) * (random.random((count * TOKENS, FEATURES)) < 0.3)
    residuals = random.normal(size=(count * TOKENS, WIDTH)).astype(np.float32)
    high = np.repeat(signal, TOKENS) == 1
    matrix[high, 3] += 1.0
    residuals[high, 1] += 4.0
    starts = np.arange(count + 1) * TOKENS
    return TextReadings(TokenReadings(sparse.csr_matrix(matrix), starts.astype(np.intp)), residuals)


def source(tmp_path, name, count, seed):
    labels = np.tile([1, 0], count // 2)
    texts = [f"{name} {'power' if label else 'tea'} number {i}" for i, label in enumerate(labels)]
    file = LabelledFile(tmp_path / f"{name}.jsonl", f"greed/{name}", ("greed",))
    return ReadSource(
        file,
        texts,
        readings(count, labels, seed),
        labels.astype(np.intp),
        [f"{name} {i // 2}" for i in range(count)],
    )


def benign(count, seed, word):
    return Benign([f"{word} text {i}" for i in range(count)], readings(count, np.zeros(count), seed))


@pytest.fixture
def measured(tmp_path):
    parts = [source(tmp_path, name, 40, seed) for seed, name in enumerate(("one", "two", "three"))]
    return parts, list(sources._measured("greed", parts, benign(30, 10, "calm"), benign(50, 11, "asked"), 0))


def test_every_source_is_measured_within_and_across(measured):
    _, results = measured
    assert [(r.source, r.where) for r in results] == [
        (name, where) for name in ("one", "two", "three") for where in (WITHIN, ACROSS)
    ]
    for result in results:
        assert set(result.methods) == set(METHODS)
        for kind in ("features", "probe", "combined", "difference_of_means"):
            assert result.methods[kind].measure.auroc > 0.95


def test_no_detector_learns_from_what_it_scores(tmp_path, monkeypatch):
    parts = [source(tmp_path, name, 40, seed) for seed, name in enumerate(("one", "two"))]
    met = []

    def scores(rows, rest, held, seed):
        met.append((rows, set(rest.tolist()), set(held.tolist())))
        return {name: np.zeros(len(held)) for name in METHODS}

    monkeypatch.setattr(sources, "learnt_scores", scores)
    results = list(sources._measured("greed", parts, benign(30, 10, "calm"), benign(50, 11, "asked"), 0))
    assert len(results) == 4
    for rows, rest, held in met:
        assert not rest & held
        assert not {int(rows.groups[i]) for i in rest} & {int(rows.groups[i]) for i in held}
        assert not any(rows.texts[i].startswith("asked") for i in rest)
        assert all(rows.texts[i].split()[0] in ("one", "two", "asked") for i in held)
    across = [one for one in met if len(one[2]) == 90]
    assert len(across) == 2
    for rows, rest, held in across:
        assert not {rows.texts[i].split()[0] for i in rest} & {rows.texts[i].split()[0] for i in held}


def test_a_source_alone_is_measured_within_only(tmp_path):
    alone = [source(tmp_path, "one", 40, 0)]
    results = list(sources._measured("greed", alone, benign(30, 10, "calm"), benign(50, 11, "asked"), 0))
    assert [r.where for r in results] == [WITHIN]


def test_tables_mark_what_ships_and_count_wins(measured):
    text = as_tables(measured[1], {"greed": "probe"})
    assert "### within" in text
    assert "### across" in text
    assert "| greed/two |" in text
    assert "what ships: better than words on" in text
    assert text.count("**") == 2 * 6


def test_a_win_needs_an_interval_above_zero():
    assert sources._wins([(0.1, 0.01, 0.2), (0.1, -0.01, 0.2), (-0.3, -0.4, -0.2)]) == (1, 1)
