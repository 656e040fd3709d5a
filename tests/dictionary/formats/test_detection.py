"""Which format files have, and the errors where that is unclear or the files cannot be read."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from monitor.dictionary.formats import FORMATS, READERS, find_location, read_dictionary
from monitor.errors import DictionaryError
from tests.dictionary.formats import layouts, layouts_openmoss, layouts_pickled
from tests.dictionary.formats.layouts import WIDTH, write_json, write_pickle, write_safetensors
from tests.dictionary.formats.learned import learned
from tests.dictionary.formats.test_families import MAKERS


def refused(source, message, **options):
    with pytest.raises(DictionaryError, match=message) as caught:
        read_dictionary(source, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", MAKERS)
def test_one_reader_and_no_other(tmp_path, name):
    layout = MAKERS[name](tmp_path)
    place = find_location(tmp_path / layout.source)
    assert [reader.name for reader in READERS if reader.detects(place)] == [layout.family]


def test_two_families_in_one_folder(tmp_path):
    source = tmp_path / layouts.sparsify(tmp_path).source
    other = tmp_path / layouts.gemma_scope(tmp_path).source
    shutil.copy(other / "params.npz", source / "params.npz")
    said = refused(source, "could be a dictionary of more than one format")
    for part in (
        "Found: cfg.json, params.npz, sae.safetensors",
        "sparsify wants cfg.json",
        "gemma-scope wants params.npz",
    ):
        assert part in said
    assert "--dictionary-format" in said
    assert read_dictionary(source, format="sparsify").format == "sparsify"


def test_nothing_known(tmp_path):
    write_safetensors(tmp_path / "weights.safetensors", {"a": torch.zeros(2)})
    (tmp_path / "notes.txt").write_text("hello")
    said = refused(tmp_path, "has no dictionary of a known format. Found: notes.txt, weights.safetensors")
    assert all(f"\n  {name}: " in said for name in FORMATS)
    refused(tmp_path, "has no cfg.json", format="saelens")
    refused(tmp_path, "there is no dictionary format 'mine'; the formats are: saelens", format="mine")


def test_a_repository_of_many(tmp_path):
    layouts.gemma_scope(tmp_path)
    root = tmp_path / "google/gemma-scope-2b-pt-res/layer_20"
    refused(root, "in its subfolders: name one of them. Found: width_16k/average_l0_71")


def test_many_files(tmp_path):
    source = (tmp_path / layouts_pickled.qwen_scope(tmp_path).source).parent
    refused(
        source,
        "several weights files .layer12.sae.pt, layer13.sae.pt.: name the file, as in .*/layer12.sae.pt",
    )


def test_a_file_that_holds_no_weights(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    refused(tmp_path / "a.txt", "is not a weights file; give the folder")


def change(path, **entries):
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@pytest.mark.parametrize(
    ("make", "file", "entries", "message"),
    [
        (layouts.sparsify, "cfg.json", {"transcode": True}, "transcoder"),
        (layouts.sparsify, "cfg.json", {"skip_connection": True}, "transcoder"),
        (layouts.sparsify, "cfg.json", {"signed": True}, "signed activations"),
        (layouts.sparsify, "cfg.json", {"activation": "batchtopk"}, "not one of topk, groupmax"),
        (layouts.sparsify, "cfg.json", {"num_latents": 65}, "declares 65 features"),
        (layouts.sparsify, "cfg.json", {"k": 0}, "k is 0"),
        (layouts.gemma_scope_2, "config.json", {"affine_connection": True}, "transcoder"),
        (layouts.gemma_scope_2, "config.json", {"hf_hook_point_out": "model.layers.14.output"}, "transcoder"),
        (layouts.gemma_scope_2, "config.json", {"architecture": "topk"}, "only jump_relu can"),
        (layouts_openmoss.llama_scope, "hyperparams.json", {"act_fn": "topk"}, "only jumprelu can"),
        (layouts_openmoss.llama_scope, "hyperparams.json", {"norm_activation": "batch-wise"}, "batch-wise"),
        (
            layouts_openmoss.llama_scope,
            "hyperparams.json",
            {"jump_relu_threshold": None},
            "jump_relu_threshold",
        ),
        (
            layouts_openmoss.llama_scope,
            "hyperparams.json",
            {"dataset_average_activation_norm": {"in": 0}},
            "dataset_average_activation_norm.in is 0",
        ),
        (
            layouts_openmoss.llama_scope,
            "hyperparams.json",
            {"hook_point_out": "blocks.9.hook_mlp_out"},
            "transcoder",
        ),
        (
            layouts_openmoss.llamascopium,
            "config.json",
            {"act_fn": "batchtopk"},
            "not one of relu, topk, jumprelu",
        ),
        (layouts_openmoss.llamascopium, "config.json", {"sae_type": "clt"}, "only sae_type 'sae'"),
        (layouts_openmoss.llamascopium, "config.json", {"use_glu_encoder": True}, "GLU"),
    ],
)
def test_configurations_that_cannot_be_read(tmp_path, make, file, entries, message):
    source = tmp_path / make(tmp_path).source
    change(source / file, **entries)
    refused(source, message)


def test_scope_of_embeddings(tmp_path):
    layout = layouts.gemma_scope(tmp_path)
    moved = tmp_path / "google/gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6"
    moved.parent.mkdir(parents=True)
    (tmp_path / layout.source).rename(moved)
    refused(moved, "reads token embeddings")


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


def test_qwen_without_its_repository_name(tmp_path):
    source = tmp_path / layouts_pickled.qwen_scope(tmp_path).source
    source.rename(tmp_path / "layer12.sae.pt")
    refused(tmp_path / "layer12.sae.pt", "is stated only in the repository's name")


def test_an_activation_of_openai_that_is_unknown(tmp_path):
    source = tmp_path / layouts_pickled.openai(tmp_path).source
    state = torch.load(source, weights_only=True)
    write_pickle(source, {**state, "activation": "JumpReLU"})
    refused(source, "'JumpReLU' is not one of ReLU, TopK")
    write_pickle(source, {**state, "activation_state_dict": {"k": 4, "postact_fn": "Identity"}})
    refused(source, "may be negative")


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


@pytest.mark.parametrize("name", ["goodfire", "openai", "qwen-scope"])
def test_a_pickle_that_is_cut_short(tmp_path, name):
    source = tmp_path / MAKERS[name](tmp_path).source
    source.write_bytes(source.read_bytes()[:-200])
    refused(source, "not a whole PyTorch file|holds more than tensors")


def test_old_pickles_without_a_zip(tmp_path):
    layout = layouts_pickled.goodfire(tmp_path)
    source = tmp_path / layout.source
    expected = read_dictionary(source).autoencoder
    torch.save(torch.load(source, weights_only=True), source, _use_new_zipfile_serialization=False)
    assert torch.equal(read_dictionary(source).autoencoder.encoder, expected.encoder)


@pytest.mark.parametrize(
    "architecture", ["matching_pursuit", "abstopk", "temporal", "transcoder", "skip_transcoder"]
)
def test_other_architectures_of_saelens(tmp_path, architecture):
    write_json(tmp_path / "cfg.json", {"d_in": 4, "d_sae": 8, "architecture": architecture})
    write_safetensors(tmp_path / "sae_weights.safetensors", {"W_dec": torch.zeros(8, 4)})
    refused(tmp_path, f"architecture '{architecture}'|transcoder")
