"""Server-sent events in chunks of any size."""

import random
import time

import pytest

from monitor.guard.event_stream import Event, EventReader, EventTooLong


def read(data: bytes, sizes=(1, 2, 5, 30), seed=0) -> list[Event]:
    chance, reader, at, found = random.Random(seed), EventReader(1000), 0, []
    while at < len(data):
        size = chance.choice(sizes)
        found += reader.feed(data[at : at + size])
        at += size
    return [*found, *reader.finish()]


@pytest.mark.parametrize("line", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("seed", range(5))
def test_events_are_the_same_wherever_chunks_are_cut(line, seed):
    lines = [
        b"data: one",
        b"",
        b": comment",
        b"",
        b"event: x",
        b"data: two",
        b"data:three",
        b"",
        "data: ü".encode(),
        b"",
    ]
    found = read(line.join(lines) + line, seed=seed)
    assert [event.data for event in found] == [b"one", None, b"two\nthree", "ü".encode()]


def test_an_event_keeps_its_bytes():
    (first, second) = EventReader(100).feed(b"id: 1\ndata: a\n\ndata: b\n\n")
    assert first.raw == b"id: 1\ndata: a\n\n"
    assert second.raw == b"data: b\n\n"


def test_the_last_event_needs_no_empty_line():
    reader = EventReader(100)
    assert reader.feed(b"data: a") == []
    assert [event.data for event in reader.finish()] == [b"a"]
    assert reader.finish() == []


def test_an_event_that_does_not_end_is_refused():
    reader = EventReader(10)
    with pytest.raises(EventTooLong):
        reader.feed(b"data: " + b"x" * 20)


def test_names_and_a_mark_of_byte_order():
    first, second = EventReader(100).feed(b"\xef\xbb\xbfevent: error\ndata: a\n\ndata\n\n")
    assert (first.name, first.data) == (b"error", b"a")
    assert (second.name, second.data) == (b"", b"")


def test_a_long_event_is_not_looked_through_again_for_each_chunk():
    reader, begun = EventReader(16 << 20), time.process_time()
    reader.feed(b"data: ")
    for _ in range(2048):
        assert reader.feed(b"x" * 4096) == []
    (event,) = reader.feed(b"\r\n\r\n")
    assert len(event.data) == 8 << 20
    assert time.process_time() - begun < 3
