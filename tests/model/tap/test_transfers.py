"""Copies that nobody waits for, and that from a pass's layout to its end nobody waits for the device."""

import math

import pytest
import torch

from monitor.model.engine.readout import Readout
from monitor.model.engine.sampler import Draw, Sampler
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.clamps import clamp_row, write_rows
from monitor.model.tap.span import Span
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.model.tap.transfers import HostCopies, to_device
from monitor.records import Clamp, Sampling, Where
from tests.model.tiny import VOCABULARY, WIDTH, dictionary, loaded_model, maxima

CPU = torch.device("cpu")


def test_a_copy_is_what_stood_there_when_it_was_added():
    values, copies = torch.arange(6.0).to(torch.bfloat16), HostCopies(CPU)
    kept, same = copies.add(values[:4], torch.float32), copies.add(values)
    copies.sent()
    values.zero_()
    copies.wait()
    assert kept.dtype is torch.float32
    assert kept.tolist() == [0, 1, 2, 3]
    assert same.tolist() == [0, 1, 2, 3, 4, 5]


def test_values_come_in_their_type():
    found = to_device([1, 0, 3], torch.int64, CPU)
    assert (found.dtype, found.tolist()) == (torch.int64, [1, 0, 3])
    assert to_device([], torch.float32, CPU).tolist() == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device_the_host_goes_on_at_once():
    device = torch.device("cuda")
    values = to_device([1.0] * 1000, torch.float32, device)
    torch.cuda.synchronize()
    torch.cuda._sleep(10**9)
    copies = HostCopies(device)
    kept = copies.add(values.mul_(2))
    copies.sent()
    later = to_device([3.0] * 1000, torch.float32, device)
    values.copy_(later)
    assert not torch.cuda.current_stream().query(), "something has waited for the device"
    copies.wait()
    assert kept.tolist() == [2.0] * 1000


class Blind:
    """Takes the place of `HostCopies` on a device of which nothing can be read."""

    def __init__(self, device):
        self.device = device

    def add(self, values, dtype=None):
        return values if dtype is None else values.to(dtype)

    def sent(self):
        pass


@pytest.fixture
def blind(monkeypatch):
    """The device `meta`, which computes shapes alone: whatever waits for a value of it fails."""
    monkeypatch.setattr("monitor.model.engine.readout.HostCopies", Blind)
    monkeypatch.setattr("monitor.model.engine.sampler.HostCopies", Blind)
    return torch.device("meta")


def test_a_device_of_which_nothing_can_be_read_fails_whoever_waits(blind):
    rows = torch.zeros(4, device=blind)
    for read in (lambda: bool(rows.any()), lambda: rows.nonzero(), lambda: rows.tolist(), lambda: rows.cpu()):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read()


@pytest.mark.parametrize("static", [True, False], ids=["captured", "eager"])
@pytest.mark.parametrize("kind", ["relu", "topk", "gated"])
def test_nothing_waits_for_the_device_between_layout_and_copy(blind, static, kind):
    """Laying out, reading, clamping, drawing and copying of one pass, as the engine does it."""
    bank = FeatureBank(dictionary(kind), maxima(), (3, 7, 9), (40,), device=blind)
    tap = Tap(bank, loaded_model().layers[1], norm_limit=math.inf)
    buffers, sampler = TapBuffers(bank, 16, static=static), Sampler(16, blind, static=static)
    readout = Readout(bank, buffers)
    draws = [Draw(Sampling()), Draw(Sampling(temperature=1.0, seed=1)), None, Draw(Sampling(), 3)]
    if static:
        draws[2] = Draw(Sampling(temperature=0.5, top_k=3, top_p=0.5))
    for clamps in ((), (Clamp(40, -1.0, Where.EVERYWHERE),), ()):
        spans = [Span("a", 0, 5, 0, True), Span("b", 5, 1, 7, True), Span("c", 6, 2, 0, True)]
        row = clamp_row(clamps, bank) if clamps else None
        write_rows(buffers, [(span, row) for span in spans], 8)
        buffers.begin([0, 6])
        buffers.settle(bank)
        buffers.poison(8)
        sampler.prepare(draws)
        tap.apply(torch.zeros(8, WIDTH, device=blind), buffers)
        chosen = sampler.choose(torch.zeros(4, VOCABULARY, device=blind))
        assert chosen.device.type == "meta"
        assert readout.copy(8).readings.shape[0] == 8
        assert sampler.choice(4).unusable.shape == (4,)


def test_without_graphs_a_choice_among_the_likeliest_tokens_waits(blind):
    """It looks whether so many of them were enough."""
    sampler = Sampler(2, blind)
    sampler.prepare([Draw(Sampling(temperature=1.0, top_p=0.5)), None])
    with pytest.raises(RuntimeError):
        sampler.choose(torch.zeros(2, VOCABULARY, device=blind))
