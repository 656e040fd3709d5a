"""What reads the concept in texts beside the judge of words: the policy's own rule, and a probe held out from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold
from torch import Tensor

from monitor.lab.pair import Pair
from monitor.lab.readings import PairReader
from monitor.model.offline.steered_model import batches
from monitor.policy.fit.late_probe import linear
from monitor.policy.fit.metrics import auroc, threshold_at
from monitor.policy.fit.rule_scorers import phase_of
from monitor.policy.policy import Policy, Rule
from monitor.policy.rules.explain import explain
from monitor.policy.rules.program import compile_program
from monitor.records import WatchPlan

FOLDS = 5
RATE = 0.05
"""Share of the negatives that the held-out probe may call positive."""


def followed_rule(policy: Policy) -> Rule | None:
    """The rule whose score is followed: the first that suppresses, else the first; combinations of conditions last."""
    order = sorted(policy.rules, key=lambda r: (r.when is not None, r.action.name != "SUPPRESS"))
    return next(iter(order), None)


@dataclass(frozen=True)
class FollowedRule:
    """One rule of a policy, run over residuals as the server runs it, whatever it reads."""

    owner: Policy
    rule: Rule
    reader: PairReader

    @cached_property
    def _alone(self) -> Policy:
        return replace(self.owner, rules=(self.rule,), match=None)

    @cached_property
    def _plan(self) -> WatchPlan:
        return compile_program((self._alone,)).watch

    def read(self, x: Tensor) -> tuple[float, bool]:
        """The pooled score nearest to its threshold, and whether the rule fires, from residuals `[tokens, d_model]`.

        The score is NaN for a text too short for the rule.
        """
        shown = self.reader.columns(x, self._plan)
        rows = np.concatenate([np.zeros((1, shown.shape[1]), np.float32), shown])
        (seen,) = explain((self._alone,), rows, phase_of(self.rule))
        return (seen.score if np.isfinite(seen.score) else np.nan), seen.fired


@dataclass(frozen=True)
class HeldOutProbe:
    """A linear probe on the mean residual, learnt from texts that the policy was not fitted with."""

    weights: NDArray[np.float64]
    """`[d_model]`"""
    bias: float
    threshold: float
    """So that 5 % of unseen negatives reach it."""
    auroc: float
    """On texts of groups that it had not seen, by cross-validation."""

    def score(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of mean residuals `[texts, d_model]`."""
        return np.asarray(means @ self.weights + self.bias)


def learn_probe(
    means: NDArray[np.float64], positive: NDArray[np.bool_], groups: Sequence[str]
) -> HeldOutProbe:
    """Learns from mean residuals `[texts, d_model]`; texts of one group are never on both sides of its test."""
    numbers = np.unique(list(groups), return_inverse=True)[1]
    crossed = np.zeros(len(positive))
    for rest, part in GroupKFold(FOLDS).split(means, positive, numbers):
        weights, bias = linear(means[rest], positive[rest].astype(np.intp))
        crossed[part] = means[part] @ weights + bias
    weights, bias = linear(means, positive.astype(np.intp))
    return HeldOutProbe(
        weights,
        bias,
        threshold_at(crossed[~positive], RATE),
        auroc(crossed[positive], crossed[~positive]),
    )


def endings(pair: Pair, texts: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Tensor]:
    """Residuals `[tokens, d_model]` of the unedited model from each text's start on, attention sinks left out."""
    found: list[Tensor] = [torch.zeros(0, pair.loaded.d_model)] * len(texts)
    ordered = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for ids, real in batches([texts[i] for i in ordered]):
        x = pair.residuals(ids, real.sum(1).tolist())
        counted = real.to(x.device) & ~pair.sinks(x)
        for row in range(len(ids)):
            number = ordered[len(ordered) - len(ids) + row]
            kept = counted[row].clone()
            kept[: starts[number]] = False
            found[number] = x[row][kept]
        del ordered[len(ordered) - len(ids) :]
    return found


def means_of(rows: Sequence[Tensor]) -> NDArray[np.float64]:
    """Mean residuals `[texts, d_model]`; zeros for a text without tokens."""
    return np.stack([(x.double().mean(0) if len(x) else torch.zeros(x.shape[1])).cpu().numpy() for x in rows])
