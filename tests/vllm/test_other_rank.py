"""What runs in the process of another rank, here on a thread: what it takes from the first, and what it answers."""

import threading
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest
import torch

from monitor.vllm.gate import PassPart
from monitor.vllm.other_rank import OrderLine, OtherSeat, RankWorker, ToldGate
from monitor.vllm.ranks import END, RankCall, received, send
from monitor.vllm.shared_edits import PassOrder, SharedEdits, mark_of

PARTS, IDS = [PassPart("a", 2, 0), PassPart("b", 1, 5)], [4, 5, 6]


@pytest.fixture
def line():
    """The first rank's end of a line, and the orders at the other."""
    mine, its = Pipe()
    over = threading.Event()
    with mine:
        yield mine, OrderLine(its, over.set)
    assert over.wait(30), "whoever is there would run for ever"


def test_a_pass_is_what_the_first_rank_laid_out(line):
    first, orders = line
    shared = SharedEdits(pytest.fail, static=False)
    gate = ToldGate(orders, shared)
    assert gate.draw(torch.zeros(2, 9)) is None, "between passes, vLLM draws for itself"
    send(first, PassOrder(mark_of(PARTS, IDS), 3, True))
    gate.lay_out(PARTS, IDS)
    assert shared.sharing
    send(first, [7, 8])
    assert gate.draw(torch.zeros(2, 9)).tolist() == [7, 8]
    assert gate.draw(torch.zeros(2, 9)) is None


def test_another_pass_is_an_error(line):
    first, orders = line
    gate = ToldGate(orders, SharedEdits(pytest.fail, static=False))
    send(first, PassOrder(mark_of(PARTS, IDS[::-1]), 3, False))
    with pytest.raises(RuntimeError, match="another pass"):
        gate.lay_out(PARTS, IDS)
    send(first, [7, 8])
    with pytest.raises(RuntimeError, match="sent a list and not a PassOrder"):
        gate.lay_out(PARTS, IDS)


def test_edits_come_from_the_first_rank_at_the_tapped_layer_alone():
    x = torch.ones(3, 4)
    sent = torch.cat([x * 9, torch.tensor([[0.0] * 8, [1.0] * 8, [0.0] * 8])], 1)
    shared = SharedEdits(lambda mine: mine + sent, static=False)
    seat = OtherSeat(2, (3,), shared)
    assert seat.run(x, 2) is None, "a pass without clamps"
    shared.begin(3, clamping=True)
    assert seat.run(x, 3) is None, "a layer of later probes, which the first rank reads"
    clamped, edited = seat.run(x, 2)
    assert edited.squeeze(-1).tolist() == [False, True, False]
    assert clamped[1].tolist() == [9.0] * 4


class Fails:
    """A worker that fails with what it was given."""

    def execute_model(self, given):
        raise ValueError(f"cannot run {given}")

    def load(self, given):
        raise ValueError(f"cannot load {given}")

    def size(self, given):
        return len(given)


def test_calls_are_answered_and_errors_of_passes_quote_nobody(line, monkeypatch):
    first, orders = line
    run = SimpleNamespace(
        run_method=lambda worker, method, args, kwargs: getattr(worker, method)(*args, **kwargs)
    )
    monkeypatch.setitem(__import__("sys").modules, "monitor.vllm.names", run)
    worker = RankWorker(orders, 1)
    worker._worker, worker._shared = Fails(), SharedEdits(pytest.fail, static=False)
    thread = threading.Thread(target=worker.serve, daemon=True)
    thread.start()
    send(first, RankCall("size", ("text",)))
    assert received(first) == (True, 4)
    send(first, RankCall("load", ("weights",)))
    done, why = received(first)
    assert not done
    assert "ValueError cannot load weights" in why
    send(first, RankCall("execute_model", ("a secret",)))
    done, why = received(first)
    assert not done
    assert "ValueError" in why
    assert "execute_model" in why, "it says where"
    assert "secret" not in why
    send(first, RankCall(END))
    thread.join(30)
    assert not thread.is_alive()
