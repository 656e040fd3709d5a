"""The page: whole, closed in itself, and deaf to what the texts in it say."""

from html.parser import HTMLParser

import pytest

from monitor.policy.fit import fit_policy
from monitor.policy.fit.evaluation import BenignRate, RuleOnSource
from monitor.policy.report import Group, Heat, PolicyReport, PolicySetReport, Scores, Token, page
from monitor.policy.report.charts import IntervalRow, curves, distributions, intervals
from monitor.policy.report.markup import safe
from monitor.policy.report.sections import group
from tests.policy.synthetic import QUICK, Synthetic, examples, inputs, policy

EVIL = "<script src=https://evil.example/x.js>\"'&\x1b[31m\u202e</script>"
VOID = {"meta", "br", "wbr", "hr", "img", "link", "input"}


class Checked(HTMLParser):
    """Every element, and whether each was closed where it should be."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.names, self.ids, self.links, self.text = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.names.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [value for key, value in attrs if key in ("href", "src", "action", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def report():
    named = policy(
        metadata={"name": "p", "title": EVIL, "category": "c", "severity": "low", "description": EVIL}
    )
    lock = fit_policy(named, examples(), inputs(Synthetic()), settings=QUICK)
    rate = BenignRate("p", "stated", 0.02, "benign/instructions", 0, 32, 200, 3, "requests")
    others = BenignRate("p", "stated", 0.02, "books", 128, None, 50, 2)
    source = RuleOnSource("p", f"c/{EVIL}", 40, 40, 0.8, 0.05, lock.card.methods)
    heats = [Heat(EVIL, (Token(EVIL, 0.9), Token(" calm", -0.4), Token(" word", 0.0)), 1.3)]
    one = PolicyReport(
        policy=named,
        lock=lock,
        modes={"stated": "enforce", "mean": "shadow"},
        maturity="beta",
        sources=[source],
        rates=[rate, others],
        scores=[
            Scores("positives", [0.2, 1.4, 9.0]),
            Scores("negatives", [0.1]),
            Scores("benign requests", []),
        ],
        groups=[Group("Hits", "n", heats), Group("Misses", "n", ())],
    )
    return PolicySetReport(EVIL, {"model": "sha256:" + "a" * 64}, [one], [rate, others], measured=True)


def test_the_page_is_well_formed_and_asks_nobody_for_anything(report):
    text = page(report)
    checked = Checked(text)
    assert checked.open == []
    assert not {"script", "img", "link", "iframe", "object", "form"} & set(checked.names)
    assert all(link.startswith("#") for link in checked.links)
    assert {link[1:] for link in checked.links} <= set(checked.ids)
    assert len(set(checked.ids)) == len(checked.ids)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src &#x27;none&#x27;" in text


def test_no_text_becomes_markup_and_none_commands_the_reader(report):
    text = page(report)
    assert "<script" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    shown = "".join(Checked(text).text)
    assert "\\x1b[31m\\u202e</script>" in shown
    assert safe(EVIL) in text


def test_it_says_what_a_screen_reader_needs(report):
    text = page(report)
    checked = Checked(text)
    assert '<html lang="en">' in text
    assert checked.names.count("h1") == 1
    assert checked.names.count("caption") == checked.names.count("table") > 2
    assert text.count('role="img"') == checked.names.count("svg") > 4
    assert "prefers-color-scheme:dark" in text


def test_numbers_are_those_of_the_lock(report):
    text = page(report)
    card = report.policies[0].lock.card
    assert f"{card.methods['policy'].auroc:.2f}" in text
    assert safe(card.note) in text
    for rule in report.policies[0].lock.rules.values():
        assert f"{rule.benign_rate:.1%} of {rule.benign_texts}" in text


def test_without_anything_measured_the_page_says_so(report):
    bare = PolicySetReport("t", {}, [PolicyReport(report.policies[0].policy, None, {}, "experimental")])
    text = page(bare)
    assert "No labelled data was given" in text
    assert Checked(text).open == []


def test_intervals_stand_where_their_numbers_are():
    row = IntervalRow("x", "policy", 0.5, 0.25, 0.75)
    chart = intervals("t", [row], 0.0, 1.0)
    assert 'cx="290.0"' in chart
    assert 'x1="227.0"' in chart
    assert 'x2="353.0"' in chart
    assert "0.50" in chart


def test_curves_and_histograms_take_the_ends():
    chart = curves("t", (0.0, 0.002, 1.0), {"policy": (0.0, 0.5, 1.0), "linear_probe": (0, 0, 0)})
    assert chart.count("polyline") == 1
    assert "330.0,12.0" in chart
    bars = distributions("t", [("positives", "positive", [-1.0, 0.0, 99.0])])
    assert bars.count("<rect") == 2
    assert "33% fire" in bars


def test_shading_is_relative_to_the_strongest_and_faint_tokens_stay_plain():
    heat = Heat("s", (Token("a", 1.0), Token("b", 0.01), Token("c", -0.5)), 0.4)
    text = group(Group("Misses", "n", [heat]), 2.0)
    assert 'class="hot strong" style="--a:0.50"' in text
    assert 'class="cold" style="--a:0.25"' in text
    assert "</span>b<span" in text
    assert "40% of the threshold, does not fire" in text
