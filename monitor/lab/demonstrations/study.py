"""A demonstration carried out on a pair: its feature chosen, every setting tried on prompts that chose nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monitor.lab.cost.points import Share, share
from monitor.lab.demonstrations.choice import (
    FeatureChoice,
    candidates,
    choose,
    contrast_of,
    shortlist,
    telling_tokens,
)
from monitor.lab.demonstrations.demonstration import ClampSetting, Demonstration, text_of
from monitor.lab.demonstrations.judgement import loops
from monitor.lab.demonstrations.related import Neighbours, SharedFeatures, neighbours, shared_features
from monitor.lab.demonstrations.writer import Distance, Writer, Written
from monitor.lab.pair import Pair


@dataclass(frozen=True, slots=True)
class Answers:
    """What was written to every prompt under one setting, and how it was judged."""

    setting: ClampSetting | None
    """None without a clamp."""
    texts: tuple[str, ...]
    holds: tuple[bool, ...]
    also: tuple[Share, ...]
    """Shares by the further judgements."""
    loops: Share
    """Texts in which the model has lost itself."""
    distance: Distance

    @property
    def share(self) -> Share:
        """Texts that show it."""
        return share(np.asarray(self.holds))


@dataclass(frozen=True)
class Demonstrated:
    """A demonstration, and what came of it."""

    demonstration: Demonstration
    choice: FeatureChoice
    prompts: tuple[str, ...]
    plain: Answers
    """Without a clamp."""
    slider: tuple[Answers, ...]
    """Under each setting."""
    neighbours: Neighbours
    shared: SharedFeatures

    @property
    def judged(self) -> Answers:
        """The answers under the setting that the development prompts chose."""
        return next(answers for answers in self.slider if answers.setting == self.choice.setting)

    @property
    def worked(self) -> tuple[bool, ...]:
        """For each prompt whether the clamp brought it about: shown with it, and not without."""
        return tuple(
            now and not before for now, before in zip(self.judged.holds, self.plain.holds, strict=True)
        )

    @property
    def share(self) -> Share:
        """Share of the prompts on which it worked."""
        return share(np.asarray(self.worked))


@dataclass(frozen=True, slots=True)
class DemonstrationSizes:
    """How much of a demonstration is carried out."""

    prompts: int = 20
    """Prompts that it is measured on at most."""
    temperature: float = 0.7
    seed: int = 0

    def subject(self, pair: Pair) -> str:
        """Which pair is asked, and how, for the head of a page."""
        return (
            f"Model {Path(pair.loaded.name).name} ({pair.loaded.digest[:19]}…), dictionary "
            f"{pair.dictionary.digest[:19]}…: {pair.dictionary.autoencoder.features} features after layer "
            f"{pair.harvester.layer}. At most {self.prompts} prompts each, temperature {self.temperature:g}, "
            f"seed {self.seed}."
        )


def demonstrate(
    pair: Pair,
    demonstration: Demonstration,
    sizes: DemonstrationSizes = DemonstrationSizes(),
    tell: Callable[[str], None] = lambda line: None,
) -> Demonstrated:
    """Carry out a demonstration. InputError where no feature tells its texts apart."""
    contrast = contrast_of(pair, demonstration)
    writer = Writer(pair, demonstration.new, temperature=sizes.temperature, seed=sizes.seed)
    tell(f"{demonstration.name}: looking for the features that do most")
    listed = shortlist(demonstration, candidates(pair, contrast), telling_tokens(pair, contrast), writer)
    choice = choose(demonstration, listed, writer, tell)
    feature, settings = choice.chosen.feature, demonstration.settings
    tell(f"{demonstration.name}: feature {feature} at {len(settings)} settings")
    prompts = demonstration.test[: sizes.prompts]
    kinds: list[ClampSetting | None] = [None, *settings]
    clamps = [() if setting is None else (setting.clamp(feature),) for setting in kinds]
    written = writer.write(prompts, clamps)
    answers = [
        _answers(demonstration, setting, own, writer.distance(own, held))
        for setting, own, held in zip(kinds, written, clamps, strict=True)
    ]
    return Demonstrated(
        demonstration,
        choice,
        tuple(text_of(prompt) for prompt in prompts),
        answers[0],
        tuple(answers[1:]),
        neighbours(pair, feature, contrast),
        shared_features(pair, demonstration, contrast, sizes.seed),
    )


def _answers(
    demonstration: Demonstration, setting: ClampSetting | None, written: Sequence[Written], distance: Distance
) -> Answers:
    texts = tuple(one.text for one in written)
    return Answers(
        setting,
        texts,
        tuple(demonstration.judgement.holds(text) for text in texts),
        tuple(share(np.asarray([judge.holds(text) for text in texts])) for judge in demonstration.also),
        share(np.asarray([loops(text) for text in texts])),
        distance,
    )
