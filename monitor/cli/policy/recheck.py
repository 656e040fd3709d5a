"""`sae-monitor policy recheck`: the flags, what was found as a table and as JSON, and the exit codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from monitor.cli.errors import ExitCode
from monitor.cli.opened_pair import opened_pair, what_runs
from monitor.cli.options import (
    DeviceOption,
    DictionaryOption,
    Dtype,
    FormatOption,
    JsonOption,
    ModelOption,
    PairOption,
    SkipSelfTestOption,
)
from monitor.cli.output import json_line
from monitor.cli.policy.data_flags import SplitSeedOption, TrainFractionOption
from monitor.cli.show.console import stderr_console, stdout_console
from monitor.cli.show.printable import printable
from monitor.cli.show.progress import steps_of
from monitor.cli.show.words import counted, short_digest
from monitor.errors import InputError
from monitor.lab.recheck.equivalence import Sameness, SamenessTest
from monitor.lab.recheck.policies import PairChange, PairScores, PolicyRecheck, Recheck, Rechecker
from monitor.lab.recheck.rules import SEPARATION, Margins, RecheckVerdict, RuleRecheck, Thresholds
from monitor.lab.splits import Split

if TYPE_CHECKING:
    from monitor.lab.pair import Pair

EXIT_CODES = {
    RecheckVerdict.HOLDS: ExitCode.CLEAN,
    RecheckVerdict.STALE: 10,
    RecheckVerdict.DEGRADED: 11,
    RecheckVerdict.INCONCLUSIVE: 12,
}
"""Exit code of each verdict; 1 and 2 keep the meaning that they have everywhere."""
STYLES = {
    RecheckVerdict.HOLDS: "bold #ffffff on #1f7a3d",
    RecheckVerdict.STALE: "bold #111111 on #ffcc70",
    RecheckVerdict.DEGRADED: "bold #ffffff on #b3132b",
    RecheckVerdict.INCONCLUSIVE: "bold",
}
NAMES = {
    "false_positives": "false alarms",
    "caught": "what it catches",
    "score_shift": "scores at the threshold",
    "auroc": "AUROC",
    "held_out_auroc": "AUROC on unseen texts",
    "recall": "recall at 1 % false alarms",
}
"""What a test is of, by its name."""
LEGEND = (
    "Each number: when fitted → now. false alarms: share of benign texts on which the rule fires. caught: share of its "
    "positive examples. AUROC: how often a positive scores above a negative one. recall: share of positives above 99 % "
    "of benign texts. moved: how far scores at the threshold went, by its height above ordinary text. Bold: not shown "
    "to be the same. "
)
OF_CHANGE = (
    "In brackets: 90 % interval of the change, text by text. AUROC is that of unseen texts, estimated from how scores "
    "scatter; all else is of texts that the rule has learnt from."
)
OF_NOW = (
    "When fitted: on held-out texts; now: on texts that the rule has learnt from. In brackets: 90 % interval."
)


def recheck(
    policies: Annotated[
        Path, typer.Argument(help="Folder of policies with their locks, or the file of one policy.")
    ],
    pair_name: PairOption = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    dtype: Dtype = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Recheck this policy; all where none is named. Repeatable."),
    ] = None,
    against_model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Compare with this model, text by text, instead of with what the locks record. It should be the one "
            "that they were fitted to. Default where another --against flag is given: the model of --model.",
        ),
    ] = None,
    against_dictionary: Annotated[
        Path | None,
        typer.Option(
            metavar="DICTIONARY", help="Dictionary of the model compared with. Default: that of --dictionary."
        ),
    ] = None,
    against_dtype: Annotated[
        str | None,
        typer.Option(metavar="DTYPE", help="Number type of the model compared with, such as float32."),
    ] = None,
    locks: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Recheck the locks in the folder locks/NAME of the policies. Default: those of --pair; else the only "
            "ones that are there, or those of the default pair.",
        ),
    ] = None,
    benign: Annotated[
        list[Path] | None,
        typer.Option(
            "--benign",
            metavar="PATH",
            help="Read these files or folders of benign texts too, beside benign.jsonl in the policies' folder: the "
            "half of their documents that `policy fit --benign` leaves out. Repeatable.",
        ),
    ] = None,
    train_fraction: TrainFractionOption = None,
    split_seed: SplitSeedOption = None,
    margin_false_alarms: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Let so many more of the benign texts fire, as a share, and still call it the same.",
        ),
    ] = Margins.false_positives,
    margin_caught: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Let so many more or fewer of the positive examples be caught, as a share, and still call it the "
            "same.",
        ),
    ] = Margins.caught,
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            help="Write locks for this model and dictionary: for policies that hold with their numbers as they are, "
            "for stale ones with the new thresholds. Other locks stay.",
        ),
    ] = False,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Record what the rules score now in their locks, for later rechecks to compare with. For the model, "
            "the dictionary and the number type that the locks were fitted with, and for no other.",
        ),
    ] = False,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
    skip_self_test: SkipSelfTestOption = False,
) -> None:
    """Say whether the locked thresholds hold for what runs now: another number type, quantisation or fine-tune.

    The texts that the policies were calibrated on are scored again, by the model and dictionary that are named here;
    that a lock is of others does not matter. Each rule gets a verdict. HOLDS: false alarms and recall are shown to be
    the same within a margin. STALE: scores have moved and separate as before; new thresholds are given. DEGRADED:
    scores no longer separate as they did; fit again. INCONCLUSIVE: the texts are too few to tell; how many more is
    said.

    Exit codes, by the worst verdict: 0 all hold, 10 stale, 11 degraded, 12 inconclusive, 2 an error. What --write has
    mended counts as holding.
    """
    if write and record:
        raise InputError(
            "give --write or --record, not both: one is for another pair, the other for the locks' own"
        )
    folder, names = (policies.parent, [policies.stem]) if policies.is_file() else (policies, only or ())
    split = Split(0.5 if train_fraction is None else train_fraction, split_seed or 0)
    margins = Margins(margin_false_alarms, margin_caught, recall=margin_caught)
    rechecker = Rechecker(
        folder,
        only=names,
        benign=benign or (),
        split=split,
        margins=margins,
        locks=locks or what_runs(pair_name=pair_name).pair,
    )

    def opened(model: str | None, dictionary: Path | None, dtype: str | None) -> Pair:
        return opened_pair(
            model,
            dictionary,
            dictionary_format,
            device,
            pair_name=pair_name,
            skip_self_test=skip_self_test,
            dtype=dtype or "auto",
        )

    against: PairScores | None = None
    if against_model or against_dictionary or against_dtype:
        named = opened(against_model or model, against_dictionary or dictionary, against_dtype)
        against = _scores(rechecker, named)
        del named  # Two models need not fit into memory at once.
    pair = opened(model, dictionary, dtype)
    scores = _scores(rechecker, pair)
    found = rechecker.compare(pair, scores, against=against)
    if write:
        found = rechecker.write(pair, found, scores)
    if record:
        for path in rechecker.record(pair, scores):
            stderr_console().print(f"{path}: scores recorded", soft_wrap=True)
    code = exit_code(found)
    if as_json:
        typer.echo(as_record(found, code))
    else:
        show(stdout_console(), found)
    raise typer.Exit(code)


def _scores(rechecker: Rechecker, pair: Pair) -> PairScores:
    with steps_of("reading texts") as step:
        return rechecker.scores(pair, step)


def exit_code(found: Recheck) -> int:
    """The exit code for what was found: of the worst verdict among policies whose lock was not mended."""
    if any(one.verdict is None for one in found.policies):
        return ExitCode.ERROR
    left = [one for one in found.policies if not one.written]
    return int(EXIT_CODES[dataclasses.replace(found, policies=tuple(left)).verdict or RecheckVerdict.HOLDS])


def as_record(found: Recheck, code: int) -> str:
    """Everything as JSON."""
    policies = [dataclasses.asdict(one) | {"more_texts": dict(one.more)} for one in found.policies]
    record = dataclasses.asdict(dataclasses.replace(found, policies=()))
    verdict = found.verdict
    return json_line(
        record | {"verdict": verdict, "exit_code": code, "policies": policies, "digests": dict(found.digests)}
    )


def show(console: Console, found: Recheck) -> None:
    """A table of all rules, and for each policy that does not hold what that means and what to do."""
    name = Path(found.model).name
    console.print(
        Text(f"Do the locked thresholds hold for {printable(name)} in {found.dtype}?", "bold"), soft_wrap=True
    )
    for change in _changes(found):
        console.print(Text(f"  {change}"), soft_wrap=True)
    console.print(Text(f"  compared with {found.compared}"), soft_wrap=True)
    console.print(_table(found))
    paired = all(rule.paired for one in found.policies for rule in one.rules)
    console.print(Text(LEGEND + (OF_CHANGE if paired else OF_NOW), "dim"))
    for one in found.policies:
        for line in _advice(one):
            console.print(line, soft_wrap=True)
    for note in _notes(found):
        console.print(Text(printable(note), "dim"), soft_wrap=True)
    console.print(_summary(found))


def _changes(found: Recheck) -> Iterator[str]:
    """In what the pair differs from those of the locks, each once."""
    changes = dict.fromkeys(change for one in found.policies for change in one.differs)
    if not changes:
        yield "it is the model and the dictionary that the locks were fitted to, as far as they say"
    for change in changes:
        yield f"{_part(change)}: {_shown(change.then)} when fitted, {_shown(change.now)} now"


def _part(change: PairChange) -> str:
    words = {"dtype": "number type", "maxima": "recorded maxima of features (the one that differs most)"}
    return words.get(change.part, change.part)


def _shown(value: str) -> str:
    return short_digest(value) if value.startswith("sha256:") else value


def _table(found: Recheck) -> Table:
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for name in ("policy", "false alarms", "caught", "AUROC", "recall", "moved"):
        table.add_column(name, no_wrap=True)
    for one in found.policies:
        if one.verdict is None:
            refused = Text(" NOT MEASURED ", STYLES[RecheckVerdict.DEGRADED])
            table.add_row(Text.assemble(f"{one.policy}\n", refused))
        for rule in one.rules:
            name = one.policy if len(one.rules) == 1 else f"{one.policy}\n{rule.name}"
            auroc = rule.check("held_out_auroc") or rule.check("auroc")
            cells = [_cell(rule.check(test)) for test in ("false_positives", "caught")]
            cells += [_cell(auroc), _cell(rule.check("recall"))]
            table.add_row(Text.assemble(f"{name}\n", _verdict(rule.verdict)), *cells, _moved(rule))
    return table


def _verdict(verdict: RecheckVerdict) -> Text:
    return Text(f" {verdict.upper()} ", STYLES[verdict])


def _cell(check: SamenessTest | None) -> Text:
    """A value then and now; below it the interval of its change, or its own where that is not known."""
    if check is None or check.now is None or check.then is None:
        return Text("-", "dim")
    text = Text(f"{_value(check.name, check.then)} → {_value(check.name, check.now.value)}", _weight(check))
    return text.append(f"\n({_interval(check)})", "dim not bold")


def _moved(rule: RuleRecheck) -> Text:
    check = rule.check("score_shift")
    if check is None or check.change is None:
        return Text("-", "dim")
    text = Text(f"{check.change.value:+.0%}", _weight(check))
    return text.append(f"\n({_interval(check)})", "dim not bold")


def _weight(check: SamenessTest) -> str:
    return "" if check.found is Sameness.SAME else "bold"


def _interval(check: SamenessTest) -> str:
    spread, sign = (check.change, "+") if check.change is not None else (check.now, "")
    assert spread is not None
    form = f"{sign}.2f" if check.name.endswith("auroc") else f"{sign}.0%"
    return f"{spread.low:{form}} … {spread.high:{form}}"


def _value(name: str, value: float) -> str:
    if name.endswith("auroc"):
        return f"{value:.2f}"
    return f"{value:.1%}" if name == "false_positives" else f"{value:.0%}"


def _advice(one: PolicyRecheck) -> Iterator[Text]:
    """What the verdict on a policy means and what to do; nothing for one that holds and was not written."""
    head = Text(f"{one.policy}: ", "bold")
    if one.verdict is None:
        yield Text.assemble(head, f"cannot be measured: {printable('; '.join(one.problems))}")
        return
    for rule in one.rules:
        lines = {
            RecheckVerdict.STALE: _stale,
            RecheckVerdict.DEGRADED: _degraded,
            RecheckVerdict.INCONCLUSIVE: _inconclusive,
        }.get(rule.verdict)
        if lines is not None:
            yield Text.assemble(head, f"{rule.name} is ", rule.verdict.upper(), f". {lines(rule)}")
    if one.written:
        yield Text.assemble(head, f"{one.written} written")
    elif one.verdict is RecheckVerdict.STALE:
        yield Text.assemble(
            head, "`--write` puts new thresholds into its lock, unless a rule of it is inconclusive."
        )


def _names(rule: RuleRecheck, found: Sameness) -> str:
    return ", ".join(NAMES[one.name] for one in rule.checks if one.found is found)


def _stale(rule: RuleRecheck) -> str:
    said = f"Its scores separate as before but have moved ({_names(rule, Sameness.MOVED)})."
    if rule.proposed is None:
        return f"{said} There is too little to set new thresholds on; fit again with `policy fit`."
    after = {one.name: one for one in rule.after}
    rates = [
        f"{word} {_value(name, after[name].now.value)}"  # type: ignore[union-attr]
        for name, word in (("false_positives", "false alarms"), ("caught", "caught"))
        if name in after and after[name].now is not None
    ]
    where = "" if rule.asked is not None else " Its policy gives the threshold itself: change it there."
    return f"{said} New thresholds: {_limits(rule.thresholds, rule.proposed)}; with these {', '.join(rates)}.{where}"


def _limits(then: Thresholds, now: Thresholds) -> str:
    if len(then) != len(now):
        return ", ".join(f"{_range(up_to)}{value:.4g}" for up_to, value in now)
    pairs = zip(then, now, strict=True)
    return ", ".join(f"{_range(up_to)}{old:.4g} → {new:.4g}" for (up_to, old), (_, new) in pairs)


def _range(up_to: int | None) -> str:
    return "" if up_to is None else f"to {up_to} tokens "


def _degraded(rule: RuleRecheck) -> str:
    lost = [one for one in rule.checks if one.name in SEPARATION and one.found is Sameness.MOVED]
    what = " and ".join(
        f"{NAMES[one.name]} from {_value(one.name, one.then or 0)} to {_value(one.name, one.now.value)}"
        for one in lost
        if one.now is not None
    )
    return f"It has lost separation: {what}. No threshold mends that; run `policy fit` for this model and dictionary."


def _inconclusive(rule: RuleRecheck) -> str:
    moved = _names(rule, Sameness.MOVED)
    said = (
        f"Scores have moved ({moved}), and whether they separate as before" if moved else "Whether it holds"
    )
    return f"{said} cannot be told from so few texts. {' '.join(_needed(rule))}"


def _needed(rule: RuleRecheck) -> Iterator[str]:
    """How many more texts of each kind would do, and how they are given."""
    for kind, noun, how in (
        ("positive", "positive example", "add them to the examples and fit again"),
        ("benign", "benign text", _more_benign(rule)),
    ):
        open_tests = [one for one in rule.checks if one.kind == kind and one.found is Sameness.UNKNOWN]
        if not open_tests:
            continue
        about = ", ".join(NAMES[one.name] for one in open_tests)
        known = [one.more for one in open_tests if one.more is not None]
        count = counted(max(known), noun) if len(known) == len(open_tests) else f"far more {noun}s"
        yield f"For {about}: about {count} more than the {open_tests[0].texts:,} here would do; {how}."


def _more_benign(rule: RuleRecheck) -> str:
    given = "name files of them with --benign"
    return f"{given}, and the pair that the lock was fitted to with --against-model" if rule.paired else given


def _notes(found: Recheck) -> Iterator[str]:
    """Notes with the policies that each is about."""
    about: dict[str, list[str]] = {}
    for one in found.policies:
        for note in one.notes:
            about.setdefault(note, []).append(one.policy)
    yield from found.notes
    for note, names in about.items():
        yield f"{', '.join(names)}: {note}"


def _summary(found: Recheck) -> Text:
    counts = {verdict: sum(one.verdict is verdict for one in found.policies) for verdict in STYLES}
    parts = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    return Text(
        f"{counted(len(found.policies), 'policy', 'policies')}: {', '.join(parts) or 'none measured'}", "bold"
    )
