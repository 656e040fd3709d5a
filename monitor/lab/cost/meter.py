"""One edit measured: what is left of the concept at the layer and behind it, what is written, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline
from torch import Tensor

from monitor.lab.cost.points import Point, difference, share
from monitor.lab.pair import Pair, need_statistics
from monitor.model.offline.steered_model import Edit, SteeredModel, padded, unchanged
from monitor.policy.fit.late_probe import highest
from monitor.policy.fit.metrics import auroc
from monitor.policy.fit.pooling import pooled
from monitor.policy.policy import Policy, Rule
from monitor.records import LaterProbe

BATCH_TOKENS = 4096
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


class Meter:
    """Measures edits of one pair for one policy."""

    def __init__(self, pair: Pair, policy: Policy, prepared: CostInputs, classifier: WordClassifier) -> None:
        self._pair, self._prepared, self._classifier = pair, prepared, classifier
        self._rule = reading_rule(policy)
        self._probe: LaterProbe | None = policy.later
        later = None if self._probe is None else self._probe.layer
        self._steered = SteeredModel(pair.harvester, later, limit=pair.norm_limit)
        maximum = need_statistics(pair.dictionary).maximum.to(pair.loaded.device)
        self._unit = torch.where(maximum > 0, 1 / maximum, torch.zeros_like(maximum))
        make = torch.Generator().manual_seed(prepared.seed)
        self._before: dict[int, Tensor] = {}
        self._chance = torch.rand(len(prepared.prompts), prepared.new, generator=make)
        self._base = self.continuations(unchanged)
        self._base_unsafe = classifier.unsafe(self._base)
        self._base_perplexity = self._damage(unchanged)[1]

    def point(self, way: str, strength: float, edit: Edit) -> Point:
        """Everything about one edit."""
        own, later = self._read(edit)
        unsafe = self._classifier.unsafe(self.continuations(edit))
        kl, perplexity = self._damage(edit)
        rule, probe = self._rule, self._probe
        return Point(
            way=way,
            strength=strength,
            own_score=None if rule is None else float(own.mean()),
            own_share=None if rule is None else float((own >= rule.threshold).mean()),
            later_score=None if probe is None else float(later.mean()),
            later_share=None if probe is None else float((later >= probe.threshold).mean()),
            unsafe=share(unsafe),
            change=difference(unsafe, self._base_unsafe, self._prepared.seed),
            kl=kl,
            perplexity=perplexity,
            perplexity_ratio=perplexity / self._base_perplexity,
        )

    def continuations(self, edit: Edit) -> list[str]:
        """What the model writes behind the prompts, up to its end-of-text token."""
        tokenizer, prepared = self._pair.loaded.tokenizer, self._prepared
        written = self._steered.write(prepared.prompts, edit, self._chance, prepared.temperature)
        ends = self._pair.loaded.text.special_ids
        texts = []
        for row in written.tolist():
            cut = next((i for i, token in enumerate(row) if token in ends), len(row))
            texts.append(str(tokenizer.decode(row[:cut])))
        return texts

    def _read(self, edit: Edit) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pooled scores of the rule and of the later probe on every positive."""
        own, later = [], []
        for ids, real in batches(self._prepared.positives):
            ran = self._steered.read(ids, edit, real.sum(1).tolist())
            for row, counted in enumerate(real.to(ran.sinks.device) & ~ran.sinks):
                own.append(self._own(ran.edited[row][counted]))
                later.append(self._later(None if ran.later is None else ran.later[row][counted]))
        return np.asarray(own), np.asarray(later)

    def _own(self, x: Tensor) -> float:
        if self._rule is None:
            return 0.0
        readings = self._pair.dictionary.autoencoder.encode(x) * self._unit
        columns = [feature.index for feature in self._rule.features]
        weights = torch.tensor([feature.weight for feature in self._rule.features], dtype=torch.float64)
        scores = (readings[:, columns].double().cpu() @ weights).numpy()
        return pooled(scores, self._rule.pooling, self._rule.hold)

    def _later(self, x: Tensor | None) -> float:
        if self._probe is None or x is None:
            return 0.0
        scores = x.double().cpu().numpy() @ self._probe.weights.astype(np.float64) + self._probe.bias
        return highest(scores, self._probe.half_life)

    def _damage(self, edit: Edit) -> tuple[float, float]:
        """KL in nats per token from the unedited model, and perplexity, on benign texts."""
        divergence = surprise = 0.0
        tokens = 0
        for number, (ids, real) in enumerate(batches(self._prepared.benign)):
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


def reading_rule(policy: Policy) -> Rule | None:
    """The rule whose score is followed: the first that suppresses and reads features, else the first that does."""
    reading = [rule for rule in policy.rules if rule.features and rule.when is None]
    suppressing = [rule for rule in reading if rule.action.name == "SUPPRESS"]
    return next(iter([*suppressing, *reading]), None)


def batches(texts: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Padded ids `[texts, time]` of texts of like length, and which positions hold tokens."""
    rest = sorted(texts, key=len)
    while rest:
        count = max(1, BATCH_TOKENS // len(rest[-1]))
        yield padded(rest[-count:])
        del rest[-count:]
