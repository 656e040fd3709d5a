"""One budget of false positives for all enforced rules of a set: thresholds that hold for their union.

An operator counts requests that raise an alert, whichever rule raises it. So the share of benign requests on which any
rule fires is held below one budget, for every length and every kind of text, in prompts, in responses and in both
together. Each rule gets the same share of benign texts at first (or shares in proportion to given weights), and rules
are loosened together until a length or kind has no room left (progressive filling, Bertsekas and Gallager, 1992). A
text on which one rule fires costs nothing more when another fires on it too, so rules that overlap get more.

The score of a text is turned into its tail share: the share of benign texts that score at least as high. It is taken
from folds that do not hold the text's group, so what fires here is an honest estimate of what fires on unseen texts.
Beyond the highest score seen, tails are taken as exponential.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom

from monitor.errors import PolicyError
from monitor.policy.fit.lengths import NEVER, spent
from monitor.policy.fit.readings import Floats, Indices

Bools = NDArray[np.bool_]
Thresholds = tuple[tuple[int | None, float], ...]
"""Pairs of (last token, threshold) in growing order; the last pair has no last token."""

PROMPT, RESPONSE, REQUEST = "prompt", "response", "request"
"""What a rate is about: prompts, responses, or requests that have both."""
VIEWS = (PROMPT, RESPONSE, REQUEST)
ANY = "any"
"""Stands for all kinds of text together."""
FOLDS = 5
SUFFICIENT = 2.0
"""Texts that a length or kind needs, as a multiple of one text per budget: 200 at a budget of 1 %."""
RESERVE = 0.25
"""Share of the budget that fitted rules have where rules with thresholds of their own have spent all of it."""
CHANCE = 0.9
"""One kind at one length may fire as often as so likely happens by chance at the budget's rate: such a cell has few
texts, and of many cells some always have more than their share."""
UPPER = 0.05
"""Share of the highest scores that says how a tail falls off."""
LEVEL = 0.95
"""Confidence of the intervals."""


@dataclass(frozen=True)
class BudgetRule:
    """One rule that shares the budget. Its threshold is to be set."""

    policy: str
    name: str
    ceiling: float
    """The rate that its policy asks for. It never gets more."""
    phases: tuple[bool, bool] = (True, True)
    """Whether it looks at prompts, and at responses."""
    weight: float = 1.0
    """Of two rules, one of weight 2 is given twice the share of one of weight 1."""
    least: float = NEVER
    """Lower bound of its thresholds."""


@dataclass(frozen=True)
class BenignScores:
    """The highest pooled scores of benign texts. A part is the prompt or the response of one request."""

    best: Floats
    """`[parts, rules, buckets]`; minus infinity where the part ends before the bucket."""
    edges: tuple[int, ...]
    """Last token of each bucket but the last, counted from 1."""
    lengths: Indices
    """`[parts]` tokens that rules look at."""
    responses: Bools
    """`[parts]` True for a response."""
    kinds: Sequence[str]
    """`[parts]` the kind of text, such as `prose`."""
    requests: Indices
    """`[parts]` which request it belongs to. A request has one part, or a prompt and a response."""
    groups: Indices
    """`[parts]` parts of one group are from one source and are never split between folds."""
    given: Bools | None = None
    """`[parts, given rules, buckets]` where rules with thresholds of their own fire; None where there are none."""
    given_policies: Sequence[str] = ()
    """`[given rules]` the policy of each."""

    @property
    def classes(self) -> Indices:
        """`[parts]` the bucket in which each ends."""
        return np.searchsorted(np.asarray(self.edges), self.lengths, side="left").astype(np.intp)

    @property
    def given_now(self) -> Bools:
        """`given`, with no rules where that is None."""
        shape = (len(self.lengths), 0, len(self.edges) + 1)
        return np.zeros(shape, bool) if self.given is None else self.given


@dataclass(frozen=True)
class SetRate:
    """How often any rule of a set fires on benign texts of one length and kind."""

    phase: str
    """`prompt`, `response`, or `request` for both together."""
    kind: str
    """The kind of text; `any` for all kinds together."""
    longer_than: int
    """The texts are longer than this, in tokens."""
    up_to: int | None
    """The texts are at most so long, in tokens; None for no limit."""
    texts: int
    fired: int
    by_policy: dict[str, int] = field(default_factory=dict)
    """For each policy that fires on any of them, on how many."""
    alone: dict[str, int] = field(default_factory=dict)
    """For each policy that is the only one to fire on any of them, on how many it is."""

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the rate."""
        return clopper_pearson(self.fired, self.texts)


