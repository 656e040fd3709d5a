"""`policy lock`: what is said of each lock, and the exit code."""

from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from monitor.cli.app import app


def binding(name, differs=(), *, written=False, why_not=(), missing=False):
    return SimpleNamespace(
        policy=name, folder="tiny", differs=differs, written=written, why_not=why_not, missing=missing
    )


def locked(monkeypatch, found, *more):
    """The command over these locks."""
    asked = []
    monkeypatch.setattr("monitor.lab.pair.open_pair", lambda *_, **__: "pair")
    monkeypatch.setattr(
        "monitor.cli.policy.lock.bindings", lambda *_, **given: asked.append(("say", given)) or found
    )
    monkeypatch.setattr(
        "monitor.cli.policy.lock.bind", lambda *_, **given: asked.append(("bind", given)) or found
    )
    return CliRunner().invoke(app, ["policy", "lock", "folder", *more]), asked


@pytest.mark.parametrize(
    ("one", "words", "code"),
    [
        (binding("a"), "of this pair", 0),
        (binding("a", ("model",)), "of another model", 1),
        (binding("a", ("model", "dictionary")), "model and dictionary", 1),
        (binding("a", ("model",), written=True), "bound now", 0),
        (binding("a", ("model",), why_not=("it is too old",)), "it is too old", 1),
        (binding("a", missing=True), "missing", 1),
    ],
)
def test_a_stale_lock_is_told_with_its_reason(monkeypatch, one, words, code):
    done, asked = locked(monkeypatch, [binding("other"), one])
    assert (done.exit_code, asked) == (code, [("say", {"locks": None, "taken": None})]), done.output
    assert words in " ".join(done.output.split())


def test_locks_are_bound_where_asked_for(monkeypatch):
    done, asked = locked(monkeypatch, [binding("a")], "--rebind", "--locks", "mine", "--from", "other")
    [(what, given)] = asked
    assert (done.exit_code, what) == (0, "bind"), done.output
    assert (given["locks"], given["taken"]) == ("mine", "other")
    assert given["progress"]


def test_a_long_rebinding_says_what_it_does_where_output_is_no_terminal(monkeypatch):
    def bind(*_, progress, **__):
        progress("testing a")
        return [binding("a")]

    monkeypatch.setattr("monitor.lab.pair.open_pair", lambda *_, **__: "pair")
    monkeypatch.setattr("monitor.cli.policy.lock.bind", bind)
    done = CliRunner().invoke(app, ["policy", "lock", "folder", "--rebind"])
    assert "testing a" in done.stderr
