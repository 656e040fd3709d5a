"""What the self-test found, and how it is told to people who do not look at tables.

Knows numbers and suspects. Does not run anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from monitor.model.selftest.causes import ADVICE
from monitor.model.selftest.diagnosis import Suspect
from monitor.model.selftest.expected import ComparedNumber, Expected, ExpectedSource
from monitor.model.selftest.measurement import Measurement
from monitor.model.selftest.verified_records import Record

CHECKS = ("l0", "variance", "norm", "finite", "bos", "layer")
"""What is checked, as metrics call it."""

_SHOWN = 3
_WHERE = {
    ExpectedSource.RECORDED: "recorded by `dictionary verify` with this model",
    ExpectedSource.RECORDED_ELSEWHERE: "recorded by `dictionary verify` with this model in another dtype",
    ExpectedSource.DECLARED: "declared by the dictionary's makers, on other texts",
    ExpectedSource.NONE: "nothing is declared or recorded",
}


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """Something that is wrong."""

    check: str
    """One of CHECKS."""
    what: str


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What came out."""

    record: Record
    """What was measured, and of what."""
    expected: Expected
    lines: tuple[ComparedNumber, ...]
    problems: tuple[FailedCheck, ...]
    """What is wrong; empty where the test passed."""
    suspects: tuple[Suspect, ...]
    """Likely causes, first what restored the numbers; empty where the test passed."""

    @property
    def passed(self) -> bool:
        """True where nothing is wrong; says little where nothing was expected."""
        return not self.problems

    @property
    def measured(self) -> Measurement:
        """The numbers."""
        return self.record.measured

    @property
    def source(self) -> str:
        """Where the expected values come from, in words."""
        return _WHERE[self.expected.source]

    @property
    def checks(self) -> tuple[tuple[str, bool], ...]:
        """Every check with whether it passed."""
        wrong = {problem.check for problem in self.problems}
        return tuple((check, check not in wrong) for check in CHECKS)

    def explained(self) -> str:
        """What is wrong and what probably causes it, in lines."""
        wrong = [f"  {problem.what}" for problem in self.problems]
        lines = [f"at {self.record.place} the dictionary does not do what it should ({self.source}):", *wrong]
        if self.suspects:
            lines.append("likely causes, first what restored the numbers when it was tried:")
            lines += [
                f"  {place}. {told(suspect)}" for place, suspect in enumerate(self.suspects[:_SHOWN], 1)
            ]
            lines.append(f"to do: {ADVICE[self.suspects[0].cause]}")
        return "\n".join(lines)


def told(suspect: Suspect) -> str:
    """One suspect in one line: the cause, what was tried, and what came out."""
    found = suspect.measured
    if found is None:
        return f"{suspect.cause}: {suspect.what}"
    numbers = f"L0 {found.l0:.1f}, explained variance {found.explained_variance:.3f}"
    verdict = "restores the numbers" if suspect.off <= 1 else "does not restore them"
    return f"{suspect.cause}: {suspect.what}: {numbers}, which {verdict}"
