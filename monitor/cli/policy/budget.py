"""`sae-monitor policy budget`: the flags, and what a set costs as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from monitor.cli.opened_pair import opened_pair
from monitor.cli.options import (
    DeviceOption,
    DictionaryOption,
    FormatOption,
    ModelOption,
    PairOption,
    SkipSelfTestOption,
)
from monitor.cli.policy.data_flags import SplitSeedOption
from monitor.cli.show.console import stderr_console, stdout_console
from monitor.cli.show.progress import steps_of
from monitor.cli.show.set_budget import budget_tables
from monitor.cli.show.words import counted
from monitor.errors import InputError

if TYPE_CHECKING:
    from monitor.lab.budget.shared_set import SharedSet

RATE = 0.01
TOKENS = 800_000
WeightOption = Annotated[
    list[str] | None,
    typer.Option(
        "--weight",
        metavar="NAME=NUMBER",
        help="Give the rules of this policy so many times the share of the budget that others get. Repeatable.",
    ),
]
TokensOption = Annotated[
    int,
    typer.Option(
        "--benign-tokens",
        min=1000,
        help="Read about so many tokens of benign text to share the budget, short texts first. Long texts and small "
        "budgets need more.",
    ),
]


def budget(
    policies: Annotated[
        Path, typer.Argument(help="Folder of fitted policies; their locks are written anew.")
    ],
    pair_name: PairOption = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    rate: Annotated[
        float,
        typer.Option(
            "--budget",
            metavar="RATE",
            min=0.0001,
            max=0.5,
            help="Let the rules that act fire on this share of benign requests, all rules together, at every length "
            "and for every kind of text.",
        ),
    ] = RATE,
    weight: WeightOption = None,
    benign: Annotated[
        list[Path] | None,
        typer.Option(
            "--benign",
            metavar="PATH",
            help="Use these files or folders of benign texts as well, beside benign.jsonl and benign/ in the "
            "policies' folder; `stdlib` stands for the standard library of this Python. Name those that `policy fit` "
            "was given: half of their texts are read, and those of them that taught are left out. Repeatable.",
        ),
    ] = None,
    train_fraction: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Read this share of the documents of --benign, as `policy fit` did. Default: 0.5.",
        ),
    ] = None,
    split_seed: SplitSeedOption = None,
    benign_tokens: TokensOption = TOKENS,
    seed: Annotated[
        int, typer.Option(help="Draw the parts of the texts by which rates are measured from this number.")
    ] = 0,
    device: DeviceOption = "auto",
    skip_self_test: SkipSelfTestOption = False,
) -> None:
    """Share one rate of false positives over all rules that act, and write their thresholds into the locks.

    `policy fit` does this in the end. Run it again after modes or weights have changed, or with other benign texts:
    nothing is learnt anew. Prints on how many benign texts the set fires, by length and by kind, and what each policy
    has of it.
    """
    from monitor.lab.benign_texts import benign_texts
    from monitor.lab.budget.shared_set import BudgetSettings, share_set
    from monitor.lab.splits import Split

    settings = BudgetSettings(rate, weights_of(weight or ()), benign_tokens, seed)
    split = Split(0.5 if train_fraction is None else train_fraction, split_seed or 0)
    texts = benign_texts(policies, benign or (), split).calibrating
    pair = opened_pair(
        model, dictionary, dictionary_format, device, pair_name=pair_name, skip_self_test=skip_self_test
    )
    with steps_of("reading the policies") as step:
        found = share_set(pair, policies, texts, settings, step)
    print_shared(found)


def weights_of(given: Sequence[str]) -> dict[str, float]:
    """Weights by policy; InputError where one is not NAME=NUMBER with a number above 0."""
    found = {}
    for word in given:
        name, _, number = word.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = 0.0
        if not 0 < found[name] < 1e6:
            raise InputError(
                f"--weight {word}: write NAME=NUMBER with a number above 0, such as power-seeking=2"
            )
    return found


def print_shared(found: SharedSet) -> None:
    """What the set costs, and what its budget does not hold for."""
    from monitor.policy.files.set_budget import budget_notes

    stdout_console().print(budget_tables(found.budget))
    console = stderr_console()
    for name, why in found.budget.left_out.items():
        console.print(f"{name}: not in the budget; {why}", soft_wrap=True)
    for note in budget_notes(found.budget, found.sources):
        console.print(f"budget: {note}", soft_wrap=True)
    locks = sum(source.lock is not None and source.model.needs_lock for source in found.sources)
    kept = "" if found.budget.shared else "; their thresholds are what they were"
    console.print(f"{counted(locks, 'lock')} and budget.json written{kept}", soft_wrap=True)
