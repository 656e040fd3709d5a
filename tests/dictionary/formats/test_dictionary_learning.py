"""Folders of dictionary_learning: classes, thresholds, what its makers measured."""

from __future__ import annotations

import pytest
import torch

from monitor.dictionary.formats import read_dictionary
from monitor.dictionary.sae import Activation
from tests.dictionary.formats.layouts import write_json, write_pickle
from tests.dictionary.formats.learned import learned
from tests.dictionary.formats.refusals import change, refused


@pytest.mark.parametrize("kind", ["BatchTopKSAE", "MatryoshkaBatchTopKSAE"])
def test_a_threshold_that_was_never_set(tmp_path, kind):
    refused(tmp_path / learned(tmp_path, kind, threshold=-1.0).source, "threshold was never set")


@pytest.mark.parametrize("kind", ["BatchTopKSAE", "MatryoshkaBatchTopKSAE"])
@pytest.mark.parametrize("stored", [{}, {"threshold": None}])
def test_a_file_without_a_threshold(tmp_path, kind, stored):
    source = tmp_path / learned(tmp_path, kind).source
    tensors = torch.load(source / "ae.pt")
    del tensors["threshold"]
    torch.save(tensors | stored, source / "ae.pt")
    refused(source, "there is no `threshold`.*store `threshold` in the file: the mean")


def test_an_unknown_class(tmp_path):
    source = tmp_path / learned(tmp_path, "AutoEncoder").source
    write_json(source / "config.json", {"trainer": {"dict_class": "CrossCoder"}})
    refused(source, "dict_class is 'CrossCoder', which cannot be read; these can: AutoEncoder, ")


def test_what_its_makers_measured(tmp_path):
    source = tmp_path / learned(tmp_path, "AutoEncoder").source
    assert (read_dictionary(source).card.l0, read_dictionary(source).card.explained_variance) == (None, None)
    write_json(
        source / "eval_results.json", {"l0": 61.5, "frac_variance_explained": 0.81, "loss_original": 2}
    )
    assert (read_dictionary(source).card.l0, read_dictionary(source).card.explained_variance) == (61.5, 0.81)


def test_the_wrong_class_is_not_read(tmp_path):
    """A BatchTopK dictionary whose configuration says AutoEncoder: its tensors are not those of one."""
    source = tmp_path / learned(tmp_path, "BatchTopKSAE").source
    change(source / "config.json", trainer={"dict_class": "AutoEncoder"})
    refused(source, "an AutoEncoder has the tensors .*missing here: bias; unknown: b_dec, k, threshold")


def test_topk_of_dictionary_learning_is_not_read_as_its_threshold(tmp_path):
    sae = read_dictionary(tmp_path / learned(tmp_path, "AutoEncoderTopK").source).autoencoder
    assert (sae.activation, sae.threshold) == (Activation.TOPK, None)


@pytest.mark.parametrize(
    ("trainer", "hook", "layer"),
    [
        ({"layer": 3, "submodule_name": "resid_post_layer_3"}, "blocks.3.hook_resid_post", 3),
        ({"layer": 3, "submodule_name": None}, "blocks.3.hook_resid_post", 3),
        ({"layer": 3, "submodule_name": "mlp_out_layer_3"}, "mlp_out_layer_3", None),
        ({"layer": None, "submodule_name": "gpt_neox.layers.4"}, "gpt_neox.layers.4", 4),
        ({"layer": "3", "submodule_name": ""}, None, None),
    ],
)
def test_the_hook_point_is_the_submodule(tmp_path, trainer, hook, layer):
    source = tmp_path / learned(tmp_path, "AutoEncoder").source
    write_json(source / "config.json", {"trainer": {"dict_class": "AutoEncoder", **trainer}, "buffer": [1]})
    card = read_dictionary(source).card
    assert (card.hook_name, card.layer, card.context_size) == (hook, layer, None)


def test_negative_thresholds_of_jumprelu_are_none(tmp_path):
    source = tmp_path / learned(tmp_path, "JumpReluAutoEncoder").source
    state = torch.load(source / "ae.pt", weights_only=True)
    state["threshold"][:2] = torch.tensor([-3.0, 0.25])
    write_pickle(source / "ae.pt", state)
    assert read_dictionary(source).autoencoder.threshold[:2].tolist() == [0.0, 0.25]


def test_measures_that_are_no_numbers_are_left_out(tmp_path):
    source = tmp_path / learned(tmp_path, "AutoEncoder").source
    write_json(source / "eval_results.json", {"l0": True, "frac_variance_explained": "0.8"})
    card = read_dictionary(source).card
    assert (card.l0, card.explained_variance) == (None, None)
