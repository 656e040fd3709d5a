"""The cost of the watching model: both sides run the same tokens, and memory is that of the weights."""

import pytest

from monitor.bench.guard.watcher import PassTimes, Streams, _shares, full_model, measure, watcher
from monitor.bench.models import demo


def test_shares_are_taken_within_a_round():
    found = [(PassTimes(1.0, 2.0), PassTimes(0.5, 1.0)), (PassTimes(2.0, 4.0), PassTimes(1.5, 1.0))]
    assert "share 0.625 (0.500 … 0.750)" in _shares(found, "prompt")
    assert "share 0.375 (0.250 … 0.500)" in _shares(found, "decode")


@pytest.mark.slow
def test_both_sides_are_measured_on_the_same_tokens():
    subject = demo("cpu", "float32")
    assert subject.pair is not None
    layers = len(subject.loaded.layers)
    with watcher(subject, subject.pair, "float32") as (runtime, watch):
        assert len(runtime.loaded.layers) < layers == len(subject.loaded.layers)
        with full_model("tiny", "float32") as full:
            found = measure(full, runtime, watch, 2, 6, 3, 2)
            assert full([[20, 21, 22]], 2).decode > 0
        assert len(found) == 1
        assert all(time > 0 for times in found[0] for time in (times.prompt, times.decode))
        streams = Streams(runtime, watch, 2)
        streams.read([[20, 21, 22], [23, 24, 25]], response=False)
        assert set(streams._scored.values()) == {3}
        streams.end()
        assert not runtime.scorer._streams
