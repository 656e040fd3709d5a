"""Folders of Gemma Scope 2: what they say about themselves, and those that cannot be read."""

from __future__ import annotations

import pytest
import torch

from monitor.dictionary.formats import read_dictionary
from tests.dictionary.formats import layouts
from tests.dictionary.formats.layouts import WIDTH, write_safetensors
from tests.dictionary.formats.refusals import change, refused


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"affine_connection": True}, "transcoder"),
        ({"hf_hook_point_out": "model.layers.14.output"}, "transcoder"),
        ({"architecture": "topk"}, "only jump_relu can"),
    ],
)
def test_configurations_that_cannot_be_read(tmp_path, entries, message):
    source = tmp_path / layouts.gemma_scope_2(tmp_path).source
    change(source / "config.json", **entries)
    refused(source, message)


def test_matrices_that_do_not_belong_together(tmp_path):
    source = tmp_path / layouts.gemma_scope_2(tmp_path).source
    tensors = {"w_enc": torch.zeros(WIDTH, 8), "w_dec": torch.zeros(8, WIDTH + 1), "b_enc": torch.zeros(8)}
    tensors |= {"b_dec": torch.zeros(WIDTH), "threshold": torch.zeros(8)}
    write_safetensors(source / "params.safetensors", tensors)
    refused(source, "they are not encoder and decoder of one hook point")
    write_safetensors(
        source / "params.safetensors", {**tensors, "w_dec": torch.zeros(8, WIDTH), "b_enc": torch.zeros(9)}
    )
    refused(source, r"b_enc has shape \(9,\); it must be \(8,\)")


@pytest.mark.parametrize(
    ("entries", "hook", "layer"),
    [
        ({"hf_hook_point_in": "model.layers.13.output"}, "blocks.13.hook_resid_post", 13),
        (
            {"hf_hook_point_in": "model.layers.13.post_feedforward_layernorm.output"},
            "blocks.13.hook_mlp_out",
            None,
        ),
        ({"hf_hook_point_in": "model.layers.13.self_attn.o_proj.input"}, "blocks.13.attn.hook_z", None),
        ({"hf_hook_point_in": None}, "blocks.13.hook_resid_post", 13),
    ],
)
def test_the_hook_point_is_that_of_the_configuration_then_of_the_folder(tmp_path, entries, hook, layer):
    source = tmp_path / layouts.gemma_scope_2(tmp_path).source
    change(source / "config.json", hf_hook_point_out=entries["hf_hook_point_in"], **entries)
    card = read_dictionary(source).card
    assert (card.hook_name, card.layer, card.l0) == (hook, layer, 60.0)


@pytest.mark.parametrize(
    ("named", "model"),
    [
        ("gemma-v3-270m-pt", "google/gemma-3-270m"),
        ("gemma-v3-270m-it", "google/gemma-3-270m-it"),
        ("google/gemma-3-12b-it", "google/gemma-3-12b-it"),
        (None, "google/gemma-3-1b-pt"),
    ],
)
def test_the_model_is_named_as_on_the_hub(tmp_path, named, model):
    source = tmp_path / layouts.gemma_scope_2(tmp_path).source
    change(source / "config.json", model_name=named)
    assert read_dictionary(source).card.model_name == model


@pytest.mark.parametrize("folder", ["transcoder", "transcoder_all", "clt"])
def test_a_folder_of_transcoders_is_refused_without_a_configuration_too(tmp_path, folder):
    layout = layouts.gemma_scope_2(tmp_path, config=False)
    moved = tmp_path / f"google/gemma-scope-2-1b-pt/{folder}/layer_13_width_16k"
    moved.parent.mkdir()
    (tmp_path / layout.source).rename(moved)
    refused(moved, "this is a transcoder")
