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
    flights: list = field(default_factory=list)
    back: list = field(default_factory=list)
    replayed: list = field(default_factory=list)
    seen: int = 0
    clean: bool = True

    def before(self, spans, rows):
        self.befores.append((list(spans), rows))

    def after(self, spans, tokens, ids):
        self.afters.append((list(spans), list(tokens), list(ids)))

    def draw(self, logits):
        self.logits.append(logits)
        return logits.argmax(-1)

    def scored(self, request_id):
        return self.seen

    def plain(self, request_id):
        return self.clean

    def taken(self, rows):
        return SimpleNamespace(readings=np.zeros((rows, 1), np.float32), read=1, others=None, sinks=None)

    def launched(self):
        self.flights.append("launched")

    def landed(self):
        self.flights.append("landed")

    def taken_back(self):
        found, self.back = self.back, []
        return found

    def replay(self, spans, taken, ids):
        assert list(taken) == list(ids)
        for span in spans:
            ran = ids[span.first : span.first + span.count]
            self.replayed.append((span.request_id, span.position, list(ran)))
            self.seen = span.position + span.count


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def gate(told):
    return Gate(told)


class Blocks:
    """A prefix cache that knows no block yet."""

    def __init__(self):
        self.parted = []

    def hashes(self, name):
        return ()

    def part(self, name, tokens):
        self.parted.append((name, tokens))


class Memory:
    def layout(self):
        return ()

    def taken(self, rows):
        return rows.ids


def run(gate, parts, ids):
    """A pass that is laid out and launched."""
    gate.lay_out(parts, ids)
    gate.launched(torch.tensor([*ids, 99, 99]))


@pytest.fixture
def sharing(told):
    """A gate that keeps what was read, in blocks of 16 tokens."""
    gate = Gate(told, Memory())
    gate.share(Blocks(), 16, 64)
    return gate


def test_spans_follow_the_rows_of_the_pass(gate, told):
    one, two = gate.admit("one", 5), gate.admit("two", 3)
    run(gate, [PassPart(two, 3, 0), PassPart(one, 4, 0)], [7, 8, 9, 1, 2, 3, 4])
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
    run(gate, [PassPart(name, 3, 0)], [1, 2, 3])
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
    for drawn, count in (([4], 3), ([], 5), ([1, 2], 5)):
        gate.withdraw("one")
        name = gate.admit("one", 5)
        run(gate, [PassPart(name, count, 0)], [0] * count)
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

    run(sharing, [PassPart(name, 3, 0)], [7, 8, 9])
    monkeypatch.setattr(TapRows, "part", withdrawn)
    sharing.passed({name: []})
    assert part
    assert sharing.take_gone() == [name]
    assert not sharing._growing


def test_a_block_that_grows_holds_the_rows_of_small_passes_and_copies_those_of_large_ones(sharing):
    one, two = sharing.admit("one", 7), sharing.admit("two", 3)
    run(sharing, [PassPart(one, 7, 0), PassPart(two, 3, 0)], list(range(10)))
    sharing.passed({one: [20], two: [21]})
    assert [len(growing.runs[0].rows) for growing in sharing._growing.values()] == [7, 3]
    run(sharing, [PassPart(one, 1, 7), PassPart(two, 1, 3)], [20, 21])
    sharing.passed({one: [30], two: [31]})
    first, second = (growing.runs[1] for growing in sharing._growing.values())
    assert first.rows is second.rows
    assert [first.cut().ids, second.cut().ids] == [(20,), (21,)]


def test_what_a_pass_ran_is_kept_when_the_next_is_launched(gate, told):
    """Two passes at once: each is told of with its own tokens, in order, though one buffer holds the ids of both."""
    name, ids = gate.admit("one", 3), torch.zeros(8, dtype=torch.int32)
    for position, count, value in ((0, 3, 7), (3, 1, 8), (4, 1, 9)):
        gate.lay_out([PassPart(name, count, position)], [])
        ids.fill_(value)
        gate.launched(ids)
    assert [span.draws for spans, _ in told.befores for span in spans] == [True] * 3
    for drawn in (20, 21, 22):
        gate.passed({name: [drawn]})
    assert [(tokens, ids) for _, tokens, ids in told.afters] == [([20], [7, 7, 7]), ([21], [8]), ([22], [9])]
    assert told.flights == ["launched"] * 3 + ["landed"] * 3
    with pytest.raises(RuntimeError, match="not laid out"):
        gate.passed({name: [23]})


def test_a_pass_that_was_laid_out_and_not_launched_is_an_error(gate):
    name = gate.admit("one", 3)
    gate.lay_out([PassPart(name, 3, 0)], [1, 2, 3])
    with pytest.raises(RuntimeError, match="not laid out"):
        gate.passed({name: [5]})
    assert gate.launched(torch.zeros(3)) is None
    assert gate.draw(torch.zeros(1, 4)) is None


