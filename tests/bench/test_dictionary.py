"""The dictionaries that are measured: of the stated size, readable, and without taking disk space."""

import pytest
import torch

from monitor.bench.dictionary import _filled, _holes, _llama_scope, _measured, _noise, _saelens
from monitor.dictionary.formats import read_dictionary

FEATURES, WIDTH = 512, 64


def test_both_layouts_are_read_with_the_size_that_was_asked_for(tmp_path):
    for name, write in (("saelens", _saelens), ("llama-scope", _llama_scope)):
        weights = write(tmp_path / name, FEATURES, WIDTH)
        found = read_dictionary(tmp_path / name)
        assert (found.format, found.autoencoder.features, found.autoencoder.d_model) == (
            name,
            FEATURES,
            WIDTH,
        )
        assert float(found.autoencoder.encoder.abs().max()) == 0
        assert weights.stat().st_size > FEATURES * WIDTH * 2 * 2


def test_files_of_zeros_take_no_space_until_they_are_filled(tmp_path):
    path = _holes(tmp_path / "w.safetensors", {"m": (4096, 1024), "v": (7,)})
    assert path.stat().st_size > 8 << 20
    assert path.stat().st_blocks * 512 < 1 << 20
    _filled(path)
    assert path.stat().st_blocks * 512 > 8 << 20


def test_numbers_are_small_and_finite_in_either_type():
    raw = b"".join(_noise(1 << 16))
    assert len(raw) == 1 << 16
    for dtype in (torch.bfloat16, torch.float32):
        numbers = torch.frombuffer(bytearray(raw), dtype=dtype).float()
        assert bool(torch.isfinite(numbers).all())
        assert float(numbers.abs().max()) <= 1.01


@pytest.mark.slow
def test_seconds_and_memory_are_measured_in_a_process_of_its_own(tmp_path):
    _saelens(tmp_path / "d", FEATURES, WIDTH)
    found = _measured(tmp_path / "d", 3)
    assert set(found) == {"open", "watch", "megabytes"}
    assert found["open"] > 0
    assert found["watch"] > 0
