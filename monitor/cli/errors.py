"""Exit codes of the command line, and how an error is printed."""

from __future__ import annotations

import enum

from monitor.errors import EngineDied, MonitorError


class ExitCode(enum.IntEnum):
    """Exit codes of the commands."""

    CLEAN = 0
    """Everything was scored and no enforced rule fired."""
    MATCHED = 1
    """An enforced rule fired, or (`demo`) an expectation did not hold."""
    ERROR = 2
    """There is no verdict: bad input, a failed call, or tokens that were not scored."""
    DIED = EngineDied.exit_code
    """`serve`: the engine died while it served; start another process."""


def exit_code(error: MonitorError) -> ExitCode:
    """The exit code of the process after this error."""
    return ExitCode.DIED if isinstance(error, EngineDied) else ExitCode.ERROR


def report(error: MonitorError) -> None:
    """Print an error to standard error, its first line marked, the others as they are."""
    from rich.text import Text

    from monitor.cli.show.console import stderr_console

    message = str(error) or type(error).__name__
    line = Text.assemble(("error:", "bold red"), " ", message)
    stderr_console().print(line, soft_wrap=True)
