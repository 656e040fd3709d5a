"""What an evaluation of policies found: numbers as arrays, as Markdown tables and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from monitor.policy.files.lock import CURVE, LockModel, Separation
from monitor.policy.fit.evaluation import CORPUS, REQUESTS, UNLIKE, BenignRate, RuleOnSource

ANY = "any rule"
"""Stands for a policy's name where all rules of the set are taken together."""
METHODS = ("policy", "probe", "linear_probe", "difference_of_means", "bag_of_words", "random_features")
"""What is measured on every source: the policy's rule, and what else could be done with the same rows."""

BESIDE = ("probe", "linear_probe", "difference_of_means", "bag_of_words", "random_features")
HEADS = ("probe", "linear probe", "diff. of means", "bag of words", "random features")
"""What the columns of `BESIDE` are called."""


@dataclass(frozen=True, repr=False)
class PolicyEvaluation:
    """What was measured. `print` shows it as Markdown tables.

    Intervals are of 95 %: from resampling groups for AUROC and recall, Wilson's for rates.
    """

    folder: str
    digests: dict[str, str]
    """Of model, dictionary and policy set."""
    locks: tuple[LockModel, ...]
    """The policies' locks, each with the card of its fit."""
    sources: tuple[RuleOnSource, ...] = ()
    """Each rule on each labelled source about its policy."""
    rates: tuple[BenignRate, ...] = ()
    """How often each rule fires on benign texts, by source and length; last any rule of the set."""
    notes: tuple[str, ...] = ()
    """What has no row and why, and which rows mean something else than the others."""
    pair: str = ""
    """Name of the pair; empty where it has none."""
    methods: tuple[str, ...] = field(default=METHODS, init=False)
    """The names along the second axis of `auroc` and `recall`."""

    @cached_property
    def auroc(self) -> NDArray[np.float64]:
        """`[sources, methods, 3]`: AUROC within a source, the low and the high end of its interval.

        NaN where a source has no negatives, or where a policy without examples has no baselines.
        """
        return self._table(lambda m: (m.auroc, m.auroc_low, m.auroc_high), negatives=True)

    @cached_property
    def recall(self) -> NDArray[np.float64]:
        """`[sources, methods, 3]`: share of positives above the score that 1 % of benign requests reach; interval."""
        return self._table(lambda m: (m.recall, m.recall_low, m.recall_high), negatives=False)

    @cached_property
    def false_positive_rates(self) -> NDArray[np.float64]:
        """`[rates, 3]`: share of benign texts on which a rule fires, the low and the high end of its interval."""
        shares = [(rate.fired / rate.texts, *rate.interval) for rate in self.rates]
        return np.asarray(shares, np.float64).reshape(-1, 3)

    def __str__(self) -> str:
        """All tables as Markdown."""
        return as_markdown(self)

    def __repr__(self) -> str:
        """One line for each rule on each source."""
        policies = len({rate.policy for rate in self.rates} - {ANY})
        head = f"PolicyEvaluation({policies} policies, {len(self.sources)} rows of sources, {len(self.rates)} rates)"
        lines = [
            f"  {r.policy}/{r.rule} on {r.source}: AUROC {a:.2f} ({low:.2f}–{high:.2f}), recall {c:.0%} at 1 %"
            for r, (a, low, high), c in zip(self.sources, self.auroc[:, 0], self.recall[:, 0, 0], strict=True)
        ]
        return "\n".join([head, *lines])

    def _table(
        self, numbers: Callable[[Separation], tuple[float, float, float]], *, negatives: bool
    ) -> NDArray[np.float64]:
        found = np.full((len(self.sources), len(self.methods), 3), np.nan)
        for i, result in enumerate(self.sources):
            for name, measure in result.methods.items():
                if result.negative or not negatives:
                    found[i, self.methods.index(name)] = numbers(measure)
        return found


