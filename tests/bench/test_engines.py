"""Rounds that go from process to process, without the engines."""

import io
import json
import time
from dataclasses import asdict

import pytest

from monitor.bench.engines import Answered, Child, RoundPlan, RoundTimes, answer, prompts_of, show, take_turns

ASKED = RoundPlan(count=3, prompt_tokens=10, new_tokens=4, shared=0.8, seed=1)


class Counting:
    def __init__(self, name, order):
        self.name, self.order = name, order

    def run(self, asked):
        self.order.append((asked.seed, self.name))
        return Answered(1.0 + (self.name == "b"), [0.1, 0.2], [0.01, 0.02, 0.03])


def test_turns_are_taken_and_the_first_round_does_not_count(capsys):
    order = []
    children = {name: Counting(name, order) for name in "ab"}
    asked = [RoundPlan(2, 8, 4, 0.0, seed) for seed in range(3)]
    found = take_turns(children, asked, rest=0.0)
    assert order == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]
    assert [len(answers) for answers in found.values()] == [2, 2]
    plan = {"count": 2, "prompt_tokens": 8, "new_tokens": 4, "shared": 0.0}
    show({"asked": plan, "caching": False, "answers": found})
    shown = capsys.readouterr().out
    assert "0.500" in shown
    assert "prefix cache off" in shown


def test_a_process_rests_before_the_next_is_measured():
    began, starts = [], []

    class Timed:
        def run(self, asked):
            starts.append(time.perf_counter())
            began.append(asked.seed)
            return Answered(0.0)

    take_turns({"a": Timed(), "b": Timed()}, [RoundPlan(1, 1, 1, 0.0, 0)], rest=0.05)
    assert began == [0, 0]
    assert starts[1] - starts[0] >= 0.05


def test_prompts_share_what_is_asked_for_and_nothing_more():
    first, second = prompts_of(ASKED), prompts_of(RoundPlan(3, 10, 4, 0.8, 2))
    assert len({tuple(prompt[:8]) for prompt in [*first, *second]}) == 1
    assert len({tuple(prompt[8:]) for prompt in [*first, *second]}) == 6
    assert len({tuple(prompt) for prompt in prompts_of(RoundPlan(3, 10, 4, 0.0, 1))}) == 3


def test_a_process_is_asked_and_answers_in_lines():
    into, out = io.StringIO(), io.StringIO("a library says something\n" + json.dumps({"seconds": 2.0}) + "\n")
    child = Child(into, out)
    assert child.run(ASKED) == Answered(2.0)
    assert json.loads(into.getvalue())["shared"] == 0.8
    with pytest.raises(RuntimeError, match="has ended"):
        child.run(ASKED)


class Steady:
    """A clock of passes that take a second each beside the model."""

    def __init__(self):
        self.passes = self.beside = 99

    def restart(self):
        self.passes = self.beside = 0


def test_times_of_tokens_are_those_of_each_request():
    measured = RoundTimes()

    def run(prompts, new):
        measured.times[:] = [[1.0, 1.5, 3.0] for _ in prompts]
        return 3.0

    assert answer(run, ASKED, measured) == Answered(3.0, [1.0] * 3, [0.5, 1.5] * 3)


def test_the_time_beside_the_model_is_that_of_the_round(capsys):
    measured = RoundTimes(clock=Steady())

    def run(prompts, new):
        measured.clock.passes, measured.clock.beside = 4, 0.01
        return 3.0

    found = answer(run, ASKED, measured)
    assert (found.passes, found.beside) == (4, 0.01)
    plan = {"count": 2, "prompt_tokens": 8, "new_tokens": 4, "shared": 0.0}
    show(
        {
            "asked": plan,
            "caching": True,
            "answers": {"vllm bare": [asdict(Answered(1.0))], "b": [asdict(found)]},
        }
    )
    shown = capsys.readouterr().out
    assert "2.50" in shown
