"""GGUF files: what is in them is what runs, they are unpacked once, and what cannot be read is said."""

import errno
import json
import os
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.models.auto import auto_factory

from monitor.errors import ModelError
from monitor.model.load import gguf as module
from monitor.model.load.gguf import gguf_file, unpacked
from monitor.model.load.model import load_model

WIDTH, LAYERS, HEADS, KEYS, INNER = 64, 2, 4, 2, 128
WORDS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    *(chr(c) for c in range(33, 127)),
    "Ġ",
    "Ċ",
    "Ġt",
    "he",
    "Ġthe",
]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def model(tied=True):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEYS,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        rope_theta=10_000.0,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


def interleaved(weights, heads):
    """Rows of a query or key projection in the order in which llama.cpp holds them."""
    rows, columns = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write(path, source, kind=gguf.GGMLQuantizationType.F32, architecture="llama", leave_out=()):
    """Write a model as a GGUF file, as llama.cpp's converter would; norms stay float32."""
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_name("small")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3, 3, *[1] * (len(WORDS) - 3)])
    writer.add_token_merges(["Ġ t", "h e", "Ġt he"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    names["lm_head.weight"] = "output.weight"
    inner = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for layer in range(LAYERS):
        names |= {f"model.layers.{layer}.{k}.weight": f"blk.{layer}.{v}.weight" for k, v in inner.items()}
    for name, tensor in source.state_dict().items():
        if name in leave_out or (name == "lm_head.weight" and source.config.tie_word_embeddings):
            continue
        weights = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            weights = interleaved(weights, HEADS if "q_proj" in name else KEYS)
        weights = np.ascontiguousarray(weights, np.float32)
        if weights.ndim == 1:
            writer.add_tensor(names[name], weights)
            continue
        writer.add_tensor(names[name], gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


IDS = torch.tensor([[1, 40, 50, 60, 99, 2]])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("SAE_MONITOR_CACHE", str(folder))
    return folder


@pytest.mark.parametrize("tied", [True, False])
def test_the_weights_of_the_file_are_what_runs(tmp_path, tied):
    source = model(tied)
    loaded = load_model(write(tmp_path / "m.gguf", source), device="cpu")
    with torch.inference_mode():
        assert torch.equal(loaded.model(IDS).logits, source(IDS).logits)
    assert loaded.context == 128
    assert loaded.digest.startswith("sha256:")


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "F16", "BF16"])
def test_quantised_weights_are_those_that_llama_cpp_computes_with(tmp_path, kind):
    source, quantised = model(), gguf.GGMLQuantizationType[kind]
    loaded = load_model(write(tmp_path / "m.gguf", source, quantised), device="cpu")
    ours = loaded.model.state_dict()
    for name in ("model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"):
        packed = gguf.quants.quantize(source.state_dict()[name].numpy(), quantised)
        plain = gguf.quants.dequantize(packed, quantised)
        assert torch.equal(ours[name], torch.from_numpy(np.asarray(plain, np.float32)))


def test_tokenizer_and_template_come_from_the_file(tmp_path):
    loaded = load_model(write(tmp_path / "m.gguf", model()), device="cpu")
    ids = loaded.tokenizer("the<|im_end|>", add_special_tokens=False)["input_ids"]
    assert loaded.tokenizer.decode(ids) == "the<|im_end|>"
    assert ids[-1] == 2
    text = loaded.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert text == "<|im_start|>user\nhi<|im_end|>\n"


def test_what_lies_beside_the_file_decides_nothing(tmp_path, monkeypatch):
    alone = load_model(write(tmp_path / "m.gguf", model()), device="cpu", cache=tmp_path / "one")
    folder = tmp_path / "folder"
    folder.mkdir()
    path = write(folder / "m.gguf", model())
    words = {"type": "WordLevel", "vocab": {"[UNK]": 0, "the": 1}, "unk_token": "[UNK]"}
    Tokenizer.from_str(json.dumps({"version": "1.0", "model": words})).save(str(folder / "tokenizer.json"))
    (folder / "generation_config.json").write_text('{"eos_token_id": 5}')
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "./nothing"}')
    monkeypatch.setattr(auto_factory, "is_peft_available", lambda: True)
    loaded = load_model(path, device="cpu", cache=tmp_path / "other")
    assert loaded.digest == alone.digest
    assert loaded.text.ids("the the") == alone.text.ids("the the")
    assert loaded.model.generation_config.eos_token_id == 2
    assert torch.equal(loaded.model(IDS).logits, alone.model(IDS).logits)


