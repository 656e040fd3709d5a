"""Readings and clamps of the tap against plain float64, in every kind of dictionary."""

import pytest
import torch

from monitor.errors import DictionaryError
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import Clamp, Where
from tests.model.tiny import KINDS, dictionary, encode_all, maxima, plain_clamp


class TestBankAndTap:
    @pytest.mark.parametrize("kind", KINDS)
    def test_reads_and_clamps_as_defined(self, kind: str) -> None:
        sae, unit = dictionary(kind), maxima()
        bank = FeatureBank(sae, unit, range(10), [50], spare=2)
        bank.acquire([70])
        x = torch.randn(20, 32, generator=torch.Generator().manual_seed(0))
        buffers = TapBuffers(bank, 64)
        clamps = (Clamp(2, -1.0), Clamp(50, -2.0, Where.EVERYWHERE), Clamp(70, 1.0))
        buffers.clamping = True
        for clamp in clamps:
            slot = bank.slot(clamp.feature)
            buffers.target[:20, slot] = clamp.target * unit[clamp.feature]
            (buffers.everywhere if clamp.where is Where.EVERYWHERE else buffers.active)[:10, slot] = True
        buffers.settle(bank)
        out = Tap(bank, torch.nn.Identity()).apply(x, buffers)
        wanted = plain_clamp(sae, x, clamps, unit).float()
        torch.testing.assert_close(out[:10], wanted[:10], rtol=1e-4, atol=1e-4)
        assert torch.equal(out[10:], x[10:])
        readings = buffers.readings[:20, :10].double()
        torch.testing.assert_close(readings, encode_all(sae, x)[:, :10] / unit[:10], rtol=1e-4, atol=1e-5)
        again = buffers.after[:10, :10].double()
        torch.testing.assert_close(again, encode_all(sae, out)[:10, :10] / unit[:10], rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("kind", KINDS)
    def test_no_reading_of_a_row_that_is_not_finite_is_a_number(self, kind: str, value: float) -> None:
        bank = FeatureBank(dictionary(kind), maxima(), range(10))
        x = torch.randn(6, 32, generator=torch.Generator().manual_seed(5))
        x[2, 7] = value
        buffers = TapBuffers(bank, 6)
        Tap(bank, torch.nn.Identity()).apply(x, buffers)
        finite = torch.isfinite(buffers.readings[:, :10])
        assert not finite[2].any()
        assert finite[[0, 1, 3, 4, 5]].all()

    def test_bfloat16_rows_are_cast_once(self) -> None:
        sae, unit = dictionary("relu"), maxima()
        bank = FeatureBank(sae, unit, range(96))
        x = torch.randn(8, 32).bfloat16()
        buffers = TapBuffers(bank, 8)
        buffers.clamping = True
        buffers.everywhere[:, :5] = True
        buffers.target[:, :5] = -1
        out = Tap(bank, torch.nn.Identity()).apply(x, buffers)
        clamps = tuple(Clamp(f, -1 / float(unit[f]), Where.EVERYWHERE) for f in range(5))
        assert torch.equal(out, plain_clamp(sae, x.float(), clamps, unit).bfloat16())

    def test_static_passes_compute_the_same(self) -> None:
        bank = FeatureBank(dictionary(), maxima(), range(10))
        x = torch.randn(8, 32)
        dynamic, static = TapBuffers(bank, 8), TapBuffers(bank, 8, static=True)
        tap = Tap(bank, torch.nn.Identity())
        assert tap.apply(x, dynamic) is None
        assert torch.equal(tap.apply(x, static), x)
        # A product of another width may be rounded otherwise.
        torch.testing.assert_close(dynamic.readings[:, :10], static.readings[:, :10])

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_pass_says_whether_it_computed_numbers_alone(self, value: float) -> None:
        bank = FeatureBank(dictionary(), maxima(), range(10), reserve=4)
        buffers = TapBuffers(bank, 8, later=3)
        buffers.clamping = True
        buffers.later[:, 1] = torch.nan  # a column that no probe writes
        assert buffers.finite(bank, 8, [0, 2])
        buffers.readings[5, 14:] = value
        assert buffers.finite(bank, 8, [0, 2]), "slots that this pass does not compute"
        for written, column in ((buffers.readings, 9), (buffers.others, 1), (buffers.later, 2)):
            buffers.reads_others = written is buffers.others
            written[5, column] = value
            assert buffers.finite(bank, 5, [0, 2]), "rows behind those of the pass"
            assert not buffers.finite(bank, 6, [0, 2])
            written[5, column] = 0.0

    def test_a_tap_that_did_not_run_says_nothing_of_the_numbers(self) -> None:
        bank = FeatureBank(dictionary(), maxima(), range(10))
        buffers = TapBuffers(bank, 8)
        buffers.poison(8)
        assert buffers.finite(bank, 8)

    def test_features_without_a_unit_are_refused(self) -> None:
        unit = maxima()
        unit[4] = 0
        with pytest.raises(DictionaryError, match="never active"):
            FeatureBank(dictionary(), unit, [4])
        with pytest.raises(DictionaryError, match="does not exist"):
            FeatureBank(dictionary(), unit, [96])
