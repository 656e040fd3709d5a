"""What is said of two number types: differences of readings, what flips, and the ratio of speeds."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import sparse
from typer.testing import CliRunner

from monitor.bench import dtypes
from monitor.bench.dtypes import app, compare_readings, quantise, speed
from monitor.policy.fit.readings import TextReadings, TokenReadings


def read(readings, residuals, starts=(0, 2, 3), positions=(1, 2, 1)):
    return TextReadings(
        TokenReadings(sparse.csr_matrix(np.asarray(readings, float)), np.asarray(starts, np.intp)),
        np.asarray(residuals, np.float32),
        positions=np.asarray(positions, np.intp),
    )


RESIDUALS = [[3.0, 4.0], [0.0, 1.0], [2.0, 0.0]]


def test_readings_are_compared_token_by_token():
    one = read([[1.0, 0.0, 0.5], [0.0, 0.2, 0.0], [0.4, 0.0, 0.0]], RESIDUALS)
    other = read([[1.1, 0.0, 0.0], [0.3, 0.2, 0.0], [0.4, 0.0, 0.0]], [[3.0, 4.5], [0.0, 1.0], [2.0, 0.0]])
    found = compare_readings(one, other)
    assert (found.tokens, found.unlike) == (3, 0)
    assert (found.active, found.off, found.on) == (4, 1, 1)
    assert found.residual[-1] == pytest.approx(0.1)
    assert found.readings[-1] == pytest.approx(0.1)
    assert found.maxima[-1] == pytest.approx(0.1)
    assert compare_readings(one, one).readings == (0.0,) * 4


def test_texts_whose_sinks_differ_are_left_out():
    one = read([[1.0], [0.0], [0.4]], RESIDUALS)
    other = read([[1.0], [9.0], [0.4]], RESIDUALS, positions=(1, 3, 1))
    found = compare_readings(one, other)
    assert (found.unlike, found.tokens, found.on) == (1, 1, 0)


def test_a_ratio_is_taken_within_a_round_and_both_take_turns(monkeypatch):
    clock, order = iter(range(1000)), []
    monkeypatch.setattr(dtypes.time, "perf_counter", lambda: next(clock))

    def run(pair):
        order.append(pair)
        for _ in range(3 if pair == "slow" else 0):
            next(clock)
        return 8

    found = speed("work", ["slow", "fast"], run, 2)
    assert found.ratios == (4.0, 4.0)
    assert found.tokens_per_second == 2.0
    assert order == ["fast", "slow", "slow", "fast", "fast", "slow"]


@pytest.mark.parametrize(("bits", "worst"), [(8, 0.005), (4, 0.08)])
def test_weights_are_rounded_in_blocks(bits, worst):
    model = torch.nn.Linear(64, 8)
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    quantise(SimpleNamespace(loaded=SimpleNamespace(model=model)), bits)
    change = (model.weight - before["weight"]).abs()
    assert 0 < change.max() < worst * before["weight"].abs().max()
    assert torch.equal(model.bias, before["bias"]), "only matrices are quantised"
    levels = {len(block.unique()) for block in model.weight.detach().reshape(-1, 32)}
    assert max(levels) <= 2**bits
    refused = CliRunner().invoke(app, ["--bits", "5"])
    assert (refused.exit_code, "write 8 or 4" in refused.output) == (2, True)


@pytest.mark.slow
def test_the_bundled_pair_in_bfloat16(tmp_path: Path):
    out = tmp_path / "found.json"
    options = ["--only", "scams", "--texts", "12", "--rounds", "1", "--new-tokens", "2", "--out", str(out)]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert 0.001 < found["readings"]["residual"][0] < 0.05
    assert found["actions"]["texts"] == 12
    [rule] = found["rules"][0]["rules"]
    assert rule["paired"]
    assert rule["flips"] < 20
    assert [one["work"] for one in found["speed"]] == ["read to the tapped layer", "generate, one request"]
    assert "scams/written" in done.output