@pytest.mark.parametrize("launched", [True, False])
def test_what_is_taken_back_is_not_told_of_and_runs_again(sharing, told, launched):
    """`launched`: else the pass in question is laid out and its tokens are drawn later, as with structured output."""
    one, two = sharing.admit("one", 3), sharing.admit("two", 3)
    run(sharing, [PassPart(one, 3, 0), PassPart(two, 3, 0)], [1, 2, 3, 4, 5, 6])
    sharing.lay_out([PassPart(one, 1, 3), PassPart(two, 1, 3)], [])
    further = torch.tensor([20, 21])
    if launched:
        sharing.launched(further)
    told.back = ["two"]
    sharing.passed({one: [20], two: [21]})
    assert sharing.take_returned() == [two]
    assert sharing.take_returned() == []
    assert sharing._blocks.parted == [(two, 3)]
    if not launched:
        sharing.launched(further)
    # What it drew for the second is whatever vLLM says.
    sharing.passed({one: [30], two: []})
    assert [tokens for _, tokens, _ in told.afters] == [[20, 21], [30, None]]
    assert {name: growing.held for name, growing in sharing._growing.items()} == {one: 4}
    run(sharing, [PassPart(two, 4, 0)], [4, 5, 6, 21])
    assert told.befores[-1][0] == [Span("two", 0, 4, 0, True)]


def test_a_request_that_begins_to_be_clamped_shares_no_further_block(sharing, told):
    name = sharing.admit("one", 20)
    run(sharing, [PassPart(name, 18, 0)], [0] * 18)
    told.clean = False
    sharing.passed({name: []})
    assert sharing._blocks.parted == [(name, 18)]
    assert sharing.take_returned() == []


def kept(sharing, count):
    """The rows of so many blocks of 16 tokens, known by their numbers."""
    for number in range(count):
        ids = tuple(range(16 * number, 16 * number + 16))
        rows = TapRows(ids, np.zeros((16, 1), np.float32), None, np.zeros(16, bool))
        sharing._rows.put(b"%d" % number, (), rows)
    return [b"%d" % number for number in range(9)]


def test_a_hit_is_shown_once_it_is_scheduled(sharing, told):
    name, blocks = sharing.admit("one", 70), kept(sharing, 3)
    assert sharing.reach(name, blocks, 64) == 48
    sharing.show_hits([])
    assert not told.replayed, "it was not scheduled, and comes again"
    assert sharing.reach(name, blocks, 64) == 48
    sharing.show_hits([name, "another"])
    sharing.show_hits([name])
    assert told.replayed == [("one", 0, list(range(48)))]
    assert told.befores == []


def test_of_a_hit_what_was_scored_is_not_shown_again(sharing, told):
    name, blocks = sharing.admit("one", 70), kept(sharing, 4)
    told.seen = 20
    assert sharing.reach(name, blocks, 16) == 16
    assert sharing.reach(name, blocks, 48) == 48
    sharing.show_hits([name])
    assert told.replayed == [("one", 20, list(range(20, 48)))]
    assert sharing.reach(name, blocks, 32) == 32
    sharing.show_hits([name])
    assert len(told.replayed) == 1


def test_hits_of_many_are_shown_together_and_long_ones_in_parts(sharing, told, monkeypatch):
    blocks, batches, replay = kept(sharing, 3), [], told.replay
    monkeypatch.setattr(
        told, "replay", lambda spans, *rest: (batches.append(len(spans)), replay(spans, *rest))
    )
    monkeypatch.setattr("monitor.vllm.gate._SHOWN", 40)
    names = [sharing.admit(name, 70) for name in ("one", "two", "three")]
    for name, tokens in zip(names, (16, 48, 32), strict=True):
        assert sharing.reach(name, blocks, tokens) == tokens
    sharing.show_hits(names)
    assert batches == [2, 2, 1]
    assert told.replayed == [
        ("one", 0, list(range(16))),
        ("two", 0, list(range(24))),
        ("two", 24, list(range(24, 48))),
        ("three", 0, list(range(16))),
        ("three", 16, list(range(16, 32))),
    ]


def test_no_hit_is_shown_without_a_row(sharing, told, monkeypatch):
    """Where those before it fill what is shown at once."""
    blocks = kept(sharing, 3)
    monkeypatch.setattr("monitor.vllm.gate._SHOWN", 32)
    names = [sharing.admit(name, 70) for name in ("one", "two")]
    for name in names:
        told.seen = 0
        assert sharing.reach(name, blocks, 32) == 32
    sharing.show_hits(names)
    assert told.replayed == [("one", 0, list(range(32))), ("two", 0, list(range(32)))]


def test_a_hit_of_a_request_that_is_withdrawn_is_shown_to_nobody(sharing, told):
    name, blocks = sharing.admit("one", 70), kept(sharing, 3)
    assert sharing.reach(name, blocks, 64) == 48
    sharing.withdraw("one")
    sharing.take_gone()
    sharing.show_hits([name])
    assert not told.replayed
    assert sharing.reach(name, blocks, 64) == 0


def test_what_is_clamped_for_takes_what_was_scored_alone(sharing, told):
    name, blocks = sharing.admit("one", 70), kept(sharing, 4)
    told.seen, told.clean = 40, False
    assert sharing.reach(name, blocks, 64) == 32
    assert sharing.reach(name, blocks, 32) == 32
    sharing.show_hits([name])
    assert not told.replayed


def test_clamps_that_a_hit_brings_make_the_blocks_behind_it_the_requests_own(sharing, told, monkeypatch):
    name, blocks = sharing.admit("one", 70), kept(sharing, 3)
    monkeypatch.setattr(told, "replay", lambda *_: setattr(told, "clean", False))
    assert sharing.reach(name, blocks, 64) == 48
    sharing.show_hits([name])
    assert sharing._blocks.parted == [(name, 48)]
