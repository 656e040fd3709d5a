"""The whole page: head, summary of all policies, and one section for each."""

from __future__ import annotations

from monitor.policy.report.charts import intervals
from monitor.policy.report.figures import by_length
from monitor.policy.report.markup import element, safe, table
from monitor.policy.report.records import PolicyReport, PolicySetReport
from monitor.policy.report.sections import section
from monitor.policy.report.style import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""Content security policy: the page fetches nothing and runs nothing."""


def page(report: PolicySetReport) -> str:
    """The whole page as one string of HTML that needs no network."""
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{safe(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{safe(report.title)}</title><style>{STYLE}</style>"
    )
    body = (
        element("a", "Skip to the policies", class_="skip", href="#policies")
        + element("header", _intro(report), _contents(report))
        + element(
            "main",
            _summary(report),
            _notes(report),
            _together(report),
            *map(section, report.policies),
            id="policies",
        )
        + element("footer", _footer(report))
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _intro(report: PolicySetReport) -> str:
    rules = sum(len(one.policy.rules) for one in report.policies)
    acting = sum(mode == "enforce" for one in report.policies for mode in one.modes.values())
    lead = (
        f"{len(report.policies)} policies with {rules} rules, {acting} of them enforced. What each was measured to "
        "catch, what it misses, and what it wrongly fires on."
    )
    digests = " · ".join(
        f"{safe(name)} <code>{safe(digest.removeprefix('sha256:')[:12])}</code>"
        for name, digest in report.digests.items()
    )
    return (
        element("h1", safe(report.title))
        + element("p", lead, class_="lead")
        + element("p", digests, class_="meta")
    )


def _contents(report: PolicySetReport) -> str:
    links = (
        element(
            "li", element("a", safe(one.policy.metadata.title), href=f"#policy-{one.policy.metadata.name}")
        )
        for one in report.policies
    )
    return element("nav", element("ul", *links), aria_label="Policies")


def _summary(report: PolicySetReport) -> str:
    heads = ("policy", "maturity", "runs", "AUROC (95 %)", "recall at 1 %", "caught", "probe", "bag of words")
    return table(
        "All policies: held-out measurements on their own examples; of the rivals AUROC / recall",
        heads,
        map(_summary_row, report.policies),
    )


def _summary_row(one: PolicyReport) -> list[str]:
    name = element("a", safe(one.policy.metadata.name), href=f"#policy-{one.policy.metadata.name}")
    pill = element("span", safe(one.maturity), class_=f"pill {one.maturity}")
    runs = safe(" / ".join(one.modes.values()))
    card = one.lock.card if one.lock is not None else None
    if card is None or one.lock is None:
        return [name, pill, runs, "–", "–", "–", "–", "–"]
    mine, caught = card.methods["policy"], [r.caught for r in one.lock.rules.values() if r.caught is not None]
    other = card.methods.get("probe") or card.methods.get("linear_probe") or mine
    words = card.methods["bag_of_words"]
    return [
        name,
        pill,
        runs,
        f"<b>{mine.auroc:.2f}</b> ({mine.auroc_low:.2f}–{mine.auroc_high:.2f})",
        f"<b>{mine.recall:.0%}</b>",
        " / ".join(f"{share:.0%}" for share in caught) or "–",
        f"{other.auroc:.2f} / {other.recall:.0%}",
        f"{words.auroc:.2f} / {words.recall:.0%}",
    ]


def _together(report: PolicySetReport) -> str:
    if not report.together:
        return ""
    rows = list(by_length(report.together))
    chart = intervals(
        "Benign texts on which any rule fires", rows, 0.0, max(0.05, *(row.high for row in rows))
    )
    caption = element(
        "figcaption",
        "Any rule of the set, on benign texts that set no threshold",
        element("small", "share of texts, 95 % intervals; in shadow or enforced"),
    )
    return element("figure", caption, chart)


def _notes(report: PolicySetReport) -> str:
    items = [element("li", safe(note)) for note in report.notes]
    return element("ul", *items, class_="note") if items else ""


def _footer(report: PolicySetReport) -> str:
    unseen = (
        "Sources, rates and texts are of halves of the data that no fit reads."
        if report.measured
        else "No labelled data was given: texts shown are the policies' own examples, which the final detector learnt "
        "from. Cards are cross-validated."
    )
    return element(
        "p",
        unseen
        + " A reading is not a thought: a rule fires on what features say about wording and topic, and a clamp is "
        "a mitigation, not a guarantee.",
    )
