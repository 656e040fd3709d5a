"""Weights from a folder: safetensors alone, no code, and every failure as one error that says what to do."""

import json

import pytest
import torch
from transformers.utils import logging

from monitor.errors import ModelError
from monitor.model.load.weights import load_weights
from tests.model.tiny import loaded_model

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    loaded_model().model.save_pretrained(tmp_path)
    return tmp_path


def test_a_model_is_ready_to_run_and_learns_nothing(folder):
    found = load_weights(folder, "mine", torch.float64, CPU)
    assert not found.training
    assert all(not p.requires_grad and p.dtype is torch.float64 for p in found.parameters())
    expected = loaded_model().model.state_dict()
    assert all(torch.equal(value.float(), expected[name]) for name, value in found.state_dict().items())


def test_pickled_weights_are_not_opened(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"mine has no \*\.safetensors weights \(none\)"):
        load_weights(folder, "mine", "auto", CPU)
    for name in ("b.pt", "a.bin"):
        (folder / name).write_bytes(b"never read")
    with pytest.raises(ModelError, match=r"pickled weights \(a\.bin, b\.pt\), which can run code"):
        load_weights(folder, "mine", "auto", CPU)


def test_a_broken_file_is_one_error(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="the model mine cannot be loaded"):
        load_weights(folder, "mine", "auto", CPU)


@pytest.mark.parametrize("content", ["{", '{"model_type": "unheard of"}'])
def test_a_configuration_that_cannot_be_read(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match="the configuration of mine cannot be read"):
        load_weights(folder, "mine", "auto", CPU)


def test_an_encoder_is_no_language_model(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ModelError, match="of type 'vit', which is no causal language model"):
        load_weights(folder, "mine", "auto", CPU)


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bars_are_as_they_were(folder, shown):
    before = logging.is_progress_bar_enabled()
    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
    try:
        load_weights(folder, "mine", "auto", CPU)
        assert logging.is_progress_bar_enabled() is shown
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()
