"""What is left after a clamp, and what a probe on a later layer sees, against plain float64."""

import sys
import threading
from itertools import repeat

import numpy as np
import pytest
import torch

from monitor.model.engine.requests import GenerationRequest
from monitor.model.tap.late_probes import COLUMNS, LaterTaps
from monitor.records import Clamp, Decision, LaterProbe, Sampling, SuppressionPlan, Where
from tests.model.running import LAYER, Call, running
from tests.model.tiny import (
    WIDTH,
    Recorder,
    dictionary,
    encode_all,
    loaded_model,
    maxima,
    plain_clamped,
    prompt,
)

CLAMPS = (Clamp(3, -1.0), Clamp(40, -2.0, Where.EVERYWHERE), Clamp(41, 0.5))
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
            buffers = run.engine._work.buffers
            buffers.later = torch.zeros(len(buffers.readings), COLUMNS)
            if attached:
                later.attach()
            request = GenerationRequest(
                "a",
                call.ids,
                Sampling(max_new_tokens=6),
                call.observer,
                call.observer,
                plans=(PLAN,),
                include_tokens=True,
            )
            run.engine.submit(request, call.emit)
            last = call.finished()
            later.detach()
        (found,) = last.suppressions
        return call, last, found

    @pytest.mark.slow
    def test_what_is_left_and_what_a_later_probe_sees_equal_float64(self) -> None:
        call, last, found = self.suppressed()
        exact, sae, unit = loaded_model(dtype=torch.float64), dictionary(), maxima()
        ids = [token.token_id for token in call.tokens]
        seen = {}

        def clamp(_module, _args, output):
            seen["x"] = output
            seen["y"] = plain_clamped(sae, output, CLAMPS[:2], unit)
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
        before = (encode_all(sae, seen["x"])[0, 1:, columns] / unit[columns]).sum(-1)
        after = (encode_all(sae, seen["y"])[0, 1:, columns] / unit[columns]).sum(-1)
        assert found.tokens_edited == last.tokens_clamped == len(ids) - 1
        assert found.before == pytest.approx(float(before.mean()), rel=1e-3)
        assert found.after == pytest.approx(float(after.mean()), rel=1e-3, abs=1e-4)
        average, highest, keep = 0.0, -np.inf, 2 ** (-1 / 4)
        for score in (seen["later"][0, 1:] @ torch.from_numpy(PROBE.weights).double() + PROBE.bias).tolist():
            average = keep * average + (1 - keep) * score
            highest = max(highest, average)
        assert found.probe_score == pytest.approx(highest, rel=1e-3)

    def test_a_probe_that_did_not_run_never_looks_as_if_it_held(self) -> None:
        _, _, found = self.suppressed(attached=False)
        assert np.isnan(found.probe_score)
        assert found.came_back
        assert not found.held

    def test_a_probe_that_is_read_is_found_while_others_ask_for_it(self) -> None:
        probe = LaterProbe(2, np.ones(WIDTH, np.float32), 0.0, 1.0, 4.0)
        with running(loaded_model(), dictionary()) as run:
            later = LaterTaps(run_layers(run), run.tap, 1)
        later.add([probe])
        wanted, interval = repeat(probe, 20_000), sys.getswitchinterval()
        other = threading.Thread(target=lambda: [later.add([one]) for one in wanted])
        sys.setswitchinterval(1e-6)
        try:
            other.start()
            found = set()
            while other.is_alive():
                found.add(later.column(probe))
        finally:
            sys.setswitchinterval(interval)
            other.join(60)
        assert found == {0}

    @pytest.mark.slow
    def test_what_comes_after_the_capture_is_not_read(self) -> None:
        old = LaterProbe(2, np.ones(WIDTH, np.float32), 0.0, 1.0, 4.0)
        new = LaterProbe(2, np.ones(WIDTH, np.float32), 1.0, 1.0, 4.0)
        with running(loaded_model(), dictionary()) as run:
            later = LaterTaps(run_layers(run), run.tap, 1)
            later.add([old])
            later.freeze()
            later.acquire([old, new])
            assert later.column(old) == 0
            assert later.column(new) is None


def run_layers(run):
    return run.engine._loaded.layers
