"""Every token is scored under random requests: a short run of `python -m monitor.bench.coverage`."""

import pytest

from monitor.bench.coverage import CoverageCount, Subject, cover, cover_on_vllm
from monitor.bench.models import MAKERS
from tests.model.running import LAYER
from tests.model.tiny import dictionary, loaded_model, maxima
from tests.vllm_environment import vllm

__all__ = ["vllm"]


@pytest.mark.slow
@pytest.mark.parametrize(("running", "cache"), [(16, None), (8, 300)])
def test_every_token_is_scored_and_none_is_released_before(running: int, cache: int | None) -> None:
    subject = Subject("tiny", loaded_model(), dictionary(), maxima(), LAYER)
    tally = cover(subject, 3000, running=running, seed=running, cache=cache)
    assert tally.wrong == []
    assert tally.ran == tally.scored > 3000
    assert {"policy", "cancelled", "length", "stop"} <= set(tally.ends)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("overlapping", [False, True], ids=["synchronous", "overlapping"])
@pytest.mark.parametrize(("running", "cache"), [(16, None), (24, 900)])
def test_every_token_is_scored_on_vllm_with_its_prefix_cache(
    vllm: object, running: int, cache: int | None, overlapping: bool
) -> None:
    subject = MAKERS["demo"]("cpu", "float32")
    tally = cover_on_vllm(subject, 1500, running=running, seed=running, cache=cache, overlapping=overlapping)
    assert tally.wrong == []
    assert tally.cached > 1000, "nothing came from the cache, so its tokens were not counted"
    assert tally.ran + tally.cached == tally.scored > 3000
    assert {"policy", "cancelled", "length"} <= set(tally.ends)


def test_tokens_of_a_prefix_cache_that_no_rule_saw_would_be_seen() -> None:
    assert CoverageCount(ran=10, cached=5, scored=15).complete
    assert not CoverageCount(ran=10, cached=5, scored=10).complete


def test_a_token_that_was_not_scored_would_be_seen() -> None:
    assert not CoverageCount(ran=10, scored=9).complete
    assert not CoverageCount(ran=10, scored=10, wrong=["x"]).complete
    assert CoverageCount(ran=10, scored=10).complete
