"""Dictionaries of every format give the same activations once they are converted to SAELens and read back."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from monitor.dictionary import conversion
from monitor.dictionary.bundle import load_dictionary
from monitor.dictionary.cards import statistics
from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.conversion import convert
from monitor.dictionary.formats import DictionaryCard, read_dictionary, save_saelens
from monitor.dictionary.sae import Activation
from monitor.errors import DictionaryError
from tests.dictionary.formats.layouts import FEATURES
from tests.dictionary.formats.saes import inputs as small_inputs
from tests.dictionary.formats.saes import make
from tests.dictionary.formats.test_families import MAKERS, close, inputs


@pytest.mark.parametrize("name", [name for name in MAKERS if "groupmax" not in name])
def test_every_family(tmp_path, name):
    layout = MAKERS[name](tmp_path)
    source = load_dictionary(tmp_path / layout.source)
    made = convert(source, tmp_path / "out")
    assert max(made.activations, made.reconstruction) < 1e-5
    assert made.active > 0.005
    acts, out = layout.reference(inputs().double())
    found = read_dictionary(tmp_path / "out")
    if made.refolded:
        acts = acts * source.autoencoder.decoder.norm(dim=-1).double()
    close(found.autoencoder.encode(inputs()), acts)
    close(found.autoencoder.reconstruct(inputs()), out)
    assert (found.card.hook_name, found.card.layer) == (source.card.hook_name, source.card.layer)


def test_what_the_layout_does_not_have_is_refused(tmp_path):
    layout = MAKERS["sparsify, groupmax"](tmp_path)
    with pytest.raises(DictionaryError, match="one active feature per group"):
        convert(load_dictionary(tmp_path / layout.source), tmp_path / "out")
    assert not (tmp_path / "out" / "cfg.json").exists()


def test_statistics_follow_under_the_new_digest(tmp_path):
    layout = MAKERS["gemma-scope"](tmp_path)
    folder = tmp_path / layout.source
    measured = FeatureStatistics(torch.rand(FEATURES) + 1, torch.rand(FEATURES), tokens=9)
    statistics.save(folder, dataclasses.replace(measured, dictionary_digest=load_dictionary(folder).digest))
    made = convert(load_dictionary(folder), tmp_path / "out")
    assert made.statistics
    again = load_dictionary(tmp_path / "out")
    assert torch.equal(again.statistics.maximum, measured.maximum)
    assert again.statistics.dictionary_digest == again.digest


def test_a_folder_with_a_dictionary_is_left_alone(tmp_path):
    save_saelens(tmp_path / "a", make(Activation.RELU), DictionaryCard())
    before = (tmp_path / "a" / "cfg.json").read_bytes()
    with pytest.raises(DictionaryError, match="holds a dictionary already"):
        convert(load_dictionary(tmp_path / "a"), tmp_path / "a")
    assert (tmp_path / "a" / "cfg.json").read_bytes() == before


def test_what_does_not_agree_is_not_kept(tmp_path, monkeypatch):
    def wrong(folder, sae, card):
        save_saelens(folder, dataclasses.replace(sae, encoder_bias=sae.encoder_bias + 0.01), card)

    save_saelens(tmp_path / "a", make(Activation.RELU), DictionaryCard())
    monkeypatch.setattr(conversion, "save_saelens", wrong)
    with pytest.raises(DictionaryError, match="differs from the original"):
        convert(load_dictionary(tmp_path / "a"), tmp_path / "b")
    assert not list((tmp_path / "b").iterdir())


@pytest.mark.parametrize("kind", [Activation.RELU, Activation.JUMPRELU, Activation.TOPK])
def test_an_input_bias_of_its_own_goes_into_the_encoder_bias(tmp_path, kind):
    sae = dataclasses.replace(make(kind), input_bias=torch.linspace(-1, 1, 12))
    save_saelens(tmp_path, sae, DictionaryCard())
    found = read_dictionary(tmp_path).autoencoder
    assert found.input_bias is None
    torch.testing.assert_close(found.encode(small_inputs()), sae.encode(small_inputs()), atol=1e-5, rtol=1e-5)
