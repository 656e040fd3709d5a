"""`sae-monitor policy`: the commands for policies. Imports none of them: each is loaded when it runs."""

from __future__ import annotations

import typer

from monitor.cli.lazy import LazyEntry, lazy_group

COMMANDS = (
    LazyEntry("check", "monitor.cli.policy.folder:check", "Read every policy and print every problem."),
    LazyEntry("test", "monitor.cli.policy.folder:run", "Run the test cases of every policy.", "fit"),
    LazyEntry(
        "explain", "monitor.cli.policy.folder:explain", "Show how far a text is from each threshold.", "fit"
    ),
    LazyEntry("fit", "monitor.cli.policy.fit:fit", "Learn detectors and thresholds; write the locks.", "fit"),
    LazyEntry(
        "evaluate", "monitor.cli.policy.evaluate:evaluate", "Measure policies on labelled texts.", "fit"
    ),
    LazyEntry(
        "compare", "monitor.cli.policy.compare:compare_sets", "Compare two sets of policies on texts.", "fit"
    ),
    LazyEntry("report", "monitor.cli.policy.report:report", "Draw an evaluation as one HTML page.", "fit"),
    LazyEntry(
        "cost", "monitor.cli.policy.cost:cost", "Measure what suppression costs the model's ability.", "fit"
    ),
    LazyEntry("reload", "monitor.cli.policy.reload:reload", "Have a running server read its policies again."),
    LazyEntry("schema", "monitor.cli.policy.folder:schema", "Print the JSON Schema of a policy file."),
)

policy_app = typer.Typer(
    name="policy",
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@policy_app.callback()
def root() -> None:
    """Check, fit, test and explain policies."""
