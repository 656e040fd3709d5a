"""A dictionary loaded from a folder: digest, width, statistics."""

import dataclasses

import pytest
import torch

from monitor.dictionary.bundle import load_dictionary
from monitor.dictionary.cards import statistics
from monitor.dictionary.formats import DictionaryCard, save_saelens
from monitor.dictionary.sae import Activation
from monitor.errors import DictionaryError
from tests.dictionary.formats.saes import FEATURES, WIDTH, make


@pytest.fixture
def folder(tmp_path):
    save_saelens(tmp_path, make(Activation.JUMPRELU), DictionaryCard(model_name="a model"))
    return tmp_path


def measured(features=FEATURES, digest=""):
    return statistics.FeatureStatistics(
        torch.ones(features), torch.zeros(features), tokens=5, dictionary_digest=digest
    )


def test_digest_is_of_the_numbers_alone(folder, tmp_path_factory):
    before = load_dictionary(folder).digest
    assert before.startswith("sha256:")
    assert len(before) == 7 + 64
    (folder / "training.json").write_text("{}")
    assert load_dictionary(folder).digest == before
    sae = make(Activation.JUMPRELU)
    other = tmp_path_factory.mktemp("other")
    save_saelens(
        other, dataclasses.replace(sae, threshold=sae.threshold + 1e-6), DictionaryCard(model_name="a model")
    )
    assert load_dictionary(other).digest != before


def test_same_contents_elsewhere_have_the_same_digest(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("copy")
    save_saelens(other, make(Activation.JUMPRELU), DictionaryCard(model_name="a model"))
    assert load_dictionary(other).digest == load_dictionary(folder).digest


def test_width(folder):
    dictionary = load_dictionary(folder)
    assert dictionary.fits(WIDTH) is dictionary
    with pytest.raises(DictionaryError, match=r"trained on a model.*12 wide.*768 wide"):
        dictionary.fits(768)


def test_statistics_are_loaded(folder):
    assert load_dictionary(folder).statistics is None
    statistics.save(folder, measured(digest=load_dictionary(folder).digest))
    assert load_dictionary(folder).statistics.tokens == 5


@pytest.mark.parametrize("wrong", [measured(features=3), measured(digest="sha256:1")])
def test_statistics_of_another_dictionary_are_refused(folder, wrong):
    statistics.save(folder, wrong)
    with pytest.raises(DictionaryError, match="another dictionary"):
        load_dictionary(folder)


def test_to_keeps_the_rest(folder):
    dictionary = load_dictionary(folder)
    moved = dictionary.to(dtype=torch.float64)
    assert moved.autoencoder.encoder.dtype is torch.float64
    assert moved.digest == dictionary.digest
