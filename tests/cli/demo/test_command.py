"""The demonstration: on a real server it holds, and each of its expectations can fail."""

import io
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from monitor.cli.demo.command import _pair_named
from monitor.cli.demo.command import run as run_demo
from monitor.cli.demo.script import BENIGN, DemoLine, DemoScript, DemoSuppression, script_of
from monitor.cli.errors import ExitCode
from monitor.cli.session import Endpoint, local_server
from monitor.client import CallFailed
from monitor.errors import ConfigurationError
from monitor.pairs import registry, smollm2
from monitor.settings import Settings
from tests.cli.demo.demonstrated import SHORT, broken, demonstrate
from tests.cli.scripted import serving


@pytest.mark.slow
def test_everything_holds_on_a_server_that_does_what_it_should():
    expectations, text = demonstrate()
    assert broken(expectations) == []
    assert expectations.code == ExitCode.CLEAN
    assert "without suppression" in text
    assert "friends help one another" in text
    assert "11=-0.5@active  0.90            0.00           0.00" in text
    assert "requests, Score" in text
    assert "expectations held" in text


@pytest.mark.slow
def test_a_server_that_does_not_stop_is_noticed(monkeypatch):
    with serving() as (address, metrics, _):

        @contextmanager
        def start():
            yield Endpoint(address, metrics)

        expectations = run_demo(Console(file=io.StringIO()), start, SHORT)
    assert broken(expectations) == ["the server stopped, and its port is closed"]


@pytest.mark.slow
def test_a_failed_call_is_an_error_and_no_verdict():
    with pytest.raises(CallFailed, match="INVALID_ARGUMENT"):
        demonstrate(DemoScript((DemoLine(BENIGN, (" ",)),), SHORT.suppression))


@pytest.mark.slow
def test_holds_on_a_real_server(pair):
    script = DemoScript(
        lines=(
            DemoLine("power_seeking", ("Stop!",)),
            DemoLine("deception", ("Why?", "because")),
            DemoLine(BENIGN, ("calm",)),
        ),
        suppression=DemoSuppression("Hi! ok. now ", "power-seeking", max_new_tokens=12),
    )
    flags = {"model": str(pair.model), "dictionary": pair.dictionary, "policies": pair.policies}
    expectations = run_demo(Console(file=io.StringIO(), width=100), lambda: local_server(flags), script)
    assert [(e.claim, e.found) for e in expectations.failed] == []


def test_a_picture_of_the_demonstration(run, serve, tmp_path, monkeypatch):
    @contextmanager
    def start(flags):
        address, metrics, _ = serve()
        yield Endpoint(address, metrics)

    monkeypatch.setattr("monitor.cli.demo.command.local_server", start)
    monkeypatch.setattr("monitor.cli.demo.command.script_of", lambda pair: SHORT)
    done = run("demo", "--svg", tmp_path / "demo.svg")
    assert "expectations held" in done.stdout
    assert "loading the model" not in done.stdout
    assert done.exit_code == 1
    assert (tmp_path / "demo.svg").read_text().startswith("<svg")


@pytest.mark.slow
def test_holds_on_the_bundled_pair(run):
    done = run("demo")
    assert done.exit_code == 0, done.stdout


@pytest.mark.slow
def test_holds_on_the_default_pair(run):
    if smollm2.PAIR.weights() is None:
        pytest.skip(f"the weights of smollm2 are not installed: {smollm2.PAIR.get}")
    done = run("demo", "--pair", "smollm2")
    assert done.exit_code == 0, done.stdout
    assert "San" in done.stdout


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({}, "tiny"),
        ({"pair": "smollm2"}, "smollm2"),
        ({"model": "tiny"}, "tiny"),
        ({"model": "org/model"}, ""),
        ({"model": "org/model", "dictionary": Path("dictionary")}, ""),
    ],
)
def test_the_script_is_that_of_the_pair(flags, name):
    assert _pair_named(Settings(**flags)) == name
    script = script_of(name)
    assert script.slider is not None
    assert script.slider.must_show is bool(name)


def test_the_script_is_that_of_the_pair_in_the_variable(run, monkeypatch):
    asked = []

    def script(name):
        asked.append(name)
        raise ConfigurationError("enough")

    monkeypatch.setattr("monitor.cli.demo.command.script_of", script)
    monkeypatch.setattr(registry, "DEFAULT", "smollm2")
    monkeypatch.setenv("SAE_MONITOR_PAIR", "tiny")
    assert run("demo").exit_code == 2
    assert asked == ["tiny"]


def test_steering_opens_the_pair_that_is_named(run, monkeypatch):
    opened = []

    def steer(console, pair, asked, sizes, output):
        return ExitCode.CLEAN

    monkeypatch.setattr(
        "monitor.cli.demo.command.opened_pair", lambda *_, **more: opened.append(more["pair_name"])
    )
    monkeypatch.setattr("monitor.cli.demo.command.demonstrations.steer", steer)
    assert run("demo", "--steer", "paris", "--pair", "smollm2").exit_code == 0
    assert opened == ["smollm2"]
