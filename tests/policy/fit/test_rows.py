"""The rows of a fit: own examples, benign texts, extra texts."""

import numpy as np

from monitor.policy.fit.rows import BENIGN_IMPORTANCE, EXTRA_IMPORTANCE, LabelledTexts, ReadTexts, read_rows
from tests.policy.synthetic import Synthetic, examples


def made(extra=None):
    reader = Synthetic()
    own = examples(3)
    benign = [f"benign {i}" for i in range(4)]
    rows = read_rows(reader, own, ReadTexts(benign, reader.read(benign)), extra or LabelledTexts())
    return rows, own, benign


def test_labels_by_kind():
    rows, own, benign = made(LabelledTexts(["yes 90", "no 91"], [True, False], ["g", "g"]))
    assert list(rows.texts) == [*(e.text for e in own), *benign, "yes 90", "no 91"]
    assert rows.positive.tolist() == [1] * 3 + [0] * 6 + [0] * 4 + [1, 0]
    assert rows.hard.tolist() == [0] * 6 + [1] * 3 + [0] * 6
    assert rows.own.tolist() == [1] * 9 + [0] * 6
    assert rows.measured.tolist() == [1] * 13 + [0] * 2
    assert rows.importance.tolist() == [1.0] * 9 + [BENIGN_IMPORTANCE] * 4 + [EXTRA_IMPORTANCE] * 2
    assert rows.benign.tolist() == [9, 10, 11, 12]
    assert rows.own_positive.tolist() == [0, 1, 2]
    assert rows.everything.tolist() == list(range(15))


def test_groups_of_different_kinds_are_different_groups():
    """An own group `0`, a benign text 0 and an extra group `0` have nothing in common."""
    rows, own, _ = made(LabelledTexts(["yes 90", "no 91"], [True, False], ["0", "0"]))
    own_groups, benign, extra = rows.groups[:9], rows.groups[9:13], rows.groups[13:]
    for one, other in zip(own, own, strict=True):
        assert one.group == other.group
    assert len(set(own_groups)) == len({e.group for e in own})
    assert len(set(benign)) == 4
    assert extra[0] == extra[1]
    assert not set(own_groups) & set(benign) | set(benign) & set(extra) | set(own_groups) & set(extra)


def test_readings_are_those_of_the_texts():
    rows, own, _ = made(LabelledTexts(["yes 90"], [True], ["g"]))
    assert len(rows.read) == len(rows.texts)
    for place in (0, 9, 13):
        alone = Synthetic().read([rows.texts[place]])
        np.testing.assert_array_equal(rows.read.tokens.of(place).toarray(), alone.tokens.matrix.toarray())
        np.testing.assert_array_equal(rows.read.residual(place), alone.residuals)
    without, _, _ = made()
    assert len(without.read) == len(own) + 4
