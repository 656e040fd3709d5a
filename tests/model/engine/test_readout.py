"""What a pass wrote, on the host: readings of policy sets, tokens for callers, and what clamps left."""

import numpy as np
import pytest
import torch

from monitor.model.engine.readout import Readout, Taken
from monitor.model.engine.requests import Lease
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.suppression_check import Watched
from monitor.model.tap.tap import TapBuffers
from monitor.records import UNREAD, Phase, Probe, Signal, WatchPlan
from tests.model.tiny import WIDTH, dictionary, maxima

FEATURES = (3, 7, 9)


@pytest.fixture
def bank():
    return FeatureBank(dictionary(), maxima(), FEATURES, reserve=4)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_pass_without_clamps_has_readings_alone_and_they_are_copies(bank):
    buffers = TapBuffers(bank, 5)
    buffers.readings[:, :3] = numbers(5, 3)
    before = buffers.readings.clone()
    taken = Readout(bank, buffers).take(4)
    buffers.readings.zero_()
    np.testing.assert_array_equal(taken.watched(None), before[:4, :3].numpy())
    assert (taken.after, taken.chosen, taken.edited, taken.later) == (None, None, None, None)
    assert taken.watched(None) is taken.watched(None), "shown once for all requests of a set"


def test_a_pass_that_clamps_says_what_it_edited(bank):
    buffers = TapBuffers(bank, 4, later=2)
    buffers.clamping = True
    buffers.settle(bank)
    buffers.readings[:] = numbers(4, bank.width)
    buffers.after[:] = numbers(4, bank.width, seed=1)
    buffers.chosen[1, 0] = buffers.chosen[2, 2] = True
    buffers.later[:] = numbers(4, 2, seed=2)
    taken = Readout(bank, buffers).take(4)
    assert taken.edited.tolist() == [False, True, True, False]
    found = taken.check(slice(1, 3), Watched((0, 2), 1))
    np.testing.assert_allclose(found.before, buffers.readings[1:3, [0, 2]].sum(1).numpy(), rtol=1e-5)
    np.testing.assert_allclose(found.after, buffers.after[1:3, [0, 2]].sum(1).numpy(), rtol=1e-5)
    np.testing.assert_array_equal(found.later, buffers.later[1:3, 1].numpy())
    assert found.applied.tolist() == [True, True]
    assert taken.check(slice(1, 3), Watched((0,), None)).later is None


def test_a_later_set_reads_its_own_columns(bank):
    release = bank.hold((9, 40))
    lease = Lease(bank.columns(WatchPlan((40, 9))), release)
    rows = numbers(2, bank.width).numpy()
    taken = Taken(bank, rows, bank.read)
    np.testing.assert_array_equal(taken.watched(lease), rows[:, [bank.slot(40), bank.slot(9)]])
    np.testing.assert_array_equal(taken.watched(None), rows[:, :3])
    lease.release()


def test_tokens_have_watched_and_clamped_features_once(bank):
    rows = numbers(4, bank.width).numpy()
    after = numbers(4, bank.width, seed=1).numpy()
    taken = Taken(bank, rows, bank.read, after=after, edited=np.array([False, True, False, True]))
    extra = bank.hold((50,))
    found = taken.tokens(Phase.RESPONSE, 6, (11, 12), 1, None, (bank.slot(50), bank.slot(7)))
    slots = [0, 1, 2, bank.slot(50)]
    assert found.features.tolist() == [*FEATURES, 50]
    assert (found.phase, found.start, found.token_ids) == (Phase.RESPONSE, 6, (11, 12))
    np.testing.assert_array_equal(found.readings, rows[1:3][:, slots])
    np.testing.assert_array_equal(found.after, after[1:3][:, slots])
    assert found.edited.tolist() == [True, False]
    extra()


def test_probes_and_signals_of_a_set_that_came_during_the_pass_are_unread():
    plan = WatchPlan(FEATURES, (Probe("p", (1.0,) * WIDTH),), (Signal.RESIDUAL_NORM,))
    bank = FeatureBank(dictionary(), maxima(), FEATURES, plan=plan)
    rows = numbers(2, bank.width).numpy()
    others = numbers(2, bank.others.width, seed=1).numpy()
    np.testing.assert_array_equal(
        Taken(bank, rows, bank.read, others).watched(None),
        np.concatenate([rows[:, :3], others[:, bank.first_others]], axis=1),
    )
    found = Taken(bank, rows, bank.read).watched(None)
    assert found.shape == (2, 5)
    assert (found[:, 3:] == UNREAD).all()


def test_rows_that_are_no_numbers_are_told(bank):
    buffers = TapBuffers(bank, 4)
    buffers.readings[1, 2] = torch.nan
    buffers.others[2, 0] = torch.inf
    buffers.readings[3] = UNREAD
    taken = Readout(bank, buffers).take(4)
    assert [taken.finite(slice(row, row + 1)) for row in range(4)] == [True, False, True, True]
    buffers.reads_others = True
    taken = Readout(bank, buffers).take(4)
    assert [taken.finite(slice(row, row + 1)) for row in range(4)] == [True, False, False, True]
