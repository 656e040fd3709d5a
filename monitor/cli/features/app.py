"""`sae-monitor features`: the commands that look at features. Imports none of them: each is loaded when it runs."""

from __future__ import annotations

import typer

from monitor.cli.lazy import LazyEntry, lazy_group

COMMANDS = (
    LazyEntry(
        "show",
        "monitor.cli.features.one_feature:show",
        "Show one feature: where it fires and what it promotes.",
    ),
    LazyEntry(
        "near", "monitor.cli.features.one_feature:near", "List the features nearest to one by decoder cosine."
    ),
    LazyEntry("search", "monitor.cli.features.search:search", "Find features that fire on texts together."),
    LazyEntry(
        "contrast",
        "monitor.cli.features.contrast:contrast",
        "Rank features by what separates two sets of texts.",
    ),
    LazyEntry(
        "effect",
        "monitor.cli.features.effect:effect",
        "Show what features of a prompt do to the next token.",
    ),
    LazyEntry(
        "label", "monitor.cli.features.one_feature:label", "Name a feature by hand, or all automatically."
    ),
    LazyEntry("map", "monitor.cli.features.one_feature:draw_map", "Draw the neighbourhood of a feature."),
    LazyEntry(
        "evaluate",
        "monitor.cli.features.evaluate:evaluate",
        "Measure features on labelled texts beside baselines.",
        "fit",
    ),
)

features_app = typer.Typer(
    name="features",
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@features_app.callback()
def root() -> None:
    """Search and look at the features of a dictionary."""
