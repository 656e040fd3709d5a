"""`sae-monitor dictionary`: the commands for dictionaries. A command's module is imported when it runs."""

from __future__ import annotations

import typer

from monitor.cli.lazy import LazyEntry, lazy_group

COMMANDS = (
    LazyEntry("train", "monitor.cli.dictionary.train:train", "Train a dictionary on texts."),
    LazyEntry("sweep", "monitor.cli.dictionary.train:sweep", "Train dictionaries with several settings."),
    LazyEntry("info", "monitor.cli.dictionary.info:info", "Show what a dictionary is."),
    LazyEntry("convert", "monitor.cli.dictionary.info:convert", "Write a dictionary in another layout."),
    LazyEntry(
        "describe",
        "monitor.cli.dictionary.describe:describe",
        "Measure where each feature fires and what it promotes.",
    ),
    LazyEntry("verify", "monitor.cli.dictionary.verify:verify", "Test that a dictionary fits a model."),
)

dictionary_app = typer.Typer(
    name="dictionary",
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dictionary_app.callback()
def root() -> None:
    """Train, check and describe dictionaries."""
