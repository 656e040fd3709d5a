"""Two policy sets on the same texts: which rules changed their mind, how often, and whether that is more than chance.

Knows what fired on each text. Does not know models, files or how anything is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from monitor.records import Action

VERDICT = "verdict"
"""Stands for the action of the whole set where rules are named."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy set made of one text."""

    fired: frozenset[str]
    """`policy/rule` of every detection, in shadow or not."""
    action: Action
    """The strongest action of enforced rules."""


@dataclass(frozen=True, slots=True)
class Change:
    """One rule under both sets, or the verdict of both."""

    rule: str
    in_a: bool
    in_b: bool
    """Whether the set has the rule at all."""
    both: int
    only_a: tuple[int, ...]
    """Texts on which it fires under the first set alone."""
    only_b: tuple[int, ...]
    neither: int

    @property
    def flips(self) -> int:
        """Texts on which the sets disagree."""
        return len(self.only_a) + len(self.only_b)

    @property
    def p_value(self) -> float:
        """How likely a split of the flips as uneven as this is where neither set fires more (McNemar, exact)."""
        return mcnemar(len(self.only_a), len(self.only_b))


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rules, those that flip most often first, and the verdicts."""

    texts: int
    verdict: Change
    """Whether any enforced rule acts."""
    changes: tuple[Change, ...]
    actions: tuple[tuple[Action, Action, int], ...]
    """(first set's action, second set's action, texts), where they differ."""


def compare(a: Sequence[Outcome], b: Sequence[Outcome], rules_a: set[str], rules_b: set[str]) -> Comparison:
    """Both sets on the same texts, in the same order; `rules_a` and `rules_b` name every rule of each."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} outcomes cannot be compared with {len(b)}")
    changes = [
        _change(
            rule, rule in rules_a, rule in rules_b, [rule in o.fired for o in a], [rule in o.fired for o in b]
        )
        for rule in sorted(rules_a | rules_b)
    ]
    pairs = [(x.action, y.action) for x, y in zip(a, b, strict=True) if x.action != y.action]
    return Comparison(
        texts=len(a),
        verdict=_change(VERDICT, True, True, [_acts(o) for o in a], [_acts(o) for o in b]),
        changes=tuple(sorted(changes, key=lambda change: -change.flips)),
        actions=tuple((x, y, pairs.count((x, y))) for x, y in sorted(set(pairs))),
    )


def mcnemar(one: int, other: int) -> float:
    """Two-sided exact p-value of `one` against `other` discordant pairs: a fair coin tossed `one + other` times."""
    tosses = one + other
    tail = sum(math.comb(tosses, i) for i in range(min(one, other) + 1))
    return min(1.0, 2 * tail / (1 << tosses))


def _acts(outcome: Outcome) -> bool:
    return outcome.action > Action.ALLOW


def _change(rule: str, in_a: bool, in_b: bool, a: Sequence[bool], b: Sequence[bool]) -> Change:
    pairs = list(zip(a, b, strict=True))
    return Change(
        rule=rule,
        in_a=in_a,
        in_b=in_b,
        both=sum(x and y for x, y in pairs),
        only_a=tuple(i for i, (x, y) in enumerate(pairs) if x and not y),
        only_b=tuple(i for i, (x, y) in enumerate(pairs) if y and not x),
        neither=sum(not x and not y for x, y in pairs),
    )
