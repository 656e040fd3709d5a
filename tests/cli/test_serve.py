"""`sae-monitor serve`, and the server that other commands start for themselves, on a tiny real pair."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load, save_file

from monitor.cli.serve import _numbers
from tests.children import ending
from tests.waiting import wait_for

FREE = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]


@pytest.mark.slow
def test_score_and_generate_start_their_own_server(run, pair):
    scored = run("score", "Hello! there", *pair.flags)
    assert scored.exit_code == 1, scored.stderr
    assert "● power-seeking / says-it  high  alert  in the prompt, at token 6" in scored.stdout
    assert "CHECKED   13 of 13 tokens scored" in scored.stdout
    assert run("score", "calm.", *pair.flags).exit_code == 0
    again = json.loads(run("score", "calm.", *pair.flags, "--json").stdout)
    assert again["verdict"]["matched"] is False
    options = ["--max-new-tokens", "5", "--clamp", "5=-1@everywhere", "--seed", "1"]
    generated = run("generate", "calm", *pair.flags, *options, "--json")
    answer = json.loads(generated.stdout)
    assert answer["verdict"]["coverage"] == {
        "tokensRun": 10,
        "tokensScored": 10,
        "tokensTruncated": 0,
        "tokensJudged": 9,
        "tokensSinks": 1,
    }
    left = [r["valueAfterClamp"] for t in answer["tokens"] for r in t["readings"] if "valueAfterClamp" in r]
    assert max(left, default=0.0) <= 0.01


HUNG_UP = """
import os, signal
from unittest import mock
from monitor.cli.app import app
from monitor.rpc import assembly

assemble = assembly.assemble

def hung_up(settings):
    os.kill(os.getpid(), signal.SIGHUP)
    return assemble(settings)

with mock.patch.object(assembly, "assemble", hung_up):
    app(prog_name="sae-monitor")
"""


@pytest.mark.slow
def test_a_hangup_while_the_model_is_loaded_does_not_end_the_process(pair):
    command = [sys.executable, "-c", HUNG_UP, "serve", *FREE, *pair.flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    with ending(process):
        assert any(re.search(r"^  metrics +http", line) for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 0, rest


@pytest.mark.slow
def test_serves_until_it_is_told_to_stop(run, pair):
    command = [sys.executable, "-m", "monitor", "serve", *FREE, *pair.flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with ending(process):
        block = ""
        while not re.search(r"^  metrics +http", block, re.MULTILINE):
            line = process.stderr.readline()
            assert line, block
            block += line
        address = re.search(r"^  grpc +(\S+)", block, re.MULTILINE)[1]
        scored = run("score", "Hello!", "--connect", address)
        assert scored.exit_code == 1, scored.stderr
        process.send_signal(signal.SIGTERM)
        out, rest = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert out == ""
    for part in (
        r"model +\S+/model +[0-9a-f]{12} +cpu float32",
        r"layer +1 of 0 to 3",
        r"dictionary .*16 features",
    ):
        assert re.search(part, block), block
    assert re.search(r"watched +2 features, 2 of which", block)
    assert re.search(r"policies +deception, power-seeking +[0-9a-f]{12}", block)
    assert "stopping" in rest


def refused(run, *flags):
    done = run("serve", *FREE, *flags)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("setting", "dtype", "devices", "native", "says"),
    [
        ("auto", torch.float32, "cpu", True, "float32 (`--dtype bfloat16` may be faster on this processor)"),
        ("auto", torch.float32, "cpu", False, "float32"),
        ("float32", torch.float32, "cpu", True, "float32"),
        ("auto", torch.bfloat16, "cuda:0", True, "bfloat16"),
        ("auto", torch.float32, "cuda:0", True, "float32"),
    ],
)
def test_a_faster_number_type_is_named_where_nobody_chose_one(
    monkeypatch, setting, dtype, devices, native, says
):
    monkeypatch.setattr("monitor.model.load.host.computes_bfloat16", lambda: native)
    assert _numbers(SimpleNamespace(dtype=dtype, devices=devices), setting) == says


def flags(pair, **changed):
    folders = {"model": pair.model, "dictionary": pair.dictionary, "policies": pair.policies} | changed
    return [part for name, folder in folders.items() for part in (f"--{name}", str(folder))]


WITHOUT_SKLEARN = """
import sys
from unittest import mock
sys.modules["sklearn"] = None
from monitor.cli.app import app
from monitor.rpc import assembly

with mock.patch.object(assembly, "assemble", mock.Mock(side_effect=RuntimeError("loaded for nothing"))):
    app(prog_name="sae-monitor")
