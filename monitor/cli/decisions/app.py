"""`sae-monitor decisions`: the commands that read the decision log. A command's module is imported when it runs."""

from __future__ import annotations

import typer

from monitor.cli.lazy import LazyEntry, lazy_group

COMMANDS = (
    LazyEntry(
        "tail", "monitor.cli.decisions.read:tail", "Show the last decisions, and with -f those to come."
    ),
    LazyEntry("show", "monitor.cli.decisions.read:show", "Show one decision in full."),
    LazyEntry(
        "filter", "monitor.cli.decisions.filter:select", "List the decisions that meet all conditions."
    ),
    LazyEntry("watch", "monitor.cli.decisions.watch:watch", "Show what a running server detects, over gRPC."),
    LazyEntry("verify", "monitor.cli.decisions.read:check", "Check that no line is damaged or missing."),
    LazyEntry(
        "replay", "monitor.cli.decisions.replay:replay", "Apply another policy set to logged requests."
    ),
)

decisions_app = typer.Typer(
    name="decisions",
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@decisions_app.callback()
def root() -> None:
    """Read the log in which a server writes down every decision before it answers."""
