"""`sae-monitor guard`: a server in front of another one, which lets through what a watching model has scored."""

from __future__ import annotations

import json
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from monitor.cli.options import with_every_setting
from monitor.cli.serve import run
from monitor.cli.show.console import stdout_console
from monitor.cli.show.printable import printable
from monitor.errors import ConfigurationError
from monitor.settings import Settings, load_settings

if TYPE_CHECKING:
    from monitor.http.guard.checkup import Finding
    from monitor.rpc.server import DoorMaker

guard_app = typer.Typer(
    name="guard",
    invoke_without_command=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_CHECK = (
    Parameter(
        "door",
        Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            str | None,
            typer.Option(
                help="URL of a guard, or of a gateway with one, that runs already. It is asked then, and its streams "
                "should be held as --guard-mode says."
            ),
        ],
    ),
    Parameter(
        "offending",
        Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            str | None, typer.Option(help="Text that your policies object to. Default: one about power.")
        ],
    ),
    Parameter(
        "upstream_model",
        Parameter.KEYWORD_ONLY,
        default="default",
        annotation=Annotated[str, typer.Option(help="Name of the upstream server's model in requests.")],
    ),
    Parameter(
        "as_json",
        Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")],
    ),
)


@guard_app.callback()
@with_every_setting(Parameter("context", Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context))
def guard(context: typer.Context, **flags: Any) -> None:
    """Stand in front of a server of the OpenAI API, and let through what a watching model has scored.

    Give the server's URL with --upstream, and send requests to the guard instead (127.0.0.1:8080, or --http-listen).
    Prompts are scored before they are passed on, and answers, streamed or whole, before they leave. The model that
    watches runs only up to its tapped layer, and generates nothing. Flags, environment variables and the settings file
    are those of `serve`. Exit codes: 0 stopped by a signal, 2 wrong settings, files or policies, 3 the engine died.
    """
    if context.invoked_subcommand is not None:
        if given := [name for name, value in flags.items() if value is not None]:
            raise ConfigurationError(
                f"--{given[0].replace('_', '-')}: stands before `{context.invoked_subcommand}`; write it behind"
            )
        return
    run(_of_guard(load_settings(flags)), _door)


@guard_app.command("check")
@with_every_setting(*_CHECK)
def check(**flags: Any) -> None:
    """Find out whether a guard does what it should: benign passes, offending is seen, streams are held.

    Give what `guard` would be given, such as --upstream. A guard is started for the check, asked through its door, and
    stopped; it is also tried in front of a recorded server, and with a model that reads nothing. With --door a guard
    that runs already is asked instead. Exit codes: 0 all is well, 1 something is not, 2 wrong settings or files.
    """
    door, offending, model, as_json = (
        flags.pop(name) for name in ("door", "offending", "upstream_model", "as_json")
    )
    if door and flags.get("upstream") is not None:
        raise ConfigurationError(
            "--upstream: cannot stand beside --door, which asks a guard that has its own; give one of them"
        )
    chosen = load_settings(flags)
    found = _asked(door, chosen.guard_mode, offending, model) if door else _tried(chosen, offending, model)
    passed = all(one.passed for one in found)
    if as_json:
        typer.echo(json.dumps({"passed": passed, "checks": [vars(one) for one in found]}))
    else:
        stdout_console().print(_table(found))
    raise typer.Exit(0 if passed else 1)


def _asked(door: str, holding: str, offending: str | None, model: str) -> list[Finding]:
    from monitor.http.guard.checkup import OFFENDING, DoorCheck
    from monitor.settings import load_client_settings

    if not door.lower().startswith(("http://", "https://")):
        raise ConfigurationError(f"--door: {door!r} is no URL; write one such as http://127.0.0.1:8080")
    token = load_client_settings().token
    secret = "" if token is None else token.get_secret_value()
    url = door.rstrip("/").removesuffix("/v1")
    return DoorCheck(url, model, secret, offending or OFFENDING, holding).run()


def _tried(chosen: Settings, offending: str | None, model: str) -> list[Finding]:
    if chosen.upstream is None:
        raise ConfigurationError(
            "upstream: is missing; give the server to guard, or a running guard with --door"
        )
    from monitor.http.guard.checkup import OFFENDING, GuardTrial
    from monitor.telemetry.logs import adopt_libraries, configure

    configure("error" if chosen.log_level == "info" else chosen.log_level, chosen.log_format)
    adopt_libraries()
    return GuardTrial(_of_guard(chosen), offending or OFFENDING, model).run()


def _table(found: list[Finding]) -> Table:
    table = Table.grid(padding=(0, 2))
    for one in found:
        mark = Text("passed", style="green") if one.passed else Text("FAILED", style="bold red")
        table.add_row(mark, Text(one.name), Text(printable(one.detail), style="dim"))
    return table


def _of_guard(chosen: Settings) -> Settings:
    """The settings with what a guard needs. Raises ConfigurationError where there is nothing to guard."""
    from monitor.http.guard.door import DEFAULT_LISTEN, check_guard

    found = chosen.model_copy(update={"http_listen": chosen.http_listen or DEFAULT_LISTEN, "max_running": 0})
    check_guard(found)
    return found


def _door() -> DoorMaker:
    from monitor.http.guard.door import GuardDoor

    return GuardDoor
