"""What the host is measured at: readings of benign texts that fire no rule, and thread time that counts work alone."""

import itertools

import pytest
import torch

from monitor.bench.around import shipped
from monitor.bench.host_time import _choice, _emitting, _pool, _prompts, _quarter, _show
from monitor.bench.models import demo
from monitor.model.tap.bank import FeatureBank
from monitor.records import Sampling


@pytest.fixture(scope="module")
def measured():
    subject = demo("cpu", "auto")
    policies = shipped(subject)
    bank = FeatureBank(
        subject.autoencoder, subject.maximum, policies.watch.features, policies.clampable, plan=policies.watch
    )
    return subject, policies, bank, *_pool(subject, bank)


@pytest.mark.slow
def test_readings_are_of_every_token_of_benign_texts(measured):
    _, policies, bank, pool, ids = measured
    assert pool.shape == (len(ids), bank.read)
    assert len(ids) > 1000
    assert bool(torch.isfinite(pool).all())
    assert 0 < float((pool > 0).float().mean()) < 0.5
    assert len(policies.policies) == 11


@pytest.mark.slow
def test_prompts_and_choices_take_time(measured):
    _, policies, _, pool, _ = measured
    assert _prompts(policies, pool, 16, 2) > 0
    assert _choice(4, 100, Sampling(temperature=0.7, top_k=5)) > 0


def test_the_quarter_of_many_is_taken():
    times = itertools.cycle([9.0, 1.0, 5.0, 3.0, 7.0])
    assert _quarter(lambda: next(times), 5) == 3.0


@pytest.mark.parametrize("full", [False, True])
def test_events_go_nowhere_or_into_mailboxes_that_are_read(full):
    with _emitting(3, full=full) as emit:
        emit([("r0", "event"), ("r2", "event")])
        emit([("nobody", "event")])


def test_numbers_are_shown_by_name(capsys):
    _show({"one thing": 1.234})
    said = " ".join(capsys.readouterr().out.split())
    assert "one thing" in said
    assert "1.23" in said
