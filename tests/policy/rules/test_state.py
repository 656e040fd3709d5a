import numpy as np
import pytest

from monitor.policy.policy import Condition, WeightedFeature
from monitor.policy.rules.program import compile_program
from monitor.policy.rules.state import FIRST, NO_PHASE, Layout, Table, blank
from monitor.policy.schema.policy import Ema, Mean, TopKMean
from tests.policy.conftest import policy, rule

VARYING = ((3, 0.9), (None, 0.4))


def program(**more):
    part = Condition("x", features=(WeightedFeature(5, 1.0),), threshold=0.3)
    rules = (
        rule("a", pooling=TopKMean(k=3), **more),
        rule("b", pooling=Mean()),
        rule("c", pooling=Ema(half_life=2.0), hold=3),
        rule("d", features=(), when="x", hold=2),
    )
    return compile_program((policy(*rules, conditions=(part,)),))


@pytest.mark.parametrize(("more", "limits"), [({}, 0), ({"lengths": VARYING}, 4)])
def test_before_the_first_token_nothing_was_reached(more, limits):
    state = blank(program(**more), 2)
    assert {len(array) for array in state.values()} == {2}
    assert np.isneginf(state["best"]).all()
    assert np.isneginf(state["until"]).all()
    assert not state["tokens"].any()
    assert (state["best"].shape, state["best_threshold"].shape) == ((2, 4), (2, limits))
    assert (state["until"].shape, state["streak"].shape) == ((2, 1), (2, 1))


def test_a_layout_puts_every_array_in_a_place_of_its_own():
    state = blank(program(lengths=VARYING), 1)
    layout = Layout(state)
    assert len(layout.blank) == sum(array.size for array in state.values())
    rows = np.tile(layout.blank, (3, 1))
    views = layout.views(rows)
    for name, array in state.items():
        np.testing.assert_array_equal(views[name], np.repeat(array, 3, axis=0))
    for number, name in enumerate(views, 1):
        views[name][...] = number
    for number, (name, array) in enumerate(state.items(), 1):
        place = layout.place(name)
        assert (rows[:, place : place + array.size] == number).all(), f"{name} is written in place"


def test_every_request_has_a_row_until_it_gives_it_back():
    table = Table(program())
    rows = [table.take() for _ in range(FIRST)]
    assert sorted(rows) == list(range(FIRST))
    table.give(rows[3])
    assert table.take() == rows[3]
    assert len(table) == FIRST


def test_a_row_begins_anew_for_the_next_request():
    table = Table(program())
    row = table.take()
    table.shown[row], table.phase[row], table.left[row] = 9, 1, 5.0
    table.give(row)
    assert table.take() == row
    assert (table.shown[row], table.phase[row]) == (0, NO_PHASE)
    assert not table.left[row].any()


def test_a_table_grows_and_keeps_what_it_holds():
    table = Table(program())
    rows = [table.take() for _ in range(FIRST)]
    for row in rows:
        table.shown[row] = 10 + row
        table.of(row)["tokens"][...] = 100 + row
    more = [table.take() for _ in range(FIRST + 1)]
    assert len({*rows, *more}) == 2 * FIRST + 1
    assert max(rows + more) < len(table)
    assert len(table) == 4 * FIRST
    assert table.shown[rows].tolist() == [10 + row for row in rows]
    assert table.counted(np.asarray(rows)).tolist() == [100 + row for row in rows]
    assert {len(own) for own in (table.numbers, table.armed, table.reading, table.session)} == {4 * FIRST}


def test_lanes_are_a_copy_until_they_are_kept():
    table = Table(program())
    rows = np.asarray([table.take(), table.take()])
    table.armed[rows] = True
    lanes, numbers = table.lanes(rows)
    lanes.state["tokens"] += 7
    lanes.armed[0, 1] = False
    assert table.armed[rows].all()
    before = table.counted(rows).tolist()
    table.keep(rows, numbers, lanes.armed)
    assert table.counted(rows).tolist() == [count + 7 for count in before]
    assert table.armed[rows].sum() == lanes.armed.size - 1
    assert not table.armed[rows[0], 1]
