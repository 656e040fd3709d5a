"""The real SAELens opens what is written here, and what it writes is read here; numbers agree to 1e-5.

Runs it in a process of its own: the interpreter that `SAE_LENS_PYTHON` names, or this one where it has sae-lens
(`pip install 'sae-monitor[interop]'`).
"""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from monitor.dictionary.formats import DictionaryCard, read_dictionary, save_saelens
from monitor.dictionary.sae import Activation, InputNorm
from tests.dictionary.formats.saes import FEATURES, WIDTH, inputs, make
from tests.dictionary.formats.test_saelens import weights

pytestmark = pytest.mark.slow

READ = """
import sys, torch
from safetensors.torch import load_file, save_file
from sae_lens import SAE
folders, data = sys.argv[2:], load_file(sys.argv[1])["x"]
for folder in folders:
    sae = SAE.load_from_disk(folder)
    acts = sae.encode(data)
    out = sae.decode(acts)
    meta = sae.cfg.metadata
    assert meta.model_name == "m" and meta.hook_name == "blocks.4.hook_resid_post", meta
    save_file({"acts": acts.detach().contiguous(), "out": out.detach().contiguous()}, folder + "/theirs.safetensors")
"""

WRITE = """
import sys, torch
from safetensors.torch import load_file, save_file
from sae_lens import StandardSAE, StandardSAEConfig, JumpReLUSAE, JumpReLUSAEConfig
from sae_lens import TopKSAE, TopKSAEConfig, GatedSAE, GatedSAEConfig
data, root = load_file(sys.argv[1])["x"], sys.argv[2]
sizes = dict(d_in=int(sys.argv[3]), d_sae=int(sys.argv[4]))
kinds = {
    "standard": StandardSAE(StandardSAEConfig(**sizes, normalize_activations="layer_norm")),
    "jumprelu": JumpReLUSAE(JumpReLUSAEConfig(**sizes, apply_b_dec_to_input=False)),
    "topk": TopKSAE(TopKSAEConfig(**sizes, k=5, rescale_acts_by_decoder_norm=True)),
    "gated": GatedSAE(GatedSAEConfig(**sizes, normalize_activations="constant_norm_rescale")),
}
torch.manual_seed(0)
for name, sae in kinds.items():
    for parameter in sae.parameters():
        parameter.data = torch.randn_like(parameter) * 0.5
    if name == "jumprelu":
        sae.threshold.data = sae.threshold.data.abs()
    sae.save_model(f"{root}/{name}")
    acts = sae.encode(data)
    pair = {"acts": acts.detach().contiguous(), "out": sae.decode(acts).detach().contiguous()}
    save_file(pair, f"{root}/{name}/theirs.safetensors")
"""


def interpreter():
    """The Python that has sae-lens; skips where there is none."""
    python = os.environ.get("SAE_LENS_PYTHON")
    if python is None:
        if importlib.util.find_spec("sae_lens") is None:
            pytest.skip(
                "sae-lens is not here: install the extra `interop`, or name an interpreter in SAE_LENS_PYTHON"
            )
        python = sys.executable
    return python


