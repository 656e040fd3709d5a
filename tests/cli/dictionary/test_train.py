"""`sae-monitor dictionary train`, `info` and `sweep`, on a real but tiny language model."""

import json
import re

import pytest
import torch
from typer.testing import CliRunner

from monitor.cli.dictionary.app import dictionary_app
from monitor.dictionary.bundle import load_dictionary
from monitor.dictionary.formats import DictionaryCard, save_saelens
from monitor.dictionary.sae import Activation, SparseAutoencoder
from monitor.lab.training import held_out_for
from monitor.model.runtime import load_pair
from monitor.model.selftest.expected import ExpectedSource
from monitor.model.selftest.self_test import self_test
from monitor.model.selftest.verified_records import load_records
from tests.dictionary.training.tiny_model import options, write_model, write_text

run = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("data") / "text.jsonl")


@pytest.mark.slow
def test_train_and_info(model, data, tmp_path):
    done = run.invoke(
        dictionary_app, ["train", *options(model, data, tmp_path, "--features", "64", "--tokens", "5120")]
    )
    assert done.exit_code == 0, (done.output, done.exception)
    assert "ce recovered" in done.output
    lines = done.stderr.splitlines()
    assert lines[0].startswith("training 64 features on 5,120 tokens; the first estimate")
    assert re.fullmatch(
        r"trained on 5,120 of 5,120 tokens  FVU [\d.]+  L0 [\d.]+ .*[\d,]+ tokens/s  about \d+:\d\d:\d\d left",
        lines[-2],
    )
    assert lines[-1].startswith("measuring: ")
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


def test_the_next_commands_take_what_was_trained(tmp_path, data):
    """Also with a tokenizer that has a BOS token and puts it before no text, as chat models have."""
    model = write_model(tmp_path / "model", begins=False)
    out = tmp_path / "out"
    more = ("--features", "32", "--tokens", "5120", "--no-plot")
    done = run.invoke(dictionary_app, ["train", *options(model, data, out, *more)])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "verified: on the self-test's texts" in done.output
    (record,) = load_records(out)
    assert record.norm_limit == load_dictionary(out).card.norm_limit > 0
    assert load_dictionary(out).card.prepend_bos is False
    pair = ["--model", str(model), "--dictionary", str(out)]
    described = run.invoke(
        dictionary_app, ["describe", *pair, "--data", str(data), "--tokens", "2000", "--length", "32"]
    )
    assert described.exit_code == 0, (described.output, described.exception)
    assert load_dictionary(out).statistics.norm_limit == record.norm_limit
    test = self_test(load_pair(str(model), out, device="cpu"))
    assert (test.passed, test.expected.source) == (True, ExpectedSource.RECORDED)


def test_texts_that_the_template_leaves_out_are_told(tmp_path):
    """Of 300 conversations the system's turn is not read; trained, measured and described are the others."""
    model, out, data = write_model(tmp_path / "model"), tmp_path / "out", tmp_path / "talks.jsonl"
    (model / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }} {% endif %}{% endfor %}"
    )
    words = " ".join(("alpha", "beta", "gamma", "delta", "epsilon") * 8)
    talk = [{"role": "system", "content": "be kind"}, {"role": "user", "content": words}]
    lines = (json.dumps({"messages": [*talk, {"role": "user", "content": f"alpha {n}"}]}) for n in range(300))
    data.write_text("\n".join(lines) + "\n")
    more = ("--features", "16", "--tokens", "2048", "--no-plot")
    done = run.invoke(dictionary_app, ["train", *options(model, data, out, *more)])
    assert done.exit_code == 0, (done.output, done.exception)
    left_out = json.loads((out / "training.json").read_text())["texts_left_out"]
    assert left_out > 0
    assert f"{left_out} texts of conversations not read: the model's chat template" in done.stderr
    pair = ["--model", str(model), "--dictionary", str(out), "--data", str(data), "--skip-self-test"]
    found = run.invoke(dictionary_app, ["describe", *pair, "--tokens", "500", "--length", "32"])
    assert found.exit_code == 0, (found.output, found.exception)
    (note,) = re.findall(r"[\d,]+ texts of conversations not read: .*", found.stderr)
    assert load_dictionary(out).statistics.corpus == f"talks.jsonl ({note})"