def test_a_file_is_unpacked_once_for_each_number_type(tmp_path, cache, monkeypatch):
    path = write(tmp_path / "m.gguf", model())
    first = unpacked(gguf_file(path), torch.float32)
    assert first.parent == cache / "gguf"
    monkeypatch.setattr(module, "_unpack", lambda *_: pytest.fail("unpacked again"))
    moved = path.rename(tmp_path / "other.gguf")
    assert unpacked(gguf_file(moved), torch.float32) == first
    monkeypatch.undo()
    half = unpacked(gguf_file(moved), torch.bfloat16, cache)
    assert half != first
    assert json.loads((half / "config.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((half / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in json.loads((half / "config.json").read_text())


def older(tmp_path):
    """A file, and the folder into which an older version unpacked it; and what a current one writes there."""
    path = write(tmp_path / "m.gguf", model())
    config = unpacked(gguf_file(path), torch.float32) / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps({name: value for name, value in content.items() if name != "architectures"}))
    return path, config, content


def test_a_folder_of_an_older_version_gets_the_name_of_its_class(tmp_path):
    path, config, content = older(tmp_path)
    folder = unpacked(gguf_file(path), torch.float32)
    assert json.loads(config.read_text()) == content
    assert "LlamaForCausalLM" in config.read_text()
    written = config.stat().st_mtime_ns
    assert unpacked(gguf_file(path), torch.float32) == folder
    assert config.stat().st_mtime_ns == written
    assert not [file for file in folder.iterdir() if file.suffix == ".part"]


def test_a_folder_of_an_older_version_that_cannot_be_written_is_used_as_it_is(tmp_path, monkeypatch):
    path, config, _ = older(tmp_path)
    before = config.read_bytes()

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(module.os, "replace", refuse)
    assert unpacked(gguf_file(path), torch.float32) == config.parent
    assert config.read_bytes() == before
    assert not list(config.parent.glob(".config*"))
    assert torch.equal(load_model(path, device="cpu").model(IDS).logits, model()(IDS).logits)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model_type": "none"}', '{"model_type": 7}'])
def test_a_configuration_that_says_nothing_of_its_class_stays(tmp_path, content):
    path, config, _ = older(tmp_path)
    config.write_text(content)
    unpacked(gguf_file(path), torch.float32)
    assert config.read_text() == content


def test_the_digest_is_of_the_file_and_not_of_what_it_became(tmp_path):
    path = write(tmp_path / "m.gguf", model())
    single = load_model(path, device="cpu", dtype="float32").digest
    assert load_model(path, device="cpu", dtype="bfloat16").digest == single
    assert load_model(write(tmp_path / "n.gguf", model(tied=False)), device="cpu").digest != single


def test_a_folder_may_hold_the_file(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "m.gguf", model())
    assert gguf_file(folder).path == folder / "m.gguf"
    write(folder / "n.gguf", model())
    with pytest.raises(ModelError, match=r"several GGUF files \(m.gguf, n.gguf\); give the path of one"):
        gguf_file(folder)
    (folder / "config.json").write_text("{}")
    assert gguf_file(folder) is None


def test_names_on_the_hub(tmp_path, monkeypatch):
    asked = []
    path = write(tmp_path / "m.gguf", model())
    monkeypatch.setattr(module, "_downloaded", lambda *names: asked.append(names) or path)
    assert gguf_file("org/name:file-Q4_0.gguf").path == path
    assert asked == [("org/name", "file-Q4_0.gguf")]
    assert gguf_file("org/name") is None
    with pytest.raises(ModelError, match="no file at"):
        gguf_file("nowhere/m.gguf")


def test_what_cannot_be_read_is_said(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="is no GGUF file"):
        load_model(broken, device="cpu")
    part = tmp_path / "m-00001-of-00002.gguf"
    part.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="one part of a model"):
        load_model(part, device="cpu")
    cut = write(tmp_path / "cut.gguf", model())
    os.truncate(cut, cut.stat().st_size // 2)
    with pytest.raises(ModelError, match=r"cut\.gguf"):
        load_model(cut, device="cpu")
    strange = write(tmp_path / "strange.gguf", model(), architecture="rwkv99")
    with pytest.raises(ModelError, match=r"transformers cannot read strange\.gguf"):
        load_model(strange, device="cpu")
    lacking = write(tmp_path / "lacking.gguf", model(), leave_out=("model.layers.1.mlp.up_proj.weight",))
    with pytest.raises(ModelError, match=r"lacks weights: model\.layers\.1\.mlp\.up_proj"):
        load_model(lacking, device="cpu")


@pytest.mark.parametrize("left", [5, 30, 100, 0.05, 0.3, 0.5, 0.9, 0.99])
def test_a_file_that_was_downloaded_in_part_is_said_to_be_incomplete(tmp_path, left):
    cut = write(tmp_path / "cut.gguf", model())
    os.truncate(cut, left if left >= 1 else int(cut.stat().st_size * left))
    with pytest.raises(ModelError, match=r"cut\.gguf .*incomplete"):
        load_model(cut, device="cpu")


def test_an_interrupted_unpacking_goes_on_behind_the_last_whole_file(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(module, "_SHARD", 50_000)
    path = write(tmp_path / "m.gguf", model())
    from safetensors import torch as saving

    written, save = [], saving.save_file

    def dying(tensors, file, metadata):
        if len(written) == 2:
            raise KeyboardInterrupt
        save(tensors, file, metadata)
        written.append(file.name)

    monkeypatch.setattr(saving, "save_file", dying)
    with pytest.raises(KeyboardInterrupt):
        load_model(path, device="cpu")
    assert not [p for p in (cache / "gguf").iterdir() if p.is_dir() and p.suffix != ".part"]
    monkeypatch.setattr(saving, "save_file", lambda t, f, m: (written.append(f.name), save(t, f, m)))
    loaded = load_model(path, device="cpu")
    assert len(written) == len(set(written)) > 3
    with torch.inference_mode():
        assert torch.equal(loaded.model(IDS).logits, model()(IDS).logits)


def test_a_disk_without_room_is_said_beforehand(tmp_path, monkeypatch):
    path = write(tmp_path / "m.gguf", model())
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(ModelError, match=r"GB to be unpacked.*SAE_MONITOR_CACHE"):
        load_model(path, device="cpu")


def test_a_cache_that_cannot_be_made_is_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAE_MONITOR_CACHE", str(tmp_path / "file" / "cache"))
    assert load_model(write(tmp_path / "m.gguf", model()), device="cpu").context == 128


def test_what_is_unpacked_is_what_anybody_else_would_load(tmp_path):
    folder = unpacked(gguf_file(write(tmp_path / "m.gguf", model())), torch.float32)
    again = LlamaForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        assert torch.equal(again(IDS).logits, model()(IDS).logits)
    assert AutoTokenizer.from_pretrained(folder).chat_template == TEMPLATE
