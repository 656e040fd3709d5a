"""The feature of a demonstration and its strength, found by contrast and chosen by what it does on development prompts.

Nothing here sees the prompts that a demonstration is measured on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

import numpy as np
import torch

from monitor.dictionary.explore.auroc import auroc
from monitor.dictionary.explore.search import search
from monitor.dictionary.explore.text_pooling import PooledTexts, pool
from monitor.errors import InputError
from monitor.lab.demonstrations.demonstration import ClampSetting, Demonstration, Turns
from monitor.lab.demonstrations.writer import Writer, Written
from monitor.lab.pair import Pair, need_statistics, open_labels
from monitor.model.prompts import not_read

CANDIDATES = 24
"""Features that are tried: the shortlist."""
POOL = 60
"""Features that the shortlist is taken from."""
TELLING, TELLS = 12, 0.15
"""Tokens by which texts about the subject are told, and by how much larger a share of these must hold one."""
TRIED = 3
"""Settings at which every candidate is tried; the chosen one is tried at all of them."""
SHORT = 20
"""Tokens behind the development prompts on which the shortlist is made."""
COMMON = 0.05
"""A feature that fires on more of the corpus's tokens is no candidate."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A feature that separates the two sets of texts, and what clamping it does on development prompts."""

    feature: int
    label: str
    auroc: float
    """By its highest activation in each text."""
    fires: float
    """Share of the texts about it on which it fires."""
    fires_other: float
    degree: float = 0.0
    """How much more clearly the development prompts are answered under it, at the best of those that are tried; see
    `Judgement.degree`."""


@dataclass(frozen=True)
class FeatureChoice:
    """The feature that a demonstration clamps, and those that it was chosen among."""

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    setting: ClampSetting
    """The setting at which the demonstration is judged: the clearest on the development prompts, of equals the
    mildest."""


@dataclass(frozen=True, eq=False)
class Contrast:
    """Both sets of texts of a demonstration as the pair reads them."""

    ids: tuple[tuple[int, ...], ...]
    """Token ids of each text."""
    pooled: PooledTexts
    positive: torch.Tensor
    """`[texts]` bool: those that are about it."""

    @property
    def auroc(self) -> torch.Tensor:
        """`[features]`: how well the highest activation of each separates the texts."""
        values = self.pooled.maximum
        return auroc(values[self.positive], values[~self.positive]).value


def contrast_of(pair: Pair, demonstration: Demonstration) -> Contrast:
    """Reads both sets of texts, conversations through the model's chat template where it has one."""
    texts: list[str | Turns] = [*demonstration.about, *demonstration.other]
    if pair.loaded.tokenizer.chat_template is None:
        texts = [text if isinstance(text, str) else text[-1]["content"] for text in texts]
    reader = pair.document_reader
    ids = [own[: pair.loaded.context] for own in reader(texts)]
    if reader.left_out:
        raise InputError(
            f"{not_read(reader.left_out)}; give conversations that this model's template writes whole"
        )
    pooled = pool(ids, pair.residuals, pair.dictionary.autoencoder, limit=pair.norm_limit)
    return Contrast(tuple(map(tuple, ids)), pooled, torch.arange(len(texts)) < len(demonstration.about))


def candidates(pair: Pair, contrast: Contrast, count: int = POOL) -> list[Candidate]:
    """Features that separate the texts, taken in turn from two rankings of them.

    These are by AUROC, where ties go to the feature whose readings lie further apart, and by how specific a feature is
    to the texts about it. InputError where no feature separates the texts better than chance.
    """
    labels, positive = open_labels(pair.dictionary), contrast.positive
    area, fires = contrast.auroc, contrast.pooled.maximum > 0
    usable = set(_usable(pair, area).nonzero()[:, 0].tolist())
    if not usable:
        raise InputError("no feature of this dictionary tells the texts apart; write others")
    specific = search(contrast.pooled.rows(positive), need_statistics(pair.dictionary), limit=4 * count)
    orders = [_by_auroc(pair, contrast, count), [hit.feature for hit in specific]]
    mixed = dict.fromkeys(chain.from_iterable(zip_longest(*orders)))
    return [
        Candidate(
            feature,
            labels.best(feature),
            float(area[feature]),
            float(fires[positive, feature].float().mean()),
            float(fires[~positive, feature].float().mean()),
        )
        for feature in [feature for feature in mixed if feature in usable][:count]
    ]


