"""The ways of running that are compared: each generates every token, and ours scores them all."""

import pytest

from monitor.bench.models import demo
from monitor.bench.variants import limits, variants

PROMPTS = [[0, 5, 6, 7], [0, 8, 9]]


@pytest.fixture(scope="module")
def subject():
    return demo("cpu", "auto")


def test_sizes_hold_all_sequences_and_one_that_fills_the_context(subject):
    assert limits(subject, 4, 10).cache_tokens == subject.loaded.context
    size = limits(subject, 64, 100)
    assert (size.running, size.cache_tokens) == (64, 6400)


def test_all_are_there_in_order(subject):
    assert list(variants(subject, limits(subject, 2, 20))) == [
        "bare",
        "watched",
        "clamped",
        "in turns",
        "full hook",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bare", "watched", "clamped", "in turns", "full hook"])
def test_each_generates_what_it_is_asked_for(subject, name):
    with variants(subject, limits(subject, 2, 20))[name]() as run:
        assert run(PROMPTS, 3) > 0
        assert run(PROMPTS[:1], 2) > 0
