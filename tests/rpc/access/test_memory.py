from types import SimpleNamespace

import psutil
import pytest

from monitor.rpc.access import memory as module
from monitor.rpc.access.memory import Memory


def with_free(monkeypatch, share):
    """A machine of 1000 GiB, a share of which is free."""
    total = 1000 << 30
    machine = SimpleNamespace(total=total, available=share * total)
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: machine)


def test_what_this_process_uses_is_a_share_of_its_limit():
    used = psutil.Process().memory_info().rss
    assert Memory(2 * used, 0.9).used_ratio() == pytest.approx(0.5, rel=0.1)


def test_a_limit_beyond_the_machine_is_the_machines():
    machine = psutil.virtual_memory().total
    used = psutil.Process().memory_info().rss
    assert Memory(100 * machine, 0.9).used_ratio() == pytest.approx(used / machine, rel=0.1)


@pytest.mark.parametrize(("free", "low"), [(0.5, False), (0.021, False), (0.019, True)])
def test_memory_is_low_where_the_machines_is_gone_whoever_uses_it(monkeypatch, free, low):
    with_free(monkeypatch, free)
    assert Memory(1000 << 30, 0.9).low() is low


@pytest.mark.parametrize(("watermark", "low"), [(1e-9, True), (0.9, False)])
def test_memory_is_low_from_the_watermark_on(monkeypatch, watermark, low):
    with_free(monkeypatch, 0.5)
    assert Memory(1000 << 30, watermark).low() is low


def test_a_measurement_is_used_for_a_while(monkeypatch):
    with_free(monkeypatch, 0.5)
    clock, used = [100.0], [0.1]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Memory, "used_ratio", lambda _: used[0])
    memory, seen = Memory(1000 << 30, 0.9), []
    for moment, ratio in ((100.0, 0.1), (100.1, 0.95), (100.3, 0.95), (100.4, 0.1), (100.6, 0.1)):
        clock[0], used[0] = moment, ratio
        seen.append(memory.low())
    assert seen == [False, False, True, True, False]
