"""Models from folders: wrappers with towers, folders with code, folders that are no language model, quantised ones."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs

from monitor.errors import ModelError
from monitor.model.load.model import digest_folder, load_model
from monitor.model.offline.residuals import Harvester
from tests.model.families import family_model
from tests.model.tiny import CONFIGS, loaded_model, prompt, tokenizer


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


class TestIncompleteWeights:
    """What is not in the files would be filled with random numbers."""

    def without(self, folder: Path, *parts: str, kind: str = "llama") -> Path:
        weights = saved(folder, kind) / "model.safetensors"
        kept = {k: v for k, v in load_file(weights).items() if not any(part in k for part in parts)}
        save_file(kept, weights, {"format": "pt"})
        return folder

    @pytest.mark.parametrize(
        ("part", "named"),
        [
            ("lm_head", "lm_head.weight"),
            ("layers.2.mlp.up_proj", "model.layers.2.mlp.up_proj.weight"),
            ("layers.3.", "model.layers.3.input_layernorm.weight"),
            ("embed_tokens", "model.embed_tokens.weight"),
            ("model.norm", "model.norm.weight"),
            ("layers", r"and \d+ more"),
        ],
    )
    def test_what_is_missing_is_named(self, tmp_path: Path, part: str, named: str) -> None:
        with pytest.raises(ModelError, match=f"lacks weights.*{named}"):
            load_model(self.without(tmp_path, part), device="cpu")

    def test_no_weights_at_all(self, tmp_path: Path) -> None:
        saved(tmp_path, "llama")
        save_file({"other": torch.zeros(2)}, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match="lacks weights"):
            load_model(tmp_path, device="cpu")

    @pytest.mark.parametrize("kind", ["gemma2", "gpt2", "gemma3"])
    def test_a_head_tied_to_the_embedding_is_not_missing(self, tmp_path: Path, kind: str) -> None:
        loaded = load_model(self.without(tmp_path, "lm_head", kind=kind), device="cpu")
        ids = torch.tensor([prompt(3)])
        wanted = loaded_model(kind) if kind in CONFIGS else family_model(kind)
        assert wanted.model.config.get_text_config().tie_word_embeddings
        with torch.no_grad():
            head = loaded.model.get_output_embeddings().weight
            assert head is loaded.model.get_input_embeddings().weight
            assert torch.isfinite(loaded.model(ids).logits).all()

    def test_weights_without_a_place_are_told(self, tmp_path: Path) -> None:
        weights = saved(tmp_path, "llama") / "model.safetensors"
        save_file({**load_file(weights), "model.layers.9.x": torch.zeros(2)}, weights, {"format": "pt"})
        with capture_logs() as told:
            load_model(tmp_path, device="cpu")
        assert [line["weights"] for line in told if "no place" in line["event"]] == ["model.layers.9.x"]


def configured(folder: Path, **changes: object) -> Path:
    path = saved(folder, "llama") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize("method", ["nobodys", None, "gptq-v9"])
@pytest.mark.parametrize("field", ["quantization_config", "compression_config"])
def test_an_unknown_quantisation_is_refused(tmp_path: Path, method: str | None, field: str) -> None:
    with pytest.raises(ModelError, match=f"quant_method {method!r}"):
        load_model(configured(tmp_path, **{field: {"quant_method": method, "bits": 4}}), device="cpu")


@pytest.mark.parametrize("whole", [True, False])
def test_an_adapter_is_refused_whatever_is_installed(tmp_path: Path, whole: bool) -> None:
    if whole:
        saved(tmp_path, "llama")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "x"}')
    with pytest.raises(ModelError, match=r"holds an adapter.*merge it"):
        load_model(tmp_path, device="cpu")


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *(
            "vocab.json",
            "merges.txt",
            "vocab.txt",
            "spiece.model",
            "tokenizer.model",
            "sentencepiece.bpe.model",
        ),
        *("qwen.tiktoken", "tekken.json", "bpe.codes", "prophetnet.tokenizer"),
        *("chat_template.jinja", "chat_template.json", "additional_chat_templates/tools.jinja"),
        *("adapter_config.json", "adapter_model.safetensors", "modeling_mine.py", "processor_config.json"),
    ],
)
def test_every_file_that_decides_is_in_the_digest(tmp_path: Path, name: str) -> None:
    saved(tmp_path, "llama")
    before, path = digest_folder(tmp_path), tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((path.read_bytes() if path.exists() else b"") + b" ")
    after = digest_folder(tmp_path)
    path.write_bytes(path.read_bytes() + b" ")
    assert len({before, after, digest_folder(tmp_path)}) == 3


def test_weights_that_an_index_names_in_a_folder_below_are_in_the_digest(tmp_path: Path) -> None:
    index = saved(tmp_path, "llama") / "model.safetensors.index.json"
    below = tmp_path / "shards" / "model.safetensors"
    below.parent.mkdir()
    (tmp_path / "model.safetensors").rename(below)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(load_file(below), "shards/model.safetensors")}))
    before = digest_folder(tmp_path)
    below.write_bytes(below.read_bytes() + b" ")
    assert digest_folder(tmp_path) != before
    index.write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(ModelError, match="outside of its folder"):
        digest_folder(tmp_path)


def test_the_tokenizer_does_not_depend_on_whether_mistral_common_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded_model().model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    configured(tmp_path, model_type="mistral", architectures=["MistralForCausalLM"])
    (tmp_path / "tekken.json").write_text("{}")
    monkeypatch.setattr(
        "transformers.integrations.mistral.tokenizer.is_mistral_common_available", lambda: True
    )
    loaded = load_model(tmp_path, device="cpu")
    assert loaded.text.ids("hello") == loaded_model().text.ids("hello")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tekken.json alone.*tokenizer.json"):
        load_model(tmp_path, device="cpu")


@pytest.mark.parametrize(
    "name", ["README.md", "LICENSE.txt", "trainer_state.json", ".hidden.json", "plot.png", "all_results.json"]
)
def test_files_that_only_tell_are_not(tmp_path: Path, name: str) -> None:
    before = digest_folder(saved(tmp_path, "llama"))
    (tmp_path / name).write_text("{}")
    assert digest_folder(tmp_path) == before


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