def run_in(python, program, *arguments, env=None):
    done = subprocess.run(
        [python, "-W", "ignore", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        env=env,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def sae_lens():
    return partial(run_in, interpreter())


@pytest.fixture
def data(tmp_path):
    save_file({"x": inputs()}, tmp_path / "inputs.safetensors")
    return tmp_path / "inputs.safetensors"


def test_sae_lens_opens_what_is_saved_here(tmp_path, sae_lens, data):
    card = DictionaryCard("m", "blocks.4.hook_resid_post", 4, True, 256, "text", None, 12.5, 0.75)
    cases = {}
    for kind in (Activation.RELU, Activation.JUMPRELU, Activation.TOPK):
        for norm in InputNorm:
            for subtract in (False, True):
                folder = tmp_path / f"{kind}-{norm}-{subtract}"
                cases[folder] = make(kind, subtract=subtract, norm=norm)
                save_saelens(folder, cases[folder], card, density=torch.rand(FEATURES))
    for subtract in (False, True):
        folder, gated = tmp_path / f"gated-{subtract}", make(Activation.GATED, subtract=subtract)
        cases[folder] = replace(gated, encoder=gated.gate_encoder * torch.rand(FEATURES, 1).add(0.5))
        save_saelens(folder, cases[folder], card)
    # SAELens is told to centre the model's weights (`center_writing_weights`), so it reads residuals of mean 0.
    centred = [folder for folder, sae in cases.items() if sae.input_norm is InputNorm.CENTRED]
    mean = inputs().mean(-1, keepdim=True)
    save_file({"x": inputs() - mean}, tmp_path / "centred.safetensors")
    sae_lens(READ, tmp_path / "centred.safetensors", *centred)
    sae_lens(READ, data, *(folder for folder in cases if folder not in centred))
    for folder, sae in cases.items():
        theirs = load_file(folder / "theirs.safetensors")
        out = theirs["out"] + mean if folder in centred else theirs["out"]
        scale = out.abs().max()
        torch.testing.assert_close(sae.encode(inputs()), theirs["acts"], atol=1e-5, rtol=1e-5)
        # SAELens undoes its layer norm with the bare deviation, without the 1e-5 it divided by.
        torch.testing.assert_close(sae.reconstruct(inputs()) / scale, out / scale, atol=1e-5, rtol=1e-5)


def test_what_sae_lens_saves_is_read_here(tmp_path, sae_lens, data):
    sae_lens(WRITE, data, tmp_path, WIDTH, FEATURES)
    for name in ("standard", "jumprelu", "topk", "gated"):
        theirs = load_file(tmp_path / name / "theirs.safetensors")
        sae = read_dictionary(tmp_path / name).autoencoder
        scale = theirs["out"].abs().max()
        torch.testing.assert_close(sae.encode(inputs()), theirs["acts"], atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(
            sae.reconstruct(inputs()) / scale, theirs["out"] / scale, atol=1e-5, rtol=1e-5
        )


OLD = {
    "relu": ("standard", {"activation_fn_str": "relu", "normalize_activations": "none"}),
    "boolean": ("standard", {"activation_fn_str": "relu", "normalize_activations": False}),
    "layer-norm": ("standard", {"normalize_activations": "layer_norm", "apply_b_dec_to_input": False}),
    "constant": ("standard", {"normalize_activations": "constant_norm_rescale"}),
    "topk": ("topk", {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 6}}),
    "gated": ("gated", {"architecture": "gated"}),
    "jumprelu": ("jumprelu", {"architecture": "jumprelu", "activation_fn": "relu"}),
}


def test_configurations_from_before_version_6(tmp_path, sae_lens, data):
    """Folders as SAELens 3 to 5 wrote them; the scaling factor of all ones was saved for a while."""
    sides = {"topk": ("b_enc",), "standard": ("b_enc",), "jumprelu": ("b_enc", "threshold")}
    for name, (architecture, entries) in OLD.items():
        tensors = weights(*sides.get(architecture, ("b_gate", "b_mag", "r_mag")))
        if "threshold" in tensors:
            tensors["threshold"] = tensors["threshold"].abs()
        if name == "relu":
            tensors["scaling_factor"] = torch.ones(FEATURES)
        old = {"model_name": "m", "hook_point": "blocks.4.hook_resid_post", "d_in": WIDTH, "d_sae": FEATURES}
        old |= {"hook_point_layer": 4, "hook_point_head_index": None, "dtype": "float32", "device": "cpu"}
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "sae_weights.safetensors")
        (tmp_path / name / "cfg.json").write_text(json.dumps({**old, **entries}))
    sae_lens(READ, data, *(tmp_path / name for name in OLD))
    for name in OLD:
        theirs = load_file(tmp_path / name / "theirs.safetensors")
        found = read_dictionary(tmp_path / name)
        scale = theirs["out"].abs().max()
        height = theirs["acts"].abs().max()
        torch.testing.assert_close(
            found.autoencoder.encode(inputs()) / height, theirs["acts"] / height, atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            found.autoencoder.reconstruct(inputs()) / scale, theirs["out"] / scale, atol=1e-5, rtol=0
        )
        assert (found.card.layer, found.card.model_name) == (4, "m")
