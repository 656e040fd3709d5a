"""Folders of Llama Scope: how inputs are scaled, and those that cannot be read."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file, save_file

from monitor.dictionary.formats import read_dictionary
from monitor.dictionary.formats.llama_scope import input_scale, refuse_transcoder
from monitor.dictionary.sae import InputNorm
from monitor.errors import DictionaryError
from tests.dictionary.formats import layouts_openmoss
from tests.dictionary.formats.refusals import change, refused


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"act_fn": "topk"}, "only jumprelu can"),
        ({"norm_activation": "batch-wise"}, "batch-wise"),
        ({"jump_relu_threshold": None}, "jump_relu_threshold"),
        ({"dataset_average_activation_norm": {"in": 0}}, "dataset_average_activation_norm.in is 0"),
        ({"hook_point_out": "blocks.9.hook_mlp_out"}, "transcoder"),
    ],
)
def test_configurations_that_cannot_be_read(tmp_path, entries, message):
    source = tmp_path / layouts_openmoss.llama_scope(tmp_path).source
    change(source / "hyperparams.json", **entries)
    refused(source, message)


WIDTH = 16


@pytest.mark.parametrize(
    ("config", "stored", "expected"),
    [
        ({"norm_activation": "none"}, None, (1.0, InputNorm.NONE)),
        ({"norm_activation": "inference"}, 9.0, (1.0, InputNorm.NONE)),
        ({"norm_activation": "token-wise"}, None, (1.0, InputNorm.CONSTANT_NORM)),
        ({"dataset_average_activation_norm": {"in": 8.0}}, None, (0.5, InputNorm.NONE)),
        ({"dataset_average_activation_norm": {"in": 8.0, "out": 8.0}}, 2.0, (2.0, InputNorm.NONE)),
        (
            {"hook_point_in": "a", "dataset_average_activation_norm": {"a": 1.0}},
            None,
            (4.0, InputNorm.NONE),
        ),
    ],
)
def test_inputs_are_scaled_to_norm_root_d(config, stored, expected):
    assert input_scale(config, WIDTH, "here", stored) == expected


def test_norms_that_differ_are_those_of_a_transcoder():
    config = {"dataset_average_activation_norm": {"in": 8.0, "out": 9.0}}
    with pytest.raises(DictionaryError, match="here: dataset_average_activation_norm differs for in and out"):
        input_scale(config, WIDTH, "here")
    with pytest.raises(DictionaryError, match=r"dataset_average_activation_norm\.in is None"):
        input_scale({"dataset_average_activation_norm": "8"}, WIDTH, "here")


def test_one_hook_point_is_no_transcoder():
    refuse_transcoder({"hook_point_in": "a", "hook_point_out": "a"}, "here")
    refuse_transcoder({"hook_point_in": "a"}, "here")
    with pytest.raises(DictionaryError, match="here: this is a transcoder from a to b"):
        refuse_transcoder({"hook_point_in": "a", "hook_point_out": "b"}, "here")


def test_without_a_decoder_bias_nothing_is_added(tmp_path):
    source = tmp_path / layouts_openmoss.llama_scope(tmp_path).source
    change(source / "hyperparams.json", use_decoder_bias=False)
    refused(source, "unknown: decoder.bias")
    tensors = load_file(source / "checkpoints/final.safetensors")
    tensors.pop("decoder.bias")
    save_file(tensors, source / "checkpoints/final.safetensors")
    assert read_dictionary(source).autoencoder.decoder_bias.tolist() == [0.0] * WIDTH
