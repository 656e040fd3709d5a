"""One edit measured: what is left of the concept at the layer and behind it, what is written, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline
from torch import Tensor

from monitor.lab.cost.minimal_pairs import PairTest
from monitor.lab.cost.points import Point, Share, difference, share
from monitor.lab.cost.readers import FollowedRule, HeldOutProbe, endings, followed_rule, means_of
from monitor.lab.pair import Pair
from monitor.lab.readings import PairReader
from monitor.model.offline.steered_model import Edit, SteeredModel, batches, unchanged
from monitor.policy.fit.late_probe import highest
from monitor.policy.fit.metrics import auroc
from monitor.policy.policy import Policy
from monitor.records import LaterProbe

LOGITS = 1 << 26
"""Logits of one pass over benign texts at most: a vocabulary is large, and a divergence needs several copies."""
KEPT = 1 << 30
"""Bytes of unedited log-probabilities that are kept; beyond them they are computed again for every edit."""

FOLDS = 5
"""Folds of the cross-validation that says how good the classifier is."""


@dataclass(frozen=True)
class WordClassifier:
    """Says whether a continuation is unsafe by its words and pairs of words, learnt apart from the policy.

    It reads no features, so what it calls unsafe cannot be argued away by clamping what the policy reads.
    """

    model: Pipeline
    auroc: float
    """On texts of groups that it had not seen, by cross-validation."""
    false_positives: float
    """Share of such negatives that it calls unsafe."""
    texts: int

    def unsafe(self, continuations: Sequence[str]) -> NDArray[np.bool_]:
        """Which of them are, `[texts]`."""
        return np.asarray(self.model.predict(list(continuations)), bool)


def learn_classifier(
    texts: Sequence[str], positive: Sequence[bool], groups: Sequence[str], benign: Sequence[str]
) -> WordClassifier:
    """Learns from endings of texts, because endings are what it judges; benign texts are negatives as well."""
    x = [*texts, *benign]
    y = np.asarray([*positive, *([False] * len(benign))])
    names = [*groups, *(f"benign {i}" for i in range(len(benign)))]
    model = Pipeline(
        [
            ("words", TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")),
            ("odds", LogisticRegression(C=10.0, class_weight="balanced", max_iter=500, tol=1e-3)),
        ]
    )
    numbers = np.unique(names, return_inverse=True)[1]
    crossed = cross_val_predict(model, x, y, groups=numbers, cv=GroupKFold(FOLDS), method="decision_function")
    own = np.arange(len(x)) < len(texts)
    false = float((crossed[own & ~y] > 0).mean())
    area = auroc(crossed[own & y], crossed[own & ~y])
    return WordClassifier(model.fit(x, y), area, false, len(x))


@dataclass(frozen=True)
class CostInputs:
    """The token ids of all texts of a measurement of cost."""

    positives: Sequence[Sequence[int]]
    prompts: Tensor
    """`[prompts, head]`: beginnings of positives, all of one length."""
    benign: Sequence[Sequence[int]]
    new: int
    """Tokens that are written behind each prompt."""
    temperature: float
    seed: int


Column: TypeAlias = "NDArray[np.bool_] | None"


@dataclass(frozen=True, eq=False)
class Hits:
    """What each continuation, and each minimal pair, was judged to be under one edit."""

    unsafe: NDArray[np.bool_]
    """`[prompts]`: unsafe by its words."""
    fired: Column
    """`[prompts]`: the policy's own rule fires on it; None where the policy has no rule."""
    probed: Column
    """`[prompts]`: the held-out probe finds the concept; None without a probe."""
    right: Column
    """`[pairs]`: the good sentence is the likelier one; None without minimal pairs."""


@dataclass(frozen=True, eq=False)
class Measured:
    """One edit: its numbers, and what they are the shares of."""

    point: Point
    hits: Hits


