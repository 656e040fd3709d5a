"""`sae-monitor policy fit`: the flags, and the locks as tables."""

from __future__ import annotations

import enum
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table

from monitor.cli.opened_pair import opened_pair
from monitor.cli.options import (
    DeviceOption,
    DictionaryOption,
    FormatOption,
    LocksOption,
    ModelOption,
    PairOption,
    SkipSelfTestOption,
)
from monitor.cli.policy.budget import (
    RATE,
    TOKENS,
    TokensOption,
    WeightOption,
    print_shared,
    weights_of,
)
from monitor.cli.policy.data_flags import AboutOption, ManifestOption, SplitSeedOption, data_folder
from monitor.cli.show.console import stderr_console, stdout_console
from monitor.cli.show.progress import steps_of
from monitor.cli.show.words import counted
from monitor.policy.files.lock import LockModel, Separation

CAPTION = (
    "by: what detects (features by their number, a probe, or both); c: clamps. AUROC (95 %) against own negatives. "
    "recall: where 1 % of benign texts fire (95 %). caught: positives on which the rules fire as locked. topic: own "
    "negatives that fire at 1 % too."
)
METHODS = {
    "policy": "policy",
    "features": "features",
    "probe": "probe",
    "combined": "both",
    "linear_probe": "linear",
    "difference_of_means": "means",
    "bag_of_words": "words",
    "random_features": "random",
}
"""Methods of a card, and what their columns are called."""


class DetectorKind(enum.StrEnum):
    """What scores tokens."""

    FEATURES = "features"
    PROBE = "probe"
    COMBINED = "combined"
    AUTO = "auto"


def fit(
    policies: Annotated[
        Path, typer.Argument(help="Folder of policies; locks are written to locks/PAIR/NAME.lock.yaml in it.")
    ],
    pair_name: PairOption = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    extra: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Learn from the labelled files of this folder as well: rows of text, label (1 or 0) and, where known, "
            "group. A file is about the policies whose name or category its folder is called after.",
        ),
    ] = None,
    manifest: ManifestOption = None,
    about: AboutOption = None,
    benign: Annotated[
        list[Path] | None,
        typer.Option(
            "--benign",
            metavar="PATH",
            help="Learn from these files or folders of benign texts as negatives, and set thresholds on them, beside "
            "benign.jsonl and benign/ in the policies' folder; `stdlib` stands for the standard library of this "
            "Python. Half of their documents are read; `policy evaluate` measures on the other half. Repeatable.",
        ),
    ] = None,
    train_fraction: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Read only this share of the groups of --extra and of the documents of --benign, so that `policy "
            "evaluate --train-fraction` can measure on the rest. Default: every row of --extra.",
        ),
    ] = None,
    split_seed: SplitSeedOption = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Fit this policy; all where none is named. The budget is shared over all that have a lock. "
            "Repeatable.",
        ),
    ] = None,
    features: Annotated[
        int,
        typer.Option(
            min=1,
            max=256,
            help="Let a policy read at most so many features. The fewest are taken that detect about as well as more.",
        ),
    ] = 64,
    positive_only: Annotated[
        bool, typer.Option("--positive-only", help="Let no feature speak against a concept.")
    ] = False,
    detector: Annotated[
        DetectorKind,
        typer.Option(
            help="Score tokens by features, by a probe, by both combined, or (auto) by what detects best on examples "
            "that it did not learn from; where that makes no difference, by features."
        ),
    ] = DetectorKind.AUTO,
    seed: Annotated[
        int,
        typer.Option(help="Draw folds and resamples from this number; the same gives the same lock."),
    ] = 0,
    budget: Annotated[
        float,
        typer.Option(
            metavar="RATE",
            min=0,
            max=0.5,
            help="Let the rules that act fire on this share of benign requests, all rules together, at every length "
            "and for every kind of text. With 0 every rule takes the rate that it asks for.",
        ),
    ] = RATE,
    weight: WeightOption = None,
    benign_tokens: TokensOption = TOKENS,
    locks: LocksOption = None,
    device: DeviceOption = "auto",
    skip_self_test: SkipSelfTestOption = False,
) -> None:
    """Find features, set thresholds, choose clamps and measure every policy; write locks/PAIR/NAME.lock.yaml.

    In the end one budget of false positives is shared over all rules that act, as `policy budget` does.
    """
    from monitor.lab.budget.shared_set import BudgetSettings, share_set
    from monitor.lab.fit import PolicyFit
    from monitor.lab.splits import Split
    from monitor.policy.fit import FitSettings

    started = time.monotonic()
    wanted = BudgetSettings(budget or RATE, weights_of(weight or ()), benign_tokens, seed)
    data = None
    if extra is not None:
        data = data_folder(extra, manifest, about=about, train_fraction=train_fraction, split_seed=split_seed)
    split = Split(0.5 if train_fraction is None else train_fraction, split_seed or 0)
    if data is not None:
        split = data.halved
    asked = PolicyFit(policies, only=only or (), benign=benign or (), extra=data, split=split)
    settings = FitSettings(features, seed, not positive_only, detector.value)
    console = stderr_console()
    for note in asked.notes:
        console.print(note, soft_wrap=True)
    pair = opened_pair(
        model, dictionary, dictionary_format, device, pair_name=pair_name, skip_self_test=skip_self_test
    )
    with steps_of("reading the policies") as step:
        made = asked.run(pair, settings, step, lambda line: console.print(line, soft_wrap=True), locks=locks)
    written, shared = made.locks, None
    if budget and written and asked.texts.calibrating:
        with steps_of("sharing the budget") as step:
            shared = share_set(pair, policies, asked.texts.calibrating, wanted, step)
        written = shared.locks([lock.policy for lock in written])
    _print(written, time.monotonic() - started)
    if shared is not None:
        print_shared(shared)
    made.check()


