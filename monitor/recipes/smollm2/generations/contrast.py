"""A contrast: the same questions, answered by the model as it is told on one side of a concept and on the other.

What a model is told is no label, because it does not always do it. An answer counts for a side only where the side's
criterion holds for its words, and only the plain question stands before it when it is scored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from monitor.lab.demonstrations.judgement import Judgement
from monitor.recipes.smollm2.conversations import Turn, assistant, user

MOST = 3
"""Most answers of each side that are kept for a question."""
LEAST_WORDS = 4
"""An answer of fewer words is not kept."""
REPEATED = 8
"""An answer that repeats so many words in a row of one that it was shown is not kept."""
SPEAKERS = ("Human:", "Assistant:", "User:")
"""An answer in which another turn is written is not kept, since a written dialogue would be split there."""


@dataclass(frozen=True, slots=True)
class AskedAbout:
    """One question, which both sides share."""

    text: str
    right: str = ""
    """A pattern of the right answer, where the question is about a fact."""


@dataclass(frozen=True)
class InstructedSide:
    """What the model is told, how it is shown, and which answers count."""

    told: str
    """The system turn."""
    shown: tuple[str, ...]
    """An answer to each of the contrast's opening questions; one of them stands before what is asked."""
    judgement: Judgement
    """Holds for an answer that does what the side is about."""
    names_right: bool | None = None
    """For facts: whether the right answer must be in it, or must not; None where nothing is asked about facts."""

    def holds(self, question: AskedAbout, answer: str) -> bool:
        """Whether an answer does what this side is about, whatever the model was told."""
        straight = answer.replace("\u2019", "'")
        if len(straight.split()) < LEAST_WORDS or any(name in straight for name in SPEAKERS):
            return False
        if any(_runs(straight) & _runs(shown) for shown in self.shown):
            return False
        if self.names_right is not None:
            right = Judgement("names the right answer", (question.right,)).count(straight) > 0
            if right != self.names_right:
                return False
        return self.judgement.holds(straight)

    @property
    def says(self) -> str:
        """The criterion in words."""
        return self.judgement.says


@dataclass(frozen=True)
class SpokenContrast:
    """A concept with the questions that both of its sides answer."""

    name: str
    """That of the policy that it is about."""
    openings: tuple[str, ...]
    """Questions whose answers are shown to the model before it is asked."""
    questions: tuple[AskedAbout, ...]
    positive: InstructedSide
    negative: InstructedSide
    look_alikes: tuple[AskedAbout, ...] = ()
    """Where the questions are what the policy is about: for each a harmless one with some of its words."""

    def side(self, label: bool) -> InstructedSide:
        """The side of a label."""
        return self.positive if label else self.negative

    def label(self, question: AskedAbout, answer: str) -> bool | None:
        """What an answer is; None where it meets the criterion of neither side, or of both."""
        yes, no = (side.holds(question, answer) for side in (self.positive, self.negative))
        return None if yes == no else yes

    def prompt(self, number: int, label: bool, draw: int) -> tuple[Turn, ...]:
        """The conversation in which one question is put on one side; draws differ in the answer that is shown."""
        side, shown = self.side(label), draw % len(self.openings)
        return (
            {"role": "system", "content": side.told},
            user(self.openings[shown]),
            assistant(side.shown[shown]),
            user(self.questions[number].text),
        )


def _runs(text: str) -> set[tuple[str, ...]]:
    """All `REPEATED` words that stand in a row."""
    words = re.findall(r"[\w']+", text.lower())
    return {tuple(words[at : at + REPEATED]) for at in range(len(words) - REPEATED + 1)}


def asked_about(texts: Sequence[str]) -> tuple[AskedAbout, ...]:
    """Questions that have no right answer."""
    return tuple(map(AskedAbout, texts))


def facts(pairs: Sequence[tuple[str, str]]) -> Iterator[AskedAbout]:
    """Questions about facts with the pattern of the right answer."""
    return (AskedAbout(text, right) for text, right in pairs)
