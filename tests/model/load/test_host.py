"""What of the host this process may use, by the files of its control groups."""

from types import SimpleNamespace

import psutil
import pytest
import torch

from monitor.model.load import host
from monitor.model.load.host import (
    Memory,
    bound_threads,
    computes_bfloat16,
    free_memory,
    memory_limit,
    processors,
)


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """The folder of control groups that this process is said to be in; `own` says which."""
    monkeypatch.setattr(host, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(host, "_GROUPS", tmp_path / "groups")
    (tmp_path / "groups").mkdir()
    (tmp_path / "own").write_text("0::/\n")
    return tmp_path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("own", "file"),
    [
        ("0::/", "memory.max"),
        ("4:memory:/", "memory/memory.limit_in_bytes"),
        ("0::/docker/abc", "memory.max"),
        ("0::/../..", "memory.max"),
        ("0::/system.slice/sae-monitor.service", "system.slice/sae-monitor.service/memory.max"),
        ("0::/system.slice/sae-monitor.service", "system.slice/memory.max"),
        ("5:cpu:/other\n4:memory,x:/a/b", "memory/a/b/memory.limit_in_bytes"),
    ],
)
def test_the_limit_of_a_control_group_counts(groups, own, file):
    """In a container its group is the root; a service of systemd has one of its own, in another's."""
    group = groups / "groups" / file
    (groups / "own").write_text(f"{own}\n")
    machine = memory_limit(None)
    for text, limit in (("max\n", machine), ("1000000\n", 1_000_000), (str(machine * 4), machine)):
        write(group, text)
        assert memory_limit(None) == limit
    assert memory_limit(5000) == 5000


def test_the_smallest_limit_around_it_counts(groups):
    (groups / "own").write_text("0::/a/b\n")
    for folder, text in (("a/b", "3000000"), ("a", "2000000"), ("", "max")):
        write(groups / "groups" / folder / "memory.max", text)
    assert memory_limit(None) == 2_000_000


def test_what_is_free_is_what_the_limit_leaves(groups):
    used = psutil.Process().memory_info().rss
    assert free_memory() > 0
    write(groups / "groups" / "memory.max", str(used + (64 << 20)))
    assert 0 < free_memory() <= 96 << 20
    assert free_memory(1) == 0


@pytest.mark.parametrize(
    ("own", "files", "wanted"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "20000 100000"}, 1),
        ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("3:cpu,cpuacct:/x", {"cpu/x/cpu.cfs_quota_us": "200000", "cpu/x/cpu.cfs_period_us": "100000"}, 2),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ("0::/", {"cpu.max": "max 100000"}, 64),
        ("0::/", {}, 64),
    ],
)
def test_a_quota_bounds_the_threads(groups, monkeypatch, own, files, wanted):
    """A container with a quota still sees every processor of its machine."""
    threads = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    (groups / "own").write_text(own + "\n")
    for name, text in files.items():
        write(groups / "groups" / name, text)
    assert processors() == wanted
    bound_threads()
    assert threads == ([] if wanted == 64 else [wanted])
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    bound_threads()
    assert len(threads) <= 1


def test_memory_goes_below_the_watermark_again(monkeypatch):
    monkeypatch.setattr(host, "_EVERY", 0.0)
    memory, used = Memory(1000, 0.9), [0]
    monkeypatch.setattr(Memory, "used_ratio", lambda _: used[0] / 1000)
    monkeypatch.setattr(Memory, "_machine_is_full", lambda _: False)
    seen = []
    for value in (100, 899, 901, 2000, 899):
        used[0] = value
        seen.append(memory.low())
    assert seen == [False, False, True, True, False]


def with_free(monkeypatch, share):
    """A machine of 1000 GiB, a share of which is free."""
    total = 1000 << 30
    machine = SimpleNamespace(total=total, available=share * total)
    monkeypatch.setattr(host.psutil, "virtual_memory", lambda: machine)


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
    monkeypatch.setattr(host.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Memory, "used_ratio", lambda _: used[0])
    memory, seen = Memory(1000 << 30, 0.9), []
    for moment, ratio in ((100.0, 0.1), (100.1, 0.95), (100.3, 0.95), (100.4, 0.1), (100.6, 0.1)):
        clock[0], used[0] = moment, ratio
        seen.append(memory.low())
    assert seen == [False, False, True, True, False]


@pytest.mark.parametrize(
    ("capabilities", "found"),
    [
        ({"avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, True),
        ({"amx_bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False}, False),
        ({"architecture": "other"}, False),
    ],
)
def test_products_of_bfloat16_are_known_by_the_instructions(monkeypatch, capabilities, found):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert computes_bfloat16() is found
