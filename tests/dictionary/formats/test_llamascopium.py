"""Folders of llamascopium: thresholds, norms, and those that cannot be read."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from monitor.dictionary.formats import find_location, read_dictionary
from monitor.dictionary.formats.llamascopium import LlamascopiumReader
from tests.dictionary.formats import layouts_openmoss
from tests.dictionary.formats.refusals import change, refused


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"act_fn": "batchtopk"}, "not one of relu, topk, jumprelu"),
        ({"sae_type": "clt"}, "only sae_type 'sae'"),
        ({"use_glu_encoder": True}, "GLU"),
    ],
)
def test_configurations_that_cannot_be_read(tmp_path, entries, message):
    source = tmp_path / layouts_openmoss.llamascopium(tmp_path).source
    change(source / "config.json", **entries)
    refused(source, message)


def test_a_config_of_another_project_is_not_taken_for_one(tmp_path):
    place = find_location(tmp_path / layouts_openmoss.llamascopium(tmp_path).source)
    assert LlamascopiumReader().detects(place)
    (place.path("config.json")).write_text('{"d_model": 16}')
    assert not LlamascopiumReader().detects(place)


def test_the_norm_in_the_weights_counts_before_that_of_the_configuration(tmp_path):
    source = tmp_path / layouts_openmoss.llamascopium(tmp_path, "relu").source
    before = read_dictionary(source).autoencoder
    change(source / "config.json", dataset_average_activation_norm={"in": 50.0})
    assert torch.equal(read_dictionary(source).autoencoder.encoder, before.encoder)
    tensors = load_file(source / "sae_weights.safetensors")
    hook = "dataset_average_activation_norm.blocks.3.hook_resid_post"
    save_file({k: v for k, v in tensors.items() if k != hook}, source / "sae_weights.safetensors")
    torch.testing.assert_close(read_dictionary(source).autoencoder.encoder, before.encoder / 10)


def test_topk_ranks_by_decoder_norm_where_the_configuration_says_so(tmp_path):
    source = tmp_path / layouts_openmoss.llamascopium(tmp_path, "topk").source
    assert read_dictionary(source).autoencoder.rank_by_decoder_norm
    change(source / "config.json", sparsity_include_decoder_norm=False)
    assert not read_dictionary(source).autoencoder.rank_by_decoder_norm
    change(source / "config.json", top_k=0)
    refused(source, "top_k is 0")


def test_jumprelu_needs_thresholds(tmp_path):
    source = tmp_path / layouts_openmoss.llamascopium(tmp_path, "relu").source
    change(source / "config.json", act_fn="jumprelu")
    refused(source, "a jumprelu dictionary has activation_function.log_jumprelu_threshold or ")
