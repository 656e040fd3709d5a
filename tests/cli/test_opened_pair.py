"""The pair that a command opens, and the test that its parts fit."""

import os
import pwd
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
from typer.testing import CliRunner

from monitor.cli.app import app
from monitor.cli.opened_pair import opened_pair, told
from monitor.errors import ModelError, SelfTestFailed
from monitor.pairs import registry
from monitor.settings import load_settings


@pytest.fixture
def asked(monkeypatch):
    """What was asked of the loader and of the self-test."""
    seen = []

    def open_pair(*given, **more):
        seen.append((given, more))
        return SimpleNamespace(loaded_pair="loaded")

    monkeypatch.setattr("monitor.lab.pair.open_pair", open_pair)
    monkeypatch.setattr("monitor.model.selftest.self_test.require_fit", seen.append)
    yield seen
    structlog.reset_defaults()


def test_the_pair_is_opened_as_the_flags_say_and_tested(asked, tmp_path):
    mine = load_settings().cache
    found = opened_pair("m", tmp_path, "saelens", "cpu", skip_self_test=False, measured=False)
    assert found.loaded_pair == "loaded"
    more = {"measured": False, "pair": None, "cache": mine, "tell": told}
    assert asked == [(("m", tmp_path, "cpu", "saelens", "auto", None), more), "loaded"]


def test_a_pair_is_opened_by_its_name(asked):
    opened_pair(None, None, None, "cpu", pair_name="mine", skip_self_test=False)
    assert asked[0][1]["pair"] == "mine"


def test_what_no_flag_says_the_variables_say(asked, monkeypatch, capsys):
    variables = {"DEVICE": "cpu", "DTYPE": "bfloat16", "LAYER": "3", "DICTIONARY_FORMAT": "saelens"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SAE_MONITOR_{name}", value)
    monkeypatch.setenv("SAE_MONITOR_PAIR", "tiny")
    monkeypatch.setenv("SAE_MONITOR_SKIP_SELF_TEST", "true")
    opened_pair(None, None, None, "auto", skip_self_test=False)
    opened_pair(None, None, None, "auto", pair_name="mine", dtype="float32", skip_self_test=False)
    ((first, named), (second, other)) = asked
    assert first == (None, None, "cpu", "saelens", "bfloat16", 3)
    assert named["pair"] == "tiny"
    assert (second[4], other["pair"]) == ("float32", "mine"), "flags win"
    assert "self-test skipped" in capsys.readouterr().err


def test_a_settings_file_counts_too(asked, monkeypatch, tmp_path):
    (tmp_path / "settings.yaml").write_text(f"pair: tiny\ncache: {tmp_path / 'cache'}\n")
    monkeypatch.delenv("SAE_MONITOR_CACHE", raising=False)
    monkeypatch.setenv("SAE_MONITOR_SETTINGS", str(tmp_path / "settings.yaml"))
    opened_pair(None, None, None, "auto", skip_self_test=True)
    assert asked[0][1]["pair"] == "tiny"
    assert asked[0][1]["cache"] == tmp_path / "cache"


@pytest.mark.parametrize(
    "command",
    [
        ["policy", "explain", "policies", "a text", "--model", "model.gguf", "--dictionary", "x"],
        ["dictionary", "verify", "--model", "model.gguf", "--dictionary", "x"],
        [
            "dictionary",
            "train",
            "--model",
            "model.gguf",
            "--data",
            "text.jsonl",
            "--out",
            "trained",
            "--features",
            "8",
            "--no-plot",
        ],
        [
            "dictionary",
            "sweep",
            "--model",
            "model.gguf",
            "--data",
            "text.jsonl",
            "--out",
            "swept",
            "--no-plot",
        ],
        ["serve", "--model", "model.gguf", "--dictionary", "x", "--listen", "127.0.0.1:0"],
    ],
)
def test_a_file_is_unpacked_where_the_settings_file_says(command, monkeypatch, tmp_path):
    (tmp_path / "settings.yaml").write_text(f"cache: {tmp_path / 'cache'}\n")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / "text.jsonl").write_text("")
    (tmp_path / "policies").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAE_MONITOR_CACHE", raising=False)
    monkeypatch.setenv("SAE_MONITOR_SETTINGS", "settings.yaml")
    asked = []

    def unpacked(file, dtype, cache=None):
        asked.append(cache)
        raise ModelError("it goes no further")

    monkeypatch.setattr("monitor.model.load.model.unpacked", unpacked)
    done = CliRunner().invoke(app, command)
    structlog.reset_defaults()
    assert asked == [tmp_path / "cache"], (done.output, done.exception)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SAE_MONITOR_PIAR", "tiny", "did you mean SAE_MONITOR_PAIR"),
        ("SAE_MONITOR_DICTIONARY", "false", "SAE_MONITOR_DICTIONARY: found 'false'"),
        ("SAE_MONITOR_CACHE", "~/cache", "SAE_MONITOR_CACHE: found"),
        ("SAE_MONITOR_DTYPE", "fp8", "SAE_MONITOR_DTYPE: found 'fp8'"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("features", "show", "3"),
        ("features", "search", "hello"),
        ("policy", "lock", "folder"),
        ("dictionary", "verify"),
    ],
)
def test_a_wrong_variable_is_told_before_anything_is_opened(asked, monkeypatch, command, name, value, said):
    monkeypatch.setenv(name, value)
    monkeypatch.delenv("SAE_MONITOR_PAIR", raising=False)
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, asked) == (2, [])
    assert said in " ".join(done.output.split())


@pytest.mark.parametrize("command", [("show", "5"), ("near", "5")])
def test_a_dictionary_alone_is_that_of_the_pair_in_the_variable(monkeypatch, command):
    monkeypatch.setattr(registry, "DEFAULT", "smollm2")
    flagged = CliRunner().invoke(app, ["features", *command, "--pair", "tiny", "--json"])
    monkeypatch.setenv("SAE_MONITOR_PAIR", "tiny")
    assert CliRunner().invoke(app, ["features", *command, "--json"]).stdout == flagged.stdout
    assert flagged.exit_code == 0


def test_a_user_without_a_home_gets_one_for_caches(asked, monkeypatch, tmp_path):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: (_ for _ in ()).throw(KeyError()))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    try:
        opened_pair(None, None, None, "auto", skip_self_test=True)
        assert Path(os.environ["HOME"]).parent == tmp_path
    finally:
        os.environ.pop("HOME", None)


def test_log_lines_of_what_is_opened_are_not_among_the_results(asked, capsys):
    opened_pair(None, None, None, "cpu", skip_self_test=False)
    structlog.get_logger().info("unpacking a file, once")
    said = capsys.readouterr()
    assert ("unpacking a file, once" in said.err, said.out) == (True, "")


def test_what_must_be_known_of_a_pair_goes_to_standard_error(capsys):
    told("x is the unquantised original of y " + "z" * 200)
    assert capsys.readouterr().err == "x is the unquantised original of y " + "z" * 200 + "\n"


def test_a_test_that_is_skipped_is_said(asked, capsys):
    opened_pair(None, None, None, "auto", skip_self_test=True)
    assert len(asked) == 1
    assert "self-test skipped" in capsys.readouterr().err


def test_parts_that_do_not_fit_are_no_pair(asked, monkeypatch):
    def refused(_):
        raise SelfTestFailed("they do not fit")

    monkeypatch.setattr("monitor.model.selftest.self_test.require_fit", refused)
    with pytest.raises(SelfTestFailed, match="do not fit"):
        opened_pair(None, None, None, "auto", skip_self_test=False)
