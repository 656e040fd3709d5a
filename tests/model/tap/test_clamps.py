"""Which rows a pass edits: those of clamped requests, whatever earlier and longer passes left in the buffers."""

import random

import pytest
import torch

from monitor.errors import BadRequest
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.clamps import check_clamps, clamp_row, merge, write_rows
from monitor.model.tap.span import Span
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import Clamp, Where
from tests.model.tiny import WIDTH, dictionary, maxima

ROWS = 64


def some_pass(chance: random.Random) -> list[tuple[Span, bool]]:
    """Consecutive requests with whether each is clamped; many passes are short and clamp nothing."""
    spans, first = [], 0
    for number in range(chance.choice([1, 1, 1, 2, 4])):
        count = chance.choice([1, 1, 5, 16])
        spans.append((Span(f"r{number}", first, count, chance.choice([0, 3]), True), chance.random() < 0.3))
        first += count
    return spans


@pytest.mark.parametrize("static", [False, True])
def test_no_row_obeys_a_clamp_of_an_earlier_pass_nor_does_a_first_position(static: bool) -> None:
    # A captured graph edits whatever stands in the buffers: nothing may stand behind the rows of a short pass.
    chance = random.Random(3)
    bank = FeatureBank(dictionary(), maxima(), range(10), [20])
    tap, buffers = Tap(bank, torch.nn.Identity()), TapBuffers(bank, ROWS, static=static)
    mine = clamp_row([Clamp(20, -2.0, Where.EVERYWHERE)], bank)
    x = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(3))
    for _ in range(200):
        spans = some_pass(chance)
        rows = spans[-1][0].first + spans[-1][0].count
        write_rows(buffers, [(span, mine if clamped else None) for span, clamped in spans], rows)
        buffers.begin([span.first for span, _ in spans if span.position == 0])
        buffers.settle(bank)
        edited = tap.apply(x[:rows], buffers)
        wanted = torch.tensor(
            [clamped and span.position + row > 0 for span, clamped in spans for row in range(span.count)]
        )
        found = torch.zeros(rows, dtype=torch.bool) if edited is None else (edited != x[:rows]).any(-1)
        assert torch.equal(found, wanted)


class TestClamps:
    def test_every_wrong_clamp_is_named(self) -> None:
        clamps = [Clamp(500, -1.0), Clamp(3, -1.0), Clamp(3, 1.0), Clamp(7, 1.0)]
        unit = maxima()
        unit[7] = 0
        with pytest.raises(BadRequest) as refused:
            check_clamps(clamps, 96, unit)
        fields = [violation.field for violation in refused.value.violations]
        assert fields == [
            "clamps[0].feature",
            "clamps[2].feature",
            "clamps[3].feature",
        ]

    def test_a_caller_strengthens_and_never_weakens(self) -> None:
        policy = [Clamp(1, -1.0, Where.EVERYWHERE), Clamp(2, -1.0)]
        caller = [Clamp(1, 3.0), Clamp(2, -2.0), Clamp(3, 4.0)]
        assert merge(policy, caller) == (Clamp(1, -1.0, Where.EVERYWHERE), Clamp(2, -2.0), Clamp(3, 4.0))
