"""Readings and residuals of a prefix, on the pair of the tests."""

import torch

from monitor.bench.models import demo
from monitor.bench.prefixes import compared, main, residuals_of


def test_both_ways_are_measured_and_sized(capsys):
    subject = demo("cpu", "float32")
    readings, residuals = compared(subject, 64, 2)
    assert residuals.bytes_per_token == 4 * subject.loaded.d_model
    # So many readings of four bytes, and whether the token is an attention sink.
    assert readings.bytes_per_token % 4 == 1
    assert 0 < readings.bytes_per_token < 4 * len(subject.maximum)
    assert min(readings.hit, residuals.hit) > 0
    assert residuals.reload == residuals.hit < readings.reload
    main(model="demo", dtype="float32", tokens=16, rounds=1)
    assert "readings" in capsys.readouterr().out


def test_residuals_are_those_of_the_tapped_layer():
    subject = demo("cpu", "float32")
    ids = torch.arange(5, 21)
    with torch.no_grad():
        plain = subject.loaded.model(input_ids=ids[None], output_hidden_states=True).hidden_states
    assert torch.allclose(residuals_of(subject, ids), plain[subject.layer + 1][0], atol=1e-5)