@dataclass(frozen=True)
class SharedBudget:
    """What sharing a budget came to."""

    rules: tuple[BudgetRule, ...]
    thresholds: tuple[Thresholds, ...]
    """Of each rule."""
    benign_rates: tuple[float, ...]
    """Of each rule, the share of all parts that it looks at on which it fires."""
    rates: tuple[SetRate, ...]
    """By phase, kind and length. Every text was judged by thresholds from texts of other groups."""
    sufficient: int
    """Texts that a length or kind needs. With fewer nothing is promised for it."""


def clopper_pearson(fired: int, texts: int) -> tuple[float, float]:
    """The exact 95 % interval of a share (Clopper and Pearson, 1934); 0 to 1 where there are no texts."""
    if not texts:
        return 0.0, 1.0
    low = beta.ppf((1 - LEVEL) / 2, fired, texts - fired + 1) if fired else 0.0
    high = beta.ppf((1 + LEVEL) / 2, fired + 1, texts - fired) if fired < texts else 1.0
    return float(low), float(high)


def sufficient_texts(budget: float) -> int:
    """How many texts of a length and kind are needed to hold it to a budget."""
    return int(np.ceil(SUFFICIENT / budget - 1e-9))


def share_budget(
    rules: Sequence[BudgetRule], scores: BenignScores, budget: float, seed: int = 0
) -> SharedBudget:
    """Thresholds of all rules, by length, so that on benign texts of any length and kind at most `budget` fires.

    Rules with thresholds of their own (`scores.given`) spend first. Lengths and kinds with fewer than
    `sufficient_texts` are counted in `rates` and hold nothing down. Raises PolicyError where no text is long enough for
    a rule to score it.
    """
    work = _Sharing(tuple(rules), scores, budget, seed)
    for columns, whole in work.lengths:
        work.settle(columns, whole)
    given = scores.given_now.any(axis=2)
    owners = [*(rule.policy for rule in rules), *scores.given_policies]
    return SharedBudget(
        rules=tuple(rules),
        thresholds=work.thresholds,
        benign_rates=tuple(_share(work.fired[work.looked[:, r], r]) for r in range(len(rules))),
        rates=tuple(_rates(scores, np.concatenate([work.fired, given], axis=1), owners)),
        sufficient=work.sufficient,
    )


