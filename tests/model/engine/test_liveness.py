"""Whether the monitor can see: both ways are tried, and everything but a full answer counts as blind."""

import numpy as np
import pytest

from monitor.errors import NotComputed, Overloaded
from monitor.model.engine.liveness import CLEAN, Nobody, can_see
from monitor.model.engine.requests import Finished, Released, ScoreOutcome
from monitor.records import Action, Blocks, Coverage, Failure, FinishReason, Phase, TokenBlock

IDS = (0, 5, 6)
FULL = Coverage(3, 3)


class Scorer:
    """Answers with an outcome, at once or never; `busy`: with so many clean passes since the last fault."""

    def __init__(self, *outcomes, error=None, busy=None):
        self.busy = busy
        self.outcomes, self.error, self.cancelled, self.jobs = outcomes, error, [], []

    def submit(self, job, done):
        if self.error is not None:
            raise self.error
        self.jobs.append(job)
        if self.outcomes:
            done([(job.request_id, outcome) for outcome in self.outcomes])

    def cancel(self, request_id):
        self.cancelled.append(request_id)

    def running(self):
        return int(self.busy is not None)

    def clean_passes(self):
        return self.busy or 0


class Engine(Scorer):
    """Emits events, at once or never."""

    def submit(self, request, emit):
        super().submit(request, lambda found: emit(found))


def scored(coverage=FULL, error=None):
    return ScoreOutcome(coverage=coverage, error=error)


def ended(coverage=FULL, error=None):
    return Finished(FinishReason.LENGTH, coverage, 0, error=error)


def test_a_monitor_that_sees():
    scorer, engine = Scorer(scored()), Engine(Released("a"), ended(Coverage(5, 5)))
    assert can_see(engine, scorer, IDS, 1.0)
    (job,), (request,) = scorer.jobs, engine.jobs
    assert (job.ids, request.prompt_ids) == (IDS, IDS)
    assert job.request_id == request.request_id
    assert (scorer.cancelled, engine.cancelled) == ([job.request_id], [request.request_id])


@pytest.mark.parametrize(
    ("scorer", "engine"),
    [
        (Scorer(scored(Coverage(3, 2))), Engine(ended())),
        (Scorer(scored(Coverage(0, 0))), Engine(ended())),
        (Scorer(scored(error=NotComputed("nan"))), Engine(ended())),
        (Scorer(), Engine(ended())),
        (Scorer(error=Overloaded("full", 1.0)), Engine(ended())),
        (Scorer(scored()), Engine(ended(Coverage(5, 4)))),
        (Scorer(scored()), Engine(ended(error=NotComputed("nan")))),
        (Scorer(scored()), Engine(Released("a"))),
        (Scorer(scored()), Engine(error=Overloaded("full", 1.0))),
    ],
)
def test_everything_else_is_blind(scorer, engine):
    assert not can_see(engine, scorer, IDS, 0.01)


def test_a_busy_queue_is_judged_by_its_passes_and_asked_nothing():
    scorer, engine = Scorer(busy=CLEAN), Engine(busy=CLEAN)
    assert can_see(engine, scorer, IDS, 1.0)
    assert (scorer.jobs, engine.jobs) == ([], [])


@pytest.mark.parametrize("error", [None, Overloaded("full", 1.0)])
def test_too_few_passes_since_a_fault_show_nothing(error):
    assert not can_see(None, Scorer(busy=CLEAN - 1, error=error), IDS, 0.01)


def test_where_nothing_is_generated_the_scorer_is_enough():
    assert can_see(None, Scorer(scored()), IDS, 1.0)


def test_nobody_minds_nothing_but_what_was_not_scored():
    rows = np.array([[0.0], [np.nan]], np.float32)
    blocks = Blocks.of(
        [(0, TokenBlock(Phase.PROMPT, 0, (1, 2), rows)), (0, TokenBlock(Phase.PROMPT, 0, (1,), rows[:1]))]
    )
    (found,) = Nobody().observe_batch(blocks).items()
    assert found[0] == 0
    assert (found[1].action, found[1].failure) == (Action.BLOCK, Failure.NON_FINITE)
    assert Nobody.first.action is Action.ALLOW
