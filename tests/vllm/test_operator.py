"""The tap as an operator: the same reads and edits as the hook, on a stream in one or in two parts."""

import pytest
import torch

from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.clamps import clamp_row, write_rows
from monitor.model.tap.span import Span
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import Clamp, Where
from monitor.vllm.operator import Seat, call_tap, take_seat
from tests.model.tiny import WIDTH, dictionary, maxima

ROWS = 6


class Place:
    """Where the tap would be installed, were it a hook."""


def tap_with(clamps=()):
    bank = FeatureBank(dictionary(), maxima(), range(3, 9), [40])
    tap, buffers = Tap(bank, Place()), TapBuffers(bank, 16)
    rows = [
        (Span("a", 0, 3, 0, False), clamp_row(clamps, bank) if clamps else None),
        (Span("b", 3, 3, 0, False), None),
    ]
    write_rows(buffers, rows, ROWS)
    buffers.begin([0, 3])
    buffers.settle(bank)
    buffers.poison(ROWS)
    tap.use(buffers)
    return tap, buffers


def stream(seed=0):
    made = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, WIDTH, generator=made) * 3


def test_reads_what_the_hook_reads_and_leaves_the_stream_alone():
    tap, buffers = tap_with()
    x = stream()
    hidden, residual = x - 1, torch.ones_like(x)
    call_tap(hidden, residual, take_seat(Seat(tap, 2)), 2)
    read = buffers.readings[:ROWS].clone()
    tap.apply((x - 1) + 1, buffers)
    assert torch.equal(read[:, :7], buffers.readings[:ROWS, :7])
    assert torch.equal(hidden, x - 1)
    assert torch.equal(residual, torch.ones_like(x))


@pytest.mark.parametrize("shape", [(ROWS, WIDTH), (1, ROWS, WIDTH)], ids=["rows", "one batch of rows"])
@pytest.mark.parametrize("parts", [1, 2])
def test_clamps_the_rows_of_one_request_and_no_bit_of_the_others(parts, shape):
    tap, buffers = tap_with([Clamp(40, -2.0, Where.EVERYWHERE)])
    x = stream()
    hidden, residual = (x.clone(), None) if parts == 1 else (x - 1, torch.ones_like(x))
    before = hidden.clone()
    whole = before.clone() if residual is None else hidden + residual
    wanted = tap.apply(whole.clone(), buffers)
    given = [None if part is None else part.view(shape) for part in (hidden, residual)]
    call_tap(*given, take_seat(Seat(tap, 2)), 2)
    after = hidden if residual is None else hidden + residual
    assert torch.equal(after[1:3], wanted[1:3])
    assert not torch.equal(after[1:3], whole[1:3])
    for row in (0, 3, 4, 5):  # a first token is an attention sink, which no clamp edits
        assert torch.equal(hidden[row], before[row])


def test_other_layers_read_nothing():
    tap, buffers = tap_with()
    call_tap(stream(), stream(1), take_seat(Seat(tap, 2)), 3)
    assert torch.isneginf(buffers.readings[:ROWS]).all()


def test_a_pass_of_another_thread_is_left_alone():
    tap, buffers = tap_with([Clamp(40, -2.0, Where.EVERYWHERE)])
    tap.use(None)
    hidden, residual = stream(), stream(1)
    call_tap(hidden, residual, take_seat(Seat(tap, 2)), 2)
    assert torch.equal(hidden, stream())
    assert torch.isneginf(buffers.readings[:ROWS]).all()


def test_a_compiler_sees_that_the_stream_changes():
    tap, _ = tap_with()
    seat = take_seat(Seat(tap, 2))
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.sae_monitor.tap_sum, (stream(), stream(1), seat, 2), test_utils=checks)
    for shape in ((ROWS, WIDTH), (1, ROWS, WIDTH)):
        given = (stream().view(shape), seat, 2)
        torch.library.opcheck(torch.ops.sae_monitor.tap_stream, given, test_utils=checks)


def test_a_seat_keeps_its_number():
    tap, _ = tap_with()
    one, other = Seat(tap, 2), Seat(tap, 2)
    assert take_seat(one) == take_seat(one) != take_seat(other)
