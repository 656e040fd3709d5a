"""The command `sae-monitor` with its list of commands. The module of a command is imported when the command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from monitor.cli.lazy import LazyEntry, lazy_group

COMMANDS = (
    LazyEntry(
        "demo",
        "monitor.cli.demo.command:demo",
        "Start a server, send it prompts, and show what the monitor does.",
    ),
    LazyEntry("serve", "monitor.cli.serve:serve", "Serve a model over gRPC and score every token."),
    LazyEntry("guard", "monitor.cli.guard:guard_app", "Score what another server reads and writes.", "guard"),
    LazyEntry("score", "monitor.cli.score:score", "Score a text against the policies."),
    LazyEntry(
        "generate",
        "monitor.cli.generate:generate",
        "Generate a text; every token is scored before it is shown.",
    ),
    LazyEntry(
        "decisions", "monitor.cli.decisions.app:decisions_app", "Read, check and replay the decision log."
    ),
    LazyEntry("policy", "monitor.cli.policy.app:policy_app", "Fit, check, test and explain policies."),
    LazyEntry(
        "features",
        "monitor.cli.features.app:features_app",
        "Search and look at the features of a dictionary.",
    ),
    LazyEntry("token", "monitor.cli.token:token_app", "Make tokens for callers of a server."),
    LazyEntry(
        "deploy", "monitor.cli.deploy:deploy_app", "Write Prometheus rules, alert routes and dashboards."
    ),
    LazyEntry(
        "dictionary", "monitor.cli.dictionary.app:dictionary_app", "Train, check and describe dictionaries."
    ),
)

app = typer.Typer(
    name="sae-monitor",
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from monitor import __version__

        typer.echo(f"sae-monitor {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Safety monitoring of a language model through the features of a sparse autoencoder.

    Exit codes of most commands: 0 nothing found, 1 an enforced rule matched, 2 an error (or tokens that were not
    scored).
    """
