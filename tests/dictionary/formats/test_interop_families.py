"""The real SAELens loaders, on the same checkpoints served by a hub on loopback, against ours; see `test_interop`."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from monitor.dictionary.formats import read_dictionary
from tests.dictionary.formats import layouts, layouts_openmoss, layouts_pickled
from tests.dictionary.formats.fakehub import fake_hub
from tests.dictionary.formats.layouts import FEATURES, WIDTH
from tests.dictionary.formats.learned import CLASSES, learned
from tests.dictionary.formats.test_families import close, inputs
from tests.dictionary.formats.test_interop import interpreter, run_in

pytestmark = pytest.mark.slow

LOAD = """
import json, sys, torch
from safetensors.torch import load_file, save_file
from sae_lens import SAE
from sae_lens.loading.pretrained_sae_loaders import NAMED_PRETRAINED_SAE_CONFIG_GETTERS as GETTERS
from sae_lens.loading.pretrained_sae_loaders import NAMED_PRETRAINED_SAE_LOADERS as LOADERS, handle_config_defaulting
data, out = load_file(sys.argv[1])["x"], sys.argv[2]
for case in json.loads(sys.argv[3]):
    overrides = {"d_in": case["d_in"], "d_sae": case["d_sae"], "dtype": "float32", "device": "cpu"}
    asked = dict(device="cpu", force_download=False, cfg_overrides=overrides)
    GETTERS[case["loader"]](case["repo"], case["folder"], **asked)
    config, state, _ = LOADERS[case["loader"]](case["repo"], case["folder"], **asked)
    config = handle_config_defaulting(config)
    kind = SAE.get_sae_config_class_for_architecture(config["architecture"]).from_dict(config)
    sae = SAE.get_sae_class_for_architecture(kind.architecture())(kind)
    if case.get("turned"):
        state["W_dec"] = state["W_dec"].T
    sae.process_state_dict_for_loading(state)
    sae.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    if case.get("fold"):
        sae.fold_activation_norm_scaling_factor(case["fold"])
    acts = sae.encode(data)
    found = {"acts": acts.detach().contiguous(), "out": sae.decode(acts).detach().contiguous()}
    save_file(found, f"{out}/{case['name']}.safetensors", {"hook": str(kind.metadata.hook_name)})
"""


@pytest.fixture(scope="module")
def sae_lens():
    return interpreter()


def test_sae_lens_reads_the_same_from_every_family_it_has(tmp_path, sae_lens):
    root = tmp_path / "hub"
    made = [
        layouts.gemma_scope(root),
        layouts.gemma_scope_2(root),
        layouts_openmoss.llama_scope(root),
        layouts_openmoss.llama_scope_r1(root),
        layouts.sparsify(root),
        layouts_pickled.goodfire(root),
        layouts_pickled.qresearch(root),
        layouts_pickled.qwen_scope(root),
        *(learned(root, kind) for kind in CLASSES if kind != "AutoEncoderNew"),
    ]
    cases = [
        {"name": str(number), "d_in": WIDTH, "d_sae": FEATURES, **layout.sae_lens}
        for number, layout in enumerate(made)
    ]
    save_file({"x": inputs()}, tmp_path / "inputs.safetensors")
    with fake_hub(root) as hub:
        place = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        environment = {**os.environ, **place, "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
        run_in(sae_lens, LOAD, tmp_path / "inputs.safetensors", tmp_path, json.dumps(cases), env=environment)
    for case, layout in zip(cases, made, strict=True):
        theirs = load_file(tmp_path / f"{case['name']}.safetensors")
        sae = read_dictionary(root / layout.source).autoencoder
        assert bool((theirs["acts"] != 0).any())
        close(sae.encode(inputs()), theirs["acts"].double())
        close(sae.reconstruct(inputs()), theirs["out"].double())
        chosen = torch.tensor([3, 60, 11])
        if sae.separable:
            close(sae.select(chosen).encode(inputs()), theirs["acts"][:, chosen].double())
