"""The edits that are compared: the policy's own clamps, and what else one could do for the same effect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from monitor.errors import InputError, PolicyError
from monitor.lab.cost.readers import followed_rule
from monitor.lab.pair import Pair, need_statistics
from monitor.model.offline.edits import Clamped, Projected, Subtracted, ablated
from monitor.model.offline.steered_model import Edit, batches, unchanged
from monitor.policy.policy import Policy
from monitor.records import Clamp, ErrorTerm, Where

NOTHING = "nothing"
OWN = "policy"
EVERYWHERE = "policy, every token"
DROPPED = "policy, no error term"
DETECTORS = "best detectors"
ABLATED = "zero ablation"
DENSE = "difference of means"
PROJECTED = "difference of means, ablated"
RIVALS = (DENSE, PROJECTED)
"""What a policy's own clamps are compared with at equal KL."""

ABOUT = {
    OWN: "the features that the policy clamps, to a target in units of their maxima",
    EVERYWHERE: "the same features, on every token instead of where they are active",
    DROPPED: "the same clamps, and the residual becomes the edited reconstruction",
    DETECTORS: "as many of the features that its rule weighs most, instead of those that steer",
    ABLATED: "so many of the policy's features set to 0, in their order in the lock",
    DENSE: "this many times the difference of the mean residuals of positives and negatives, subtracted",
    PROJECTED: "this share of what lies along that difference taken away; 1 leaves nothing of it, 2 mirrors it",
}
MULTIPLES = (0.5, 1.0, 2.0, 4.0)
MILD = -1.0
"""Targets above which clamps on every token are tried; from there on they leave no text to measure."""


@dataclass(frozen=True)
class Way:
    """One edit at one strength."""

    name: str
    strength: float
    edit: Edit


def rival(pair: Pair, name: str, direction: Tensor, strength: float) -> Edit:
    """An edit of `RIVALS` at one strength."""
    if name == DENSE:
        return Subtracted(direction, strength, limit=pair.norm_limit)
    return Projected(direction, strength, limit=pair.norm_limit)


def ways(
    pair: Pair, policy: Policy, direction: Tensor, targets: Sequence[float], only: Sequence[str] = ()
) -> Iterator[Way]:
    """Every edit that is measured, that of nothing first, or beside that one those that `only` names.

    Raises PolicyError where the policy clamps nothing, InputError for a name that there is not.
    """
    unknown = [name for name in only if name not in ABOUT]
    if unknown:
        raise InputError(f"no edit is called {unknown[0]!r}; there are: {', '.join(ABOUT)}")
    for way in _all_ways(pair, policy, direction, targets):
        if not only or way.name in (NOTHING, *only):
            yield way


def _all_ways(pair: Pair, policy: Policy, direction: Tensor, targets: Sequence[float]) -> Iterator[Way]:
    if not policy.clamps:
        raise PolicyError(f"`{policy.name}` clamps no feature; there is nothing to measure")
    yield Way(NOTHING, 0.0, unchanged)
    clamps = [replace(clamp, error_term=ErrorTerm.KEEP) for clamp in policy.clamps]
    other = Where.ACTIVE if clamps[0].where is Where.EVERYWHERE else Where.EVERYWHERE
    for target in targets:
        own = [replace(clamp, target=target) for clamp in clamps]
        yield Way(OWN, target, _clamped(pair, own))
        if other is Where.EVERYWHERE and target > MILD:
            yield Way(EVERYWHERE, target, _clamped(pair, [replace(c, where=other) for c in own]))
        yield Way(DROPPED, target, _clamped(pair, [replace(c, error_term=ErrorTerm.DROP) for c in own]))
        if detecting := _detectors(policy, len(clamps)):
            yield Way(
                DETECTORS, target, _clamped(pair, [Clamp(f, target, clamps[0].where) for f in detecting])
            )
    statistics = need_statistics(pair.dictionary)
    for count in sorted({max(1, len(clamps) // 4), max(1, len(clamps) // 2), len(clamps)}):
        features = [clamp.feature for clamp in clamps[:count]]
        yield Way(
            ABLATED,
            count,
            ablated(
                pair.dictionary.autoencoder,
                statistics.maximum,
                features,
                pair.loaded.device,
                limit=pair.norm_limit,
            ),
        )
    for name in RIVALS:
        for multiple in MULTIPLES:
            yield Way(name, multiple, rival(pair, name, direction, multiple))


def difference_of_means(
    pair: Pair, positive: Sequence[Sequence[int]], negative: Sequence[Sequence[int]]
) -> Tensor:
    """Mean residual of positives minus that of negatives `[d_model]`; attention sinks left out."""
    return _mean(pair, positive) - _mean(pair, negative)


def _mean(pair: Pair, texts: Sequence[Sequence[int]]) -> Tensor:
    total, tokens = torch.zeros(pair.loaded.d_model, dtype=torch.float64), 0
    for ids, real in batches(texts):
        x = pair.residuals(ids, real.sum(1).tolist())
        counted = real.to(x.device) & ~pair.sinks(x)
        total += x[counted].sum(0, dtype=torch.float64).cpu()
        tokens += int(counted.sum())
    return (total / max(tokens, 1)).float()


def _clamped(pair: Pair, clamps: Sequence[Clamp]) -> Edit:
    maximum = need_statistics(pair.dictionary).maximum
    return Clamped(pair.dictionary.autoencoder, maximum, clamps, pair.loaded.device, limit=pair.norm_limit)


def _detectors(policy: Policy, count: int) -> list[int]:
    """The features that the rule weighs most, for the concept."""
    rule = followed_rule(policy)
    found = sorted(rule.features if rule else (), key=lambda feature: -feature.weight)
    return [feature.index for feature in found if feature.weight > 0][:count]
