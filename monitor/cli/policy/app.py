"""`sae-monitor policy`: the commands about policies. Imports none of them: each is loaded when it runs."""

from __future__ import annotations

import typer

from monitor.cli.lazy import Entry, lazy_group

COMMANDS = (
    Entry(
        "check",
        "monitor.cli.policy.folder:check",
        "Read every policy and print every problem with its position.",
    ),
    Entry(
        "schema", "monitor.cli.policy.folder:schema", "Print the JSON Schema of a policy file, for editors."
    ),
    Entry("test", "monitor.cli.policy.run_tests:run", "Run the tests beside the policies."),
    Entry(
        "explain",
        "monitor.cli.policy.explain:explain",
        "Show how far a text is from firing each rule, and why.",
    ),
    Entry(
        "fit", "monitor.cli.policy.fit:fit", "Fit policies to a model and its dictionary; write their locks."
    ),
    Entry(
        "evaluate", "monitor.cli.policy.evaluate:evaluate", "Measure policies on labelled and benign texts."
    ),
    Entry("compare", "monitor.cli.policy.compare:compare", "Say on which texts two policy sets disagree."),
    Entry("report", "monitor.cli.policy.report:report", "Write one HTML page about a policy set."),
    Entry(
        "cost", "monitor.cli.policy.cost:cost", "Measure what a policy's suppression does and what it costs."
    ),
    Entry(
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
