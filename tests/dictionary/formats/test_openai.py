"""Files of OpenAI's dictionaries: activation functions, and what addresses say."""

from __future__ import annotations

import pytest
import torch

from monitor.dictionary.formats import read_dictionary
from monitor.dictionary.sae import InputNorm
from tests.dictionary.formats import layouts_pickled
from tests.dictionary.formats.layouts import write_pickle
from tests.dictionary.formats.refusals import refused


def test_an_activation_of_openai_that_is_unknown(tmp_path):
    source = tmp_path / layouts_pickled.openai(tmp_path).source
    state = torch.load(source, weights_only=True)
    write_pickle(source, {**state, "activation": "JumpReLU"})
    refused(source, "'JumpReLU' is not one of ReLU, TopK")
    write_pickle(source, {**state, "activation_state_dict": {"k": 4, "postact_fn": "Identity"}})
    refused(source, "may be negative")


@pytest.mark.parametrize(
    ("place", "hook", "layer"),
    [
        ("resid_post_mlp_v5_32k", "blocks.8.hook_resid_post", 8),
        ("resid_post_attn_v5_128k", "blocks.8.hook_resid_mid", None),
        ("resid_delta_mlp", "blocks.8.hook_mlp_out", None),
        ("mlp_post_act_v5", "blocks.8.mlp.hook_post", None),
        ("elsewhere", None, None),
    ],
)
def test_the_address_names_the_hook_point(tmp_path, place, hook, layer):
    source = tmp_path / layouts_pickled.openai(tmp_path).source
    moved = tmp_path / place / "autoencoders" / "8.pt"
    moved.parent.mkdir(parents=True)
    source.rename(moved)
    for given in (moved, moved.parent):
        card = read_dictionary(given).card
        assert (card.hook_name, card.layer, card.context_size) == (hook, layer, 64)


def test_only_topk_normalises_its_inputs(tmp_path):
    def read(kind):
        return read_dictionary(tmp_path / layouts_pickled.openai(tmp_path, kind).source).autoencoder

    assert (read("TopK").input_norm, read("TopK").k) == (InputNorm.LAYER_NORM, 12)
    assert (read("ReLU").input_norm, read("ReLU").k) == (InputNorm.NONE, None)
