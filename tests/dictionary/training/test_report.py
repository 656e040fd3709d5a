"""`training.json`: measures by name, histograms, and a history that is never too long."""

import itertools
import json

import pytest
import torch

from monitor.dictionary.formats import DictionaryCard
from monitor.dictionary.training.quality import DictionaryQuality
from monitor.dictionary.training.report import (
    FORMAT,
    POINTS,
    TrainingReport,
    histogram,
    results,
    thinned,
    write_report,
)
from monitor.dictionary.training.settings import TrainSettings
from monitor.dictionary.training.trainer import StepMetrics

QUALITY = DictionaryQuality(
    tokens=90,
    l0=4.5,
    fvu=0.25,
    cosine=0.9,
    dead=0.125,
    density=torch.tensor([0.0, 0.001, 0.5, 1.0]),
    nearest=torch.tensor([-0.9, 0.1, 0.1, 1.0]),
    ce_tokens=80,
    ce_clean=2.0,
    ce_spliced=2.5,
    ce_zero=4.0,
)


def step(number):
    return StepMetrics(number, 10 * number, 1.0, 0.5, 4.0, 0.0, 1e-3, 0.1)


def report(steps=3):
    history = tuple(step(number) for number in range(steps))
    settings = TrainSettings(8, 100_000, k=4)
    card = DictionaryCard(model_name="m", layer=3)
    return TrainingReport(settings, card, QUALITY, history, 20.0, 12.34, 3000, 7)


def test_derived_measures():
    found = results(QUALITY)
    assert found["explained_variance"] == 0.75
    assert found["ce_recovered"] == pytest.approx(1.5 / 2)
    assert (found["held_out_tokens"], found["ce_tokens"], found["dead_share"]) == (90, 80, 0.125)


def test_bins_count_what_lies_outside_at_the_ends():
    found = histogram(torch.tensor([-5.0, -1.0, -0.9, 0.1, 1.0, 7.0]), -1, 1, 4)
    assert found["edges"] == pytest.approx([-1, -0.5, 0, 0.5, 1])
    assert found["counts"] == [3, 0, 1, 2]


@pytest.mark.parametrize("steps", [1, POINTS - 1, POINTS, POINTS + 1, 7 * POINTS + 3])
def test_a_long_history_is_thinned_evenly(steps):
    history = tuple(step(number) for number in range(steps))
    found = [metrics.step for metrics in thinned(history)]
    assert len(found) == min(steps, POINTS)
    assert (found[0], found[-1]) == (0, steps - 1)
    gaps = {later - earlier for earlier, later in itertools.pairwise(found)}
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert 0 not in gaps


def test_the_file(tmp_path):
    path = write_report(tmp_path, report())
    assert path == tmp_path / "training.json"
    stored = json.loads(path.read_text())
    assert (stored["format"], stored["model"], stored["layer"]) == (FORMAT, "m", 3)
    assert stored["settings"]["features"] == 8
    assert stored["settings"]["objective"] == "batchtopk"
    assert stored["speed"] == {
        "tokens": 3000,
        "seconds": 20.0,
        "of_these_in_the_model": 12.3,
        "tokens_per_second": 150,
    }
    assert stored["outlier_positions_left_out"] == 7
    assert sum(stored["density_histogram_log10"]["counts"]) == 4
    assert stored["density_histogram_log10"]["counts"][0] == 1, "a dead feature stands in the lowest bin"
    assert [point["step"] for point in stored["history"]] == [0, 1, 2]
