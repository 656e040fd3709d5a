"""The tree of commands: complete, quick to list, and free of torch until something runs."""

import errno
import itertools
import resource
import subprocess
import sys

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from monitor import __version__
from monitor.cli.app import COMMANDS, app
from monitor.cli.lazy import LazyCommand, LazyEntry, lazy_group
from monitor.errors import PolicyError

HEAVY = ("torch", "transformers", "grpc", "rich", "pydantic", "numpy")


def commands(command=None, prefix=()):
    """Every command, with the words after `sae-monitor` that call it."""
    command = command or get_command(app)
    loaded = command.load() if isinstance(command, LazyCommand) else command
    yield prefix, loaded
    for name, child in getattr(loaded, "commands", {}).items():
        yield from commands(child, (*prefix, name))


def paths():
    """Every command, as the words after `sae-monitor`."""
    return (path for path, _ in commands())


@pytest.mark.slow
def test_every_command_has_help(run):
    found = list(paths())
    assert {path[0] for path in found if path} == {entry.name for entry in COMMANDS}
    for path in found:
        done = run(*path, "--help")
        assert done.exit_code == 0, (path, done.output)
        assert "Usage: " in done.stdout


def test_every_flag_and_argument_says_in_a_phrase_what_it_is():
    vague = []
    for path, command in commands():
        for parameter in command.params:
            text = getattr(parameter, "help", None) or ""
            if len(text.split()) < 3 or not text.rstrip().endswith("."):
                vague.append((*path, parameter.name, text))
    assert not vague


def test_helps_fill_the_terminal(run):
    """A line of a paragraph may only be short where the next word would not have fitted."""
    for path in (("serve",), ("decisions", "replay"), ("policy", "fit")):
        text = run(*path, "--help").stdout.split("╭")[0]
        lines = [line.strip() for line in text.splitlines()]
        for line, following in itertools.pairwise(lines):
            if line and following:
                assert len(line) + 1 + len(following.split()[0]) > 74, (path, line)


def test_groups_hold_what_they_promise():
    found = set(paths())
    for words in ("dictionary train", "dictionary sweep", "dictionary info", "dictionary describe"):
        assert tuple(words.split()) in found
    for group in ("features", "policy"):
        assert any(path[:1] == (group,) and len(path) == 2 for path in found)


def test_the_list_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys, typer.testing; from monitor.cli.app import app;"
        "done = typer.testing.CliRunner().invoke(app, ['--version']); assert done.exit_code == 0;"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_help_takes_less_than_half_a_second():
    assert min(seconds_of_help() for _ in range(4)) < 0.5


def seconds_of_help():
    """Of a processor, and the best of several: a busy machine is slower, but the command is not."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "monitor", "--help"], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "generate" in done.stdout
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.slow
@pytest.mark.parametrize("command", ["score", "generate", "demo", "serve"])
def test_help_of_a_command_needs_no_torch(command):
    code = (
        "import sys, typer.testing; from monitor.cli.app import app;"
        f"done = typer.testing.CliRunner().invoke(app, [{command!r}, '--help']); assert done.exit_code == 0;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version(run):
    assert run("--version").stdout == f"sae-monitor {__version__}\n"


def test_no_arguments_show_the_help(run):
    assert "Usage: " in run().output


def test_an_unknown_command_is_a_usage_error(run):
    done = run("scroe")
    assert done.exit_code == 2
    assert "score" in done.stderr


def test_an_error_of_this_project_becomes_a_message(monkeypatch):
    def fails() -> None:
        raise PolicyError("a.yaml:1:2: wrong\n    1 | [x]\n      | ^")

    monkeypatch.setattr("monitor.cli.score.score", fails)
    done = CliRunner().invoke(app, ["score"])
    assert done.exit_code == 2
    assert done.stderr == "error: a.yaml:1:2: wrong\n    1 | [x]\n      | ^\n"


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "out/x"), "error: out/x: Permission denied\n"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device\n"),
        (EOFError("cut short"), "error: the input ended too soon: cut short\n"),
    ],
)
def test_files_that_cannot_be_used_are_named_and_never_read_as_a_match(monkeypatch, error, shown):
    def fails() -> None:
        raise error

    monkeypatch.setattr("monitor.cli.score.score", fails)
    done = CliRunner().invoke(app, ["score"])
    assert (done.exit_code, done.stderr) == (2, shown)


def test_a_reader_who_leaves_early_is_not_a_match():
    code = (
        "import sys, typer, monitor.cli.score; from monitor.__main__ import main\n"
        "def talks() -> None:\n"
        "    for _ in range(100_000): typer.echo('x' * 80)\n"
        "monitor.cli.score.score = talks; sys.argv = ['sae-monitor', 'score']; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait(timeout=60) == 0, "what the command ends with counts, whoever reads"


def test_an_unforeseen_error_never_reads_as_a_match():
    code = (
        "import sys, monitor.cli.score; from monitor.__main__ import main\n"
        "def boom() -> None: raise RuntimeError('unforeseen')\n"
        "monitor.cli.score.score = boom; sys.argv = ['sae-monitor', 'score']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unforeseen" in done.stderr


def test_a_broken_module_is_not_hidden():
    broken = typer.Typer(cls=lazy_group([LazyEntry("x", "monitor.cli.none:x", "X.")]))
    broken.callback()(lambda: None)
    assert CliRunner().invoke(broken, ["--help"]).exit_code == 0
    assert isinstance(CliRunner().invoke(broken, ["x"]).exception, ModuleNotFoundError)
