"""Clamps without error term, tokens taken back, and checks of what clamps left: against plain float64."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from monitor.clamp import CallerClamps
from monitor.errors import BadRequest, ModelError
from monitor.model.bank import FeatureBank
from monitor.model.clamping import Allowed, check_clamps, merge
from monitor.model.dropping import Dropper, needed_bytes
from monitor.model.later import COLUMNS, LaterTaps
from monitor.model.requests import GenerationRequest, Released
from monitor.model.tap import Tap, TapBuffers
from monitor.records import Clamp, Decision, ErrorTerm, FinishReason, Phase, Sampling, Where
from monitor.suppression import LaterProbe, SuppressionPlan
from tests.model.running import LAYER, Call, Running, running
from tests.model.tiny import (
    KINDS,
    WIDTH,
    Recorder,
    decode_all,
    dictionary,
    encode_all,
    loaded_model,
    maxima,
    plain_clamp,
    plain_generate,
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
        return sae, unit, Tap(bank, torch.nn.Identity(), Dropper(sae, bank.device, bank.dtype)), x

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

    def test_a_generation_equals_a_plain_sequence(self) -> None:
        clamps = tuple(Clamp(c.feature, c.target, Where.EVERYWHERE, ErrorTerm.DROP) for c in CLAMPS)
        with running(loaded_model(), dictionary()) as run:
            run.tap.dropper = Dropper(dictionary(), run.bank.device, run.bank.dtype)
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
    """`plain_generate` with the error term left out on every token but the first."""

    def hook(_module, _args, output):
        x = output[0] if isinstance(output, tuple) else output
        changed = decode_all(sae, edited(sae, x, clamps, unit), x)
        changed[:, 0] = plain_clamp(sae, x, clamps, unit)[:, 0]
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
            Clamp(1, -1.0, Where.EVERYWHERE, ErrorTerm.DROP),
            Clamp(2, 0.0),
            Clamp(3, 4.0),
        )


@dataclass
class Rewinding(Recorder):
    """Takes `back` response tokens back, once, when the response has `at` of them; clamps from then on."""

    at: int = 5
    back: int = 3
    lag: int = 4
    phase: Phase = Phase.RESPONSE
    taken: list[int] = field(default_factory=list)
    start: int | None = None

    def begin(self):
        return Decision(lag=self.lag)

    def observe(self, block):
        super().observe(block)
        if block.phase is Phase.RESPONSE and self.start is None:
            self.start = block.start
        end = block.start + len(block.token_ids)
        if self.taken:
            return Decision(clamps=CLAMPS, lag=self.lag)
        due = self.phase is Phase.PROMPT or (self.start is not None and end == self.start + self.at)
        if not due:
            return Decision(lag=self.lag)
        self.taken.append(end - self.back if self.phase is Phase.RESPONSE else end)
        return Decision(clamps=CLAMPS, lag=self.lag, restart=self.taken[0])


class TestTakingBack:
    def call(self, run: Running, ids, new, observer) -> Call:
        return run.call(ids, new=new, observer=observer)

    def test_what_follows_equals_a_plain_sequence_clamped_from_its_start(self) -> None:
        exact = loaded_model(dtype=torch.float64)
        with running(loaded_model(), dictionary(), clampable=[40, 41]) as run:
            beside = [run.call(prompt(n), new=14) for n in range(20, 24)]
            calls = [self.call(run, prompt(n), 14, Rewinding()) for n in range(6)]
            finished = [call.finished() for call in calls]
            for call in beside:
                call.finished()
        for call, last in zip(calls, finished, strict=True):
            if not call.observer.taken:
                assert last.reason is FinishReason.STOP
                continue
            keep, count = call.observer.taken[0], len(call.ids)
            plain, _ = plain_generate(exact.model, exact.layers[LAYER], dictionary(), maxima(), call.ids, 14)
            prefix = tuple(plain[:keep])
            wanted, _ = plain_generate(
                exact.model, exact.layers[LAYER], dictionary(), maxima(), prefix, 14 - (keep - count), CLAMPS
            )
            assert [token.token_id for token in call.tokens] == wanted
            assert (last.coverage.tokens_rewound, last.coverage.complete) == (3, True)
            assert last.coverage.tokens_run == len(wanted) + 3
            assert last.released == len(wanted)
        assert any(call.observer.taken for call in calls)

    def test_a_prompt_is_run_again_clamped(self) -> None:
        exact = loaded_model(dtype=torch.float64)
        with running(loaded_model(), dictionary(), clampable=[40, 41]) as run:
            call = run.call(prompt(3), new=6, observer=Rewinding(phase=Phase.PROMPT))
            last = call.finished()
        wanted, _ = plain_generate(
            exact.model, exact.layers[LAYER], dictionary(), maxima(), call.ids, 6, CLAMPS
        )
        assert [token.token_id for token in call.tokens] == wanted
        assert last.coverage.tokens_rewound == 0
        assert last.tokens_clamped == last.coverage.tokens_run == len(wanted)

    def test_nothing_that_was_shown_is_taken_back_and_nothing_waits_at_the_end(self) -> None:
        seen: list[int] = []
        call = Call(prompt(1), Rewinding(at=6, back=4, lag=4))
        with running(loaded_model(), dictionary(), clampable=[40, 41]) as run:

            def emit(event):
                if isinstance(event, Released):
                    seen.extend(token.position for token in event.tokens)
                call.emit(event)

            request = GenerationRequest(
                "a", call.ids, Sampling(max_new_tokens=12), call.observer, include_tokens=True
            )
            run.engine.submit(request, emit)
            last = call.finished()
        assert seen == list(range(last.released))
        assert last.released == last.coverage.tokens_run - last.coverage.tokens_rewound

    def test_a_lag_alone_changes_nothing_but_when(self) -> None:
        with running(loaded_model(), dictionary()) as run:
            plain = run.call(prompt(5), new=20)
            plain.finished()
            stop = plain.text[8:11]
            late = run.call(prompt(5), new=20, observer=Rewinding(at=99, lag=7))
            late.finished()
            stopped = run.call(prompt(5), new=20, observer=Rewinding(at=99, lag=7), stop=(stop,))
            last = stopped.finished()
        assert late.text == plain.text
        assert last.reason is FinishReason.STOP
        assert stopped.text == plain.text[: plain.text.index(stop)]

    def test_a_cancelled_request_is_not_run_again(self) -> None:
        with running(loaded_model(), dictionary(), clampable=[40, 41]) as run:
            call = run.call(prompt(2), new=100, observer=Rewinding(at=2, back=1, lag=2))
            run.engine.cancel("r1")
            assert call.finished().reason in (FinishReason.CANCELLED, FinishReason.STOP)
            after = run.call(prompt(2), new=4)
            assert after.finished().coverage.complete


PROBE = LaterProbe(3, np.linspace(-1, 1, WIDTH, dtype=np.float32), 0.2, 0.5, 4.0)
PLAN = SuppressionPlan("p", (3, 40), PROBE)


class Suppressing(Recorder):
    def begin(self):
        return Decision(clamps=CLAMPS[:2], suppressing=("p",))

    def observe(self, block):
        super().observe(block)
        return self.begin()


class TestVerification:
    def suppressed(self, *, attached=True):
        call = Call(prompt(8), Suppressing())
        with running(loaded_model(), dictionary(), clampable=[40]) as run:
            later = LaterTaps(run_layers(run), run.tap, LAYER)
            run.engine._later = later
            run.engine._buffers.later = torch.zeros(len(run.engine._buffers.readings), COLUMNS)
            if attached:
                later.attach()
            request = GenerationRequest(
                "a", call.ids, Sampling(max_new_tokens=6), call.observer, plans=(PLAN,), include_tokens=True
            )
            run.engine.submit(request, call.emit)
            last = call.finished()
            later.detach()
        (found,) = last.suppressions
        return call, last, found

    def test_what_is_left_and_what_a_later_probe_sees_equal_float64(self) -> None:
        call, last, found = self.suppressed()
        exact, sae, unit = loaded_model(dtype=torch.float64), dictionary(), maxima()
        ids = [token.token_id for token in call.tokens]
        seen = {}

        def clamp(_module, _args, output):
            seen["x"] = output
            seen["y"] = plain_clamp(sae, output, CLAMPS[:2], unit)
            return seen["y"]

        def later(_module, _args, output):
            seen["later"] = output

        handles = [
            exact.layers[LAYER].register_forward_hook(clamp),
            exact.layers[3].register_forward_hook(later),
        ]
        with torch.no_grad():
            exact.model(torch.tensor([ids]), use_cache=False)
        for handle in handles:
            handle.remove()
        columns = [3, 40]
        before = (encode_all(sae, seen["x"])[0, :, columns] / unit[columns]).sum(-1)
        after = (encode_all(sae, seen["y"])[0, :, columns] / unit[columns]).sum(-1)
        assert found.tokens_edited == last.tokens_clamped == len(ids)
        assert found.before == pytest.approx(float(before.mean()), rel=1e-3)
        assert found.after == pytest.approx(float(after.mean()), rel=1e-3, abs=1e-4)
        average, highest, keep = 0.0, -np.inf, 2 ** (-1 / 4)
        for score in (seen["later"][0] @ torch.from_numpy(PROBE.weights).double() + PROBE.bias).tolist():
            average = keep * average + (1 - keep) * score
            highest = max(highest, average)
        assert found.probe_score == pytest.approx(highest, rel=1e-3)

    def test_a_probe_that_did_not_run_never_looks_as_if_it_held(self) -> None:
        _, _, found = self.suppressed(attached=False)
        assert np.isnan(found.probe_score)
        assert found.came_back
        assert not found.held

    @pytest.mark.parametrize(("layer", "width"), [(LAYER, WIDTH), (4, WIDTH), (3, WIDTH + 1)])
    def test_probes_that_cannot_be_read_are_refused(self, layer, width) -> None:
        with running(loaded_model(), dictionary()) as run:
            later = LaterTaps(run_layers(run), run.tap, LAYER)
            with pytest.raises(ModelError, match="policy fit"):
                later.host([LaterProbe(layer, np.ones(width, np.float32), 0.0, 1.0, 4.0)])


def run_layers(run):
    return run.engine._loaded.layers
