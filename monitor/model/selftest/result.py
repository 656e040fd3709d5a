"""The result of a self-test: its numbers, the failed checks, their likely causes, and the message for operators."""

from __future__ import annotations

from dataclasses import dataclass

from monitor.model.selftest.causes import ADVICE
from monitor.model.selftest.diagnosis import Suspect
from monitor.model.selftest.expected import ComparedNumber, Expected, ExpectedSource
from monitor.model.selftest.measurement import Measurement
from monitor.model.selftest.verified_records import Record

CHECKS = ("l0", "variance", "norm", "finite", "bos", "layer")
"""Names of all checks, as they appear in metrics."""

_SHOWN = 3
"""Number of likely causes in the message."""
_WHERE = {
    ExpectedSource.RECORDED: "recorded by `dictionary verify` with this model",
    ExpectedSource.RECORDED_ELSEWHERE: "recorded by `dictionary verify` with this model in another dtype",
    ExpectedSource.DECLARED: "declared by the dictionary's makers, on other texts",
    ExpectedSource.NONE: "nothing is declared or recorded",
}


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """A check that failed."""

    check: str
    """One of CHECKS."""
    what: str
    """What was measured and what was expected, in words."""


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Everything that one run of the self-test found."""

    record: Record
    """The measurement, with the digests of what was measured."""
    expected: Expected
    lines: tuple[ComparedNumber, ...]
    """Every number beside its expected value."""
    problems: tuple[FailedCheck, ...]
    """The checks that failed; empty where the test passed."""
    suspects: tuple[Suspect, ...]
    """What was tried or seen, most likely first; empty where the test passed."""

    @property
    def causes(self) -> tuple[Suspect, ...]:
        """The suspects that an experiment confirmed: undoing the mistake restored the numbers. Most likely first."""
        return tuple(suspect for suspect in self.suspects if suspect.restores)

    @property
    def passed(self) -> bool:
        """True where no check failed. Where no values were expected, most checks have nothing to compare with."""
        return not self.problems

    @property
    def measured(self) -> Measurement:
        """The measured numbers."""
        return self.record.measured

    @property
    def source(self) -> str:
        """Where the expected values come from, in words."""
        return _WHERE[self.expected.source]

    @property
    def checks(self) -> tuple[tuple[str, bool], ...]:
        """Every check, and whether it passed."""
        wrong = {problem.check for problem in self.problems}
        return tuple((check, check not in wrong) for check in CHECKS)

    def explained(self) -> str:
        """What is wrong, what probably causes it and what to do, as lines of text."""
        wrong = [f"  {problem.what}" for problem in self.problems]
        lines = [f"at {self.record.place} the dictionary does not do what it should ({self.source}):", *wrong]
        if self.causes:
            lines.append("likely causes, which were undone and then the numbers were right:")
            lines += [
                f"  {rank}. {suspect_line(suspect)}" for rank, suspect in enumerate(self.causes[:_SHOWN], 1)
            ]
            lines.append(f"to do: {ADVICE[self.causes[0].cause]}")
        elif self.suspects:
            lines.append(
                "no cause was found: each of the usual mistakes was undone, and none of that restored the numbers"
            )
        lines += [
            f"seen, and not to be tried here: {seen_line(s)}" for s in self.suspects if s.measured is None
        ]
        return "\n".join(lines)


def suspect_line(suspect: Suspect) -> str:
    """One possible cause in one line: the cause, what was tried, and the result."""
    found = suspect.measured
    if found is None:
        return seen_line(suspect)
    numbers = f"L0 {found.l0:.1f}, explained variance {found.explained_variance:.3f}"
    verdict = "restores the numbers" if suspect.restores else "does not restore them"
    return f"{suspect.cause}: {suspect.what}: {numbers}, which {verdict}"


def seen_line(suspect: Suspect) -> str:
    """A possible cause for which there is direct evidence and no experiment, in one line."""
    return f"{suspect.cause}: {suspect.what} ({ADVICE[suspect.cause]})"
