"""The section of one policy on the page.

Strong tokens are underlined as well as shaded, so that nothing rests on colour alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from monitor.policy.files.lock import LockedRule, PolicyCard, Separation
from monitor.policy.fit.evaluation import RuleOnSource
from monitor.policy.report.charts import METHODS
from monitor.policy.report.figures import false_positives, how_far, measures
from monitor.policy.report.markup import element, safe, table
from monitor.policy.report.records import Group, Heat, PolicyReport, Token
from monitor.policy.schema.threshold import thresholds_by_length

FEATURES = 12
"""Most features of a lock that are listed."""
UNDERLINED = 0.5
"""A token with at least this share of the strongest score is underlined."""
FAINT = 0.04
"""A token with less than this share of the strongest score is not shaded."""


def section(one: PolicyReport) -> str:
    """The section of one policy: facts, rules, charts, sources, and texts shaded token by token."""
    meta = one.policy.metadata
    card = one.lock.card if one.lock is not None else None
    parts = [
        element(
            "div",
            element("h2", safe(meta.title)),
            element("span", safe(one.maturity), class_=f"pill {one.maturity}"),
            element(
                "span",
                f"{safe(meta.name)} · {safe(meta.category)} · severity {safe(meta.severity)}",
                class_="meta",
            ),
            class_="top",
        ),
        element("p", safe(meta.description), class_="note"),
        _facts(one, card),
        element("p", safe(card.note), class_="verdict") if card is not None else "",
        _rules(one),
        measures(card) if card is not None else "",
        how_far(one.scores),
        _sources(one.sources),
        false_positives(one.rates),
        _texts(one),
        _more(one),
    ]
    return element("section", *parts, class_="policy", id=f"policy-{meta.name}", aria_label=meta.title)


def _facts(one: PolicyReport, card: PolicyCard | None) -> str:
    if card is None or one.lock is None:
        return ""
    mine = card.methods["policy"]
    caught = [r.caught for r in one.lock.rules.values() if r.caught is not None]
    facts = [
        ("AUROC, own negatives", f"{mine.auroc:.2f}", f"{mine.auroc_low:.2f} to {mine.auroc_high:.2f}"),
        (
            "Recall at 1 % false positives",
            f"{mine.recall:.0%}",
            f"{mine.recall_low:.0%} to {mine.recall_high:.0%}",
        ),
        ("Caught as locked", " / ".join(f"{c:.0%}" for c in caught) or "–", "of held-out positives"),
        (
            "Look-alikes, AUROC",
            "–" if mine.hard_auroc is None else f"{mine.hard_auroc:.2f}",
            "positives against them",
        ),
        ("Fires by topic alone", f"{card.negative_rate:.0%}", "of own negatives, at 1 %"),
    ]
    return element(
        "dl",
        *(
            element(
                "div", element("dt", safe(name)), element("dd", safe(value), element("small", safe(note)))
            )
            for name, value, note in facts
        ),
        class_="facts",
    )


def _rules(one: PolicyReport) -> str:
    rows = []
    for rule in one.policy.rules:
        locked = one.lock.rules.get(rule.name) if one.lock is not None else None
        rows.append(
            [
                safe(rule.name),
                safe(", ".join(rule.phases)),
                safe(f"{rule.action} ({one.modes.get(rule.name, '?')})"),
                safe(rule.signal or (one.lock.detector if one.lock is not None else "features")),
                element("span", _thresholds(locked), class_="wrap"),
                "–" if locked is None or locked.asked_rate is None else f"{locked.asked_rate:.1%}",
                "–" if locked is None else f"{locked.benign_rate:.1%} of {locked.benign_texts}",
            ]
        )
    heads = (
        "rule",
        "phases",
        "action",
        "reads",
        "thresholds by tokens",
        "asked rate",
        "calibration texts that fire",
    )
    return table("Rules as locked", heads, rows)


def _thresholds(locked: LockedRule | None) -> str:
    if locked is None:
        return "–"
    pairs = thresholds_by_length(locked.threshold)
    return safe(
        ", ".join(f"{value:.3g} to {up_to}" if up_to else f"{value:.3g} beyond" for up_to, value in pairs)
        if len(pairs) > 1
        else f"{pairs[0][1]:.3g}"
    )


def _sources(results: Sequence[RuleOnSource]) -> str:
    rules = {r.rule for r in results}
    named = {rule: f" · {rule}" for rule in rules if len(rules) > 1}
    rows = [
        [
            safe(r.source.rpartition("/")[2] + named.get(r.rule, "")).replace("_", "_<wbr>"),
            f"{r.positive} / {r.negative}",
            f"<b>{_area(r.methods['policy'])}</b>" if r.negative else "–",
            f"<b>{r.methods['policy'].recall:.0%}</b>",
            f"{r.caught:.0%}",
            "–" if r.fired is None else f"{r.fired:.1%}",
            *(_both(r.methods.get(name), bool(r.negative)) for name in list(METHODS)[3:]),
        ]
        for r in results
    ]
    if not rows:
        return ""
    heads = (
        "source",
        "rows +/−",
        "AUROC",
        "recall at 1 %",
        "caught",
        "negatives that fire",
        *list(METHODS.values())[3:],
    )
    note = (
        "Halves of labelled sources that nothing learnt from. AUROC within the source; recall where 1 % of unseen "
        "benign requests fire; caught and fired as locked; baselines as AUROC / recall, taught by the same rows as "
        "the policy."
    )
    return (
        element("h3", "Labelled sources")
        + element("p", note, class_="note")
        + table("By source", heads, rows, wide=True)
    )


def _texts(one: PolicyReport) -> str:
    if not any(g.texts for g in one.groups):
        return ""
    strongest = strongest_of(one.groups)
    legend = element(
        "p",
        '<span class="hot" style="--a:1">speaks for the concept</span><span class="cold" style="--a:1">speaks against '
        "it</span>",
        "relative to the strongest token of this section; strong ones are underlined.",
        class_="note legend",
    )
    body = "".join(group(one_group, strongest) for one_group in one.groups)
    return element("h3", "Tokens") + legend + body


def _more(one: PolicyReport) -> str:
    meta, lock = one.policy.metadata, one.lock
    parts = []
    if meta.false_positives:
        items = (element("li", safe(text)) for text in meta.false_positives)
        parts.append(element("h4", "Known benign texts that fire") + element("ul", *items))
    if lock is not None and lock.features:
        rows = [
            [str(f.index), f"{f.weight:+.2f}", f"{f.stability:.0%}", safe(f.label or "–")]
            for f in lock.features[:FEATURES]
        ]
        caption = f"The strongest {len(rows)} of {len(lock.features)} features that are read"
        parts.append(table(caption, ("feature", "weight", "stability", "label"), rows))
    return (
        element("details", element("summary", "Features and known false positives"), *parts) if parts else ""
    )


def _area(measure: Separation) -> str:
    return f"{measure.auroc:.2f} ({measure.auroc_low:.2f}–{measure.auroc_high:.2f})"


def _both(measure: Separation | None, areas: bool) -> str:
    if measure is None:
        return "–"
    return f"{measure.auroc:.2f} / {measure.recall:.0%}" if areas else f"– / {measure.recall:.0%}"


def group(one: Group, strongest: float) -> str:
    """A group of texts, shaded relative to `strongest`, the strongest token score of the policy."""
    if not one.texts:
        return ""
    items = "".join(_item(heat, strongest) for heat in one.texts)
    return element(
        "section",
        element("h4", safe(one.title)),
        element("p", safe(one.note), class_="note"),
        element("ul", items, class_="texts"),
    )


def strongest_of(groups: Iterable[Group]) -> float:
    """The strongest token score of all texts."""
    scores = [abs(t.score) for one in groups for heat in one.texts for t in heat.tokens]
    return max(scores, default=1.0) or 1.0


def _item(heat: Heat, strongest: float) -> str:
    fires = "fires" if heat.share >= 1 else "does not fire"
    head = element(
        "span",
        f"{max(heat.share, 0):.0%} of the threshold, {fires}",
        class_="far on" if heat.share >= 1 else "far",
    )
    words = element("span", _words(heat.tokens, strongest), class_="words")
    return element("li", element("p", words), element("p", head, " · ", safe(heat.source), class_="from"))


def _words(tokens: Sequence[Token], strongest: float) -> str:
    return "".join(_word(token, token.score / strongest) for token in tokens)


def _word(token: Token, share: float) -> str:
    text = safe(token.text)
    if abs(share) < FAINT:
        return text
    kind = "hot" if share > 0 else "cold"
    strong = " strong" if share >= UNDERLINED else ""
    return f'<span class="{kind}{strong}" style="--a:{min(abs(share), 1):.2f}" title="{token.score:.2f}">{text}</span>'
