"""Sequences that are read as they grow: each token once, as one pass over the whole reads it, whoever runs beside."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from monitor.errors import BadRequest, MonitoringFailed, Overloaded, TooLong, Unavailable
from monitor.model.engine import streams
from monitor.model.engine.requests import Lease, ScoreJob, StreamJob, StreamRead
from monitor.model.engine.streams import StreamScorer
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.tap import Tap
from monitor.records import Action, Decision, Failure, Phase
from tests.model.engine.test_scorer import Waiting, plain
from tests.model.families import RECURRENT, family_model
from tests.model.load import test_rope
from tests.model.running import LAYER, WATCHED
from tests.model.tiny import CONFIGS, CONTEXT, Recorder, dictionary, loaded_model, maxima, prompt
from tests.waiting import wait_for


@contextmanager
def reading(kind: str = "llama", loaded=None, **options: object) -> Iterator[tuple[StreamScorer, Tap]]:
    loaded = loaded or loaded_model(kind)
    bank = FeatureBank(dictionary(), maxima(), WATCHED)
    tap = Tap(bank, loaded.layers[LAYER])
    scorer = StreamScorer(loaded, bank, tap, **{"batch_tokens": 64, "held_tokens": 4096} | options)
    tap.attach()
    scorer.start()
    try:
        yield scorer, tap
    finally:
        scorer.stop(5)
        tap.detach()


class Reader:
    """One stream, and what came of it."""

    def __init__(self, scorer: StreamScorer, name: str, observer: Recorder | None = None, **options: object):
        self.scorer, self.name = scorer, name
        self.observer = observer or Recorder()
        self.reads: list[StreamRead] = []
        self.fed = 0
        self._new = threading.Condition()
        scorer.open_stream(StreamJob(name, self.observer, self.observer, **options), self._take)

    def _take(self, reads: Sequence[tuple[str, StreamRead]]) -> None:
        with self._new:
            self.reads += [read for name, read in reads if name == self.name]
            self._new.notify_all()

    def feed(self, ids: Sequence[int], *, response: bool = False) -> None:
        self.fed += len(ids)
        self.scorer.feed(self.name, ids, response=response)

    def read(self) -> StreamRead:
        """How far it was read, once all that was fed has run."""
        with self._new:
            done = self._new.wait_for(
                lambda: (
                    self.reads and (self.reads[-1].error or self.reads[-1].coverage.tokens_run == self.fed)
                ),
                60,
            )
        assert done
        return self.reads[-1]

    @property
    def readings(self) -> np.ndarray:
        return np.concatenate([block.readings for block in self.observer.blocks])


def parts_of(ids: Sequence[int], seed: int) -> list[Sequence[int]]:
    """A sequence in random parts, of which many hold one token."""
    chance, parts, at = random.Random(seed), [], 0
    while at < len(ids):
        size = 1 if chance.random() < 0.6 else chance.randrange(1, 30)
        parts.append(ids[at : at + size])
        at += size
    return parts


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
def test_streams_beside_each_other_read_what_one_pass_over_each_reads(kind: str) -> None:
    texts = {f"s{n}": prompt(n, longest=100) for n in range(7)}
    with reading(kind) as (scorer, _):
        assert scorer.why_separate == ""
        readers = {name: Reader(scorer, name) for name in texts}
        parts = {name: parts_of(ids, len(ids)) for name, ids in texts.items()}
        for turn in range(max(map(len, parts.values()))):
            for name, mine in parts.items():
                if turn < len(mine):
                    readers[name].feed(mine[turn], response=turn > 0)
            if turn % 3 == 0:
                for reader in readers.values():
                    reader.read()
        for name, ids in texts.items():
            found = readers[name].read()
            assert found.coverage.complete
            assert found.coverage.tokens_run == len(ids)
            assert [i for b in readers[name].observer.blocks for i in b.token_ids] == list(ids)
            np.testing.assert_allclose(
                readers[name].readings, plain(kind, "jumprelu", ids), rtol=1e-4, atol=1e-5
            )
            scorer.end_stream(name)


def test_a_stream_says_whose_words_its_tokens_are() -> None:
    with reading() as (scorer, _):
        reader = Reader(scorer, "a")
        reader.feed((0, 5, 6))
        reader.feed((7,), response=True)
        reader.feed((8, 9), response=True)
        reader.read()
        scorer.end_stream("a")
    shown = [(b.phase, i) for b in reader.observer.blocks for i in b.token_ids]
    assert shown == [*((Phase.PROMPT, i) for i in (0, 5, 6)), *((Phase.RESPONSE, i) for i in (7, 8, 9))]
    starts = [b.start for b in reader.observer.blocks]
    assert starts == sorted(starts)
    assert starts[0] == 0


def test_a_pass_reads_many_streams_and_texts_take_turns_with_them() -> None:
    with reading() as (scorer, _):
        readers = [Reader(scorer, f"s{n}") for n in range(8)]
        with scorer._loaded.passes:  # nothing runs meanwhile
            before = scorer.passes()
            for reader in readers:
                reader.feed((0, 3, 4))
            waiting = Waiting(scorer)
            waiting.submit("text", prompt(3))
        for reader in readers:
            reader.read()
        assert waiting.result("text").coverage.complete
        assert scorer.passes() - before <= 4
        for reader in readers:
            scorer.end_stream(reader.name)


def test_a_part_that_is_longer_than_a_pass_runs_in_several() -> None:
    ids = prompt(1, longest=2)[:1] + tuple(range(2, 120))
    with reading() as (scorer, _):
        reader = Reader(scorer, "long")
        reader.feed(ids)
        assert reader.read().coverage.complete
        scorer.end_stream("long")
    assert len(reader.reads) > 1
    np.testing.assert_allclose(reader.readings, plain("llama", "jumprelu", ids), rtol=1e-4, atol=1e-5)


def test_what_is_no_number_in_one_stream_reaches_no_other() -> None:
    with reading() as (scorer, _):
        embedding = scorer._loaded.model.get_input_embeddings().weight
        with torch.no_grad():
            embedding[77] = torch.nan
        sick, well = Reader(scorer, "sick"), Reader(scorer, "well")
        with scorer._loaded.passes:
            sick.feed((0, 77, 5))
            well.feed((0, 4, 5))
        assert well.read().coverage.complete
        found = sick.read()
        assert found.coverage.tokens_scored < found.coverage.tokens_run
        assert found.action is Action.BLOCK
        assert sick.observer.failures == [Failure.NON_FINITE]
        for name in ("sick", "well"):
            scorer.end_stream(name)


def test_a_pass_that_fails_ends_the_stream_whose_fault_it_is() -> None:
    ids = (0, *range(3, 30))
    with reading() as (scorer, _):

        def crash(_module: object, args: tuple) -> None:
            if (args[0] == 99).any():
                raise RuntimeError("no memory")

        handle = scorer._loaded.model.get_input_embeddings().register_forward_pre_hook(crash)
        bad, good = Reader(scorer, "bad"), Reader(scorer, "good")
        with scorer._loaded.passes:
            bad.feed((0, 5))
            good.feed(ids[:9])
        good.read(), bad.read()
        with scorer._loaded.passes:
            bad.feed((99,), response=True)
            good.feed(ids[9:], response=True)
        assert good.read().coverage.complete
        found = bad.read()
        assert isinstance(found.error, MonitoringFailed)
        assert not found.coverage.complete
        assert bad.observer.failures == [Failure.PASS_FAILED]
        handle.remove()
        np.testing.assert_allclose(good.readings, plain("llama", "jumprelu", ids), rtol=1e-4, atol=1e-5)
        bad.scorer.feed("bad", (4,), response=True)  # which has ended, so that nothing comes of it
        for name in ("bad", "good"):
            scorer.end_stream(name)


def test_a_missing_tap_is_told_and_never_clean() -> None:
    with reading() as (scorer, tap):
        reader = Reader(scorer, "a", Recorder(on_error=Action.ALLOW))
        reader.feed((0, 3))
        reader.read()
        tap.detach()
        reader.feed((4, 5), response=True)
        found = reader.read()
        assert (found.coverage.tokens_run, found.coverage.tokens_scored) == (4, 2)
        assert (found.action, found.error) == (Action.ALLOW, None)
        scorer.end_stream("a")
    assert reader.observer.failures == [Failure.TAP_MISSED]


def test_the_strongest_action_stays_and_detections_come_once() -> None:
    with reading() as (scorer, _):
        recorder = Recorder(Decision(action=Action.ALERT))
        reader = Reader(scorer, "a", recorder)
        reader.feed((0, 3))
        assert reader.read().action is Action.ALERT
        recorder.decision = Decision()
        reader.feed((5,), response=True)
        assert reader.read().action is Action.ALERT
        scorer.end_stream("a")


def test_a_stream_ends_at_the_models_context() -> None:
    with reading() as (scorer, _):
        reader = Reader(scorer, "a")
        reader.feed((0, *range(2, CONTEXT + 1)))
        with pytest.raises(TooLong):
            scorer.feed("a", (3,), response=True)
        assert reader.read().coverage.tokens_run == CONTEXT
        scorer.end_stream("a")


def test_there_is_room_for_so_many_streams_and_tokens() -> None:
    with reading(streams=2, held_tokens=10) as (scorer, _):
        first = Reader(scorer, "a")
        Reader(scorer, "b")
        with pytest.raises(Overloaded):
            Reader(scorer, "c")
        scorer.end_stream("b")
        first.feed((0, *range(2, 12)))
        with pytest.raises(Overloaded, match="memory"):
            Reader(scorer, "c")
        scorer.end_stream("a")
        Reader(scorer, "c").feed((0, 1))
        scorer.end_stream("c")


def test_streams_that_grow_stay_within_their_memory() -> None:
    with reading(held_tokens=CONTEXT) as (scorer, _):
        first, second = Reader(scorer, "a"), Reader(scorer, "b")
        first.feed((0, *range(2, 101)))
        second.feed((0, *range(2, CONTEXT - 99)))
        with pytest.raises(Overloaded, match="memory"):
            scorer.feed("b", (5,), response=True)
        scorer.end_stream("a")
        second.feed((5,), response=True)
        assert second.read().coverage.complete
        scorer.end_stream("b")
        assert scorer._given == 0


def test_what_a_stream_held_is_free_when_it_ends() -> None:
    released = []
    with reading() as (scorer, _):
        lease = Lease(slice(0, len(WATCHED)), lambda: released.append(True))
        reader = Reader(scorer, "a", lease=lease)
        lease.release()
        assert not released
        reader.feed((0, 3, 4))
        reader.read()
        wait_for(lambda: scorer.running() == 0)
        scorer.end_stream("a")
        assert released == [True]
        assert not scorer._streams
        scorer.end_stream("a")


def test_a_stream_that_ends_while_it_runs_is_freed_after_the_pass() -> None:
    released = []
    with reading() as (scorer, _):
        lease = Lease(slice(0, len(WATCHED)), lambda: released.append(True))
        reader = Reader(scorer, "a", lease=lease)
        lease.release()
        with scorer._loaded.passes:
            reader.feed((0, 3, 4))
            wait_for(lambda: scorer._reading == 1)
            scorer.end_stream("a")
            assert not released
        wait_for(lambda: released == [True])


def test_stopping_ends_streams_and_refuses_new_ones() -> None:
    with reading() as (scorer, _):
        reader = Reader(scorer, "a")
        reader.feed((0, 3))
        reader.read()
        scorer.stop(5)
        assert isinstance(reader.reads[-1].error, Unavailable)
        with pytest.raises(Unavailable):
            Reader(scorer, "b")
        scorer.end_stream("a")


@pytest.mark.parametrize("kind", sorted(RECURRENT)[:1])
def test_a_model_that_forgets_reads_no_streams(kind: str) -> None:
    with reading(loaded=family_model(kind)) as (scorer, _):
        assert scorer.why_whole
        with pytest.raises(BadRequest, match="in parts"):
            Reader(scorer, "a")


def test_a_model_without_ragged_passes_reads_one_stream_a_pass() -> None:
    with reading() as (scorer, _):
        scorer._ragged.why_separate = "as a test"
        texts = [prompt(n, longest=60) for n in range(3)]
        readers = [Reader(scorer, f"s{n}") for n in range(3)]
        for reader, ids in zip(readers, texts, strict=True):
            for part in parts_of(ids, 3):
                reader.feed(part)
        for reader, ids in zip(readers, texts, strict=True):
            assert reader.read().coverage.complete
            np.testing.assert_allclose(reader.readings, plain("llama", "jumprelu", ids), rtol=1e-4, atol=1e-5)
            scorer.end_stream(reader.name)


def test_frequencies_that_depend_on_the_length_bound_a_stream() -> None:
    """What was kept of a sequence is of no use once it is so long that all of it would be read otherwise."""
    with reading(loaded=test_rope.model("phi3")) as (scorer, _):
        assert scorer.longest_stream == test_rope.SHORT
        reader = Reader(scorer, "a")
        ids = test_rope.text(test_rope.SHORT)
        for part in parts_of(ids, 1):
            reader.feed(part)
        with pytest.raises(TooLong):
            scorer.feed("a", (3,), response=True)
        assert reader.read().coverage.complete
        scorer.end_stream("a")
        waiting = Waiting(scorer)
        waiting.submit("whole", ids)
        waiting.result("whole")
        np.testing.assert_allclose(
            reader.readings, waiting.observers["whole"].blocks[0].readings, rtol=1e-4, atol=1e-5
        )


def test_texts_are_still_scored_as_ever() -> None:
    with reading() as (scorer, _):
        waiting = Waiting(scorer)
        recorder = Recorder()
        waiting.observers["a"], waiting.events["a"] = recorder, threading.Event()
        scorer.submit(ScoreJob("a", prompt(3), recorder, recorder), waiting.done)
        assert waiting.result("a").coverage.complete
        np.testing.assert_allclose(
            recorder.blocks[0].readings, plain("llama", "jumprelu", prompt(3)), rtol=1e-4, atol=1e-5
        )


def test_a_share_that_cannot_be_given_back_ends_no_other_stream() -> None:
    def stuck() -> None:
        raise KeyError("planted")

    with reading() as (scorer, _):
        lease = Lease(slice(0, len(WATCHED)), stuck)
        reader = Reader(scorer, "a", lease=lease)
        lease.release()
        with scorer._loaded.passes:
            reader.feed((0, 3, 4))
            wait_for(lambda: scorer._reading == 1)
            scorer.end_stream("a")  # so that it is the scorer's thread that gives it back
        sound = Reader(scorer, "b")
        sound.feed((0, 3, 4))
        assert sound.read().coverage.complete
        assert scorer.healthy()


def test_a_stream_whose_result_cannot_be_told_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = streams._ReadStream.ran

    def fail(stream: streams._ReadStream, *given: object) -> None:
        if stream.job.request_id == "broken":
            raise IndexError
        ran(stream, *given)

    monkeypatch.setattr(streams._ReadStream, "ran", fail)
    with reading() as (scorer, _):
        with scorer._loaded.passes:
            readers = {name: Reader(scorer, name) for name in ("first", "broken", "sound")}
            readers["first"].feed((0, 3))
            wait_for(lambda: scorer._reading == 1)
            readers["broken"].feed((0, 3, 4))
            readers["sound"].feed((0, 3, 4))
        assert readers["sound"].read().coverage.complete
        wait_for(lambda: readers["broken"].reads)
        assert readers["broken"].reads[-1].error.cause is Failure.PASS_FAILED
        assert readers["broken"].reads[-1].action is Action.BLOCK
        assert scorer.healthy()
