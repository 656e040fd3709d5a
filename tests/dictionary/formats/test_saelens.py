"""Reading SAELens folders, against the formulas written out in float64."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from monitor.dictionary.formats import (
    read_dictionary,
)
from monitor.dictionary.sae import Activation, InputNorm
from monitor.errors import DictionaryError
from tests.dictionary.formats.layouts import write_json, write_safetensors
from tests.dictionary.formats.refusals import refused
from tests.dictionary.formats.saes import FEATURES, WIDTH, inputs


def weights(*names):
    random = torch.Generator().manual_seed(3)
    shapes = {"W_enc": (WIDTH, FEATURES), "W_dec": (FEATURES, WIDTH), "b_dec": (WIDTH,)}
    wanted = ["W_enc", "W_dec", "b_dec", *names]
    return {name: torch.randn(shapes.get(name, (FEATURES,)), generator=random) for name in wanted}


def store(folder: Path, tensors, **cfg):
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "sae_weights.safetensors")
    base = {"d_in": WIDTH, "d_sae": FEATURES, "architecture": "standard", "metadata": {}}
    (folder / "cfg.json").write_text(json.dumps({**base, **cfg}))
    return folder


def double(tensors):
    return {name: tensor.double() for name, tensor in tensors.items()}


@pytest.mark.parametrize("where", ["metadata", "top"])
@pytest.mark.parametrize("subtract", [True, False])
def test_a_model_with_centred_weights(tmp_path, where, subtract):
    """TransformerLens takes the mean out of all that writes into the residual stream; the model here has it still."""
    stated = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    given = {"metadata": stated} if where == "metadata" else stated
    tensors = weights("b_enc")
    found = read_dictionary(store(tmp_path, tensors, apply_b_dec_to_input=subtract, **given)).autoencoder
    w, x = double(tensors), inputs().double() + 5
    mean = x.mean(-1, keepdim=True)
    expected = ((x - mean - (w["b_dec"] if subtract else 0)) @ w["W_enc"] + w["b_enc"]).relu()
    torch.testing.assert_close(found.encode(x.float()).double(), expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(
        found.reconstruct(x.float()).double(), expected @ w["W_dec"] + w["b_dec"] + mean, atol=1e-4, rtol=1e-5
    )


@pytest.mark.parametrize(
    "name", ["GPT2-Small-SAEs-Reformatted", "models--jbloom--GPT2-Small-SAEs-Reformatted"]
)
def test_known_repositories_that_do_not_say_that_their_model_is_centred(tmp_path, name):
    (tmp_path / name).mkdir()
    old = {
        "d_in": WIDTH,
        "d_sae": FEATURES,
        "model_name": "gpt2-small",
        "hook_point": "blocks.8.hook_resid_pre",
    }
    bare = {key: value for key, value in old.items() if key != "hook_point"}
    for folder in (tmp_path / name / "blocks.8.hook_resid_pre", tmp_path / "other"):
        write_json(store(folder, weights("b_enc")) / "cfg.json", bare)
    found, other = (read_dictionary(tmp_path / one) for one in (f"{name}/blocks.8.hook_resid_pre", "other"))
    assert (found.autoencoder.input_norm, other.autoencoder.input_norm) == (InputNorm.CENTRED, InputNorm.NONE)
    assert found.facts != other.facts
    store(tmp_path / name / "new", weights("b_enc"), model_from_pretrained_kwargs={})
    assert read_dictionary(tmp_path / name / "new").autoencoder.input_norm is InputNorm.NONE


@pytest.mark.parametrize(
    ("model", "hook", "wanted"),
    [
        ("gpt2-small", "hook_point", InputNorm.CENTRED),
        ("gpt2", "hook_point", InputNorm.CENTRED),
        ("openai-community/gpt2", "hook_point", InputNorm.CENTRED),
        ("gpt2-small", "hook_name", InputNorm.NONE),
        ("tiny-stories-1L-21M", "hook_point", InputNorm.NONE),
        ("EleutherAI/not-gpt2x", "hook_point", InputNorm.NONE),
    ],
)
def test_a_copy_of_such_a_repository_is_known_by_how_its_file_is_written(tmp_path, model, hook, wanted):
    """As the `cfg.json` of the published ones: `hook_point` is what SAELens wrote before version 3."""
    old = {"model_name": model, hook: "blocks.8.hook_resid_pre", "d_in": WIDTH, "d_sae": FEATURES}
    write_json(store(tmp_path / "mine", weights("b_enc")) / "cfg.json", old)
    found = read_dictionary(tmp_path / "mine")
    assert found.autoencoder.input_norm is wanted
    assert bool(found.facts) is (wanted is InputNorm.CENTRED)
    write_json(tmp_path / "mine" / "cfg.json", old | {"model_from_pretrained_kwargs": {}})
    assert read_dictionary(tmp_path / "mine").autoencoder.input_norm is InputNorm.NONE, "it says so"


@pytest.mark.parametrize(
    ("norm", "wanted"), [("layer_norm", InputNorm.LAYER_NORM), ("none", InputNorm.CENTRED)]
)
def test_a_layer_norm_centres_anyway(tmp_path, norm, wanted):
    cfg = {"model_from_pretrained_kwargs": {"center_writing_weights": True}, "normalize_activations": norm}
    assert read_dictionary(store(tmp_path, weights("b_enc"), **cfg)).autoencoder.input_norm is wanted


def test_standard_subtracts_the_decoder_bias_by_default(tmp_path):
    tensors = weights("b_enc")
    found = read_dictionary(store(tmp_path, tensors)).autoencoder
    w, x = double(tensors), inputs().double()
    expected = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    torch.testing.assert_close(found.encode(inputs()).double(), expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(
        found.reconstruct(inputs()).double(), expected @ w["W_dec"] + w["b_dec"], atol=1e-4, rtol=1e-5
    )


def test_gated(tmp_path):
    tensors = weights("b_gate", "b_mag", "r_mag")
    found = read_dictionary(store(tmp_path, tensors, architecture="gated")).autoencoder
    w = double(tensors)
    x = inputs().double() - w["b_dec"]
    gate = (x @ w["W_enc"] + w["b_gate"]) > 0
    expected = gate * (x @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"]).relu()
    torch.testing.assert_close(found.encode(inputs()).double(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("logarithm", [False, True])
def test_jumprelu_thresholds_plain_or_as_logarithms(tmp_path, logarithm):
    tensors = weights("b_enc", "threshold")
    tensors["threshold"] = tensors["threshold"].abs() + 0.5
    w = double(tensors)
    pre = (inputs().double() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    if logarithm:
        tensors["log_threshold"] = tensors.pop("threshold").log()
    found = read_dictionary(store(tmp_path, tensors, architecture="jumprelu")).autoencoder
    expected = pre.relu() * (pre > w["threshold"])
    torch.testing.assert_close(found.encode(inputs()).double(), expected, atol=2e-5, rtol=1e-5)


def test_topk_ranked_by_decoder_norm(tmp_path):
    tensors = weights("b_enc")
    folder = store(tmp_path, tensors, architecture="topk", k=6, rescale_acts_by_decoder_norm=True)
    found = read_dictionary(folder).autoencoder
    w = double(tensors)
    norms = w["W_dec"].norm(dim=-1)
    rank = ((inputs().double() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms
    chosen = rank.topk(6, dim=-1).indices
    expected = torch.zeros_like(rank).scatter(-1, chosen, rank.gather(-1, chosen)).relu()
    torch.testing.assert_close(found.encode(inputs()).double(), expected, atol=1e-4, rtol=1e-5)
    out = (expected / norms) @ w["W_dec"] + w["b_dec"]
    torch.testing.assert_close(found.reconstruct(inputs()).double(), out, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("norm", "name"), [("layer_norm", "layer"), ("constant_norm_rescale", "constant")])
def test_input_norms(tmp_path, norm, name):
    tensors = weights("b_enc")
    found = read_dictionary(store(tmp_path, tensors, normalize_activations=norm)).autoencoder
    w, x = double(tensors), inputs().double()
    if name == "layer":
        shift, scale = x.mean(-1, keepdim=True), x.std(-1, keepdim=True) + 1e-5
    else:
        shift, scale = 0.0, x.norm(dim=-1, keepdim=True) / WIDTH**0.5
    acts = (((x - shift) / scale - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    torch.testing.assert_close(found.encode(inputs()).double(), acts, atol=1e-4, rtol=1e-4)
    out = (acts @ w["W_dec"] + w["b_dec"]) * scale + shift
    torch.testing.assert_close(found.reconstruct(inputs()).double(), out, atol=1e-3, rtol=1e-4)


def test_average_norm_is_folded(tmp_path):
    tensors, s = weights("b_enc"), 0.37
    cfg = {"normalize_activations": "expected_average_only_in", "norm_scaling_factor": s}
    found = read_dictionary(store(tmp_path, tensors, **cfg)).autoencoder
    w = double(tensors)
    acts = ((inputs().double() * s - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    torch.testing.assert_close(found.encode(inputs()).double(), acts, atol=2e-5, rtol=1e-5)
    out = (acts @ w["W_dec"] + w["b_dec"]) / s
    torch.testing.assert_close(found.reconstruct(inputs()).double(), out, atol=3e-4, rtol=1e-5)


def test_configuration_from_before_version_6(tmp_path):
    tensors = weights("b_enc")
    tensors["scaling_factor"] = torch.ones(FEATURES)
    store(tmp_path, tensors)
    old = {
        "d_in": WIDTH,
        "d_sae": FEATURES,
        "hook_point": "blocks.3.hook_resid_pre",
        "model_name": "gpt2-small",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 4},
        "normalize_activations": False,
        "prepend_bos": True,
        "context_size": 128,
    }
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    found = read_dictionary(tmp_path)
    assert found.autoencoder.activation is Activation.TOPK
    assert found.autoencoder.k == 4
    assert (found.card.layer, found.card.hook_name) == (2, "blocks.3.hook_resid_pre")
    assert (found.card.model_name, found.card.context_size) == ("gpt2-small", 128)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "temporal"}, "cannot be watched: its features depend on earlier tokens"),
        ({"architecture": "unheard of"}, "not one of standard"),
        ({"architecture": "batchtopk"}, "training checkpoint"),
        (
            {
                "model_from_pretrained_kwargs": {"center_writing_weights": True},
                "normalize_activations": "constant_norm_rescale",
            },
            "center_writing_weights cannot be read",
        ),
        ({"activation_fn": "tanh-relu"}, "activation function 'tanh-relu'"),
        ({"normalize_activations": "covariance_whitening"}, "covariance_whitening"),
        ({"normalize_activations": "expected_average_only_in"}, "norm_scaling_factor"),
        ({"reshape_activations": "hook_z"}, "attention heads"),
        ({"d_out": 7}, "transcoder"),
        ({"d_sae": "many"}, "d_sae is 'many'"),
        ({"d_sae": FEATURES + 1}, "of different dictionaries"),
        ({"architecture": "topk"}, "k is None"),
        ({"architecture": "topk", "k": FEATURES + 1}, "k is 41"),
        ({"architecture": "jumprelu"}, "missing here: threshold"),
    ],
)
def test_what_cannot_be_expressed_is_refused(tmp_path, change, message):
    store(tmp_path, weights("b_enc"), **change)
    with pytest.raises(DictionaryError, match=message):
        read_dictionary(tmp_path)


def test_a_finetuned_dictionary_is_refused(tmp_path):
    store(tmp_path, {**weights("b_enc"), "scaling_factor": torch.full((FEATURES,), 1.1)})
    with pytest.raises(DictionaryError, match="scaling_factor"):
        read_dictionary(tmp_path)


def test_unknown_tensors_are_refused(tmp_path):
    store(tmp_path, {**weights("b_enc"), "W_skip": torch.eye(WIDTH)})
    with pytest.raises(DictionaryError, match="unknown: W_skip"):
        read_dictionary(tmp_path)


@pytest.mark.parametrize(
    "architecture", ["matching_pursuit", "abstopk", "temporal", "transcoder", "skip_transcoder"]
)
def test_other_architectures_of_saelens(tmp_path, architecture):
    write_json(tmp_path / "cfg.json", {"d_in": 4, "d_sae": 8, "architecture": architecture})
    write_safetensors(tmp_path / "sae_weights.safetensors", {"W_dec": torch.zeros(8, 4)})
    refused(tmp_path, f"architecture '{architecture}'|transcoder")
