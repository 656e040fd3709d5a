"""Probes and signals as columns of readings, against plain float64."""

import numpy as np
import pytest
import torch

from monitor.errors import ConfigurationError, ModelError
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.probe_columns import RESERVE, ProbeColumns
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import (
    UNREAD,
    Action,
    Blocks,
    Clamp,
    Failure,
    FinishReason,
    Phase,
    Probe,
    Signal,
    TokenBlock,
    WatchPlan,
    Where,
)
from tests.model.running import running
from tests.model.tiny import Recorder, decode_all, dictionary, encode_all, loaded_model, maxima, prompt

KINDS = ["relu", "jumprelu", "gated", "topk"]
WIDTH = 32


def probe(name="p", seed=0, bias=-0.7, scale=2.5):
    weights = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
    return Probe(name, tuple(weights.tolist()), bias, scale)


def plain(sae, plan, x):
    """The plan's probes and signals of residuals, written out from their definitions."""
    x = x.double()
    columns = [(x @ torch.tensor(p.weights, dtype=torch.float64) + p.bias) / p.scale for p in plan.probes]
    for signal in plan.signals:
        if signal is Signal.RESIDUAL_NORM:
            columns.append((x**2).mean(-1).sqrt())
        else:
            activations = encode_all(sae, x)
            missed = ((x - decode_all(sae, activations, x)) ** 2).sum(-1)
            nothing = ((x - decode_all(sae, torch.zeros_like(activations), x)) ** 2).sum(-1)
            columns.append(missed / nothing)
    return torch.stack(columns, -1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("static", [False, True])
def test_columns_are_what_they_say(kind, static):
    sae = dictionary(kind)
    plan = WatchPlan((1, 2), (probe("a"), probe("b", 1, 0.4, 1.0)), tuple(Signal))
    bank = FeatureBank(sae, maxima(), plan.features, plan=plan)
    buffers = TapBuffers(bank, 40, static=static)
    x = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(3)) * 3
    Tap(bank, torch.nn.Identity()).apply(x, buffers)
    got = buffers.others[:20][:, bank.others.where(plan)].double()
    torch.testing.assert_close(got, plain(sae, plan, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_not_finite_reads_as_nan_and_an_unread_one_as_unread(value):
    plan = WatchPlan((1,), (probe(),), tuple(Signal))
    bank = FeatureBank(dictionary(), maxima(), plan.features, plan=plan)
    buffers = TapBuffers(bank, 8)
    buffers.poison(8)
    x = torch.randn(6, WIDTH)
    x[2, 5] = value
    Tap(bank, torch.nn.Identity()).apply(x, buffers)
    which = bank.others.where(plan)
    assert torch.isnan(buffers.others[2]).all()
    assert torch.isfinite(buffers.others[[0, 1, 3, 4, 5]]).all()
    assert (buffers.others[6:] == UNREAD).all()
    found = [
        buffers.others[:6, which],
        buffers.others[6:, which],
        torch.tensor([[-3.0, *[0.0] * (len(which) - 1)]]),
    ]
    blocks = [
        (i, TokenBlock(Phase.PROMPT, 0, (1,) * len(rows), rows.numpy())) for i, rows in enumerate(found)
    ]
    assert Blocks.of(blocks).unscored() == {0: Failure.NON_FINITE, 1: Failure.TAP_MISSED}


def test_passes_of_sets_without_them_leave_them_alone():
    bank = FeatureBank(dictionary(), maxima(), (1,))
    buffers = TapBuffers(bank, 4)
    buffers.poison(4)
    Tap(bank, torch.nn.Identity()).apply(torch.randn(4, WIDTH), buffers)
    assert (buffers.others == UNREAD).all()
    assert torch.isfinite(buffers.readings[:, :1]).all()


def test_a_policy_set_that_reads_the_same_as_the_one_before_it_leaves_the_version():
    def plan():
        return WatchPlan((), (probe("a"), probe("b")), (Signal.RECONSTRUCTION_ERROR, Signal.RESIDUAL_NORM))

    columns = ProbeColumns(dictionary(), plan(), device=torch.device("cpu"), dtype=torch.float32)
    version = columns.version
    let_go = columns.hold(plan())
    columns.release_first()
    assert columns.version == version
    again = columns.hold(plan())
    let_go()
    assert columns.version == version
    again()
    assert columns.version > version


def test_a_later_policy_set_brings_probes_and_takes_them_away():
    columns = ProbeColumns(
        dictionary(), WatchPlan((), (probe("a"),)), device=torch.device("cpu"), dtype=torch.float32
    )
    x = torch.randn(5, WIDTH)
    later = WatchPlan((), (probe("a", 9), probe("b")), (Signal.RECONSTRUCTION_ERROR,))
    assert not columns.whole
    version = columns.version
    let_go = columns.hold(later)
    assert columns.whole
    assert columns.version > version
    got = columns.read(x)[:, columns.where(later)].double()
    torch.testing.assert_close(got, plain(dictionary(), later, x), rtol=1e-4, atol=1e-4)
    many = WatchPlan((), tuple(probe(f"m{i}") for i in range(RESERVE)))
    with pytest.raises(ConfigurationError, match="restart"):
        columns.hold(many)
    version = columns.version
    let_go()
    assert columns.version > version, "columns are free for others"
    columns.hold(many)()
    columns.release_first()
    assert not columns.read_any
    assert not columns.read(x)[:, : RESERVE + 1].any()


def test_a_probe_of_another_width_is_refused():
    with pytest.raises(ModelError, match=r"3 weights.*32 wide"):
        FeatureBank(dictionary(), maxima(), (1,), plan=WatchPlan((1,), (Probe("x", (1.0, 2.0, 3.0)),)))


@pytest.mark.slow
def test_generations_show_them_to_the_rules_before_any_clamp():
    sae, loaded = dictionary(), loaded_model()
    plan = WatchPlan((3, 4), (probe(),), tuple(Signal))
    clamps = [Clamp(5, -2.0, Where.EVERYWHERE)]
    with running(loaded, sae, plan=plan) as run:
        plainly, clamped = run.call(prompt(3), new=1), run.call(prompt(3), new=1, clamps=clamps)
        assert plainly.finished().coverage.complete
        assert clamped.finished().coverage.complete
        rows = len(prompt(3))
        assert plainly.readings.shape[1] == clamped.readings.shape[1] == len(plan)
        np.testing.assert_allclose(clamped.readings[:rows], plainly.readings[:rows], rtol=1e-3, atol=1e-4)
        assert np.ptp(plainly.readings[:, plan.column(plan.probes[0])]) > 0
        run.tap.detach()
        missed = run.call(prompt(4), observer=Recorder(on_error=Action.BLOCK))
        assert missed.finished().error.cause is Failure.TAP_MISSED
        assert missed.finished().reason is FinishReason.POLICY


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_without_any_feature(kind):
    sae, loaded = dictionary(kind), loaded_model()
    plan = WatchPlan((), (probe(),), (Signal.RESIDUAL_NORM,))
    with running(loaded, sae, plan=plan) as run:
        call = run.call(prompt(5), new=3)
        assert call.finished().coverage.complete
        assert call.readings.shape[1] == 2
        assert (call.readings[:, 1] > 0).all()
        run.tap.detach()
        missed = run.call(prompt(4), observer=Recorder(on_error=Action.BLOCK))
        assert missed.finished().error.cause is Failure.TAP_MISSED
