"""Writing SAELens folders: what is read back is the same, and what the layout cannot express is refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from monitor.dictionary.formats import (
    DictionaryCard,
    read_dictionary,
    save_saelens,
)
from monitor.dictionary.sae import Activation, InputNorm
from monitor.errors import DictionaryError
from tests.dictionary.formats.saes import FEATURES, WIDTH, inputs, make

KINDS = [Activation.RELU, Activation.JUMPRELU, Activation.TOPK]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("subtract", [False, True])
@pytest.mark.parametrize("norm", list(InputNorm))
def test_saved_and_read_is_the_same(tmp_path, kind, subtract, norm):
    sae = make(kind, subtract=subtract, norm=norm)
    card = DictionaryCard("m", "blocks.4.hook_resid_post", 4, True, 256, "text", None, 12.5, 0.75)
    save_saelens(tmp_path, sae, card)
    found = read_dictionary(tmp_path)
    assert found.card == card
    assert torch.equal(found.autoencoder.encode(inputs()), sae.encode(inputs()))
    assert torch.equal(found.autoencoder.reconstruct(inputs()), sae.reconstruct(inputs()))


def test_bfloat16_weights_keep_float32_thresholds(tmp_path):
    sae = make(Activation.JUMPRELU)
    save_saelens(tmp_path, sae, DictionaryCard(), dtype=torch.bfloat16)
    found = read_dictionary(tmp_path).autoencoder
    assert torch.equal(found.encoder, sae.encoder.bfloat16().float())
    assert torch.equal(found.threshold, sae.threshold)


@pytest.mark.parametrize("kind", [Activation.GATED])
def test_what_cannot_be_written_is_refused(tmp_path, kind):
    with pytest.raises(DictionaryError, match="cannot express a gated dictionary"):
        save_saelens(tmp_path, make(kind), DictionaryCard())
    assert not list(tmp_path.iterdir())


def test_a_gate_along_its_encoder_is_stored_with_its_factor(tmp_path):
    gated = make(Activation.GATED)
    factor = torch.rand(FEATURES, generator=torch.Generator().manual_seed(0)) + 0.5
    sae = replace(gated, encoder=gated.gate_encoder * factor.unsqueeze(1))
    save_saelens(tmp_path, sae, DictionaryCard())
    stored = load_file(tmp_path / "sae_weights.safetensors")
    torch.testing.assert_close(stored["r_mag"].exp(), factor, atol=1e-6, rtol=1e-6)
    assert torch.equal(stored["W_enc"], gated.gate_encoder.T)


def test_another_input_bias_is_folded_into_the_encoder(tmp_path):
    sae = replace(make(Activation.RELU), input_bias=torch.linspace(-1, 1, WIDTH))
    save_saelens(tmp_path, sae, DictionaryCard())
    assert not json.loads((tmp_path / "cfg.json").read_text())["apply_b_dec_to_input"]
    torch.testing.assert_close(read_dictionary(tmp_path).autoencoder.encode(inputs()), sae.encode(inputs()))


def test_density_is_stored_as_its_logarithm(tmp_path):
    density = torch.full((FEATURES,), 0.01)
    density[3] = 0
    save_saelens(tmp_path, make(Activation.RELU), DictionaryCard(), density=density)
    stored = load_file(tmp_path / "sparsity.safetensors")["sparsity"]
    assert stored[[0, 3]].tolist() == pytest.approx([-2.0, -10.0], abs=1e-5)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"grouped": True}, "one active feature per group"),
        ({"rank_by_decoder_norm": True}, "fold the decoder norms into the encoder"),
    ],
)
def test_topk_that_the_layout_does_not_have(tmp_path, option, message):
    with pytest.raises(DictionaryError, match=message):
        save_saelens(tmp_path / "new", replace(make(Activation.TOPK), **option), DictionaryCard())
    assert not (tmp_path / "new").exists()


def test_the_configuration_is_written_last_and_whole(tmp_path, monkeypatch):
    """A save that is interrupted is not taken for a dictionary."""
    order = []
    whole = os.replace
    monkeypatch.setattr(os, "replace", lambda part, path: (order.append(path.name), whole(part, path)))
    save_saelens(tmp_path, make(Activation.TOPK), DictionaryCard("m"), density=torch.ones(FEATURES))
    assert order == ["sae_weights.safetensors", "sparsity.safetensors", "cfg.json"]
    assert not list(tmp_path.glob("*.part"))
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert (config["k"], config["metadata"]["model_name"]) == (5, "m")
