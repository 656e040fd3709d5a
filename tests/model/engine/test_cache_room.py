"""The cache is as large as memory allows, and where it cannot hold one sequence the message says what to set."""

import re

import pytest
import torch

from monitor.errors import ConfigurationError
from monitor.model.engine import cache_room
from monitor.model.engine.cache_room import CacheRoom, NoRoom, room_on
from monitor.model.engine.engine import Engine
from monitor.model.engine.paged import Batcher, Limits
from monitor.model.engine.serial import SeparateBatcher
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.tap import Tap
from tests.model.families import family_model
from tests.model.running import LAYER, WATCHED, running
from tests.model.tiny import dictionary, loaded_model, maxima, prompt

LONG = 1 << 17
"""A context of which a cache for many sequences takes tens of gigabytes even in a tiny model."""


def engine_of(kind: str, context: int, **limits: int) -> Engine:
    loaded = loaded_model() if kind == "llama" else family_model(kind)
    object.__setattr__(loaded, "context", context)
    bank = FeatureBank(dictionary(), maxima(), WATCHED)
    return Engine(loaded, bank, Tap(bank, loaded.layers[LAYER]), limits=Limits(**limits))


class TestArithmetic:
    room = CacheRoom(token_bytes=1000.0, free=10_000_000, usual=5_000_000)

    def test_enough_for_all_where_that_is_little(self) -> None:
        assert self.room.tokens(running=4, context=1000, asked=None) == 4000

    def test_half_of_what_is_free_where_all_is_too_much(self) -> None:
        assert self.room.tokens(running=64, context=1000, asked=None) == 5000

    def test_one_sequence_may_take_more_than_half(self) -> None:
        assert self.room.tokens(running=64, context=8000, asked=None) == 8000

    def test_what_was_asked_for_is_held(self) -> None:
        assert self.room.tokens(running=64, context=1000, asked=8500) == 8500

    @pytest.mark.parametrize(
        ("context", "asked", "advice"),
        [
            (10_000, None, "set context_limit to at most 9000"),
            (1000, 20_000, "set max_cache_tokens to at most 9000"),
            (1000, 900, "set max_cache_tokens to at least 1000, or context_limit to at most 900"),
        ],
    )
    def test_the_message_says_what_to_set(self, context: int, asked: int | None, advice: str) -> None:
        with pytest.raises(NoRoom, match=advice):
            self.room.tokens(running=64, context=context, asked=asked)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "falcon"])
def test_a_long_context_does_not_ask_for_more_than_there_is(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1024 sequences of such a context would take many times the memory that is said to be free."""
    free = 1 << 30
    monkeypatch.setattr(cache_room, "free_memory", lambda _: free)
    engine = engine_of(kind, LONG, running=1024)
    engine.start()
    try:
        batcher = engine._batcher
        if isinstance(batcher, Batcher):
            cache = batcher._processor.cache
            held = cache.num_blocks * Limits().page
            assert cache.cache_tensor.nbytes < free
        else:
            assert isinstance(batcher, SeparateBatcher)
            held = batcher._capacity
        assert LONG <= held < 1024 * LONG
    finally:
        engine.stop(0)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "free"), [("llama", 96 << 20), ("falcon", 24 << 20)])
def test_what_it_says_to_set_works(kind: str, free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_room, "free_memory", lambda _: free)
    engine = engine_of(kind, LONG)
    with pytest.raises(NoRoom, match="context_limit to at most") as refused:
        engine.start()
    advised = re.search(r"context_limit to at most (\d+)", str(refused.value))
    assert advised is not None
    engine = engine_of(kind, int(advised[1]))
    engine.start()
    engine.stop(0)


def test_where_texts_are_only_scored_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_room, "free_memory", lambda _: 0)
    with running(loaded_model(), dictionary(), limits=Limits(running=0)) as run:
        assert run.engine.healthy()
        with pytest.raises(ConfigurationError, match="only scores texts: its setting max_running is 0"):
            run.call(prompt(3))
    assert not run.engine.healthy()


def test_memory_of_the_device_counts_where_it_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (64 << 30, 80 << 30))
    monkeypatch.setattr(cache_room, "free_memory", lambda _: 32 << 30)
    assert room_on(torch.device("cuda", 0), 1.0) == CacheRoom(1.0, 64 << 30, 32 << 30)
    assert room_on(torch.device("cpu"), 1.0, needed=2 << 30) == CacheRoom(1.0, 30 << 30, 4 << 30)
