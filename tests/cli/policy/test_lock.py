"""`policy lock`: what is said of each lock, and the exit code."""

from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from monitor.cli.app import app


def binding(name, differs=(), *, written=False, why_not=()):
    return SimpleNamespace(policy=name, differs=differs, written=written, why_not=why_not)


def locked(monkeypatch, found, *more):
    """The command over these locks."""
    asked = []
    monkeypatch.setattr("monitor.lab.pair.open_pair", lambda *_, **__: "pair")
    monkeypatch.setattr("monitor.cli.policy.lock.bindings", lambda *given: asked.append("say") or found)
    monkeypatch.setattr("monitor.cli.policy.lock.bind", lambda *given: asked.append("bind") or found)
    return CliRunner().invoke(app, ["policy", "lock", "folder", *more]), asked


@pytest.mark.parametrize(
    ("one", "words", "code"),
    [
        (binding("a"), "of this pair", 0),
        (binding("a", ("model",)), "of another model", 1),
        (binding("a", ("model", "dictionary")), "model and dictionary", 1),
        (binding("a", ("model",), written=True), "bound now", 0),
        (binding("a", ("model",), why_not=("it is too old",)), "it is too old", 1),
    ],
)
def test_a_stale_lock_is_told_with_its_reason(monkeypatch, one, words, code):
    done, asked = locked(monkeypatch, [binding("other"), one])
    assert (done.exit_code, asked) == (code, ["say"]), done.output
    assert words in " ".join(done.output.split())


def test_locks_are_bound_where_asked_for(monkeypatch):
    done, asked = locked(monkeypatch, [binding("a")], "--rebind")
    assert (done.exit_code, asked) == (0, ["bind"]), done.output