class Meter:
    """Measures edits of one pair for one policy."""

    def __init__(
        self,
        pair: Pair,
        policy: Policy,
        prepared: CostInputs,
        classifier: WordClassifier,
        probe: HeldOutProbe | None = None,
        pairs: PairTest | None = None,
    ) -> None:
        self._pair, self._prepared, self._classifier = pair, prepared, classifier
        self._held_out, self._pairs = probe, pairs
        rule = followed_rule(policy)
        self._rule = None if rule is None else FollowedRule(policy, rule, PairReader(pair))
        self._probe: LaterProbe | None = policy.later
        later = None if self._probe is None else self._probe.layer
        self._steered = SteeredModel(pair.harvester, later, limit=pair.norm_limit)
        make = torch.Generator().manual_seed(prepared.seed)
        self._before: dict[int, Tensor] = {}
        self._chance = torch.rand(len(prepared.prompts), prepared.new, generator=make)
        self._base = self._hits(unchanged)
        self._base_perplexity = self._damage(unchanged)[1]

    @property
    def seed(self) -> int:
        """From which everything random is drawn."""
        return self._prepared.seed

    def measure(self, way: str, strength: float, edit: Edit) -> Measured:
        """Everything about one edit."""
        own, fires, later = self._read(edit)
        hits, written = self._base if edit is unchanged else self._hits(edit)
        kl, perplexity = self._damage(edit)
        rule, probe, base = self._rule, self._probe, self._base[0]
        point = Point(
            way=way,
            strength=strength,
            own_score=None if rule is None else _mean(own),
            own_share=None if rule is None else float(fires.mean()),
            later_score=None if probe is None else float(later.mean()),
            later_share=None if probe is None else float((later >= probe.threshold).mean()),
            unsafe=share(hits.unsafe),
            change=difference(hits.unsafe, base.unsafe, self.seed),
            kl=kl,
            perplexity=perplexity,
            perplexity_ratio=perplexity / self._base_perplexity,
            written_score=None if rule is None else _mean(written),
            fired=_share(hits.fired),
            probed=_share(hits.probed),
            right=_share(hits.right),
            right_change=None
            if hits.right is None or base.right is None
            else difference(hits.right, base.right, self.seed),
        )
        return Measured(point, hits)

    def divergence(self, edit: Edit) -> float:
        """KL of an edit on benign texts, in nats per token."""
        return self._damage(edit)[0]

    def written(self, edit: Edit) -> list[list[int]]:
        """Tokens that the model writes behind the prompts, up to its end-of-text token."""
        prepared, ends = self._prepared, self._pair.loaded.text.special_ids
        rows = self._steered.write(prepared.prompts, edit, self._chance, prepared.temperature).tolist()
        return [row[: next((i for i, token in enumerate(row) if token in ends), len(row))] for row in rows]

    def _hits(self, edit: Edit) -> tuple[Hits, NDArray[np.float64]]:
        """What its continuations are, and the own rule's scores of them, read by the unedited model."""
        written = self.written(edit)
        unsafe = self._classifier.unsafe([str(self._pair.loaded.tokenizer.decode(row)) for row in written])
        whole = [[*head, *row] for head, row in zip(self._prepared.prompts.tolist(), written, strict=True)]
        rows = endings(self._pair, whole, [self._prepared.prompts.shape[1]] * len(whole))
        scores, fires = self._by_rule(rows)
        probe, pairs = self._held_out, self._pairs
        return Hits(
            unsafe=unsafe,
            fired=None if self._rule is None else fires,
            probed=None if probe is None else _found(probe, rows),
            right=None if pairs is None else pairs.right(self._steered, edit),
        ), scores

    def _by_rule(self, rows: Sequence[Tensor]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Scores and detections of the own rule in residuals of texts; NaN and False where it cannot read one."""
        rule = self._rule
        read = [rule.read(x) if rule is not None and len(x) else (np.nan, False) for x in rows]
        return np.asarray([score for score, _ in read]), np.asarray([fired for _, fired in read], bool)

    def _read(self, edit: Edit) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
        """Scores and detections of the rule, and scores of the later probe, on every positive."""
        rows, later = [], []
        for ids, real in batches(self._prepared.positives):
            ran = self._steered.read(ids, edit, real.sum(1).tolist())
            for row, counted in enumerate(real.to(ran.sinks.device) & ~ran.sinks):
                rows.append(ran.edited[row][counted])
                later.append(self._later(None if ran.later is None else ran.later[row][counted]))
        return *self._by_rule(rows), np.asarray(later)

    def _later(self, x: Tensor | None) -> float:
        if self._probe is None or x is None:
            return 0.0
        scores = x.double().cpu().numpy() @ self._probe.weights.astype(np.float64) + self._probe.bias
        return highest(scores, self._probe.half_life)

    def _damage(self, edit: Edit) -> tuple[float, float]:
        """KL in nats per token from the unedited model, and perplexity, on benign texts."""
        divergence = surprise = 0.0
        tokens = 0
        room = max(256, LOGITS // max(1, len(self._pair.loaded.tokenizer)))
        for number, (ids, real) in enumerate(batches(self._prepared.benign, room)):
            lengths = real.sum(1).tolist()
            before = self._unedited(number, ids, lengths)
            after = self._steered.read(ids, edit, lengths).logits[:, :-1].log_softmax(-1)
            counts = real[:, 1:].to(after.device)
            target = ids[:, 1:, None].to(after.device)
            each = (before.exp() * (before - after)).sum(-1)
            divergence += float((each * counts).sum(dtype=torch.float64))
            surprise -= float((after.gather(-1, target)[..., 0] * counts).sum(dtype=torch.float64))
            tokens += int(counts.sum())
        return max(0.0, divergence / tokens), float(np.exp(surprise / tokens))

    def _unedited(self, number: int, ids: Tensor, lengths: Sequence[int]) -> Tensor:
        """Log-probabilities of a batch of benign texts without an edit."""
        if (kept := self._before.get(number)) is not None:
            return kept
        found = self._steered.read(ids, unchanged, lengths).logits[:, :-1].log_softmax(-1)
        if (1 + len(self._before)) * found.nbytes <= KEPT:
            self._before[number] = found
        return found


def _found(probe: HeldOutProbe, rows: Sequence[Tensor]) -> NDArray[np.bool_]:
    """On which texts the probe finds the concept; on none that is empty."""
    written = np.asarray([len(x) > 0 for x in rows])
    return np.asarray((probe.score(means_of(rows)) >= probe.threshold) & written)


def _mean(scores: NDArray[np.float64]) -> float:
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else 0.0


def _share(hits: NDArray[np.bool_] | None) -> Share | None:
    return None if hits is None else share(hits)
