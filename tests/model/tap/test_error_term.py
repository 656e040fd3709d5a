"""Clamps without error term, against plain float64; which clamps callers may bring."""

import pytest
import torch

from monitor.errors import BadRequest
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.clamps import Allowed, check_clamps, merge
from monitor.model.tap.error_term import ErrorTermDropper, needed_bytes
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import CallerClamps, Clamp, ErrorTerm, Where
from tests.model.running import LAYER, running
from tests.model.tiny import (
    KINDS,
    WIDTH,
    decode_all,
    dictionary,
    encode_all,
    loaded_model,
    maxima,
    plain_clamp,
    prompt,
)

CLAMPS = (Clamp(3, -1.0), Clamp(40, -2.0, Where.EVERYWHERE), Clamp(41, 0.5))


def edited(sae, x, clamps, unit):
    """Activations with the clamped features set, in float64."""
    found = encode_all(sae, x)
    for clamp in clamps:
        here = found[..., clamp.feature] > 0 if clamp.where is Where.ACTIVE else torch.tensor(True)
        target = torch.tensor(clamp.target * float(unit[clamp.feature]), dtype=torch.float64)
        found[..., clamp.feature] = torch.where(here, target, found[..., clamp.feature])
    return found


def buffers_for(bank, clamps, rows, *, clamped, static=False):
    buffers = TapBuffers(bank, rows, static=static)
    buffers.clamping = buffers.dropping = True
    for clamp in clamps:
        slot = bank.slot(clamp.feature)
        buffers.target[:, slot] = clamp.target * bank.recorded_maximum(clamp.feature)
        (buffers.everywhere if clamp.where is Where.EVERYWHERE else buffers.active)[:clamped, slot] = True
    buffers.settle(bank)
    return buffers


class TestWithoutErrorTerm:
    clamps = (Clamp(2, -1.0), Clamp(50, -2.0), Clamp(70, 1.0))

    def taps(self, kind, rows=30):
        sae, unit = dictionary(kind), maxima()
        bank = FeatureBank(sae, unit, range(10), [50], spare=3)
        bank.acquire([70])
        x = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(0))
        return sae, unit, Tap(bank, torch.nn.Identity(), ErrorTermDropper(sae, bank.device, bank.dtype)), x

    @pytest.mark.parametrize("static", [False, True])
    @pytest.mark.parametrize("kind", KINDS)
    def test_edited_rows_become_the_edited_reconstruction(self, kind, static) -> None:
        sae, unit, tap, x = self.taps(kind)
        buffers = buffers_for(tap.bank, self.clamps, 30, clamped=20, static=static)
        buffers.drop[:10] = True
        out = tap.apply(x, buffers)
        touched = buffers.chosen[:, :].any(-1)
        dropped = decode_all(sae, edited(sae, x, self.clamps, unit), x).float()
        kept = plain_clamp(sae, x, self.clamps, unit).float()
        assert touched[:10].any()
        assert not touched[20:].any()
        first, second = touched.clone(), touched.clone()
        first[10:], second[:10] = False, False
        torch.testing.assert_close(out[first], dropped[first], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(out[second], kept[second], rtol=1e-4, atol=1e-4)
        assert torch.equal(out[~touched], x[~touched])

    @pytest.mark.parametrize("kind", KINDS)
    def test_rows_beside_a_dropped_one_are_bit_identical(self, kind) -> None:
        _, _, tap, x = self.taps(kind)
        found = []
        for dropped in (0, 10):
            buffers = buffers_for(tap.bank, self.clamps, 30, clamped=20)
            buffers.drop[:dropped] = True
            found.append(tap.apply(x, buffers))
        assert torch.equal(found[0][10:], found[1][10:])
        assert not torch.equal(found[0][:10], found[1][:10])

    @pytest.mark.slow
    def test_a_generation_equals_a_plain_sequence(self) -> None:
        clamps = tuple(Clamp(c.feature, c.target, Where.EVERYWHERE, ErrorTerm.DROP) for c in CLAMPS)
        with running(loaded_model(), dictionary()) as run:
            run.tap.dropper = ErrorTermDropper(dictionary(), run.bank.device, run.bank.dtype)
            calls = [run.call(prompt(n), new=6, clamps=clamps) for n in range(4)]
            for call in calls:
                call.finished()
        exact, sae, unit = loaded_model(dtype=torch.float64), dictionary(), maxima()
        for call in calls:
            tokens = generate_dropped(exact, sae, unit, call.ids, 6, clamps)
            assert [token.token_id for token in call.tokens] == tokens

    def test_it_counts_what_it_would_hold(self) -> None:
        assert needed_bytes(dictionary(), torch.float32) == 2 * 96 * WIDTH * 4
        assert needed_bytes(dictionary("gated"), torch.float32) == 3 * 96 * WIDTH * 4


def generate_dropped(exact, sae, unit, ids, new, clamps):
    """`plain_generate` with the error term left out."""

    def hook(_module, _args, output):
        x = output[0] if isinstance(output, tuple) else output
        changed = decode_all(sae, edited(sae, x, clamps, unit), x)
        changed[:, 0] = x[:, 0]
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle, tokens = exact.layers[LAYER].register_forward_hook(hook), list(ids)
    with torch.no_grad():
        for _ in range(new + 1):
            following = int(exact.model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())
            if len(tokens) == len(ids) + new or following == 1:
                break
            tokens.append(following)
    handle.remove()
    return tokens


class TestWhatCallersMay:
    def fields(self, allowed, *clamps):
        with pytest.raises(BadRequest) as refused:
            check_clamps(clamps, 96, maxima(), allowed=allowed)
        return [violation.field for violation in refused.value.violations]

    def test_amplifying_needs_leave(self) -> None:
        allowed = Allowed(CallerClamps.SUPPRESS)
        check_clamps([Clamp(1, 0.0), Clamp(2, -3.0, Where.EVERYWHERE)], 96, maxima(), allowed=allowed)
        assert self.fields(allowed, Clamp(1, -1.0), Clamp(2, 0.5)) == ["clamps[1].target"]
        check_clamps([Clamp(2, 5.0)], 96, maxima(), allowed=Allowed(CallerClamps.ANY))

    def test_none_means_none(self) -> None:
        assert self.fields(Allowed(CallerClamps.NONE), Clamp(1, -1.0)) == ["clamps[0]"]

    def test_dropping_needs_the_whole_dictionary(self) -> None:
        drop = Clamp(1, -1.0, error_term=ErrorTerm.DROP)
        assert self.fields(Allowed(drop=False), drop) == ["clamps[0].error_term"]

    def test_amplifying_never_weakens_a_policy(self) -> None:
        policy = [Clamp(1, -1.0, error_term=ErrorTerm.DROP), Clamp(2, 0.0)]
        caller = [Clamp(1, 5.0, Where.EVERYWHERE), Clamp(2, 3.0), Clamp(3, 4.0)]
        assert merge(policy, caller) == (
            Clamp(1, -1.0, Where.ACTIVE, ErrorTerm.DROP),
            Clamp(2, 0.0),
            Clamp(3, 4.0),
        )
