import dataclasses
import json

import pytest

from monitor.dictionary.training import plots, sweep
from tests.dictionary.training.toy_run import SETTINGS, WIDTH, train


@pytest.mark.slow
def test_sweep(tmp_path):
    plan = sweep.SweepPlan((16, 32), (20 * 128, 40 * 128), (1e-3, 4e-3))
    chosen = plan.runs(SETTINGS)
    assert len(chosen) == 8
    assert [s.features * s.tokens for s in chosen] == sorted(s.features * s.tokens for s in chosen)
    found = [
        sweep.summary(train(tmp_path / str(number), settings=settings), WIDTH)
        for number, settings in enumerate(chosen)
    ]
    stored = json.loads(sweep.write_sweep(tmp_path, found).read_text())
    assert len(stored["runs"]) == 8
    assert len(stored["best_learning_rates"]) == 4
    assert stored["loss_against_compute"]["exponent"] < 0
    assert plots.draw_sweep(found, tmp_path / "sweep.png").stat().st_size > 10_000


def test_power_law_and_frontier():
    exponent, factor = sweep.power_law([(10.0**n, 3 * 10.0 ** (-0.5 * n)) for n in range(1, 5)])
    assert exponent == pytest.approx(-0.5)
    assert factor == pytest.approx(3)
    runs = [{"flops": f, "loss": loss} for f, loss in ((1, 5.0), (2, 6.0), (3, 4.0), (3, 4.5), (4, 4.0))]
    assert [run["flops"] for run in sweep.frontier(runs)] == [1, 3]


def test_compute_counts_six_per_weight_and_token():
    settings = dataclasses.replace(SETTINGS, features=10, tokens=1000, k=4)
    assert sweep.flops(settings, 16) == 6 * 1000 * 2 * 10 * 16
