"""The report about a policy set: which texts it shows, and which part of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from monitor.lab.policy_evaluation import PolicyEvaluator
from monitor.lab.report import LONGEST, ScoredTexts, _Heat, build_report
from monitor.policy.fit.readings import TextReadings
from tests.policy.policy_files import PINNED, write_policy


def heat(tokens=5, peak=0):
    """Heat maps of texts whose tokens are numbered and whose scores are their numbers."""
    ids = list(range(1, tokens + 1))
    pair = SimpleNamespace(speller=SimpleNamespace(pieces=lambda own: [f"<{i}>" for i in own]))
    evaluator = SimpleNamespace(reader=SimpleNamespace(pair=pair, ids=lambda _: ids))
    course = np.zeros(tokens)
    course[peak] = 1.0
    trial = SimpleNamespace(tokens=lambda *_: np.arange(1.0, tokens + 1), course=lambda *_: course)
    return _Heat(evaluator, trial)


def scored(*shares, source="s"):
    return ScoredTexts(
        source, [f"text {i}" for i in range(len(shares))], TextReadings.empty(), np.asarray(shares)
    )


@pytest.mark.parametrize(
    ("most", "fires", "shares"),
    [
        (9, True, [3.0, 2.0, 1.5, 1.0]),
        (2, True, [3.0, 1.0]),
        (3, True, [3.0, 1.5, 1.0]),
        (9, False, [0.9, 0.2]),
        (0, True, []),
    ],
)
def test_texts_are_picked_evenly_over_their_ranks(most, fires, shares):
    several = [scored(0.9, 3.0, 1.0), scored(1.5, 0.2, 2.0, source="t")]
    assert [one.share for one in heat().pick(several, most, fires=fires)] == shares


def test_a_text_is_shown_with_its_tokens_and_where_it_comes_from():
    (one,) = heat().pick([scored(2.0)], 1, fires=True)
    assert one.source == "s"
    assert [(token.text, token.score) for token in one.tokens] == [(f"<{i}>", float(i)) for i in range(1, 6)]


@pytest.mark.parametrize(("peak", "first"), [(0, 1), (200, 156), (299, 211)])
def test_of_a_long_text_the_part_around_its_peak_is_shown(peak, first):
    (one,) = heat(300, peak).pick([scored(2.0)], 1, fires=True)
    assert len(one.tokens) == LONGEST
    assert one.tokens[0].text == f"<{first}>"


def test_tokens_that_were_left_out_are_not_shown():
    read = SimpleNamespace(positions=[1, 3], tokens=SimpleNamespace(starts=[0, 2]))
    one = heat()._heat(ScoredTexts("s", ["text"], read, np.asarray([2.0])), 0, 2.0)
    assert [(token.text, token.score) for token in one.tokens] == [("<2>", 1.0), ("<4>", 2.0)]


def test_without_data_a_page_has_policies_and_nothing_measured(tmp_path, opened):
    write_policy(tmp_path, PINNED)
    found = build_report(PolicyEvaluator(opened, tmp_path), None, rows=10, texts=5, show=2, title="T")
    (one,) = found.policies
    assert (found.title, found.measured, found.together) == ("T", False, [])
    assert (one.policy.metadata.name, one.lock, one.modes) == ("greed", None, {"stated": "enforce"})
    assert (one.scores, one.groups) == ([], [])
    assert found.digests["model"] == opened.loaded.digest
