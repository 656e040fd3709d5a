"""Servers to talk to, scripted and real, and a way to run commands."""

from contextlib import ExitStack

import pytest
import structlog
from typer.testing import CliRunner

from monitor.cli.app import app
from tests.cli.scripted import Faults, serving


@pytest.fixture
def serve():
    """A function that starts scripted servers, which stop with the test: `address, metrics, servicer`."""
    with ExitStack() as stack:
        yield lambda **faults: stack.enter_context(serving(Faults(**faults)))


@pytest.fixture
def run(monkeypatch):
    """A function that runs `sae-monitor` with arguments and gives back output, errors and exit code."""
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments, stdin=None):
        return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)

    yield call
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """Folders of a tiny model, its dictionary and its policies."""
    from tests.cli.pair import make_pair

    return make_pair(tmp_path_factory.mktemp("pair"))