"""


@pytest.mark.slow
def test_a_page_without_what_it_needs_says_so_before_anything_is_loaded(pair):
    # In a process of its own: what other tests imported here stays imported.
    command = [sys.executable, "-c", WITHOUT_SKLEARN, "serve", *FREE, *pair.flags, "--page", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert "pip install 'sae-monitor[page]'" in done.stderr
    assert "loaded for nothing" not in done.stderr


def test_a_missing_model(run, pair, tmp_path):
    assert "no model folder at" in refused(run, *flags(pair, model=tmp_path / "none"))


def test_a_pickled_model(run, pair, tmp_path):
    shutil.copytree(pair.model, tmp_path / "model")
    (tmp_path / "model/model.safetensors").unlink()
    torch.save({}, tmp_path / "model/pytorch_model.bin")
    assert "pickled" in refused(run, *flags(pair, model=tmp_path / "model"))


def test_a_missing_dictionary(run, pair, tmp_path):
    assert "does not exist" in refused(run, *flags(pair, dictionary=tmp_path / "none"))


def test_a_pickled_dictionary(run, pair, tmp_path):
    shutil.copytree(pair.dictionary, tmp_path / "dictionary")
    torch.save({"W_enc": torch.zeros(2, 2)}, tmp_path / "dictionary/sae_weights.safetensors")
    assert "sae_weights.safetensors" in refused(run, *flags(pair, dictionary=tmp_path / "dictionary"))


def test_a_dictionary_of_the_wrong_width(run, pair, tmp_path):
    shutil.copytree(pair.dictionary, tmp_path / "dictionary")
    weights = tmp_path / "dictionary/sae_weights.safetensors"
    narrow = load(weights.read_bytes())
    narrow |= {"W_enc": narrow["W_enc"][:20].contiguous(), "W_dec": narrow["W_dec"][:, :20].contiguous()}
    save_file(narrow | {"b_dec": narrow["b_dec"][:20].contiguous()}, weights)
    config = tmp_path / "dictionary/cfg.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"d_in": 20}))
    said = refused(run, *flags(pair, dictionary=tmp_path / "dictionary"))
    assert "20" in said
    assert "32" in said


def test_a_bad_policy_is_shown_with_its_line(run, pair, tmp_path):
    text = (pair.policies / "deception.yaml").read_text()
    (tmp_path / "deception.yaml").write_text(text.replace("threshold:", "treshold:"))
    said = refused(run, *flags(pair, policies=tmp_path))
    assert f"{tmp_path}/deception.yaml:12:5" in said
    assert "did you mean `threshold`?" in said


def test_a_policy_on_a_feature_that_does_not_exist(run, pair, tmp_path):
    text = (pair.policies / "deception.yaml").read_text()
    (tmp_path / "deception.yaml").write_text(text.replace("index: 9", "index: 900"))
    assert "feature 900 does not exist; the dictionary has 0 to 15" in refused(
        run, *flags(pair, policies=tmp_path)
    )


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--layer", "99"], "layer 99 does not exist; the model has layers 0 to 3"),
        (["--device", "tpu"], "device 'tpu' is unknown"),
        (["--dtype", "int8"], "--dtype: found 'int8'"),
        (["--listen", "nowhere"], "--listen: found 'nowhere'"),
        (["--metrics-listen", "127.0.0.1:70000"], "--metrics-listen: found '127.0.0.1:70000'"),
        (["--settings", "/none.yaml"], "/none.yaml: cannot be read: No such file or directory"),
    ],
)
def test_flags_that_cannot_be_used(run, pair, extra, said):
    assert said in refused(run, *pair.flags, *extra)


@pytest.mark.parametrize("flag", ["--listen", "--metrics-listen"])
def test_a_port_that_is_taken(run, pair, flag):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert address in refused(run, *pair.flags, flag, address)


@pytest.mark.parametrize("command", ["score", "generate"])
def test_other_commands_refuse_alike(run, pair, command, tmp_path):
    done = run(command, "hello", *flags(pair, model=tmp_path / "none"))
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no model folder at")


@pytest.mark.slow
def test_a_clamp_on_a_feature_that_was_never_active(run, pair):
    done = run("generate", "hello", *pair.flags, "--clamp", "3=0", "--clamp", "99=1")
    assert done.exit_code == 2
    assert "generation.clamps[0].feature: 3 was never active" in done.stderr
    assert "generation.clamps[1].feature: 99 does not exist" in done.stderr


@pytest.mark.slow
def test_bad_sampling_is_named(run, pair):
    done = run(
        "generate", "hello", *pair.flags, "--max-new-tokens", "-1", "--temperature", "nan", "--top-p", "2"
    )
    assert done.exit_code == 2
    for field in ("max_new_tokens", "temperature", "top_p"):
        assert f"generation.sampling.{field}" in done.stderr


@pytest.mark.slow
def test_a_text_that_is_too_long_is_cut_only_when_asked(run, pair):
    refused = run("score", "x" * 500, *pair.flags)
    assert refused.exit_code == 2
    assert "input.text" in refused.stderr
    cut = run("score", "x" * 500, *pair.flags, "--truncate")
    assert cut.exit_code == 0, cut.stderr
    assert "dropped before the model ran" in cut.stdout


@pytest.mark.slow
def test_policies_are_read_again_when_asked_and_at_hangup(run, pair, tmp_path):
    policies = tmp_path / "policies"
    shutil.copytree(pair.policies, policies)
    flags = [str(policies) if flag == str(pair.policies) else flag for flag in pair.flags]
    command = [sys.executable, "-m", "monitor", "serve", *FREE, *flags]
    environment = os.environ | {"SAE_MONITOR_RELOAD_SECONDS": "0"}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    with ending(process):
        address = next(m[1] for line in process.stderr if (m := re.search(r"^  grpc +(\S+)", line)))
        reloaded = run("policy", "reload", "--connect", address)
        assert reloaded.stdout.startswith("the files are those in force ("), reloaded.stderr
        (policies / "deception.yaml").unlink()
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: "deception" not in run("score", "Hello!", "--connect", address, "--json").stdout, 60)
        (policies / "power-seeking.yaml").write_text("apiVersion: monitor/v2\n")
        refused = run("policy", "reload", "--connect", address)
        assert refused.exit_code == 2
        assert "power-seeking.yaml:1:" in refused.stderr
        assert run("score", "Hello!", "--connect", address).exit_code == 1
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
