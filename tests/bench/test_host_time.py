"""What the host is measured at: readings of benign texts that fire no rule, and thread time that counts work alone."""

import itertools

import numpy as np
import pytest
import torch

from monitor.bench.around import shipped
from monitor.bench.host_time import _choice, _emitting, _pool, _prompts, _show, _times, _told
from monitor.bench.models import demo
from monitor.model.tap.bank import FeatureBank
from monitor.records import Sampling


@pytest.fixture(scope="module")
def measured():
    subject = demo("cpu", "auto")
    policies = shipped(subject, subject.pair)
    bank = FeatureBank(
        subject.autoencoder, subject.maximum, policies.watch.features, policies.clampable, plan=policies.watch
    )
    return subject, policies, bank, *_pool(subject, bank)


@pytest.mark.slow
def test_readings_are_of_every_token_of_benign_texts(measured):
    _, policies, bank, pool, ids = measured
    assert pool.readings.shape == (len(ids), bank.read)
    assert len(pool.others) == len(ids) > 1000
    assert bool(torch.isfinite(pool.readings).all() & torch.isfinite(pool.others).all())
    assert 0 < float((pool.readings > 0).float().mean()) < 0.5
    rows = pool.times(2.0).rows(torch.tensor([0, 3]))
    assert rows.shape == (2, len(policies.watch)), "as rules get them: features, then probes and signals"
    assert rows[1, : bank.read] == pytest.approx(2 * pool.readings[3].numpy())
    assert len(policies.policies) == 11


@pytest.mark.slow
def test_prompts_and_choices_take_time(measured):
    _, policies, _, pool, _ = measured
    assert bool((_prompts(policies, pool, 16, 2) > 0).all())
    assert bool((_choice(4, 100, Sampling(temperature=0.7, top_k=5)) > 0).all())


def test_every_time_is_kept_and_told_by_its_quarter_mean_and_tail():
    times = itertools.count(1.0)
    found = _times(lambda: next(times), 5)
    assert sorted(found.tolist()) == [found.min() + n for n in range(5)]
    told = list(_told(np.arange(101.0)).values())
    assert told == pytest.approx([25.0, 50.0, 99.0])


@pytest.mark.parametrize("full", [False, True])
def test_events_go_nowhere_or_into_mailboxes_that_are_read(full):
    with _emitting(3, full=full) as emit:
        emit([("r0", "event"), ("r2", "event")])
        emit([("nobody", "event")])


def test_numbers_are_shown_by_name(capsys):
    _show({"one thing": np.full(4, 1.234)})
    said = " ".join(capsys.readouterr().out.split())
    assert "one thing" in said
    assert "1.23" in said