def as_markdown(found: PolicyEvaluation) -> str:
    """All tables as Markdown, with the notes below them."""
    names = ", ".join(
        f"{name} `{digest.removeprefix('sha256:')[:12]}`" for name, digest in found.digests.items()
    )
    parts = [
        f"Measured on {names}.",
        "#### Cards\n\nEach policy's own examples, by detectors that never saw the example's group. AUROC against own "
        "negatives (95 % interval) and recall where 1 % of benign texts fire; *caught* is the share of positives on "
        "which the rules fire as locked; beside it AUROC / recall of the baselines.",
        lock_table(found.locks),
        "#### Sources\n\nRows of the labelled sources that no fit has read. AUROC within the source "
        "(95 % interval); *caught* and *fired*: shares of its positives and negatives on which the policy fires as "
        "locked; recall where 1 % of the unseen benign requests fire; beside it AUROC / recall of baselines that "
        "learnt from the same rows as the policy.",
        source_table(found.sources),
        "#### False positives on unseen benign text\n\nShare of benign texts on which a rule fires, by length in "
        f"tokens (95 % interval, texts). {_benign_said(found.rates)}",
        rate_table(found.rates),
        "Rates by corpus, all rules together:",
        corpus_table(found.rates),
        "\n".join(f"- {note}" for note in found.notes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_record(found: PolicyEvaluation) -> str:
    """Everything as JSON, on one line."""
    record = {
        "folder": found.folder,
        "pair": found.pair,
        "digests": found.digests,
        "cards": {lock.policy: lock.card.model_dump() for lock in found.locks if lock.card is not None},
        "curve_rates": list(CURVE),
        "sources": [_plain(result) for result in found.sources],
        "notes": list(found.notes),
        "rates": [{**dataclasses.asdict(rate), "interval": rate.interval} for rate in found.rates],
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


def _plain(result: RuleOnSource) -> dict[str, object]:
    methods = {name: measure.model_dump() for name, measure in result.methods.items()}
    return {**dataclasses.asdict(dataclasses.replace(result, methods={})), "methods": methods}


def lock_table(locks: Sequence[LockModel]) -> str:
    """One row per fitted concept."""
    rows = []
    for lock in locks:
        if lock.card is None:
            continue
        card, mine = lock.card, lock.card.methods["policy"]
        caught = [rule.caught for rule in lock.rules.values() if rule.caught is not None]
        rows.append(
            [
                lock.policy,
                f"**{_area(mine)}**",
                f"**{mine.recall:.0%}** ({mine.recall_low:.0%}–{mine.recall_high:.0%})",
                " / ".join(f"{share:.0%}" for share in caught),
                "–" if mine.hard_auroc is None else f"{mine.hard_auroc:.2f}",
                *(_short(card.methods.get(name)) for name in BESIDE),
                card.maturity,
            ]
        )
    return table(["policy", "AUROC", "recall at 1 %", "caught", "look-alikes", *HEADS, "maturity"], rows)


def source_table(results: Sequence[RuleOnSource]) -> str:
    """One row per policy and source; the rule is named where a policy has rows for several."""
    rules = {r.policy: {other.rule for other in results if other.policy == r.policy} for r in results}
    rows = [
        [
            f"{r.policy}/{r.rule}" if len(rules[r.policy]) > 1 else r.policy,
            r.source,
            f"{r.positive} / {r.negative}",
            f"**{_area(r.methods['policy'])}**" if r.negative else "–",
            f"{r.methods['policy'].recall:.0%}",
            f"{r.caught:.0%} / {'–' if r.fired is None else format(r.fired, '.1%')}",
            *(_short(r.methods.get(name), areas=bool(r.negative)) for name in BESIDE),
        ]
        for r in results
    ]
    return table(["policy", "source", "rows +/−", "AUROC", "recall at 1 %", "caught / fired", *HEADS], rows)


def rate_table(rates: Sequence[BenignRate]) -> str:
    """One row per rule, sources of a kind taken together; documents have a column per length."""
    lengths = _lengths(rate for rate in rates if rate.kind == CORPUS)
    columns: list[tuple[str, str, tuple[int, int | None] | None]] = [("requests", REQUESTS, None)]
    columns += [(f"corpora {_length(pair)}", CORPUS, pair) for pair in lengths]
    columns.append(("other corpora", UNLIKE, None))
    present = {rate.kind for rate in rates}
    columns = [column for column in columns if column[1] in present]
    rows = []
    for policy, rule in dict.fromkeys((r.policy, r.rule) for r in rates):
        mine = [r for r in rates if (r.policy, r.rule) == (policy, rule)]
        asked = mine[0].asked
        cells = [
            _pooled(r for r in mine if r.kind == kind and pair in (None, (r.longer_than, r.up_to)))
            for _, kind, pair in columns
        ]
        rows.append([f"{policy}/{rule}".rstrip("/"), "" if asked is None else f"{asked:.1%}", *cells])
    return table(["rule", "asked", *(name for name, _, _ in columns)], rows)


def corpus_table(rates: Sequence[BenignRate]) -> str:
    """One row per corpus: how often any rule of the set fires."""
    together = [r for r in rates if not r.rule]
    lengths = _lengths(together)
    rows = [
        [
            name,
            *(
                _pooled(r for r in together if r.source == name and (r.longer_than, r.up_to) == pair)
                for pair in lengths
            ),
        ]
        for name in dict.fromkeys(r.source for r in together)
    ]
    return table(["corpus", *(_length(pair) for pair in lengths)], rows)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; empty where there are no rows."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *lines])


def _benign_said(rates: Sequence[BenignRate]) -> str:
    """Which texts are the benign ones."""
    names = {
        kind: ", ".join(f"`{name}`" for name in dict.fromkeys(r.source for r in rates if r.kind == kind))
        for kind in (REQUESTS, CORPUS, UNLIKE)
    }
    said = f"Requests: {names[REQUESTS]}." if names[REQUESTS] else ""
    said += f" Corpora: {names[CORPUS]}, documents that no fit has read." if names[CORPUS] else ""
    return said + (f" Other corpora, of kinds that no fit reads: {names[UNLIKE]}." if names[UNLIKE] else "")


def _lengths(rates: Iterable[BenignRate]) -> list[tuple[int, int | None]]:
    return sorted({(r.longer_than, r.up_to) for r in rates}, key=lambda pair: pair[0])


def _length(pair: tuple[int, int | None]) -> str:
    low, high = pair
    return f"> {low}" if high is None else f"≤ {high}" if not low else f"{low + 1}–{high}"


def _pooled(rates: Iterable[BenignRate]) -> str:
    mine = list(rates)
    if not mine:
        return "–"
    one = dataclasses.replace(mine[0], texts=sum(r.texts for r in mine), fired=sum(r.fired for r in mine))
    low, high = one.interval
    return f"{one.fired / one.texts:.1%} ({100 * low:.1f}–{100 * high:.1f}; {one.texts})"


def _area(measure: Separation) -> str:
    return f"{measure.auroc:.2f} ({measure.auroc_low:.2f}–{measure.auroc_high:.2f})"


def _short(measure: Separation | None, *, areas: bool = True) -> str:
    if measure is None:
        return "–"
    return f"{measure.auroc:.2f} / {measure.recall:.0%}" if areas else f"– / {measure.recall:.0%}"
