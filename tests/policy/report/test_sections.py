"""The section of one policy: its numbers, and a dash wherever there is none."""

import re

import pytest

from monitor.policy.files.lock import LockModel
from monitor.policy.files.source import read_source
from monitor.policy.fit.evaluation import RuleOnSource
from monitor.policy.report import Group, Heat, PolicyReport, Token
from monitor.policy.report.sections import group, section, strongest_of
from monitor.policy.schema.policy import PolicyModel
from tests.policy.policy_files import CONCEPT, EXAMPLES, lock_for


@pytest.fixture
def source(tmp_path):
    (tmp_path / "greed.yaml").write_text(CONCEPT)
    return read_source(tmp_path / "greed.yaml", None).model


def cells(text):
    """Text of the table cells in a row of which the header is `stated`."""
    row = re.search(r'<th scope="row">stated</th>(.*?)</tr>', text)[1]
    return [re.sub("<[^>]+>", "", cell) for cell in re.findall("<td>(.*?)</td>", row)]


def test_rules_without_a_lock_have_dashes(source):
    assert isinstance(source, PolicyModel)
    text = section(PolicyReport(source, None, {}, "experimental"))
    assert cells(text) == ["prompt, response", "suppress (?)", "features", "–", "–", "–"]
    assert 'class="facts"' not in text
    assert "<details>" not in text


def test_rules_with_a_lock(source):
    lock = lock_for(EXAMPLES)
    text = section(PolicyReport(source, lock, {"stated": "shadow"}, "beta"))
    assert cells(text) == ["prompt, response", "suppress (shadow)", "features", "0.25", "1.0%", "1.0% of 100"]
    assert "The strongest 1 of 1 features that are read" in text
    assert ">5</th><td>+1.00</td><td>100%</td><td>–</td>" in text
    stored = lock.model_dump(by_alias=True)
    stored["rules"]["stated"]["threshold"] = [
        {"up_to": 16, "threshold": 0.5},
        {"up_to": None, "threshold": 1.25},
    ]
    text = section(PolicyReport(source, LockModel.model_validate(stored), {}, "beta"))
    assert cells(text)[3] == "0.5 to 16, 1.25 beyond"


def test_sources_without_negatives_have_no_areas(source):
    methods = lock_for(EXAMPLES).card.methods
    both = RuleOnSource("p", "c/one_half", 4, 4, 0.75, 0.25, methods, "stated")
    alone = RuleOnSource("p", "c/other", 4, 0, 0.5, None, methods, "stated")
    text = section(PolicyReport(source, None, {}, "beta", sources=[both, alone]))
    assert "one_<wbr>half" in text
    assert (
        "<td>4 / 4</td><td><b>0.90 (0.80–0.95)</b></td><td><b>50%</b></td><td>75%</td><td>25.0%</td>" in text
    )
    assert "<td>4 / 0</td><td>–</td><td><b>50%</b></td><td>50%</td><td>–</td>" in text
    assert "<td>0.90 / 50%</td>" in text
    assert "<td>– / 50%</td>" in text


def test_the_strongest_token_counts_whatever_its_sign():
    heats = [Heat("s", (Token("a", -3.0), Token("b", 2.0)), 0.5)]
    assert strongest_of([Group("g", "n", heats), Group("h", "n", ())]) == 3.0
    assert strongest_of([]) == 1.0
    assert strongest_of([Group("g", "n", [Heat("s", (Token("a", 0.0),), 0.0)])]) == 1.0


def test_a_group_without_texts_is_nothing_and_a_share_below_zero_is_none():
    assert group(Group("g", "n", ()), 1.0) == ""
    text = group(Group("g", "n", [Heat("s", (Token("a", 1.0),), -0.2), Heat("s", (), 1.0)]), 1.0)
    assert "0% of the threshold, does not fire" in text
    assert "100% of the threshold, fires" in text
