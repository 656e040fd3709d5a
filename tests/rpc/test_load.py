"""Many calls at once: none lost, none mixed up, nothing kept."""

import gc
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import DEADLINE


def score(served, number):
    response = served.score(f"call {number} " + ("lie" if number % 7 == 0 else "fine"), include_tokens=True)
    assert response.tokens[2].text == str(number)
    assert response.verdict.matched == (number % 7 == 0)
    return response.request_id


@pytest.mark.slow
def test_no_call_is_lost_or_gets_the_answer_of_another(served):
    with ThreadPoolExecutor(64) as pool:
        ids = list(pool.map(lambda number: score(served, number), range(500)))
    assert len(set(ids)) == 500
    assert served.metric("requests_total", method="Score", code="OK") == 500
    assert served.metric("detections_total", policy="deception") == 72
    assert served.metric("queue_depth") == 0


@pytest.mark.slow
def test_streams_and_scores_share_the_server(served):
    def stream(number):
        messages = list(served.stream(f"stream {number}", max_new_tokens=20))
        return "".join(message.chunk.text for message in messages)

    with ThreadPoolExecutor(32) as pool:
        streams = pool.map(stream, range(100))
        scores = pool.map(lambda number: score(served, number), range(100))
        assert list(streams) == [f"stream {number} " * 10 for number in range(100)]
        assert len(list(scores)) == 100


@pytest.mark.slow
def test_memory_is_flat(served):
    request = pb.ScoreRequest(input=pb.Input(text="the same few words with a lie"), include_tokens=True)

    def many(count):
        for _ in range(count):
            served.stub.Score(request, timeout=DEADLINE)
        served.metric("queue_depth")
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        many(200)
        before = many(200)
        grown = many(1000) - before
    finally:
        tracemalloc.stop()
    assert grown < 200_000
