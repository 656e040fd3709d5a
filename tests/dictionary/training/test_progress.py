"""Lines about long work: when they come, and what they say of the time that is left."""

from monitor.dictionary.training.progress import RunLines, RunPace, WorkLines, duration
from monitor.dictionary.training.settings import TrainSettings
from monitor.dictionary.training.trainer import StepMetrics

SETTINGS = TrainSettings(features=64, tokens=100 * 256, batch=256, buffer=256)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def metrics(step: int) -> StepMetrics:
    return StepMetrics(step, (step + 1) * 256, 1.0, 0.25, 31.9, 0.0, 1e-3, 0.0)


def test_the_first_line_comes_after_seconds_and_then_one_every_ten() -> None:
    lines, clock = [], Clock()
    work = WorkLines("reading", 1000, "tokens", lines.append, clock)
    said = []
    for second in range(1, 41):
        clock.now = float(second)
        work(10)
        said += [second] * (len(lines) - len(said))
    assert said == [3, 13, 23, 33]
    assert lines[1] == "reading: 130 of 1,000 tokens  10 tokens/s  0:01:27 left"


def test_slow_work_has_a_rate_too() -> None:
    lines, clock = [], Clock()
    work = WorkLines("fitting", 11, "policies", lines.append, clock)
    clock.now = 40.0
    work()
    assert lines == ["fitting: 1 of 11 policies  0.025 policies/s  0:06:40 left"]


def test_before_the_first_step_a_run_says_how_long_all_of_it_takes() -> None:
    lines, clock = [], Clock()
    told = RunLines(SETTINGS, 2560, lines.append, clock)
    for _ in range(4):
        clock.now += 1.0
        told.read(256)
    # 24,832 tokens to read and 25,600 to train on at 256 a second, 2,560 to measure at a quarter of that.
    assert lines[1:] == ["read 768 tokens, before the first step  256 tokens/s  about 0:03:57 left"]


def test_a_run_that_goes_on_counts_what_is_left_of_it() -> None:
    lines, clock = [], Clock()
    told = RunLines(SETTINGS, 2560, lines.append, clock)
    for step in range(60, 100):
        clock.now += 2.0
        told.read(256)
        clock.now += 8.0
        told.step(metrics(step))
    trained = [line for line in lines if line.startswith("trained")]
    assert len(trained) == 40
    # Behind step 63 stand 36 steps of ten seconds, and 2,560 tokens to measure at 32 a second.
    assert trained[3] == (
        "trained on 16,384 of 25,600 tokens  FVU 0.2500  L0 31.9  dead 0.0 %  32 tokens/s  about 0:07:20 left"
    )
    told.measured(1280)
    clock.now += 10
    told.measured(640)
    assert lines[-1] == "measuring: 1,920 of 2,560 tokens  192 tokens/s  0:00:03 left"


def test_an_unknown_rate_is_no_number() -> None:
    pace = RunPace(SETTINGS, 100, Clock())
    assert duration(pace.seconds_left()) == "?"
    assert duration(3661.2) == "1:01:01"
