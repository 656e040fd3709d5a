"""Every token is scored under random requests: a short run of `python -m monitor.bench.coverage`."""

import pytest

from monitor.bench.coverage import CoverageCount, Subject, cover
from tests.model.running import LAYER
from tests.model.tiny import dictionary, loaded_model, maxima


@pytest.mark.slow
@pytest.mark.parametrize(("running", "cache"), [(16, None), (8, 300)])
def test_every_token_is_scored_and_none_is_released_before(running: int, cache: int | None) -> None:
    subject = Subject("tiny", loaded_model(), dictionary(), maxima(), LAYER)
    tally = cover(subject, 3000, running=running, seed=running, cache=cache)
    assert tally.wrong == []
    assert tally.ran == tally.scored > 3000
    assert {"policy", "cancelled", "length", "stop"} <= set(tally.ends)


def test_a_token_that_was_not_scored_would_be_seen() -> None:
    assert not CoverageCount(ran=10, scored=9).complete
    assert not CoverageCount(ran=10, scored=10, wrong=["x"]).complete
    assert CoverageCount(ran=10, scored=10).complete
