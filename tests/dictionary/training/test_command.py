"""`sae-monitor dictionary train`, `info` and `sweep`, on a real but tiny language model."""

import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from monitor.cli.dictionary import dictionary_app
from monitor.dictionary.bundle import load_dictionary
from monitor.errors import ConfigurationError

run = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    alphabet = {"<s>": 0, **{c: i + 1 for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}}
    tokenizer = Tokenizer(models.BPE(alphabet, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "text.jsonl"
    words = ("alpha", "beta", "gamma", "delta", "epsilon")
    lines = [" ".join(words[(i * j + j) % 5] for j in range(40)) for i in range(400)]
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return path


def options(model, data, out, *more):
    small = [
        "--batch",
        "256",
        "--buffer",
        "1024",
        "--length",
        "32",
        "--held-out",
        "600",
        "--device",
        "cpu",
        "--k",
        "4",
    ]
    return ["--model", str(model), "--data", f"{data}=2", "--out", str(out), *small, *more]


def test_train_and_info(model, data, tmp_path):
    done = run.invoke(
        dictionary_app, ["train", *options(model, data, tmp_path, "--features", "64", "--tokens", "5120")]
    )
    assert done.exit_code == 0, (done.output, done.exception)
    assert "ce recovered" in done.output
    found = load_dictionary(tmp_path)
    assert (found.autoencoder.features, found.card.layer, found.card.prepend_bos) == (64, 2, True)
    assert found.card.context_size == 32
    assert found.card.hook_name == "blocks.2.hook_resid_post"
    assert json.loads((tmp_path / "training.json").read_text())["settings"]["tokens"] == 5120
    assert (tmp_path / "training.png").exists()
    shown = run.invoke(dictionary_app, ["info", str(tmp_path)])
    assert shown.exit_code == 0, shown.exception
    for part in ("jumprelu", "blocks.2.hook_resid_post", found.digest, "ce recovered"):
        assert part in shown.output


def test_bfloat16_weights_and_another_layer(model, data, tmp_path):
    more = ("--features", "32", "--tokens", "2560", "--layer", "0", "--weights", "bfloat16", "--no-plot")
    done = run.invoke(dictionary_app, ["train", *options(model, data, tmp_path, *more)])
    assert done.exit_code == 0, (done.output, done.exception)
    sae = load_dictionary(tmp_path).autoencoder
    assert torch.equal(sae.encoder, sae.encoder.bfloat16().float())
    assert load_dictionary(tmp_path).card.layer == 0
    assert not (tmp_path / "training.png").exists()


def test_sweep_keeps_what_is_done(model, data, tmp_path):
    more = ("--features", "16,32", "--tokens", "2048", "--learning-rates", "1e-3,4e-3", "--no-plot")
    done = run.invoke(dictionary_app, ["sweep", *options(model, data, tmp_path, *more)])
    assert done.exit_code == 0, (done.output, done.exception)
    stored = json.loads((tmp_path / "sweep.json").read_text())
    assert len(stored["runs"]) == 4
    rows = sorted(tmp_path.glob("*/row.json"))
    rows[0].write_text(json.dumps(json.loads(rows[0].read_text()) | {"loss": 1e-9}))
    assert run.invoke(dictionary_app, ["sweep", *options(model, data, tmp_path, *more)]).exit_code == 0
    assert min(r["loss"] for r in json.loads((tmp_path / "sweep.json").read_text())["runs"]) == 1e-9


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--features", "64", "--weights", "int8"), "not one of float32, bfloat16"),
        (("--features", "0"), "features is 0"),
        (("--features", "64", "--data", "nowhere"), "nowhere"),
    ],
)
def test_wrong_options(model, data, tmp_path, more, message):
    done = run.invoke(dictionary_app, ["train", *options(model, data, tmp_path, *more, "--tokens", "512")])
    assert isinstance(done.exception, ConfigurationError)
    assert message in str(done.exception)
