"""Dictionaries from a hub on loopback: which files are downloaded, and which errors are raised.

Each case runs in a process of its own, since huggingface_hub reads HF_ENDPOINT and HF_HOME when it is imported.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from monitor.dictionary.cards import statistics
from monitor.dictionary.cards.statistics import FeatureStatistics
from tests.dictionary.formats import layouts, layouts_pickled
from tests.dictionary.formats.fakehub import COMMIT, fake_hub
from tests.dictionary.formats.layouts import FEATURES

PROGRAM = """
import json, sys
from monitor.dictionary.bundle import load_dictionary
from monitor.errors import DictionaryError
out = []
for source in sys.argv[1:]:
    try:
        found = load_dictionary(source)
        out.append({"features": found.autoencoder.features, "hook": found.card.hook_name, "digest": found.digest,
                    "format": found.format, "home": str(found.path), "model": found.card.model_name,
                    "tokens": found.statistics and found.statistics.tokens})
    except DictionaryError as error:
        out.append({"error": str(error)})
print(json.dumps(out))
"""


@pytest.fixture
def hub(tmp_path):
    root = tmp_path / "served"
    layouts.gemma_scope(root)
    layouts.gemma_scope_2(root)
    layouts.sparsify(root)
    layouts_pickled.qwen_scope(root)
    with fake_hub(root) as served:
        yield served


def load(hub_url, tmp_path, *sources, **environment):
    place = {"HF_ENDPOINT": hub_url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    place |= {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *sources],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **place, **environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_only_the_files_of_the_dictionary_are_fetched(hub, tmp_path):
    scope = "google/gemma-scope-2b-pt-res"
    (hub.root / scope / "README.md").write_text("large")
    second = hub.root / scope / "layer_20/width_16k/average_l0_300"
    second.mkdir()
    (second / "params.npz").write_bytes(b"another")
    first = f"hub:{scope}/layer_20/width_16k/average_l0_71"
    run = "EleutherAI/sae-llama-3-8b-topk@main/layers.10"
    npz, safetensors = load(hub.url, tmp_path, first, run)
    assert (npz["features"], npz["format"]) == (FEATURES, "gemma-scope")
    assert npz["hook"] == "blocks.20.hook_resid_post"
    assert (safetensors["format"], safetensors["model"]) == ("sparsify", "meta-llama/Meta-Llama-3-8B")
    assert sorted(set(hub.fetched)) == [
        "EleutherAI/sae-llama-3-8b-topk/config.json",
        "EleutherAI/sae-llama-3-8b-topk/layers.10/cfg.json",
        "EleutherAI/sae-llama-3-8b-topk/layers.10/sae.safetensors",
        f"{scope}/layer_20/width_16k/average_l0_71/params.npz",
    ]


@pytest.mark.slow
def test_one_file_of_many(hub, tmp_path):
    named, unnamed = load(
        hub.url,
        tmp_path,
        f"Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50@{COMMIT}/layer12.sae.pt",
        "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50",
    )
    assert (named["format"], named["hook"]) == ("qwen-scope", "model.layers.12")
    assert "name the file, as in Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer12.sae.pt" in unnamed["error"]
    assert set(hub.fetched) == {"Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer12.sae.pt"}


@pytest.mark.slow
def test_the_same_dictionary_from_hub_and_folder(hub, tmp_path):
    inside = "google/gemma-scope-2-1b-pt/resid_post/layer_13_width_16k_l0_medium"
    remote, local = load(hub.url, tmp_path, f"hub:{inside}", str(hub.root / inside))
    assert remote["digest"] == local["digest"]
    assert remote["home"].startswith(str(tmp_path / "home" / "sae-monitor"))
    assert local["home"] == str(hub.root / inside)


@pytest.mark.slow
def test_statistics_that_a_repository_has_are_used(hub, tmp_path):
    inside = "google/gemma-scope-2-1b-pt/resid_post/layer_13_width_16k_l0_medium"
    measured = FeatureStatistics(torch.ones(FEATURES), torch.zeros(FEATURES), tokens=5)
    statistics.save(hub.root / inside, measured)
    (found,) = load(hub.url, tmp_path, f"hub:{inside}")
    assert found["home"].endswith(f"snapshots/{COMMIT}/resid_post/layer_13_width_16k_l0_medium")
    assert found["tokens"] == 5


@pytest.mark.slow
def test_what_cannot_be_had_is_explained(hub, tmp_path):
    hub.gated.add("google/gemma-scope-2-1b-pt")
    answers = load(
        hub.url,
        tmp_path,
        "hub:nobody/nothing",
        "nobody/nothing",
        "hub:google/gemma-scope-2-1b-pt/resid_post",
        "google/gemma-scope-2b-pt-res@v7/layer_20",
        "google/gemma-scope-2b-pt-res/layer_99",
        "hub:google/gemma-scope-2b-pt-res",
        "hub:one-word",
    )
    expected = [
        "there is no repository nobody/nothing on the hub, or it is private",
        "nobody/nothing is not a folder or file on this machine, and as a hub repository: there is no repository",
        "is gated: accept its terms",
        "google/gemma-scope-2b-pt-res does not have it",
        "the repository google/gemma-scope-2b-pt-res has no layer_99; it has layer_20",
        "has dictionaries in its subfolders: name one of them. Found: layer_20/width_16k/average_l0_71",
        "write hub:ORG/NAME[@REVISION][/FOLDER]",
    ]
    for answer, text in zip(answers, expected, strict=True):
        assert text in answer["error"]


@pytest.mark.slow
def test_offline(hub, tmp_path):
    """What is in the cache is read without the hub; what is not is an error that says so."""
    source = "hub:google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"
    (before,) = load(hub.url, tmp_path, source)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
        for url, setting in ((dead, {}), (hub.url, {"HF_HUB_OFFLINE": "1"})):
            cached, missing = load(
                url, tmp_path, source, "EleutherAI/sae-llama-3-8b-topk/layers.10", **setting
            )
            assert cached == before
            assert "the hub cannot be reached" in missing["error"]
            assert "give the folder" in missing["error"]


@pytest.mark.slow
def test_a_pickle_with_code_in_it_is_not_run(hub, tmp_path):
    trap = tmp_path / "opened"

    class Trap:
        def __reduce__(self):
            return (open, (str(trap), "w"))

    torch.save({"W_enc": Trap()}, hub.root / "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer14.sae.pt")
    (answer,) = load(hub.url, tmp_path, "hub:Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer14.sae.pt")
    assert "holds more than tensors" in answer["error"]
    assert not trap.exists()