class _Sharing:
    """The state of one sharing: what was spent so far, from the first length to the last."""

    def __init__(self, rules: tuple[BudgetRule, ...], scores: BenignScores, budget: float, seed: int) -> None:
        self.sufficient = sufficient_texts(budget)
        self.fired = np.zeros((len(scores.lengths), len(rules)), bool)
        """`[parts, rules]` on which parts each rule has fired so far."""
        phases = np.asarray([rule.phases for rule in rules], bool).reshape(len(rules), 2)
        self.looked = phases[:, scores.responses.astype(np.intp)].T
        """`[parts, rules]` which parts each rule looks at."""
        self._rules, self._scores, self._budget = rules, scores, budget
        self._units = _Units(scores)
        self._folds = _folds(scores.groups, seed)
        self._given = np.zeros(len(scores.lengths), bool)
        self._found: list[list[float]] = [[] for _ in rules]

    @property
    def lengths(self) -> list[tuple[list[int], float]]:
        """The buckets that are set together, with the share of the budget that may be spent when each ends.

        A bucket that too few texts reach is joined to the one before.
        """
        reached = self._scores.classes[:, None] >= np.arange(len(self._scores.edges) + 1)
        counts = np.maximum(*(reached[self._scores.responses == side].sum(axis=0) for side in (False, True)))
        joined: list[list[int]] = []
        for bucket, count in enumerate(counts.tolist()):
            if joined and count < self.sufficient:
                joined[-1].append(bucket)
            else:
                joined.append([bucket])
        self._ends = [self._scores.edges[c[-1]] if c[-1] < len(self._scores.edges) else None for c in joined]
        return list(zip(joined, spent(self._budget, len(joined)), strict=True))

    @property
    def thresholds(self) -> tuple[Thresholds, ...]:
        """Thresholds of each rule by length; PolicyError where a rule scored no text."""
        return tuple(
            _thresholds(rule, self._ends, found) for rule, found in zip(self._rules, self._found, strict=True)
        )

    def settle(self, columns: list[int], whole: float) -> None:
        """Set the thresholds of one length; all together may have spent `whole` by its end."""
        best = self._scores.best[:, :, columns].max(axis=2)
        tails = [_Tail(best[:, r], self._reference(best[:, r], r)) for r in range(len(self._rules))]
        shares = np.full(best.shape, np.inf)
        for r, (tail, rule) in enumerate(zip(tails, self._rules, strict=True)):
            scored = self.looked[:, r] & (best[:, r] >= rule.least) & np.isfinite(best[:, r])
            shares[scored, r] = tail.held_out(self._folds)[scored]
        self._given |= self._scores.given_now[:, :, columns].any(axis=(1, 2))
        levels = _fill(shares, self._rules, self._rooms(columns, whole))
        self.fired |= shares <= levels
        for found, tail, rule, level in zip(self._found, tails, self._rules, levels.tolist(), strict=True):
            score = tail.score(level)
            found.append(max(score, written_up(rule.least)) if np.isfinite(score) else score)

    def _rooms(self, columns: list[int], whole: float) -> list[list[_Room]]:
        """Of each rule, what it must find room in: the set's, and its own where it is to fire less than the set may."""
        nothing, all_rules = np.zeros_like(self._given), np.asarray(self.fired.any(axis=1))
        shared = self._units.room(columns, self._given, all_rules, (self._budget, whole), self.sufficient)
        rooms = [[shared] for _ in self._rules]
        for r, rule in enumerate(self._rules):
            if rule.ceiling < self._budget:
                rates = rule.ceiling, whole * rule.ceiling / self._budget
                # A lower rate needs more texts: of few, it would let nothing fire at all.
                enough = sufficient_texts(rule.ceiling)
                rooms[r].append(self._units.room(columns, nothing, self.fired[:, r], rates, enough))
        return rooms

    def _reference(self, scores: Floats, rule: int) -> Indices:
        """The texts that a rule's scores are compared with: all that it looks at, or any where it looks at none."""
        scored = np.isfinite(scores)
        looked = np.flatnonzero(scored & self.looked[:, rule])
        return looked if len(looked) else np.flatnonzero(scored)


class _Units:
    """What is counted: prompts, responses, and requests that have both; with the kind and the length of each."""

    def __init__(self, scores: BenignScores) -> None:
        names, part_kinds = np.unique(np.asarray(list(scores.kinds), object).astype(str), return_inverse=True)
        self.kinds: list[str] = names.tolist()
        self.part_kinds: Indices = part_kinds.astype(np.intp)
        """`[parts]` the kind of each, as a number."""
        parts, classes = len(scores.lengths), scores.classes
        order = np.argsort(scores.requests, kind="stable")
        both = order[1:][scores.requests[order][1:] == scores.requests[order][:-1]]
        first = order[:-1][scores.requests[order][1:] == scores.requests[order][:-1]]
        self.of_part = np.full(parts, -1)
        """`[parts]` the number of the request that has this part and another; -1 where it has no other."""
        self.of_part[both] = self.of_part[first] = parts + np.arange(len(both))
        self.pairs = np.stack([first, both], axis=1)
        """`[requests, 2]` the parts of requests that have both."""
        self.views = np.concatenate([scores.responses.astype(np.intp), np.full(len(both), 2)])
        """`[units]` the place of each in `VIEWS`."""
        self.unit_kinds = np.concatenate([self.part_kinds, self.part_kinds[first]])
        self.classes = np.concatenate([classes, classes[self.pairs].max(axis=1)])
        """`[units]` the bucket in which each ends: of a request the longer part."""

    def fired(self, parts: Bools) -> Bools:
        """`[units, …]` what fires on a request fires on one of its parts."""
        return np.concatenate([parts, parts[self.pairs].any(axis=1)])

    def room(
        self, columns: list[int], given: Bools, fired: Bools, rates: tuple[float, float], sufficient: int
    ) -> _Room:
        """How much may still fire in every length and kind, in some buckets.

        `rates` are what may have fired of units that end in these buckets, and of those that go on. Where rules with
        thresholds of their own (`given`) have spent that already, a part of it is left to the others all the same.
        """
        gave, room = self.fired(given), _Room(self.fired(given | fired), self.of_part)
        for mine, rate, sole in self._cells(columns, rates):
            if (count := int(mine.sum())) >= sufficient:
                limit = int(np.floor(rate * count + 1e-9)) if sole else int(binom.ppf(CHANCE, count, rate))
                room.limit(mine, max(limit, int(gave[mine].sum() + np.ceil(RESERVE * limit))))
        return room

    def _cells(self, columns: list[int], rates: tuple[float, float]) -> Iterator[tuple[Bools, float, bool]]:
        """Every length, every kind, and every kind at each length, with its rate; True for a length or kind alone."""
        ends, beyond = np.isin(self.classes, columns), self.classes > columns[-1]
        begun = self.classes <= columns[-1]
        for view in range(len(VIEWS)):
            mine = self.views == view
            yield mine & ends, rates[0], True
            yield mine & beyond, rates[1], True
            for kind in range(len(self.kinds)):
                own = mine & (self.unit_kinds == kind)
                yield own & begun, rates[0], True
                yield own & ends, rates[0], False
                yield own & beyond, rates[1], False


