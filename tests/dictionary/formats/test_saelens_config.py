"""`cfg.json` of SAELens, old and new, as one record."""

import pytest

from monitor.dictionary.formats.saelens_config import parse_config
from monitor.dictionary.sae import InputNorm
from monitor.errors import DictionaryError

SIZES = {"d_in": 8, "d_sae": 32}


def parsed(**entries):
    return parse_config({**SIZES, **entries}, "cfg.json")


def test_what_is_not_stated_is_standard():
    found = parsed()
    assert (found.architecture, found.d_in, found.d_sae, found.k) == ("standard", 8, 32, None)
    assert (found.input_norm, found.input_scale) == (InputNorm.NONE, 1.0)
    assert found.subtract_decoder_bias
    assert not found.rank_by_decoder_norm
    assert (found.card.hook_name, found.card.layer) == (None, None)


def test_metadata_of_version_6_counts_like_the_top_level():
    metadata = {"hook_name": "blocks.3.hook_resid_post", "model_name": "m", "prepend_bos": False}
    found = parsed(metadata=metadata, apply_b_dec_to_input=False)
    assert (found.card.layer, found.card.model_name, found.card.prepend_bos) == (3, "m", False)
    assert not found.subtract_decoder_bias
    assert parsed(metadata=None).card.model_name is None


def test_names_from_before_version_6():
    found = parsed(
        hook_point="blocks.2.hook_resid_pre", activation_fn_str="topk", activation_fn_kwargs={"k": 4}
    )
    assert (found.architecture, found.k, found.card.layer) == ("topk", 4, 1)


@pytest.mark.parametrize(
    ("value", "norm", "scale"),
    [
        (False, InputNorm.NONE, 1.0),
        (None, InputNorm.NONE, 1.0),
        (True, InputNorm.NONE, 0.5),
        ("expected_average_only_in", InputNorm.NONE, 0.5),
        ("layer_norm", InputNorm.LAYER_NORM, 1.0),
        ("constant_norm_rescale", InputNorm.CONSTANT_NORM, 1.0),
    ],
)
def test_norms(value, norm, scale):
    found = parsed(normalize_activations=value, norm_scaling_factor=0.5)
    assert (found.input_norm, found.input_scale) == (norm, scale)


def test_the_layer_comes_from_the_hugging_face_name_where_the_other_says_none():
    found = parsed(hook_name="blocks.3.hook_mlp_out", hf_hook_name="model.layers.3")
    assert (found.card.hook_name, found.card.layer) == ("blocks.3.hook_mlp_out", 3)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"architecture": "matryoshka"}, "'matryoshka' is a training checkpoint; save it with"),
        ({"architecture": "abstopk"}, "cannot be watched: its activations may be negative"),
        ({"architecture": "relu"}, "architecture 'relu' is not one of standard"),
        ({"activation_fn": "gelu"}, "activation function 'gelu' is not one of relu, topk"),
        ({"hook_name_out": "blocks.4.hook_mlp_out"}, "this is a transcoder"),
        ({"hook_name": "blocks.4.attn.hook_z"}, r"reads attention heads \(blocks.4.attn.hook_z\)"),
        ({"d_in": True}, "d_in is True; it must be a whole number"),
        ({"d_sae": 0}, "d_sae is 0"),
        ({"architecture": "topk", "k": 2.5}, "k is 2.5"),
        ({"normalize_activations": True, "norm_scaling_factor": 0}, 'Add "norm_scaling_factor"'),
        ({"normalize_activations": "batch"}, "normalize_activations 'batch' is not one of none"),
    ],
)
def test_errors_name_the_file_and_what_to_write(entries, message):
    with pytest.raises(DictionaryError, match="^cfg.json: .*" + message):
        parsed(**entries)
