"""Progress of long work: its rate, the time that is left, and lines that say so where output is no terminal."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from datetime import timedelta

from monitor.dictionary.training import processes
from monitor.dictionary.training.settings import TrainSettings
from monitor.dictionary.training.trainer import StepMetrics

FIRST_SECONDS = 3.0
"""Seconds until the first line, which gives the first estimate of the time left."""
LINE_SECONDS = 10.0
"""Seconds between two lines after the first."""

Clock = Callable[[], float]
Write = Callable[[str], None]


class Pulse:
    """Says when a line is due: a few seconds after the start, and then every ten seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due = clock() + FIRST_SECONDS

    def due(self) -> bool:
        """True where a line should be written now; the next one is then due later."""
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + LINE_SECONDS
        return True


class WorkLines:
    """Lines for work of a known size. Call it with each further amount that is done.

    `what` names the work and `unit` what its size counts, as in "reading: 8,192 of 1,000,000 tokens".
    """

    def __init__(self, what: str, total: int, unit: str, write: Write, clock: Clock = time.monotonic) -> None:
        self._what, self._total, self._unit, self._write, self._clock = what, total, unit, write, clock
        self._started, self._pulse, self._done = clock(), Pulse(clock), 0

    def __call__(self, amount: int = 1) -> None:
        """So much more is done; writes a line where one is due."""
        self._done += amount
        if self._pulse.due():
            self._write(self._line())

    def _line(self) -> str:
        rate = self._done / max(self._clock() - self._started, 1e-9)
        left = duration((self._total - self._done) / rate)
        return (
            f"{self._what}: {self._done:,} of {self._total:,} {self._unit}  "
            f"{readable_rate(rate)} {self._unit}/s  {left} left"
        )


class RunPart(enum.Enum):
    """What a training run spends its time on."""

    READ = "read"
    """The model reads text."""
    TRAIN = "train"
    """The dictionary learns from what was read."""
    MEASURE = "measure"
    """The finished dictionary is measured on held-out text."""


class RunPace:
    """How long a training run will still take, from the rate of each of its parts so far.

    The parts take turns: a buffer is read before anything is learnt from it, so the rate of the whole would mislead.
    """

    def __init__(self, settings: TrainSettings, measured: int, clock: Clock = time.monotonic) -> None:
        """`measured` is the number of tokens to measure on, counted as often as the measurement reads them."""
        self._clock, self._last = clock, clock()
        self._left = {
            RunPart.READ: float(settings.tokens),
            RunPart.TRAIN: float(settings.tokens),
            RunPart.MEASURE: float(measured),
        }
        self._spent = dict.fromkeys(RunPart, 0.0)
        self._done = dict.fromkeys(RunPart, 0)

    def add(self, part: RunPart, tokens: int) -> None:
        """So many more tokens of a part are done; the time since the last call was spent on it."""
        now = self._clock()
        self._spent[part] += now - self._last
        self._last = now
        self._done[part] += tokens
        self._left[part] -= tokens

    def resume(self, tokens: int) -> None:
        """The run had trained on so many tokens before."""
        self._left[RunPart.TRAIN] -= tokens
        self._left[RunPart.READ] -= tokens

    def done(self, part: RunPart) -> int:
        """Tokens of a part that are done."""
        return self._done[part]

    def rate(self, part: RunPart) -> float:
        """Tokens of a part in a second; NaN where none is done yet."""
        return self._done[part] / max(self._spent[part], 1e-9) if self._done[part] else float("nan")

    def seconds_left(self) -> float:
        """Seconds until the end of the run.

        Training that has not begun is taken to be as fast as reading, and measuring a quarter as fast, because it runs
        the whole model several times.
        """
        reading = self.rate(RunPart.READ)
        guesses = {RunPart.READ: reading, RunPart.TRAIN: reading, RunPart.MEASURE: reading / 4}
        rates = {part: self.rate(part) if self._done[part] else guesses[part] for part in RunPart}
        return sum(max(self._left[part], 0.0) / rates[part] for part in RunPart)


class RunLines:
    """`RunProgress` in plain lines, for output that is no terminal."""

    def __init__(
        self, settings: TrainSettings, measured: int, write: Write, clock: Clock = time.monotonic
    ) -> None:
        """`measured` as for `RunPace`."""
        self._settings, self._measured, self._write = settings, measured, write
        self.pace = RunPace(settings, measured, clock)
        self._pulse = Pulse(clock)
        self._metrics: StepMetrics | None = None
        write(
            f"training {settings.features:,} features on {settings.tokens:,} tokens; the first estimate of the time "
            f"comes in {FIRST_SECONDS:.0f} seconds, a line every {LINE_SECONDS:.0f}"
        )

    def read(self, tokens: int) -> None:
        """The model has read so many more tokens."""
        self.pace.add(RunPart.READ, tokens * processes.size())
        if self._pulse.due():
            self._tell()

    def step(self, metrics: StepMetrics) -> None:
        """A step of training has ended."""
        if self._metrics is None:
            self.pace.resume(metrics.tokens - self._settings.batch)
        self._metrics = metrics
        self.pace.add(RunPart.TRAIN, self._settings.batch)
        if self._pulse.due() or metrics.step == self._settings.steps - 1:
            self._tell()

    def measured(self, tokens: int) -> None:
        """The dictionary was measured on so many more tokens."""
        first = not self.pace.done(RunPart.MEASURE)
        self.pace.add(RunPart.MEASURE, tokens)
        if self._pulse.due() or first:
            done, rate = self.pace.done(RunPart.MEASURE), self.pace.rate(RunPart.MEASURE)
            left = duration((self._measured - done) / rate)
            self._write(
                f"measuring: {done:,} of {self._measured:,} tokens  {rate:,.0f} tokens/s  {left} left"
            )

    def _tell(self) -> None:
        left, metrics = duration(self.pace.seconds_left()), self._metrics
        if metrics is None:
            done, rate = self.pace.done(RunPart.READ), self.pace.rate(RunPart.READ)
            self._write(
                f"read {done:,} tokens, before the first step  {rate:,.0f} tokens/s  about {left} left"
            )
            return
        rate = self.pace.rate(RunPart.TRAIN)
        self._write(
            f"trained on {metrics.tokens:,} of {self._settings.tokens:,} tokens  {numbers_of(metrics)}  "
            f"{rate:,.0f} tokens/s  about {left} left"
        )


def numbers_of(metrics: StepMetrics) -> str:
    """Fraction of variance unexplained, active features at a token and dead features, in one line."""
    return f"FVU {metrics.fvu:.4f}  L0 {metrics.l0:.1f}  dead {100 * metrics.dead:.1f} %"


def duration(seconds: float) -> str:
    """Seconds as `H:MM:SS`; a question mark for what is not known."""
    return str(timedelta(seconds=round(max(seconds, 0.0)))) if seconds < float("inf") else "?"


def readable_rate(rate: float) -> str:
    """A rate with as many digits as tell it apart from 0."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
