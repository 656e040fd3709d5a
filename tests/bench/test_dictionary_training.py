"""What both trainers are given and measured by, against plain computations."""

import itertools

import pytest
import torch

from monitor.bench.dictionary_training import TrainedScore, TrainingTask, _print, _score, ours, synthetic
from monitor.dictionary.sae import Activation
from tests.dictionary.formats.saes import FEATURES, WIDTH, inputs, make


def task(steps=3, batch=4):
    train = torch.arange(10 * WIDTH).view(10, WIDTH).half()
    return TrainingTask(train, inputs(64), FEATURES, 5, batch, steps)


def test_batches_come_in_the_same_order_and_begin_again():
    found = list(itertools.islice(task().batches(), 5))
    assert all(part.dtype is torch.float32 and part.shape == (4, WIDTH) for part in found)
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])
    assert float(found[1][0, 0]) == 4 * WIDTH


def test_scores_are_those_of_a_plain_pass():
    sae = make(Activation.JUMPRELU)
    found = _score("s", 0.1, sae, task(), (2.0, 1.0))
    x = inputs(64).double()
    acts = sae.encode(inputs(64)).double()
    error = (sae.decode(sae.encode(inputs(64)), inputs(64)).double() - x).square().sum()
    assert found.fvu == pytest.approx(float(error / (x - x.mean(0)).square().sum()), rel=1e-5)
    assert found.l0 == pytest.approx(float((acts > 0).sum(1).double().mean()))
    assert found.dead == pytest.approx(float((acts.amax(0) == 0).double().mean()))
    assert (found.seconds, found.cpu_seconds) == (2.0, 1.0)


def test_synthetic_activations_are_sparse_sums_and_the_same_every_time():
    train, held_out = synthetic(5000, 300, 16)
    assert (train.shape, held_out.shape) == ((8192, 16), (300, 16))
    again, _ = synthetic(5000, 300, 16)
    assert torch.equal(train, again)
    assert not torch.equal(train, synthetic(5000, 300, 16, seed=1)[0])


@pytest.mark.slow
def test_our_trainer_learns_what_is_there():
    train, held_out = synthetic(64 * 256, 1000, 16)
    found = ours(TrainingTask(train, held_out, 256, 16, 256, 120), None)
    assert found.name == "sae-monitor"
    assert found.fvu < 0.5
    assert 8 < found.l0 < 32
    assert found.cpu_seconds > 0


def test_speeds_are_told_against_ours(capsys):
    rows = [
        TrainedScore("SAELens", 1e-3, 0.3, 32.0, 0.1, 20.0, 30.0),
        TrainedScore("sae-monitor", 1e-3, 0.25, 32.0, 0.0, 10.0, 10.0),
    ]
    _print(rows, task())
    said = capsys.readouterr().out
    assert "3.0×" in said
    assert "FVU 0.2500 against SAELens's best 0.3000; 3.0 times its speed (CPU time)" in " ".join(
        said.split()
    )
