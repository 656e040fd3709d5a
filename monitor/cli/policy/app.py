"""`sae-monitor policy`: the commands about policies. Imports none of them: each is loaded when it runs."""

from __future__ import annotations

import typer

from monitor.cli.lazy import LazyEntry, lazy_group

COMMANDS = (
    LazyEntry(
        "check",
        "monitor.cli.policy.folder:check",
        "Read every policy and print every problem with its position.",
    ),
    LazyEntry(
        "schema", "monitor.cli.policy.folder:schema", "Print the JSON Schema of a policy file, for editors."
    ),
    LazyEntry("test", "monitor.cli.policy.run_tests:run", "Run the tests beside the policies.", "fit"),
    LazyEntry(
        "explain",
        "monitor.cli.policy.explain:explain",
        "Show how far a text is from firing each rule, and why.",
        "fit",
    ),
    LazyEntry(
        "fit",
        "monitor.cli.policy.fit:fit",
        "Fit policies to a model and its dictionary; write their locks.",
        "fit",
    ),
    LazyEntry(
        "budget",
        "monitor.cli.policy.budget:budget",
        "Share one rate of false positives over all rules that act.",
        "fit",
    ),
    LazyEntry(
        "lock",
        "monitor.cli.policy.lock:lock",
        "Say which locks are of this model and dictionary; bind those that still hold.",
        "fit",
    ),
    LazyEntry(
        "recheck",
        "monitor.cli.policy.recheck:recheck",
        "Say whether locked thresholds hold for another model, number type or dictionary.",
        "fit",
    ),
    LazyEntry(
        "evaluate",
        "monitor.cli.policy.evaluate:evaluate",
        "Measure policies on labelled and benign texts.",
        "fit",
    ),
    LazyEntry(
        "compare", "monitor.cli.policy.compare:compare", "Say on which texts two policy sets disagree.", "fit"
    ),
    LazyEntry("report", "monitor.cli.policy.report:report", "Write one HTML page about a policy set.", "fit"),
    LazyEntry(
        "cost",
        "monitor.cli.policy.cost:cost",
        "Measure what a policy's suppression does and what it costs.",
        "fit",
    ),
    LazyEntry(
        "reload", "monitor.cli.policy.folder:reload", "Tell a running server to read its policy files again."
    ),
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
