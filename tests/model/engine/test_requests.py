"""Requests and what comes back: a hold on slots goes with its last holder."""

import threading

from monitor.model.engine.liveness import Nobody
from monitor.model.engine.requests import Finished, GenerationRequest, Lease, Released, ScoreOutcome
from monitor.records import Coverage, FinishReason, Sampling


def test_slots_are_given_back_once_by_the_last_who_holds_them():
    given = []
    lease = Lease(slice(0, 3), lambda: given.append(1))
    lease.acquire()
    lease.acquire()
    for expected in ([], [], [1]):
        lease.release()
        assert given == expected


def test_many_threads_give_back_once():
    given = []
    lease = Lease(slice(0, 3), lambda: given.append(1))

    def work():
        for _ in range(500):
            lease.acquire()
            lease.release()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert given == []
    lease.release()
    assert given == [1]


def test_what_is_left_out():
    request = GenerationRequest("r", (0, 1), Sampling(), Nobody(), Nobody())
    assert (request.clamps, request.plans, request.include_tokens, request.lease) == ((), (), False, None)
    assert request.admitted() is None
    assert request.logprobs is None
    assert Released("a") == ("a", None, (), 0, ())
    end = Finished(FinishReason.STOP, Coverage(3, 3), 3)
    assert (end.tokens_generated, end.suppressions, end.error) == (0, (), None)
    assert ScoreOutcome(coverage=Coverage(3, 3)).error is None
