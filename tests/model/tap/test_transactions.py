"""What cannot be taken in full is not taken at all, whatever the reason: files that cannot be read, want of memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.late_probes import LaterTaps
from monitor.model.tap.probe_columns import RESERVE, ProbeColumns
from monitor.model.tap.slots import Slots
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import LaterProbe, Probe, Signal, WatchPlan
from tests.model.running import LAYER
from tests.model.tiny import WIDTH, dictionary, loaded_model, maxima

SPARE = 4
FAULTS = [OSError("the disk"), MemoryError(), KeyboardInterrupt()]


def probe(name: str, bias: float = 0.0) -> Probe:
    return Probe(name, (1.0,) * WIDTH, bias)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", ["requests", "policies"])
def test_features_whose_rows_cannot_be_read(fault: BaseException, kind: str) -> None:
    broken = True

    def fill(_slot: int, feature: int) -> None:
        if broken and feature == 13:
            raise fault

    slots = Slots([1, 2], fill, spare=SPARE, reserve=SPARE)
    take = slots.acquire_for_request if kind == "requests" else slots.acquire_for_policies
    for _ in range(3 * SPARE):
        with pytest.raises(type(fault)):
            take([1, 11, 12, 13])
    assert (slots.read, slots.used) == (2, 2)
    broken = False
    take([1, 11, 12, 13])
    assert slots.used == 5


@pytest.mark.parametrize("fault", FAULTS)
def test_a_dictionary_that_cannot_be_loaded_whole(fault: BaseException) -> None:
    class Broken:
        d_model = WIDTH

        def whole(self) -> None:
            raise fault

    columns = ProbeColumns(Broken(), device=torch.device("cpu"), dtype=torch.float32)
    for number in range(3 * RESERVE):
        plan = WatchPlan((), (probe(f"p{number}"),), (Signal.RECONSTRUCTION_ERROR,))
        with pytest.raises(type(fault)):
            columns.hold(plan)
    assert not columns.read_any
    columns.hold(WatchPlan((), tuple(probe(f"q{number}", number) for number in range(RESERVE))))


def test_a_probe_that_no_tensor_holds() -> None:
    columns = ProbeColumns(dictionary(), device=torch.device("cpu"), dtype=torch.float32)
    sound, broken = probe("sound"), Probe("broken", (1.0,) * WIDTH, 1.0, 0.0)  # divides by zero
    for _ in range(3 * RESERVE):
        with pytest.raises(ZeroDivisionError):
            columns.hold(WatchPlan((), (sound, broken)))
    assert not columns.read_any
    x = torch.ones(2, WIDTH)
    assert not columns.read(x)[:, :RESERVE].any(), "columns that nobody holds read zero"
    release = columns.hold(WatchPlan((), (sound,)))
    assert columns.read(x)[0, columns.where(WatchPlan((), (sound,)))[0]] == WIDTH
    release()
    assert not columns.read_any


def test_a_later_probe_for_which_there_is_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = loaded_model()
    bank = FeatureBank(dictionary(), maxima(), (1, 2))
    tap = Tap(bank, loaded.layers[LAYER])
    later = LaterTaps(loaded.layers, tap, LAYER)
    known, new = (
        LaterProbe(LAYER + 1, torch.full((WIDTH,), value).numpy(), 0.0, 1.0, 4.0) for value in (1.0, 2.0)
    )
    later.acquire([known])
    later.attach()
    build = LaterTaps._layer

    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(LaterTaps, "_layer", fails)
    for _ in range(3):
        with pytest.raises(MemoryError):
            later.acquire([new])
    monkeypatch.setattr(LaterTaps, "_layer", build)
    assert later.column(new) is None
    buffers = TapBuffers(bank, 4, later=4)
    buffers.clamping = True
    tap.use(buffers)
    x: Tensor = torch.ones(1, 4, WIDTH)
    for layer in (LAYER, LAYER + 1):
        for hook in loaded.layers[layer]._forward_hooks.values():
            hook(None, (), x)
    column = later.column(known)
    assert column is not None
    assert buffers.later[:, column].tolist() == [WIDTH] * 4
    later.acquire([new])
    assert later.column(new) == 1
    tap.use(None)
    later.detach()
