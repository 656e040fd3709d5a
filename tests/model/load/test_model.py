"""Models from folders: wrappers with towers, folders with code, folders that are no language model, quantised ones."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from monitor.errors import ModelError
from monitor.model.load.model import digest_folder, load_model
from monitor.model.offline.residuals import Harvester
from tests.model.families import family_model
from tests.model.tiny import CONFIGS, loaded_model, prompt


def saved(folder: Path, kind: str) -> Path:
    loaded = loaded_model(kind) if kind in CONFIGS else family_model(kind)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["gemma3", "llava", "qwen3_vl"])
def test_a_multimodal_wrapper_is_loaded_and_its_text_part_found(tmp_path: Path, kind: str) -> None:
    loaded = load_model(saved(tmp_path, kind), device="cpu")
    names = [name for name, module in loaded.model.named_modules() if module is loaded.layers]
    assert names == ["model.language_model.layers"]
    ids = torch.tensor([prompt(3)])
    wanted = Harvester(family_model(kind), 2).residuals(ids)
    torch.testing.assert_close(Harvester(loaded, 2).residuals(ids), wanted)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_reads_nearly_the_same(tmp_path: Path, dtype: str) -> None:
    loaded = load_model(saved(tmp_path, "llama"), device="cpu", dtype=dtype)
    ids = torch.tensor([prompt(3)])
    found = Harvester(loaded, 2).residuals(ids)
    wanted = Harvester(loaded_model(), 2).residuals(ids)
    assert found.dtype is torch.float32
    assert float((found - wanted).norm() / wanted.norm()) < 0.03


def test_code_in_the_folder_is_never_run(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Model"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="its own Python code, which is never run"):
        load_model(tmp_path, device="cpu")
    assert not (tmp_path / "ran").exists()


def test_a_model_that_does_not_continue_texts_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    config = {"model_type": "t5", "vocab_size": 258, "d_model": 32, "num_layers": 2, "num_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="'t5', which is no causal language model"):
        load_model(tmp_path, device="cpu")


def test_a_quantisation_whose_library_is_missing_is_named(tmp_path: Path) -> None:
    if importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed")
    saved(tmp_path, "llama")
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"sae-monitor\[quantised\]"):
        load_model(tmp_path, device="cpu")


class TestLoading:
    def saved(self, folder) -> None:
        loaded = loaded_model()
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)

    def test_a_saved_model_loads_with_its_digest(self, tmp_path) -> None:
        self.saved(tmp_path)
        loaded = load_model(tmp_path, device="cpu")
        assert (loaded.d_model, loaded.context, len(loaded.layers), loaded.middle) == (32, 128, 4, 2)
        assert loaded.digest == digest_folder(tmp_path)
        before = loaded.digest
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
        assert digest_folder(tmp_path) != before

    def test_missing_folders_and_files(self, tmp_path) -> None:
        with pytest.raises(ModelError, match="no model folder"):
            load_model(tmp_path / "nothing")
        with pytest.raises(ModelError, match=r"no config\.json"):
            load_model(tmp_path)

    def test_pickled_weights_are_refused(self, tmp_path) -> None:
        self.saved(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        torch.save({}, tmp_path / "pytorch_model.bin")
        with pytest.raises(ModelError, match="pickled weights"):
            load_model(tmp_path)

    def test_truncated_weights_are_refused(self, tmp_path) -> None:
        self.saved(tmp_path)
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(ModelError, match="cannot be loaded"):
            load_model(tmp_path)

    @pytest.mark.parametrize(("device", "dtype"), [("gpu", "auto"), ("cpu", "int7")])
    def test_unknown_device_and_dtype(self, tmp_path, device: str, dtype: str) -> None:
        self.saved(tmp_path)
        with pytest.raises(ModelError, match="unknown"):
            load_model(tmp_path, device=device, dtype=dtype)