class _Room:
    """How many more units may fire, in each of several overlapping groups of units."""

    def __init__(self, fired: Bools, of_part: Indices) -> None:
        self._fired, self._of_part = fired.copy(), of_part
        self._groups: list[list[int]] = [[] for _ in fired]
        self._left: list[int] = []

    def limit(self, mine: Bools, most: int) -> None:
        """Let at most so many of a group of units fire, those included that have fired already."""
        for unit in np.flatnonzero(mine).tolist():
            self._groups[unit].append(len(self._left))
        self._left.append(most - int(self._fired[mine].sum()))

    def holds(self, parts: Sequence[int]) -> bool:
        """Whether every group has room for what is new of these parts."""
        needed = Counter(group for unit in self._new(parts) for group in self._groups[unit])
        return all(self._left[group] >= count for group, count in needed.items())

    def take(self, parts: Sequence[int]) -> None:
        """Note that a rule fires on these parts."""
        for unit in self._new(parts):
            self._fired[unit] = True
            for group in self._groups[unit]:
                self._left[group] -= 1

    def _new(self, parts: Sequence[int]) -> list[int]:
        units = dict.fromkeys(
            unit for part in parts for unit in (part, int(self._of_part[part])) if unit >= 0
        )
        return [unit for unit in units if not self._fired[unit]]


def _fill(shares: Floats, rules: Sequence[BudgetRule], rooms: Sequence[Sequence[_Room]]) -> Floats:
    """The tail share at which each rule fires, `[rules]`, from those of texts `[parts, rules]`.

    Shares grow together, in proportion to the weights. A rule stops before the first texts that there is no room for.
    """
    ceilings = np.asarray([rule.ceiling for rule in rules])
    parts, which = np.nonzero(shares <= ceilings)
    levels, stopped = np.zeros(len(rules)), np.zeros(len(rules), bool)
    values = shares[parts, which]
    weighted = values / np.asarray([rule.weight for rule in rules])[which]
    order = np.lexsort((values, which, weighted))
    steps = groupby(order.tolist(), key=lambda i: (float(weighted[i]), int(which[i])))
    for (_, rule), members in steps:
        if stopped[rule]:
            continue
        together = list(members)
        share = float(values[together[0]])
        taken = parts[together].tolist()
        if all(room.holds(taken) for room in rooms[rule]):
            for room in rooms[rule]:
                room.take(taken)
            levels[rule] = share
        else:
            stopped[rule] = True
            levels[rule] = levels[rule] or share / 2
    # A rule that nothing stopped may go as far as its policy lets it.
    return np.where(stopped, levels, ceilings)


@dataclass(frozen=True)
class _Tail:
    """The upper tail of one rule's scores."""

    scores: Floats
    """`[parts]`"""
    texts: Indices
    """The parts that the tail is read from."""

    def held_out(self, folds: Indices) -> Floats:
        """`[parts]` the tail share of each score among texts of the other folds."""
        out = np.ones(len(self.scores))
        for fold in range(FOLDS):
            others = self.scores[self.texts[folds[self.texts] != fold]]
            if len(others):
                out[folds == fold] = _shares(np.sort(others), self.scores[folds == fold])
        return out

    def score(self, share: float) -> float:
        """The lowest score whose tail share is at most `share`, as a lock writes it."""
        return written_up(_quantile(np.sort(self.scores[self.texts]), share)) if len(self.texts) else NEVER