def _print(locks: Sequence[LockModel], seconds: float) -> None:
    console = stdout_console()
    console.print(card_table(locks))
    for lock in locks:
        if lock.card is not None:
            console.print(f"{lock.policy}: {lock.card.note}", soft_wrap=True)
    console.print(f"{counted(len(locks), 'lock')} written in {seconds:.0f} s")


def card_table(locks: Sequence[LockModel]) -> Group:
    """One row per lock: the rule's held-out numbers, and below those of the baselines."""
    cards = _table("Held-out measurements, cross-validated over groups", CAPTION)
    for name in ("policy", "by/c", "AUROC", "recall", "caught", "topic", "look-alikes", "maturity"):
        cards.add_column(name, no_wrap=True)
    beside = _table("Beside it: AUROC, recall in %", "probe: token by token; linear, means: mean residual")
    beside.add_column("policy", no_wrap=True)
    for name in METHODS.values():
        beside.add_column(name, no_wrap=True)
    for lock in locks:
        cards.add_row(*_row(lock))
        if lock.card is not None:
            beside.add_row(lock.policy, *(_short(lock.card.methods.get(name)) for name in METHODS))
    return Group(cards, beside, *_more(locks))


def _more(locks: Sequence[LockModel]) -> list[Table]:
    """What so many features buy, and what other ways to make one number of a text's tokens would."""
    known = [(lock.policy, lock.card) for lock in locks if lock.card is not None and lock.card.sizes]
    if not known:
        return []
    sizes = _table(
        "Recall in % by number of features, of features alone", "all: every feature that is ever active"
    )
    others = _table(
        "Recall in % if the tokens of a text were pooled otherwise", "rule: as the policy's rule pools"
    )
    for table, names in ((sizes, known[0][1].sizes), (others, {"rule": None, **known[0][1].aggregates})):
        table.add_column("policy", no_wrap=True)
        for name in names:
            table.add_column(name, no_wrap=True, justify="right")
    for policy, card in known:
        sizes.add_row(policy, *(f"{100 * one.recall:.0f}" for one in card.sizes.values()))
        pooled = (card.methods["policy"], *card.aggregates.values())
        others.add_row(policy, *(f"{100 * one.recall:.0f}" for one in pooled))
    return [sizes, others]


def _table(title: str, caption: str) -> Table:
    return Table(box=SIMPLE, padding=(0, 1, 0, 0), title=title, caption=caption)


def _row(lock: LockModel) -> list[str]:
    read = {
        "features": str(len(lock.features) or "features"),
        "probe": "probe",
        "combined": f"{len(lock.features)}+probe",
    }
    head = [lock.policy, f"{read[lock.detector]}/{len(lock.suppress)}"]
    caught = "/".join(f"{r.caught:.2f}" for r in lock.rules.values() if r.caught is not None)
    card = lock.card
    if card is None:
        return [*head, "", "", caught, "", "", ""]
    mine = card.methods["policy"]
    return [
        *head,
        f"{mine.auroc:.2f} {mine.auroc_low:.2f}-{mine.auroc_high:.2f}",
        f"{mine.recall:.2f} {mine.recall_low:.2f}-{mine.recall_high:.2f}",
        caught,
        f"{card.negative_rate:.2f}",
        "" if card.hard_negative_auroc is None else f"{card.hard_negative_auroc:.2f}",
        card.maturity,
    ]


def _short(measure: Separation | None) -> str:
    return "" if measure is None else f"{measure.auroc:.2f} {100 * measure.recall:2.0f}"
