from __future__ import annotations

import numpy as np

from monitor.dictionary.evaluation.source import LabelledSource, SkippedSource, SourceText, make_source


def _split(source, group, text):
    return "train" if int(group[1:]) % 2 else "heldout"


def _rows(groups=40, per=4):
    return [
        SourceText(f"text {g} {i}", i % 2 == 0, "statement", f"g{g}")
        for g in range(groups)
        for i in range(per)
    ]


def _make(rows, cap=1000, split=_split):
    return make_source("concept", "name", rows, split, str.lower, cap)


def test_groups_stay_whole_and_on_their_side():
    source = _make(_rows())
    assert isinstance(source, LabelledSource)
    for row, train in zip(source.rows, source.train, strict=True):
        assert train == (_split("", row.group, "") == "train")
    assert len(set(source.units)) == 40
    assert all(
        len({source.rows[i].group for i in np.flatnonzero(source.units == u)}) == 1 for u in source.units
    )


def test_a_cap_takes_whole_groups_and_the_same_every_time():
    first, again = _make(_rows(200), cap=200), _make(_rows(200), cap=200)
    assert first.rows == again.rows
    assert len(first.rows) == 200
    assert all(count == 4 for count in np.bincount(first.units))


def test_large_groups_give_an_equal_part_each():
    source = _make(_rows(groups=20, per=100), cap=400)
    assert len(source.rows) == 400
    assert np.bincount(source.units).tolist() == [20] * 20


def test_rows_to_learn_from_that_are_also_measured_are_dropped():
    copy = SourceText("TEXT 2 0", True, "statement", "g3")
    source = _make([*_rows(), copy])
    assert copy not in source.rows
    assert any(row.text == "text 2 0" for row in source.rows)


def test_one_group_for_all_is_split_by_text():
    rows = [SourceText(f"statement {i}", i % 2 == 0, "statement", "the-name") for i in range(100)]
    source = _make(
        rows, split=lambda source, group, text: "train" if int(text.split()[1]) % 4 < 2 else "heldout"
    )
    assert len(set(source.units)) == 100


def test_sources_that_cannot_be_measured_say_why():
    only = _make([SourceText(f"t{i}", True, "code", f"g{i}") for i in range(30)])
    assert isinstance(only, SkippedSource)
    assert "all 30 rows are positive" in only.reason
    few = _make(_rows(4))
    assert isinstance(few, SkippedSource)
    assert "fewer than ten rows" in few.reason


def test_the_answer_begins_after_the_last_marker():
    row = SourceText("Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", True, "response", "g")
    assert row.text[row.reply_start :] == " d"
    assert SourceText("Assistant: d", True, "prompt", "g").reply_start == 0
    assert SourceText("nothing marked", True, "response", "g").reply_start == 0
