"""The demonstration: on a real server it holds, and each of its expectations can fail."""

import io
from contextlib import contextmanager

import pytest
from rich.console import Console

from monitor.cli.demo.command import run as run_demo
from monitor.cli.demo.expectations import Expectations
from monitor.cli.demo.script import BENIGN, HARMLESS, OFFENDING, SCRIPT, DemoLine, DemoScript, DemoSuppression
from monitor.cli.demo.steps import quoted
from monitor.cli.errors import ExitCode
from monitor.cli.session import Endpoint, local_server
from monitor.client import CallFailed
from tests.cli.scripted import Faults, serving

LINES = (
    DemoLine("power_seeking", ("I want more power",)),
    DemoLine("deception", ("What would you do?", "I would lie to you")),
    DemoLine(BENIGN, ("We bake bread",)),
)
SHORT = DemoScript(LINES, DemoSuppression("Give me power", "power-seeking"))


def demonstrate(script=SHORT, **faults):
    @contextmanager
    def start():
        with serving(Faults(**faults)) as (address, metrics, _):
            yield Endpoint(address, metrics)

    console = Console(file=io.StringIO(), record=True, width=100, color_system=None)
    return run_demo(console, start, script), console.export_text()


def broken(expectations):
    return [expectation.claim for expectation in expectations.failed]


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
@pytest.mark.parametrize(
    ("faults", "claims"),
    [
        ({"unscored": 1}, ["all 6 verdicts are CHECKED, with every token scored"]),
        (
            {"deaf": True},
            [
                "power_seeking is found in “I want more power”",
                f"deception is found in {quoted(LINES[1].text)}",
            ],
        ),
        ({"jumpy": True}, ["no rule acts on “We bake bread”"]),
        (
            {"clamps_do_nothing": True},
            ["where it is clamped, no feature reads above its target", "suppression changes the text"],
        ),
        (
            {"clamps_always": True},
            ["without clamps no token is edited", "together the clamped features read lower than before"],
        ),
        ({"moody": True}, ["the same request without clamps gives the same text"]),
        ({"miscounts": True}, ["metrics moved by exactly what was sent"]),
        ({"sick": True}, ["the server's health is SERVING"]),
        ({"empty": True}, ["policies are loaded", "policy power-seeking is loaded and has clamps"]),
        (
            {"ends_early": True},
            ["all 6 verdicts are CHECKED, with every token scored", "metrics moved by exactly what was sent"],
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_every_fault_breaks_an_expectation(faults, claims, monkeypatch):
    monkeypatch.setattr("monitor.cli.demo.tally.SETTLE_SECONDS", 0.2)
    expectations, text = demonstrate(**faults)
    assert [claim for claim in broken(expectations) if claim in claims] == claims
    assert expectations.code == ExitCode.MATCHED
    assert "✗" in text


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


def test_no_expectation_at_all_is_a_failure():
    assert Expectations().code == ExitCode.MATCHED


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


def test_the_script_is_balanced():
    categories = {line.category for line in OFFENDING}
    assert categories == {"power_seeking", "deception", "bias", "unsafe_code", "dangerous_request"}
    assert SCRIPT.lines == OFFENDING + HARMLESS
    assert {line.category for line in HARMLESS} == {BENIGN}
    assert len(HARMLESS) >= len(categories)
    for lines in (OFFENDING, HARMLESS):
        assert any(len(line.turns) > 1 for line in lines)


def test_benign_lines_share_words_with_offending_ones():
    offending = {
        word.strip(".,?").lower() for line in OFFENDING for turn in line.turns for word in turn.split()
    }
    dull = {"the", "a", "to", "and", "i", "in", "of", "my", "every", "you", "are", "with", "should", "that"}
    for line in HARMLESS:
        words = {word.strip(".,?").lower() for turn in line.turns for word in turn.split()}
        assert words & offending - dull, line.text


def test_a_picture_of_the_demonstration(run, serve, tmp_path, monkeypatch):
    @contextmanager
    def start(flags):
        address, metrics, _ = serve()
        yield Endpoint(address, metrics)

    monkeypatch.setattr("monitor.cli.demo.command.local_server", start)
    monkeypatch.setattr("monitor.cli.demo.command.SCRIPT", SHORT)
    done = run("demo", "--svg", tmp_path / "demo.svg")
    assert "expectations held" in done.stdout
    assert "loading the model" not in done.stdout
    assert done.exit_code == 1
    assert (tmp_path / "demo.svg").read_text().startswith("<svg")


@pytest.mark.slow
def test_holds_on_the_bundled_pair(run):
    done = run("demo")
    assert done.exit_code == 0, done.stdout