def _shares(ranked: Floats, scores: Floats) -> Floats:
    """The share of ascending scores at or above each of some scores; an exponential tail above the highest."""
    count = len(ranked) - np.searchsorted(ranked, scores, side="left")
    beyond = np.exp(-np.maximum(np.where(np.isfinite(scores), scores, 0.0) - ranked[-1], 0.0) / _fall(ranked))
    return np.asarray(np.where(count > 0, count, beyond) / len(ranked))


def _quantile(ranked: Floats, share: float) -> float:
    """The lowest score whose share of ascending scores is at most `share`; the inverse of `_shares`."""
    if share * len(ranked) < 1:
        return float(ranked[-1] - _fall(ranked) * np.log(max(share, 1e-12) * len(ranked)))
    values, first = np.unique(ranked, return_index=True)
    low = np.flatnonzero(len(ranked) - first <= share * len(ranked) + 1e-9)
    return float(values[low[0]]) if len(low) else float(ranked[-1] + _fall(ranked))


def _fall(ranked: Floats) -> float:
    """By how much a score grows where its tail falls to a third (to 1/e): the mean excess of the highest scores."""
    top = ranked[-max(10, int(UPPER * len(ranked))) :]
    excess = float((top - top[0]).sum() / max(len(top) - 1, 1))
    return max(excess, 1e-3 * abs(float(ranked[-1])), 1e-9)


def written_up(score: float) -> float:
    """A score rounded up to five significant digits, so that what a lock holds is never below it."""
    if not np.isfinite(score) or score == 0:
        return score
    rounded = float(f"{score:.5g}")
    unit = 10.0 ** (np.floor(np.log10(abs(score))) - 4)
    return rounded if rounded >= score else float(f"{rounded + unit:.5g}")


def _thresholds(rule: BudgetRule, ends: Sequence[int | None], found: Sequence[float]) -> Thresholds:
    """Thresholds by length; where no text was long enough to be scored, that of the next length that has one."""
    known = [value for value in found if np.isfinite(value)]
    if not known:
        raise PolicyError(
            f"`{rule.name}` of `{rule.policy}` scored none of the benign texts; its `for` needs longer ones: add some"
        )
    filled: list[float] = []
    for place, value in enumerate(found):
        later = [v for v in found[place:] if np.isfinite(v)]
        filled.append(value if np.isfinite(value) else later[0] if later else filled[-1])
    return tuple(zip(ends, filled, strict=True))


def _share(fired: Bools) -> float:
    return float(fired.mean()) if len(fired) else 0.0


def _folds(groups: Indices, seed: int) -> Indices:
    """`[parts]` a fold for each group, all of about one size."""
    names, place = np.unique(groups, return_inverse=True)
    return np.asarray((np.random.default_rng(seed).permutation(len(names)) % FOLDS)[place], np.intp)


def _rates(scores: BenignScores, fired: Bools, owners: Sequence[str]) -> Iterator[SetRate]:
    """Counts by phase, kind and length, from `fired` `[parts, rules]`; empty ones are left out."""
    units = _Units(scores)
    policies = sorted(set(owners))
    named = np.asarray(list(owners), object)
    by_policy = (
        np.stack([fired[:, named == name].any(axis=1) for name in policies], axis=1) if policies else fired
    )
    each = units.fired(by_policy)
    starts, ends = (0, *scores.edges), (*scores.edges, None)
    for view, phase in enumerate(VIEWS):
        for kind, name in ((None, ANY), *enumerate(units.kinds)):
            mine = units.views == view
            if kind is not None:
                mine &= units.unit_kinds == kind
            parts: list[tuple[int, int | None, Bools]] = [(0, None, mine)]
            for bucket, (low, up) in enumerate(zip(starts, ends, strict=True)):
                parts.append((low, up, mine & (units.classes == bucket)))
            for low, up, some in parts:
                if some.any():
                    yield _rate(phase, name, (low, up), policies, each[some])


def _rate(
    phase: str, kind: str, length: tuple[int, int | None], policies: Sequence[str], fired: Bools
) -> SetRate:
    """One count, from `fired` `[units, policies]`."""
    count = fired.sum(axis=1)
    each, lone = fired.sum(axis=0), fired[count == 1].sum(axis=0)
    return SetRate(
        phase,
        kind,
        *length,
        texts=len(fired),
        fired=int((count > 0).sum()),
        by_policy={name: int(n) for name, n in zip(policies, each, strict=True) if n},
        alone={name: int(n) for name, n in zip(policies, lone, strict=True) if n},
    )
