"""Groups that import a command when it runs, and say what is missing in words."""

import errno
import sys

import pytest
import typer
from typer.testing import CliRunner

from monitor.cli import lazy
from monitor.cli.lazy import EXTRAS, LazyEntry, lazy_group
from monitor.errors import EngineDied, InputError


def failing(error):
    def command() -> None:
        """The first line
        goes on here.

        A second paragraph.
        """
        raise error

    return command


@pytest.fixture
def run(monkeypatch):
    """A function that runs a command which raises this error."""

    def call(error, *arguments, extra=""):
        module = type(sys)("a_module_of_commands")
        module.command = failing(error) if isinstance(error, BaseException) else error
        monkeypatch.setitem(sys.modules, module.__name__, module)
        entry = LazyEntry("try", "a_module_of_commands:command", "Try it.", extra)
        app = typer.Typer(cls=lazy_group([entry]), add_completion=False)
        app.callback()(lambda: None)
        return CliRunner().invoke(app, ["try", *arguments])

    return call


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("write another"), 2, "error: write another\n"),
        (EngineDied("gone"), 3, "error: gone\n"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a.txt"),
            2,
            "error: a.txt: No such file or directory\n",
        ),
        (OSError(errno.EIO, "Input/output error"), 2, "error: Input/output error\n"),
        (EOFError("a.gz"), 2, "error: the input ended too soon: a.gz\n"),
    ],
)
def test_errors_are_messages(run, error, code, said):
    done = run(error)
    assert (done.exit_code, done.stderr) == (code, said)


@pytest.mark.parametrize("error", [OSError("no number"), ValueError("a defect"), KeyError("x")])
def test_what_nobody_expected_is_not_hidden(run, error):
    assert run(error).exception is error


def test_a_missing_package_is_named_by_its_extra(run):
    done = run(ModuleNotFoundError("No module named 'torch'", name="torch.nn"))
    assert done.exit_code == 2
    assert "try` needs the extra `serve`: pip install 'sae-monitor[serve]'" in done.stderr
    done = run(ModuleNotFoundError("No module named 'torch'", name="torch"), extra="fit")
    assert "needs the extra `fit`: pip install 'sae-monitor[fit]'" in done.stderr
    ours = ModuleNotFoundError("No module named 'monitor.nothing'", name="monitor.nothing")
    assert run(ours).exception is ours
    assert not set(EXTRAS["serve"]) & set(EXTRAS["fit"])


def test_listing_imports_nothing_and_a_help_fills_the_line(run):
    entry = LazyEntry("later", "a_module_that_is_not_there:command", "Later.")
    app = typer.Typer(cls=lazy_group([entry]), add_completion=False)
    app.callback()(lambda: None)
    listed = CliRunner().invoke(app, ["--help"])
    assert (listed.exit_code, "Later." in listed.output) == (0, True)
    assert isinstance(CliRunner().invoke(app, ["later"]).exception, ModuleNotFoundError)
    shown = run(ValueError("not run"), "--help").output
    assert "The first line goes on here." in shown
    assert "A second paragraph." in shown


def test_an_app_is_taken_as_a_group():
    inner = typer.Typer(help="Of several.")
    inner.command("one")(failing(ValueError()))
    inner.command("two")(failing(ValueError()))
    command = lazy.as_command(inner, "inner")
    assert set(command.commands) == {"one", "two"}
    assert command.commands["one"].help == "The first line goes on here.\n\nA second paragraph."
