"""Passes of vLLM as the engine is told of them, without vLLM."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from monitor.model.tap.span import Span
from monitor.vllm.gate import Gate, PassPart
from monitor.vllm.prefixes import TapRows


@dataclass
class Told:
    """`Steps` that note what they are told."""

    befores: list = field(default_factory=list)
    afters: list = field(default_factory=list)
    logits: list = field(default_factory=list)

    def before(self, spans, rows):
        self.befores.append((list(spans), rows))

    def after(self, spans, tokens, ids):
        self.afters.append((list(spans), list(tokens), list(ids)))

    def draw(self, logits):
        self.logits.append(logits)
        return logits.argmax(-1)

    def scored(self, request_id):
        return 0

    def plain(self, request_id):
        return True

    def taken(self, rows):
        return SimpleNamespace(readings=np.zeros((rows, 1), np.float32), read=1, others=None, sinks=None)


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def gate(told):
    return Gate(told)


class Blocks:
    """A prefix cache that knows no block yet."""

    def hashes(self, name):
        return ()


class Memory:
    def layout(self):
        return ()


@pytest.fixture
def sharing(told):
    """A gate that keeps what was read, in blocks of 16 tokens."""
    gate = Gate(told, Memory())
    gate.share(Blocks(), 16, 64)
    return gate


def test_spans_follow_the_rows_of_the_pass(gate, told):
    one, two = gate.admit("one", 5), gate.admit("two", 3)
    gate.lay_out([PassPart(two, 3, 0), PassPart(one, 4, 0)], [7, 8, 9, 1, 2, 3, 4])
    spans, rows = told.befores[0]
    assert rows == 7
    assert spans == [Span("two", 0, 3, 0, True), Span("one", 3, 4, 0, False)]
    gate.passed({two: [50], one: []})
    assert told.afters == [(spans, [50, None], [7, 8, 9, 1, 2, 3, 4])]
    gate.lay_out([PassPart(two, 1, 3), PassPart(one, 1, 4)], [50, 5])
    assert [span.draws for span in told.befores[1][0]] == [True, True]


def test_logits_of_prompts_that_are_not_over_draw_nothing(gate, told):
    one, two = gate.admit("one", 5), gate.admit("two", 3)
    assert gate.draw(torch.zeros(2, 4)) is None
    gate.lay_out([PassPart(one, 4, 0), PassPart(two, 3, 0)], [0] * 7)
    logits = torch.eye(4)[[2, 3]]
    assert gate.draw(logits).tolist() == [0, 3]
    assert torch.equal(told.logits[0], logits[1:])


def test_a_request_that_was_withdrawn_is_dropped_and_not_told_of(gate, told):
    name = gate.admit("one", 3)
    gate.lay_out([PassPart(name, 3, 0)], [1, 2, 3])
    gate.withdraw("one")
    gate.withdraw("one")
    gate.passed({name: [5]})
    assert told.afters[0][1] == [None]
    assert gate.take_gone() == [name]
    assert gate.take_gone() == []
    assert gate.request_of(name) is None


def test_an_id_that_comes_again_is_another_request(gate):
    first = gate.admit("one", 3)
    gate.withdraw("one")
    assert gate.admit("one", 3) != first


def test_a_pass_that_was_not_laid_out_is_an_error(gate):
    with pytest.raises(RuntimeError, match="not laid out"):
        gate.passed({})


def test_more_tokens_than_expected_are_an_error(gate):
    name = gate.admit("one", 5)
    for drawn, part in (
        ([4], PassPart(name, 3, 0)),
        ([], PassPart(name, 5, 0)),
        ([1, 2], PassPart(name, 5, 0)),
    ):
        gate.lay_out([part], [0] * part.count)
        with pytest.raises(RuntimeError, match="expected"):
            gate.passed({name: drawn})


def test_without_a_memory_nothing_is_taken_from_a_cache(gate):
    name = gate.admit("one", 64)
    assert gate.reach(name, [b"a", b"b"], 64) == 0
    with pytest.raises(RuntimeError, match="nobody keeps"):
        gate.share(None, 32, 10)


def test_what_is_withdrawn_while_its_rows_are_kept_leaves_nothing(sharing, monkeypatch):
    """`withdraw` may come from another thread, between the two steps in which a pass keeps the rows of a request."""
    name = sharing.admit("one", 4)
    real, part = TapRows.part, []

    def withdrawn(rows, start, stop):
        if not part:
            part.append(sharing.withdraw("one"))
        return real(rows, start, stop)

    sharing.lay_out([PassPart(name, 3, 0)], [7, 8, 9])
    monkeypatch.setattr(TapRows, "part", withdrawn)
    sharing.passed({name: []})
    assert part
    assert sharing.take_gone() == [name]
    assert not sharing._growing


def test_rows_of_a_hit_that_was_evicted_before_its_first_pass_are_not_shown(gate):
    """VLLM preempts a request that has not run yet, and finds nothing in its cache when it comes again."""
    name = gate.admit("one", 64)
    rows = TapRows((1, 2), np.zeros((2, 1), np.float32), None, np.zeros(2, bool))
    gate._memory, gate._due[name] = object(), [rows]
    shown = []
    gate._replay_pass = lambda waiting, memory: shown.extend(waiting) or []
    gate._replay([PassPart(name, 64, 0)])
    assert not shown
    assert not gate._due


def test_a_block_that_grows_holds_the_rows_of_small_passes_and_copies_those_of_large_ones(sharing):
    one, two = sharing.admit("one", 7), sharing.admit("two", 3)
    sharing.lay_out([PassPart(one, 7, 0), PassPart(two, 3, 0)], list(range(10)))
    sharing.passed({one: [20], two: [21]})
    assert [len(growing.runs[0].rows) for growing in sharing._growing.values()] == [7, 3]
    sharing.lay_out([PassPart(one, 1, 7), PassPart(two, 1, 3)], [20, 21])
    sharing.passed({one: [30], two: [31]})
    first, second = (growing.runs[1] for growing in sharing._growing.values())
    assert first.rows is second.rows
    assert [first.cut().ids, second.cut().ids] == [(20,), (21,)]
