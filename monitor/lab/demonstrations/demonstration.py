"""One demonstration as data: what the feature is about, what the model is asked, and how its answer is judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from monitor.lab.demonstrations.judgement import Judgement
from monitor.records import Clamp, Where

Turns = tuple[Mapping[str, str], ...]
Content = str | Turns
"""A text, or the turns of a conversation."""

DEVELOPMENT = 6
"""So many of the first prompts choose the feature and its strength; the others measure."""


@dataclass(frozen=True, slots=True)
class ClampSetting:
    """What a feature is set to, and on which tokens."""

    target: float
    """In units of its recorded maximum."""
    where: Where

    def clamp(self, feature: int) -> Clamp:
        """The clamp of a feature to it."""
        return Clamp(feature, self.target, self.where)

    def __str__(self) -> str:
        """For tables."""
        return f"{self.target:g} × maximum, {'every token' if self.where is Where.EVERYWHERE else 'where active'}"


@dataclass(frozen=True)
class Demonstration:
    """A feature that is found by contrast, clamped, and judged by what the model then writes."""

    name: str
    title: str
    about: tuple[Content, ...]
    """Texts on which the feature is to fire."""
    other: tuple[Content, ...]
    """Texts of the same form on which it is not to."""
    prompts: tuple[Content, ...]
    """What the model is asked; the first few for development, 20 or more to measure on."""
    targets: tuple[float, ...]
    """In units of the feature's maximum; above 0 the feature is brought up, else taken away."""
    judgement: Judgement
    also: tuple[Judgement, ...] = ()
    """Further judgements, for the table alone."""
    new: int = 40
    """Tokens that are written to each prompt."""

    @property
    def development(self) -> tuple[Content, ...]:
        """The prompts on which feature and strength are chosen."""
        return self.prompts[:DEVELOPMENT]

    @property
    def test(self) -> tuple[Content, ...]:
        """The prompts on which it is measured."""
        return self.prompts[DEVELOPMENT:]

    @property
    def settings(self) -> tuple[ClampSetting, ...]:
        """What is tried. Amplifying holds on every token; taking away is tried where the feature is active as well."""
        return tuple(_settings(self.targets))


def asked(question: str) -> Turns:
    """A conversation that a user's message begins."""
    return ({"role": "user", "content": question},)


def answered(question: str, answer: str) -> Turns:
    """A question and what the model says."""
    return (*asked(question), {"role": "assistant", "content": answer})


def text_of(content: Content) -> str:
    """A text, or the turns of a conversation below each other."""
    return content if isinstance(content, str) else "\n".join(turn["content"] for turn in content)


def _settings(targets: Sequence[float]) -> Iterator[ClampSetting]:
    for target in targets:
        if target <= 0:
            yield ClampSetting(target, Where.ACTIVE)
        yield ClampSetting(target, Where.EVERYWHERE)