def shortlist(
    demonstration: Demonstration,
    found: Sequence[Candidate],
    tokens: Mapping[int, float],
    writer: Writer,
    count: int = CANDIDATES,
) -> list[Candidate]:
    """The candidates that do most to the telling `tokens`, because what detects best is seldom what steers.

    Each is clamped once over the development prompts and their plain answers. What counts is how much more the logits
    of the tokens rise than those of all others; where the feature is to be taken away, how much more they fall.
    """
    setting = probing(demonstration)[0]
    clamps = [(setting.clamp(one.feature),) for one in found]
    raised = writer.specificity(demonstration.development, clamps, tokens, SHORT)
    order = np.argsort(-raised if setting.target > 0 else raised, kind="stable")
    return [found[i] for i in order[:count].tolist()]


def probing(demonstration: Demonstration) -> list[ClampSetting]:
    """The settings at which candidates are tried, from the mild to the strong."""
    settings = demonstration.settings
    return [settings[(2 * i + 1) * len(settings) // (2 * TRIED)] for i in range(TRIED)]


def _usable(pair: Pair, area: torch.Tensor) -> torch.Tensor:
    """`[features]` bool: features with a unit to clamp in, that are rare, and separate the texts."""
    statistics = need_statistics(pair.dictionary)
    return (statistics.maximum > 0) & (statistics.density < COMMON) & (area > 0.5)


def telling_tokens(pair: Pair, contrast: Contrast) -> dict[int, float]:
    """Tokens that stand in more of the texts about the subject than in others, and by how much larger a share of them.

    The most telling come first.
    """
    here, there = Counter[int](), Counter[int]()
    for own, about in zip(contrast.ids, contrast.positive.tolist(), strict=True):
        (here if about else there).update(set(own[1:]) - pair.loaded.text.special_ids)
    texts = int(contrast.positive.sum())
    others = max(1, len(contrast.ids) - texts)
    # Words that hold a text together stand on both sides, and say nothing even where they happen to differ.
    share = {t: n / texts - there[t] / others for t, n in here.items() if n / texts >= 4 * there[t] / others}
    order = sorted((t for t in share if share[t] >= TELLS), key=lambda t: (-share[t], t))[:TELLING]
    return {token: share[token] for token in order}


def _by_auroc(pair: Pair, contrast: Contrast, count: int) -> list[int]:
    maximum, area, positive = need_statistics(pair.dictionary).maximum, contrast.auroc, contrast.positive
    readings = contrast.pooled.maximum * torch.where(maximum > 0, 1 / maximum, 0.0)
    gap = readings[positive].mean(0) - readings[~positive].mean(0)
    # Areas of a dozen texts differ by accident: what is within a hundredth is a tie.
    rank = torch.where(_usable(pair, area), (area * 100).round() + gap.clamp(0, 0.99), -1.0)
    return [int(feature) for feature in rank.argsort(descending=True, stable=True)[: 4 * count]]


def choose(
    demonstration: Demonstration,
    found: Sequence[Candidate],
    writer: Writer,
    tell: Callable[[str], None] = lambda line: None,
) -> FeatureChoice:
    """The candidate and setting under which the development prompts are answered most clearly as judged."""
    settings, prompts, middle = demonstration.settings, demonstration.development, probing(demonstration)
    tell(f"{demonstration.name}: trying {len(found)} features")
    clamps = [(setting.clamp(one.feature),) for one in found for setting in middle]
    plain, *degrees = _degrees(demonstration, writer.write(prompts, [(), *clamps]))
    tried = tuple(
        replace(one, degree=max(degrees[TRIED * i : TRIED * (i + 1)]) - plain) for i, one in enumerate(found)
    )
    chosen = max(tried, key=lambda one: (round(one.degree, 3), one.auroc))
    tell(f"{demonstration.name}: feature {chosen.feature} at {len(settings)} strengths")
    texts = writer.write(prompts, [(setting.clamp(chosen.feature),) for setting in settings])
    return FeatureChoice(chosen, tried, settings[int(np.argmax(_degrees(demonstration, texts)))])


def _degrees(demonstration: Demonstration, written: Sequence[Sequence[Written]]) -> list[float]:
    """The mean degree of the texts under each clamp."""
    judge = demonstration.judgement
    return [float(np.mean([judge.degree(one.text) for one in texts])) for texts in written]
