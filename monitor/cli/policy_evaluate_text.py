"""An evaluation of policies as Markdown for people and as JSON for programs.

Knows what was measured. Does not know how.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from monitor.policy.files.lock import LockModel, Measure
from monitor.policy.fit.evaluate import UNLIKE, Rate, SourceResult

if TYPE_CHECKING:
    from monitor.cli.policy_evaluate import Evaluation

BESIDE = ("probe", "linear_probe", "difference_of_means", "bag_of_words", "random_features")
HEADS = ("probe", "linear probe", "diff. of means", "bag of words", "random features")


def as_markdown(found: Evaluation) -> str:
    """All tables."""
    names = ", ".join(
        f"{name} `{digest.removeprefix('sha256:')[:12]}`" for name, digest in found.digests.items()
    )
    parts = [
        f"Measured on {names}.",
        "#### Cards\n\nEach policy's own examples, by detectors that never saw the example's group. AUROC against own "
        "negatives (95 % interval) and recall where 1 % of benign texts fire; *caught* is the share of positives on "
        "which the rules fire as locked; beside it AUROC / recall of the baselines.",
        cards(found.locks),
        "#### Sources\n\nHeld-out halves of the labelled sources; nothing was fitted to them. AUROC within the source "
        "(95 % interval); *caught* and *fired*: shares of its positives and negatives on which the policy fires as "
        "locked; recall where 1 % of the unseen benign requests fire; beside it AUROC / recall of baselines that "
        "learnt from the same rows as the policy.",
        sources(found.sources),
        "#### False positives on unseen benign text\n\nShare of benign texts on which a rule fires, by length in "
        "tokens (95 % interval, texts). `benign/instructions` and the held-out halves of the corpora set no threshold; "
        "`peps` and `wikitext2_heldout` are of kinds that no fit has read at all.",
        rate_table(found.rates),
        "Rates by corpus, all rules together:",
        corpus_table(found.rates),
        "\n".join(f"- {note}" for note in found.notes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_record(found: Evaluation) -> str:
    """The same as JSON."""
    record = {
        "folder": found.folder,
        "digests": found.digests,
        "cards": {lock.policy: lock.card.model_dump() for lock in found.locks if lock.card is not None},
        "sources": [_plain(result) for result in found.sources],
        "notes": list(found.notes),
        "rates": [{**dataclasses.asdict(rate), "interval": rate.interval} for rate in found.rates],
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def _plain(result: SourceResult) -> dict[str, object]:
    methods = {name: measure.model_dump() for name, measure in result.methods.items()}
    return {**dataclasses.asdict(dataclasses.replace(result, methods={})), "methods": methods}


def cards(locks: Sequence[LockModel]) -> str:
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


def sources(results: Sequence[SourceResult]) -> str:
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


def rate_table(rates: Sequence[Rate]) -> str:
    """One row per rule, corpora taken together; a column per length."""
    lengths = sorted({(r.longer_than, r.up_to) for r in rates}, key=lambda pair: pair[0])
    columns: list[tuple[tuple[str, ...], tuple[int, int | None] | None]] = []
    columns += [(("benign/instructions",), None)]
    known = ("benign/instructions", *UNLIKE)
    fitted = tuple(sorted({r.source for r in rates} - set(known)))
    columns += [(fitted, pair) for pair in lengths if fitted]
    strange = tuple(name for name in UNLIKE if any(r.source == name for r in rates))
    if strange:
        columns.append((strange, None))
    heads = ["rule", "asked"] + [f"{_of(names, strange)} {_length(pair)}".strip() for names, pair in columns]
    rules = dict.fromkeys((r.policy, r.rule) for r in rates)
    rows = []
    for policy, rule in rules:
        mine = [r for r in rates if (r.policy, r.rule) == (policy, rule)]
        asked = mine[0].asked
        cells = [
            _pooled(r for r in mine if r.source in names and pair in (None, (r.longer_than, r.up_to)))
            for names, pair in columns
        ]
        rows.append([f"{policy}/{rule}".rstrip("/"), "" if asked is None else f"{asked:.1%}", *cells])
    return table(heads, rows)


def corpus_table(rates: Sequence[Rate]) -> str:
    """One row per corpus: how often any rule of the set fires."""
    together = [r for r in rates if not r.rule]
    lengths = sorted({(r.longer_than, r.up_to) for r in together}, key=lambda pair: pair[0])
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


def _of(names: tuple[str, ...], strange: tuple[str, ...]) -> str:
    if names == strange:
        return "other corpora"
    return "instructions" if len(names) == 1 and "/" in names[0] else "held-out corpora"


def _length(pair: tuple[int, int | None] | None) -> str:
    if pair is None:
        return ""
    low, high = pair
    return f"> {low}" if high is None else f"≤ {high}" if not low else f"{low + 1}–{high}"


def _pooled(rates: Iterable[Rate]) -> str:
    mine = list(rates)
    if not mine:
        return "–"
    one = dataclasses.replace(mine[0], texts=sum(r.texts for r in mine), fired=sum(r.fired for r in mine))
    low, high = one.interval
    return f"{one.fired / one.texts:.1%} ({100 * low:.1f}–{100 * high:.1f}; {one.texts})"


def _area(measure: Measure) -> str:
    return f"{measure.auroc:.2f} ({measure.auroc_low:.2f}–{measure.auroc_high:.2f})"


def _short(measure: Measure | None, *, areas: bool = True) -> str:
    if measure is None:
        return "–"
    return f"{measure.auroc:.2f} / {measure.recall:.0%}" if areas else f"– / {measure.recall:.0%}"