def test_what_reconstructs_nothing_is_refused_though_nothing_is_declared(tmp_path, data):
    model, out = write_model(tmp_path / "model"), tmp_path / "out"
    sae = SparseAutoencoder(
        Activation.RELU, torch.ones(4, 32), torch.ones(4), 10 * torch.ones(4, 32), torch.zeros(32)
    )
    save_saelens(out, sae, DictionaryCard(layer=2))
    pair = ["--model", str(model), "--dictionary", str(out), "--data", str(data), "--tokens", "500"]
    refused = run.invoke(dictionary_app, ["describe", *pair, "--length", "32"])
    assert refused.exit_code == 2
    assert "explained variance is -" in refused.stderr
    assert "--skip-self-test" in refused.stderr
    assert not (out / "statistics.safetensors").exists()
    again = run.invoke(dictionary_app, ["describe", *pair, "--length", "32", "--skip-self-test"])
    assert again.exit_code == 0, (again.output, again.exception)


def test_a_short_run_reads_and_measures_no_more_than_it_needs(model, data, tmp_path):
    given = options(model, data, tmp_path, "--features", "16", "--tokens", "2048", "--no-plot")
    at = given.index("--held-out")
    done = run.invoke(dictionary_app, ["train", *given[:at], *given[at + 2 :]])
    assert done.exit_code == 0, (done.output, done.exception)
    report = json.loads((tmp_path / "training.json").read_text())
    assert report["results"]["held_out_tokens"] <= 8192
    assert [held_out_for(tokens) for tokens in (2048, 10**6, 10**9)] == [8192, 100_000, 200_000]


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
    again = (tmp_path / "sweep.json").read_text()
    assert min(r["loss"] for r in json.loads(again)["runs"]) == 1e-9
    other = run.invoke(dictionary_app, ["sweep", *options(model, data, tmp_path, *more, "--seed", "7")])
    assert other.exit_code == 2
    assert "holds a run with seed 0, not 7" in other.stderr
    assert (tmp_path / "sweep.json").read_text() == again


def test_a_broken_report_does_not_hide_the_dictionary(model, data, tmp_path):
    more = ("--features", "16", "--tokens", "2048", "--no-plot")
    assert run.invoke(dictionary_app, ["train", *options(model, data, tmp_path, *more)]).exit_code == 0
    for broken in ("{", "[]", "{}"):
        (tmp_path / "training.json").write_text(broken)
        shown = run.invoke(dictionary_app, ["info", str(tmp_path)])
        assert shown.exit_code == 0, shown.exception
        assert "training.json is broken" in shown.output
        assert load_dictionary(tmp_path).digest in shown.output


@pytest.mark.parametrize("more", [("--length", "1"), ("--length", "0"), ("--held-out", "0")])
def test_lengths_that_cannot_be_are_usage_errors(model, data, tmp_path, more):
    done = run.invoke(dictionary_app, ["train", *options(model, data, tmp_path, "--features", "16"), *more])
    assert done.exit_code == 2
    assert more[0] in done.output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--features", "64", "--weights", "int8"), "not one of float32, bfloat16"),
        (("--features", "0"), "features is 0"),
        (("--features", "64", "--learning-rate", "nan"), "learning rate is nan"),
        (("--features", "64", "--learning-rate", "0"), "learning rate is 0"),
        (("--features", "64", "--sparsity", "-1"), "sparsity is -1"),
        (("--features", "64", "--data", "nowhere"), "nowhere"),
    ],
)
def test_wrong_options(model, data, tmp_path, more, message):
    done = run.invoke(dictionary_app, ["train", *options(model, data, tmp_path, *more, "--tokens", "512")])
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_picture_that_cannot_be_drawn_is_said_before_the_training(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for command in ("train", "sweep"):
        words = [word for word in options(model, data, tmp_path) if word != "--no-plot"]
        more = ["--features", "16"]
        done = run.invoke(dictionary_app, [command, *words, *more])
        assert done.exit_code == 2
        assert "give --no-plot" in done.stderr
        assert not list(tmp_path.iterdir())
