"""A clamped request changes nothing in its neighbours: bit-identical logits and tokens beside it and beside its
unclamped self, in float32, in passes of the same make-up (CPU kernels may round differently for other batch sizes).
"""

import functools
import threading
from collections.abc import Sequence

import pytest
import torch

from monitor.model.engine import paged
from monitor.model.tap.error_term import ErrorTermDropper
from monitor.records import Clamp, Decision, ErrorTerm, Where
from tests.model.running import running
from tests.model.tiny import Recorder, dictionary, loaded_model, prompt

NEW = 8
KEEP = (Clamp(3, -1.0), Clamp(40, -2.0, Where.EVERYWHERE), Clamp(41, 4.0))
DROP = tuple(Clamp(c.feature, c.target, Where.EVERYWHERE, ErrorTerm.DROP) for c in KEEP)


class Policy(Recorder):
    """Clamps from the third block on."""

    clamps: Sequence[Clamp] = ()

    def observe(self, block):
        super().observe(block)
        return Decision(clamps=tuple(self.clamps) if len(self.blocks) > 2 else ())


@functools.cache
def neighbours(kind: str, clamps: Sequence[Clamp], *, from_policy: bool = False):
    """Logits of every step by request, and tokens, of one request with these clamps and three neighbours."""
    logits: dict[str, list[torch.Tensor]] = {}
    loaded = loaded_model()
    with running(loaded, dictionary(kind), clampable=[40, 41]) as run:
        engine = run.engine
        engine._end_ids = frozenset()
        run.tap.dropper = ErrorTermDropper(dictionary(kind), run.bank.device, run.bank.dtype)
        laid, before, draw = threading.Event(), engine.before, engine.draw
        drawing: list[str] = []

        def note(spans, rows):
            before(spans, rows)
            drawing[:] = [span.request_id for span in spans if span.draws]
            laid.set()

        def keep(scores):
            for name, row in zip(drawing, scores, strict=False):
                logits.setdefault(name, []).append(row.clone())
            return draw(scores)

        engine.before, engine.draw = note, keep
        with loaded.passes:
            # While this pass waits for its lock the others queue up, so that they all begin in the next one.
            first = run.call(prompt(90), new=1)
            assert laid.wait(30)
            observer = Policy()
            observer.clamps = clamps if from_policy else ()
            busy = run.call(prompt(50), new=NEW, clamps=() if from_policy else clamps, observer=observer)
            calls = [run.call(prompt(n), new=NEW) for n in range(3)]
        for call in (first, busy, *calls):
            call.finished()
    return logits, [[token.token_id for token in call.tokens] for call in calls], busy


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jumprelu", "topk", "gated"])
@pytest.mark.parametrize(
    ("clamps", "from_policy"), [(KEEP, False), (DROP, False), (KEEP, True), (DROP, True)]
)
def test_neighbours_are_bit_identical(kind: str, clamps: Sequence[Clamp], from_policy: bool) -> None:
    plain, plain_tokens, _ = neighbours(kind, ())
    beside, tokens, busy = neighbours(kind, clamps, from_policy=from_policy)
    assert busy.finished().tokens_clamped > 0
    assert tokens == plain_tokens
    for name in ("r3", "r4", "r5"):
        assert len(plain[name]) == len(beside[name]) > NEW
        assert all(map(torch.equal, plain[name], beside[name]))
    assert not all(map(torch.equal, plain["r2"], beside["r2"]))


@pytest.mark.slow
def test_a_token_from_another_row_ends_its_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batching library says from which row each request's token is drawn; it must be the request's own last one."""
    right = paged._spans

    def told_wrong(requests, drawn_from):
        return right(requests, {name: row + (name == "r1") for name, row in drawn_from.items()})

    with running(loaded_model(), dictionary()) as run:
        expected = run.call(prompt(3), new=6)
        expected.finished()
        monkeypatch.setattr(paged, "_spans", told_wrong)
        run.count = 0
        wrong, neighbour = run.call(prompt(2), new=6), run.call(prompt(3), new=6)
        assert wrong.finished().error is not None or not wrong.finished().coverage.complete
        assert neighbour.finished().coverage.complete
        assert [t.token_id for t in neighbour.tokens] == [t.token_id for t in expected.tokens]
        assert wrong.text == ""
