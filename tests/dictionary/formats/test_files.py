"""Broken folders and the errors that they raise."""

import json

import pytest
import torch
from safetensors.torch import save_file

from monitor.dictionary.formats import DictionaryCard, read_dictionary, save_saelens
from monitor.dictionary.sae import Activation
from tests.dictionary.formats.refusals import refused
from tests.dictionary.formats.saes import make


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    refused(folder, f"has no {name}")


def test_a_truncated_file(folder):
    path = folder / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, "cut short")


def test_a_large_file_pointer(folder):
    (folder / "sae_weights.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    refused(folder, "git lfs pull")


def test_a_broken_configuration(folder):
    (folder / "cfg.json").write_text('{"d_in": ')
    refused(folder, "is not JSON")
    (folder / "cfg.json").write_text("[1]")
    refused(folder, "must be a JSON object")


def test_a_pickled_dictionary_is_refused_and_never_opened(tmp_path):
    trap = tmp_path / "opened"

    class Trap:
        def __reduce__(self):
            return (open, (str(trap), "w"))

    torch.save({"encoder": Trap()}, tmp_path / "ae.pt")
    message = refused(tmp_path, "A pickled file can run code")
    assert "ae.pt" in message
    assert "safetensors" in message
    assert not trap.exists()


def test_an_unknown_folder_says_what_was_found(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path, "Found: notes.txt")


def test_not_finite(folder):
    sae = make(Activation.RELU)
    sae.encoder[3, 2] = float("nan")
    save_saelens(folder, sae, DictionaryCard())
    refused(folder, "W_enc holds values that are not finite")


def test_format_can_be_named(folder):
    assert read_dictionary(folder, format="saelens").autoencoder.features == 40
    refused(folder, "the formats are: saelens", format="gguf")


def test_foreign_tensors_of_another_shape(folder):
    config = json.loads((folder / "cfg.json").read_text())
    save_file({"W_enc": torch.zeros(2, 2)}, folder / "sae_weights.safetensors")
    assert config["architecture"] == "jumprelu"
    refused(folder, "missing here: W_dec, b_dec, b_enc, threshold")
