"""The recheck of one rule or condition: what it does now beside what it did, the verdict, and new thresholds.

Three questions decide. Does the score still separate (AUROC, and recall where 1 % of benign texts fire)? Do the locked
thresholds still fire on as few benign texts and on as many of the positives? Have scores near the threshold moved?
Rules have learnt from these very texts, so what they do on them says little by itself. It is compared with what they
did on the same texts with the pair that they were fitted to, text by text. Only where nobody recorded that, numbers of
the lock's card stand in, which were held out and are therefore lower.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.stats import norm

from monitor.lab.recheck.equivalence import (
    Estimate,
    Sameness,
    SamenessTest,
    TextKind,
    change_of_shares,
    drawn,
    independent,
    more_for_draws,
    more_texts,
    no_fall,
    no_rise,
    share,
    within,
)
from monitor.lab.recheck.scores import CalibrationTexts
from monitor.policy.files.lock import LockedRule, Separation
from monitor.policy.fit.lengths import NEVER, BucketMaxima, calibrate, fires
from monitor.policy.fit.metrics import RATE, RESAMPLES, Truth, measure_all, resampled
from monitor.policy.fit.readings import Floats, Indices
from monitor.policy.fit.thresholds import LEAST_SHARE, Leaf

FEWEST: dict[TextKind, int] = {"positive": 20, "benign": 100}
"""Fewer independent texts than these decide nothing, whatever they show."""
SEED = 0
SEPARATION = ("auroc", "held_out_auroc", "recall")
"""The tests of how well scores separate."""
Thresholds = tuple[tuple[int | None, float], ...]
"""Pairs of (last token, threshold) in growing order; the last pair has None as its last token."""


Decision = Callable[[float], Sameness]
"""A test as if there were so many times the texts."""


class RecheckVerdict(enum.StrEnum):
    """What a recheck came to."""

    HOLDS = "holds"
    """What was locked is shown to hold, within the margins."""
    STALE = "stale"
    """Scores have moved and separate as before: new thresholds make the rule what it was."""
    DEGRADED = "degraded"
    """Scores no longer separate as they did. No threshold mends that."""
    INCONCLUSIVE = "inconclusive"
    """The texts are too few to tell."""


WORST_FIRST = (
    RecheckVerdict.DEGRADED,
    RecheckVerdict.STALE,
    RecheckVerdict.INCONCLUSIVE,
    RecheckVerdict.HOLDS,
)


@dataclass(frozen=True)
class Margins:
    """How much may change and still count as the same."""

    false_positives: float = 0.01
    """How many more of the benign texts may fire, as a share."""
    caught: float = 0.10
    """How many more or fewer of the positives may fire, as a share."""
    score_shift: float = 0.10
    """How far scores at the threshold may move, as a share of its height above the middle of the benign texts."""
    auroc: float = 0.03
    """How much AUROC may fall."""
    recall: float = 0.10
    """How much recall at 1 % false positives may fall."""


@dataclass(frozen=True)
class RuleRecheck:
    """One rule or condition with thresholds in the lock."""

    section: str
    """`rules` or `conditions`."""
    name: str
    asked: float | None
    """The false-positive rate that the policy asks for; None where it gives the threshold itself."""
    verdict: RecheckVerdict
    paired: bool
    """Whether each text was compared with itself."""
    checks: tuple[SamenessTest, ...]
    thresholds: Thresholds
    """The thresholds that were checked."""
    flips: int | None = None
    """Texts on which it fires now and did not, or did and does not; None where that is not known."""
    proposed: Thresholds | None = None
    """New thresholds; None unless the verdict is STALE."""
    after: tuple[SamenessTest, ...] = ()
    """False positives and caught positives with the new thresholds."""

    def check(self, name: str) -> SamenessTest | None:
        """The test of one thing; None where it was not made."""
        return next((one for one in self.checks if one.name == name), None)


@dataclass(frozen=True)
class PairedScores:
    """What one rule or condition scores on the texts of its policy, now and with the pair that it was fitted to."""

    texts: CalibrationTexts
    now: BucketMaxima
    then: BucketMaxima | None
    """None where nobody recorded it."""
    known: Indices
    """Rows of the texts that `then` has scores of; all rows where it is None."""
    card: Separation | None
    """What the lock's card says of the rule's separation; None for what no card is about."""

    def rows(self, kind: TextKind, *, known: bool = True) -> Indices:
        """Rows of positive examples or of benign texts; all of them unless `known`."""
        rows = self.texts.positives if kind == "positive" else self.texts.benign
        return np.intersect1d(rows, self.known) if known else rows


def recheck_rule(
    leaf: Leaf, locked: LockedRule, thresholds: Thresholds, scores: PairedScores, margins: Margins
) -> RuleRecheck:
    """Recheck one rule or condition of a lock with the `thresholds` that run."""
    moved = None
    found = list(_rates(locked, scores, thresholds, thresholds, margins))
    if scores.then is not None:
        shift, moved = _shift(scores, scores.then, thresholds, margins.score_shift)
        found.append(shift)
    found += _separation(scores, margins)
    checks = tuple(map(_enough, found))
    verdict = _verdict(checks)
    paired, flips = scores.then is not None, _flips(scores, thresholds)
    rule = RuleRecheck(*leaf, locked.asked_rate, verdict, paired, checks, thresholds, flips)
    if verdict is not RecheckVerdict.STALE:
        return rule
    proposed = _proposed(locked, scores, thresholds, moved, margins)
    if proposed is None:
        return rule
    return replace(
        rule, proposed=proposed, after=tuple(_rates(locked, scores, thresholds, proposed, margins))
    )


def _flips(scores: PairedScores, thresholds: Thresholds) -> int | None:
    if scores.then is None:
        return None
    changed = fires(scores.now, thresholds) != fires(scores.then, thresholds)
    return int(changed[scores.known].sum())


def _verdict(checks: Sequence[SamenessTest]) -> RecheckVerdict:
    """Separation first: where that is lost or unknown, thresholds do not matter."""
    for names, moved in (
        (SEPARATION, RecheckVerdict.DEGRADED),
        (("false_positives", "caught", "score_shift"), RecheckVerdict.STALE),
    ):
        found = [one.found for one in checks if one.name in names]
        if Sameness.MOVED in found:
            return moved
        if Sameness.UNKNOWN in found:
            return RecheckVerdict.INCONCLUSIVE
    return RecheckVerdict.HOLDS


def _enough(check: SamenessTest) -> SamenessTest:
    """The test itself, or one that decides nothing where there are too few texts for any."""
    lacking = FEWEST[check.kind] - check.texts
    if lacking <= 0:
        return check
    return replace(check, found=Sameness.UNKNOWN, more=max(lacking, check.more or 0))


def _rates(
    locked: LockedRule, scores: PairedScores, then: Thresholds, now: Thresholds, margins: Margins
) -> Iterator[SamenessTest]:
    """False positives and caught positives, with thresholds `then` and `now`."""
    yield _false_positives(locked, scores, then, now, margins.false_positives)
    if (caught := _caught(locked, scores, then, now, margins.caught)) is not None:
        yield caught


def _false_positives(
    locked: LockedRule, scores: PairedScores, then: Thresholds, now: Thresholds, margin: float
) -> SamenessTest:
    """Benign texts on which the rule fires: at most `margin` more than before, or at most so many more than it may."""
    everything = scores.rows("benign", known=False)
    fired, total = int(fires(scores.now, now)[everything].sum()), len(everything)
    limit = max(locked.asked_rate or 0.0, locked.benign_rate) + margin

    def alone(times: float) -> Sameness:
        rate = share(fired * times, total * times)
        # The limit is of other texts than these, so only a rate beyond the margin counts as a rise.
        return (
            Sameness.SAME if rate.high < limit else Sameness.MOVED if rate.low > limit else Sameness.UNKNOWN
        )

    def made(then: float, change: Estimate | None, texts: int, decides: Decision) -> SamenessTest:
        rate, more = share(fired, total), more_texts(texts, decides)
        return SamenessTest("false_positives", then, rate, change, margin, decides(1), "benign", texts, more)

    if scores.then is None:
        return made(locked.benign_rate, None, total, alone)
    rows = scores.rows("benign")
    before, after = fires(scores.then, then)[rows], fires(scores.now, now)[rows]
    gained, lost, paired = int((after > before).sum()), int((after < before).sum()), len(rows)

    def decides(times: float) -> Sameness:
        change = change_of_shares(gained * times, lost * times, paired * times)
        # Few enough is few enough, however many there were.
        return Sameness.SAME if alone(times) is Sameness.SAME else no_rise(change, margin)

    was = float(before.mean()) if paired else 0.0
    return made(was, change_of_shares(gained, lost, paired), paired, decides)


def _caught(
    locked: LockedRule, scores: PairedScores, then: Thresholds, now: Thresholds, margin: float
) -> SamenessTest | None:
    """Positives on which the rule fires; None where there are none, or where nobody knows how many there were."""
    rows = scores.rows("positive")
    if not len(rows) or (scores.then is None and locked.caught is None):
        return None
    # Texts of one group are one piece of evidence, so counts are scaled down to the number of groups.
    count = independent(scores.texts.groups[rows])
    scale = count / len(rows)
    after = fires(scores.now, now)[rows]
    caught = float(after.sum()) * scale

    def made(then: float, change: Estimate | None, decides: Decision) -> SamenessTest:
        rate, more = share(caught, count), more_texts(count, decides)
        return SamenessTest("caught", then, rate, change, margin, decides(1), "positive", count, more)

    if scores.then is None:
        said = locked.caught or 0.0

        def alone(times: float) -> Sameness:
            rate = share(caught * times, count * times)
            return no_fall(Estimate(rate.value - said, rate.low - said, rate.high - said), margin)

        return made(said, None, alone)
    before = fires(scores.then, then)[rows]
    gained, lost = float((after > before).sum()) * scale, float((after < before).sum()) * scale

    def decides(times: float) -> Sameness:
        return within(change_of_shares(gained * times, lost * times, count * times), margin)

    return made(float(before.mean()), change_of_shares(gained, lost, count), decides)


def _separation(scores: PairedScores, margins: Margins) -> Iterator[SamenessTest]:
    """AUROC and recall where 1 % of benign texts fire, each with how much it may fall."""
    rows, texts = scores.known, scores.texts
    if not len(scores.rows("positive")) or not len(scores.rows("benign")):
        return
    if scores.then is None and scores.card is None:
        return
    truth = Truth(texts.positive[rows], texts.own[rows], texts.hard[rows], texts.groups[rows])
    values = {"now": scores.now.overall[rows]}
    if scores.then is not None:
        values["then"] = scores.then.overall[rows]
    measured = measure_all(values, truth, SEED)
    positive = independent(texts.groups[scores.rows("positive")])
    benign = len(scores.rows("benign"))
    # Recall turns on the few benign texts above the threshold, where these are fewer than the positives.
    limiting: TextKind = "benign" if RATE * benign < positive else "positive"
    tests: tuple[tuple[int, str, float, TextKind], ...]
    tests = ((0, "auroc", margins.auroc, "positive"), (1, "recall", margins.recall, limiting))
    if scores.then is not None and scores.card is not None:
        yield _held_out(scores, scores.then, scores.card, margins.auroc)
    for column, name, margin, kind in tests:
        count = positive if kind == "positive" else benign
        value, draws = getattr(measured["now"].measure, name), measured["now"].draws[:, column]
        now = drawn(value, draws)
        if scores.then is None:
            assert scores.card is not None
            yield _beside_card(name, now, scores.card, margin, kind, count)
            continue
        then = float(getattr(measured["then"].measure, name))
        change = drawn(value - then, draws - measured["then"].draws[:, column])
        decides = partial(no_fall, margin=margin)
        more = more_for_draws(count, change, decides)
        yield SamenessTest(name, then, now, change, margin, decides(change), kind, count, more)


def _held_out(scores: PairedScores, then: BucketMaxima, card: Separation, margin: float) -> SamenessTest:
    """The AUROC on texts that were held out, estimated from that of the card and from how far scores scatter.

    A rule that has learnt its examples by heart separates them even where its scores scatter widely. On unseen texts it
    would not. With scores of two normal distributions, AUROC is Φ(d), and scatter shrinks d by the correlation of the
    scores of then and now within a class.
    """
    texts = scores.texts
    rows = np.intersect1d(np.flatnonzero(texts.own == 1), scores.known)
    a, b = then.overall[rows].copy(), scores.now.overall[rows].copy()
    for label in (0, 1):
        mine = texts.positive[rows] == label
        if mine.any():
            a[mine] -= a[mine].mean()
            b[mine] -= b[mine].mean()
    products = np.stack([a * b, a * a, b * b], axis=1)
    distance = float(norm.ppf(np.clip(card.auroc, 0.5, 0.999)))

    def fallen(sums: Floats) -> float:
        alike = float(np.clip(sums[0] / np.sqrt(max(sums[1] * sums[2], 1e-30)), 0.0, 1.0))
        return float(norm.cdf(alike * distance) - norm.cdf(distance))

    draws = [fallen(products[one].sum(axis=0)) for one in resampled(texts.groups[rows], SEED, RESAMPLES)]
    change = drawn(fallen(products.sum(axis=0)), np.asarray(draws))
    now = Estimate(*(card.auroc + end for end in (change.value, change.low, change.high)))
    decides, count = partial(no_fall, margin=margin), independent(texts.groups[scores.rows("positive")])
    more = more_for_draws(count, change, decides)
    return SamenessTest(
        "held_out_auroc", card.auroc, now, change, margin, decides(change), "positive", count, more
    )


def _beside_card(
    name: str, now: Estimate, card: Separation, margin: float, kind: TextKind, count: int
) -> SamenessTest:
    """A test against what the card says; lost is what lies below all that the card was sure of."""
    then, least = getattr(card, name), getattr(card, f"{name}_low")

    def decides(value: Estimate) -> Sameness:
        if value.low > then - margin:
            return Sameness.SAME
        return Sameness.MOVED if value.high < least else Sameness.UNKNOWN

    more = more_for_draws(count, now, decides)
    return SamenessTest(name, then, now, None, margin, decides(now), kind, count, more)


def _shift(
    scores: PairedScores, before: BucketMaxima, thresholds: Thresholds, margin: float
) -> tuple[SamenessTest, Thresholds]:
    """How far scores at the thresholds have moved, and where the thresholds would have to be now.

    The straight line that gives the scores of then the mean and the deviation of those of now takes a threshold along.
    It keeps what share of texts lies above. A regression would not: it falls towards the mean where scores scatter.
    """
    rows = scores.known
    sums = _sums(before.best[rows], scores.now.best[rows])
    slope, offset = _line(sums.sum(axis=0))
    middle = _middle(before.overall[scores.rows("benign")])
    least = 0.1 * float(np.std(before.overall[rows])) + 1e-12
    heights = [max(limit - middle, least) for _, limit in thresholds]
    parts = [(slope * t + offset - t) / h for (_, t), h in zip(thresholds, heights, strict=True)]
    far = int(np.argmax(np.abs(parts)))
    limit, height = thresholds[far][1], heights[far]
    lines = [_line(sums[one].sum(axis=0)) for one in resampled(scores.texts.groups[rows], SEED, RESAMPLES)]
    change = drawn(parts[far], np.asarray([(a * limit + b - limit) / height for a, b in lines]))
    count, decides = len(scores.rows("benign")), partial(within, margin=margin)
    more = more_for_draws(count, change, decides)
    moved = tuple((up_to, slope * t + offset) for up_to, t in thresholds)
    return SamenessTest(
        "score_shift", None, None, change, margin, decides(change), "benign", count, more
    ), moved


def _sums(then: Floats, now: Floats) -> Floats:
    """`[texts, 5]`: how many scores each text has, and the sums of scores and of their squares, then and now."""
    there = np.isfinite(then) & np.isfinite(now)
    a, b = np.where(there, then, 0.0), np.where(there, now, 0.0)
    parts = [there.sum(1), a.sum(1), (a * a).sum(1), b.sum(1), (b * b).sum(1)]
    return np.stack([np.asarray(part, np.float64) for part in parts], axis=1)


def _line(sums: Floats) -> tuple[float, float]:
    """Slope and offset of the line that takes the mean and deviation of then to those of now."""
    count = max(float(sums[0]), 1.0)
    a, b = sums[1] / count, sums[3] / count
    spread_a, spread_b = sums[2] / count - a * a, sums[4] / count - b * b
    slope = float(np.sqrt(max(spread_b, 0.0) / max(spread_a, 1e-18)))
    return slope, float(b - slope * a)


def _middle(values: Floats) -> float:
    return float(np.median(values)) if len(values) else 0.0


def _proposed(
    locked: LockedRule,
    scores: PairedScores,
    thresholds: Thresholds,
    moved: Thresholds | None,
    margins: Margins,
) -> Thresholds | None:
    """New thresholds: the old ones taken along with the scores; where that cannot be done, set on the benign texts.

    The old thresholds were set on scores that were held out, and taking them along keeps that. Thresholds set here
    would be set on texts that the rule has learnt from. They are used where the others would fire on too many texts.
    """
    if moved is not None:
        rate = _false_positives(locked, scores, thresholds, moved, margins.false_positives)
        if rate.found is not Sameness.MOVED:
            return moved
    if locked.asked_rate is None:
        return moved
    benign = scores.now.take(scores.rows("benign", known=False))
    if not len(benign.best):
        return None
    positive = scores.now.overall[scores.rows("positive", known=False)]
    least = max(LEAST_SHARE * float(np.median(positive)), 1e-6) if len(positive) else NEVER
    return tuple((b.up_to, b.threshold) for b in calibrate(benign, locked.asked_rate, least))
