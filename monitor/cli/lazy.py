"""A command group that imports a command's module when the command runs, not when it is listed.

It also prints messages instead of tracebacks for errors of this project, files that cannot be opened, and missing
packages that an extra installs.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from monitor.errors import ConfigurationError, MonitorError


@dataclass(frozen=True, slots=True)
class LazyEntry:
    """A command that is not imported yet."""

    name: str
    target: str
    """`module:attribute`; the attribute is a function or a `typer.Typer`."""
    help: str
    """One line for the list of commands."""
    extra: str = ""
    """The extra that installs what it imports, where that is another one than EXTRAS names for the first missing
    package."""


class LazyCommand(TyperCommand):
    """Placeholder for a command. It imports the real command when that is run or its help is shown."""

    def __init__(self, entry: LazyEntry) -> None:
        super().__init__(name=entry.name, help=entry.help)
        self.entry = entry

    def load(self) -> Any:
        """The real command; ImportError where its module is broken."""
        module, _, attribute = self.entry.target.partition(":")
        return as_command(getattr(importlib.import_module(module), attribute), self.entry.name)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Make the context of the real command, which then parses the arguments and runs."""
        return self.load().make_context(info_name, args, parent=parent, **extra)


def as_command(target: Any, name: str) -> Any:
    """A command made from a function or from a `typer.Typer`."""
    if isinstance(target, typer.Typer):
        return _flowing(typer.main.get_command(target))
    alone = typer.Typer(add_completion=False)
    alone.command(name)(target)
    return _flowing(typer.main.get_command(alone))


def _flowing(command: Any) -> Any:
    """The command with a help whose paragraphs fill the terminal, not broken where the docstring's lines end."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    for child in getattr(command, "commands", {}).values():
        _flowing(child)
    return command


def lazy_group(entries: Sequence[LazyEntry]) -> type[TyperGroup]:
    """A group class that lists `entries` in order, and prints errors of this project instead of tracebacks."""

    class LazyGroup(TyperGroup):
        """A group whose commands are placeholders."""

        def __init__(self, **attrs: Any) -> None:
            super().__init__(**attrs)
            for entry in entries:
                self.add_command(LazyCommand(entry))

        def invoke(self, ctx: Any) -> Any:
            """Run the command. Print an error of this project as a message, and exit with its exit code."""
            try:
                with _files_named(), self._extra_named(ctx):
                    return super().invoke(ctx)
            except MonitorError as error:
                from monitor.cli.errors import exit_code, report

                report(error)
                raise typer.Exit(exit_code(error)) from error

        @contextmanager
        def _extra_named(self, ctx: Any) -> Iterator[None]:
            """Turn a missing package into an error that names the extra to install."""
            try:
                yield
            except ModuleNotFoundError as error:
                name = ctx.invoked_subcommand or ""
                command = f"{ctx.command_path} {name}".partition(" ")[2]
                entry = next((entry for entry in entries if entry.name == name), None)
                said = _named_extra(command, error, entry.extra if entry is not None else "")
                if said is None:
                    raise
                raise said from error

    return LazyGroup


EXTRAS = {
    "serve": (
        "accelerate",
        "cryptography",
        "gguf",
        "grpc_reflection",
        "grpc_status",
        "huggingface_hub",
        "numpy",
        "prometheus_client",
        "psutil",
        "starlette",
        "structlog",
        "tokenizers",
        "torch",
        "transformers",
        "uvicorn",
    ),
    "fit": ("scipy", "sklearn"),
    "guard": ("httpx2",),
}
"""Packages that commands import, by the extra that installs them."""


def _named_extra(command: str, error: ModuleNotFoundError, extra: str = "") -> MonitorError | None:
    """What to install for a missing package; None for one that no extra installs."""
    package = (error.name or "").partition(".")[0]
    installing = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
    if installing is None:
        return None
    name = extra or installing
    return ConfigurationError(f"`{command}` needs the extra `{name}`: pip install 'sae-monitor[{name}]'")


@contextmanager
def _files_named() -> Iterator[None]:
    """Turn an OSError or EOFError in the block into an InputError that names the file and the reason.

    Typer would end both with 1, the code of a match. A pipe that nobody reads ends the command with 2, unless it is
    standard output: `monitor.cli.streams` drops what nobody reads.
    """
    from monitor.cli.errors import ExitCode
    from monitor.cli.streams import drop
    from monitor.errors import InputError

    try:
        yield
    except BrokenPipeError:
        drop(1)  # or what is still buffered fails once more at the end
        raise typer.Exit(ExitCode.ERROR) from None
    except OSError as error:
        if error.strerror is None:
            raise
        named = f"{error.filename}: " if error.filename is not None else ""
        raise InputError(f"{named}{error.strerror}") from error
    except EOFError as error:
        raise InputError(f"the input ended too soon: {error}") from error
