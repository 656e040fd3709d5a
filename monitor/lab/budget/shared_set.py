"""A folder of policies whose enforced rules share one budget of false positives: measured, set and written down."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monitor.errors import InputError, NotFound, PolicyError
from monitor.lab.budget.requests import MOST_TOKENS, BenignRequest, RequestPlan, benign_requests
from monitor.lab.budget.scores import SetScores, score_set
from monitor.lab.pair import Pair
from monitor.lab.policies import bound_elsewhere, lock_folder, running_of
from monitor.policy.files.benign import BENIGN_FOLDER, BenignText
from monitor.policy.files.examples import Label, texts_digest
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import DictionaryRef, LockedRule, LockModel, ModelRef, write_lock
from monitor.policy.files.lock_folders import LOCKS
from monitor.policy.files.resolve import resolve
from monitor.policy.files.set_budget import MeasuredRate, SetBudget, budgeted, write_budget
from monitor.policy.files.source import Running, Source
from monitor.policy.files.yaml_document import Problem
from monitor.policy.fit.budget import (
    BenignScores,
    BudgetRule,
    SetRate,
    SharedBudget,
    Thresholds,
    clopper_pearson,
    share_budget,
    sufficient_texts,
)
from monitor.policy.fit.lengths import EDGES, NEVER, BucketMaxima, fires
from monitor.policy.fit.thresholds import LEAST_SHARE
from monitor.policy.policy import Policy, Rule
from monitor.policy.policyset import PolicySet
from monitor.policy.schema.policy import AskedRate
from monitor.records import Phase

Bools = NDArray[np.bool_]
Tell = Callable[[str], None]
EXAMPLES = 200
"""Most positive examples of a policy from which the least threshold of its rules follows."""


@dataclass(frozen=True)
class BudgetSettings:
    """What is asked of a budget."""

    rate: float = 0.01
    """The share of benign requests of any length and kind on which any rule may fire."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Parts of single policies, where 1 is that of an ordinary policy."""
    most_tokens: int = MOST_TOKENS
    """About how many tokens of benign text are read."""
    seed: int = 0
    """Draws the folds by which rates are measured."""


@dataclass(frozen=True)
class SharedSet:
    """What came of sharing a budget."""

    budget: SetBudget
    sources: tuple[Source, ...]
    """The policies of the set, with their new locks."""

    def locks(self, policies: Sequence[str]) -> tuple[LockModel, ...]:
        """The locks of the policies named, in that order."""
        found = {source.model.metadata.name: source.lock for source in self.sources}
        return tuple(lock for name in policies if (lock := found.get(name)) is not None)


def share_set(
    pair: Pair, folder: Path, texts: Sequence[BenignText], settings: BudgetSettings, tell: Tell
) -> SharedSet:
    """Set the thresholds of all policies of a folder that have a lock for the pair, and write locks and budget.

    `texts` are benign texts that no detector learnt from. The rules that act share `settings.rate`. Rules in shadow
    take the rate that their policy asks for, each alone. Where there are fewer texts than one length needs, thresholds
    stay as they are.

    Raises:
        InputError: There is no benign text.
        NotFound: A weight names no policy.
        PolicyError: No policy of the folder fits the pair.
    """
    if not texts:
        raise InputError(
            f"every benign text of {folder} taught a detector, and none is left to set a budget on; put more into "
            f"{folder / BENIGN_FOLDER}, or name files with --benign"
        )
    running = running_of(pair)
    loaded, place = _loaded(folder, running), lock_folder(folder, running)
    if unknown := sorted(settings.weights.keys() - {s.model.metadata.name for s in loaded.sources}):
        known = ", ".join(s.model.metadata.name for s in loaded.sources)
        raise NotFound(
            f"a weight is given for {', '.join(unknown)}, which is no policy here; there are {known}"
        )
    requests = benign_requests(
        texts, _plan(pair, settings, loaded.sources), lambda text: len(pair.loaded.text.inner(text))
    )
    positives = _positives(loaded.sources)
    tell(f"scoring {len(requests)} benign requests")
    scores = score_set(pair, loaded.policies, [*requests, *(request for _, request in positives)], tell)
    work = _Thresholds(loaded, scores, requests, [name for name, _ in positives], settings)
    sources = [work.locked(source) for source in loaded.sources]
    budget = _budget(pair, loaded, work, sources)
    done = tuple(_with_share(source, budget) for source in sources)
    for source in done:
        if source.lock is not None and source.model.needs_lock:
            write_lock(source.path, source.lock, place)
    write_budget(folder / LOCKS / place, budget)
    return SharedSet(budget, done)


@dataclass(frozen=True)
class _Loaded:
    """The policies of a folder that fit a pair."""

    sources: tuple[Source, ...]
    policies: PolicySet
    left_out: dict[str, str]


def _loaded(folder: Path, running: Running) -> _Loaded:
    """Every policy of a folder that fits what runs, and why each of the others does not."""
    sources, policies, left_out = [], [], {}
    for source in read_folder(folder, running):
        problems: list[Problem] = []
        where = bound_elsewhere(source, running)
        policy = None if where else resolve(source, running, problems)
        if policy is None:
            left_out[source.model.metadata.name] = where or problems[0].message
        else:
            sources.append(source)
            policies.append(policy)
    if not policies:
        listed = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise PolicyError(f"no policy of {folder} fits this model and dictionary: {listed}")
    return _Loaded(tuple(sources), PolicySet(tuple(policies), ""), left_out)


def _plan(pair: Pair, settings: BudgetSettings, sources: Sequence[Source]) -> RequestPlan:
    """So many requests that the set can be held to its rate, and a rule to its own where that is lower."""
    takes_turns = pair.loaded.tokenizer.chat_template is not None
    asked = [rate for source in sources for rate in _asked(source).values()]
    needed = sufficient_texts(min(settings.rate, max(asked, default=settings.rate)))
    return RequestPlan(EDGES, needed, pair.loaded.context, settings.most_tokens, takes_turns)


def _asked(source: Source) -> dict[str, float]:
    """The rates of false positives that a policy's rules ask for."""
    return {
        rule.name: rule.threshold.false_positive_rate
        for rule in source.model.rules
        if isinstance(rule.threshold, AskedRate)
    }


def _positives(sources: Sequence[Source]) -> list[tuple[str, BenignRequest]]:
    """Positive examples of each policy that learnt from examples, with its name."""
    found = []
    for source in sources:
        if source.model.concept is not None:
            texts = [example.text for example in source.examples if example.label is Label.POSITIVE]
            name = source.model.metadata.name
            found += [(name, BenignRequest("positive", name, text)) for text in texts[:EXAMPLES]]
    return found


class _Thresholds:
    """New thresholds of all rules of a set, from what they scored on benign requests."""

    def __init__(
        self,
        loaded: _Loaded,
        scores: SetScores,
        requests: Sequence[BenignRequest],
        positives: Sequence[str],
        settings: BudgetSettings,
    ) -> None:
        self._scores, self._positives, self._benign = scores, list(positives), len(requests)
        self.settings = settings
        self._asked = {
            (source.model.metadata.name, rule): rate
            for source in loaded.sources
            for rule, rate in _asked(source).items()
        }
        self._learnt = {s.model.metadata.name for s in loaded.sources if s.model.concept is not None}
        program = scores.program
        self._simple = [(program.owners[i], program.rules[i]) for i in program.simple]
        self._combined = [(program.owners[i], program.rules[i]) for i in program.combined]
        self._mine = np.flatnonzero(scores.sources < self._benign)
        self.requests = requests
        self.shared = self._share()
        self.alone = self._each_alone()

    @property
    def sufficient(self) -> bool:
        """Whether there are as many prompts, or responses, as one length needs."""
        responses = self._scores.responses[self._mine]
        return max(int(responses.sum()), int((~responses).sum())) >= sufficient_texts(self.settings.rate)

    def locked(self, source: Source) -> Source:
        """A policy with its new thresholds; as it is where the texts did not suffice."""
        if source.lock is None or not self.sufficient:
            return source
        name = source.model.metadata.name
        found = {
            rule.name: (pairs, rate)
            for shared in (self.shared, *self.alone)
            for rule, pairs, rate in zip(shared.rules, shared.thresholds, shared.benign_rates, strict=True)
            if rule.policy == name
        }
        rules = {
            rule: self._entry(name, rule, locked, *found[rule]) if rule in found else locked
            for rule, locked in source.lock.rules.items()
        }
        return replace(source, lock=source.lock.model_copy(update={"rules": rules}))

    def _entry(
        self, policy: str, name: str, locked: LockedRule, pairs: Thresholds, rate: float
    ) -> LockedRule:
        """The lock's entry for a rule."""
        phases = next(
            rule.phases for owner, rule in self._simple if (owner.name, rule.name) == (policy, name)
        )
        sides = [side for side, phase in enumerate((Phase.PROMPT, Phase.RESPONSE)) if phase in phases]
        return LockedRule.model_validate(
            {
                **locked.model_dump(by_alias=True),
                "threshold": [{"up_to": up_to, "threshold": value} for up_to, value in pairs],
                "benign_rate": rate,
                "benign_texts": int(np.isin(self._scores.responses[self._mine], sides).sum()),
                "caught": _caught(locked, pairs),
            }
        )

    def _share(self) -> SharedBudget:
        """The rules that act share the rate."""
        moved = [
            i
            for i, (owner, rule) in enumerate(self._simple)
            if self.sufficient and rule.enforced and self._fitted(owner, rule)
        ]
        return self._set(moved, self.settings.rate, *self._given(moved))

    def _each_alone(self) -> list[SharedBudget]:
        """Every rule in shadow takes the rate that it asks for."""
        return [
            self._set([i], self._asked[owner.name, rule.name])
            for i, (owner, rule) in enumerate(self._simple)
            if self.sufficient and not rule.enforced and self._fitted(owner, rule)
        ]

    def _fitted(self, owner: Policy, rule: Rule) -> bool:
        return (owner.name, rule.name) in self._asked

    def _set(
        self, columns: Sequence[int], rate: float, given: Bools | None = None, owners: Sequence[str] = ()
    ) -> SharedBudget:
        """Thresholds of some rules that share a rate."""
        scores, mine = self._scores, self._mine
        sources = scores.sources[mine]
        names = sorted({request.group for request in self.requests})
        places = {name: place for place, name in enumerate(names)}
        benign = BenignScores(
            best=scores.best[mine][:, list(columns)],
            edges=EDGES,
            lengths=scores.lengths[mine],
            responses=scores.responses[mine],
            kinds=[self.requests[i].kind for i in sources],
            requests=scores.requests[mine],
            groups=np.asarray([places[self.requests[i].group] for i in sources], np.intp),
            given=given,
            given_policies=owners,
        )
        return share_budget([self._rule(i) for i in columns], benign, rate, self.settings.seed)

    def _rule(self, i: int) -> BudgetRule:
        owner, rule = self._simple[i]
        return BudgetRule(
            policy=owner.name,
            name=rule.name,
            ceiling=self._asked[owner.name, rule.name],
            phases=(Phase.PROMPT in rule.phases, Phase.RESPONSE in rule.phases),
            weight=self.settings.weights.get(owner.name, 1.0),
            least=self._least(i, owner.name),
        )

    def _least(self, i: int, policy: str) -> float:
        """Lower bound of the thresholds of a learnt detector: a part of what its positive examples score."""
        if policy not in self._learnt:
            return NEVER
        own = [self._benign + n for n, name in enumerate(self._positives) if name == policy]
        best = self._scores.best[np.isin(self._scores.sources, own), i].max(axis=1)
        scored = best[np.isfinite(best)]
        return max(LEAST_SHARE * float(np.median(scored)), 1e-6) if len(scored) else 1e-6

    def _given(self, moved: Sequence[int]) -> tuple[Bools, list[str]]:
        """`[parts, rules, lengths]` where rules fire that act and are not moved, and the policy of each."""
        scores, mine = self._scores, self._mine
        found, owners = [np.zeros((len(mine), 0, len(EDGES) + 1), bool)], []
        for i, (owner, rule) in enumerate(self._simple):
            if rule.enforced and i not in moved:
                limits = np.asarray([_lowest(rule, low, up) for low, up in _ranges()])
                found.append((scores.best[mine, i] >= limits)[:, None] & self._looks(rule)[:, None, None])
                owners.append(owner.name)
        for n, (owner, rule) in enumerate(self._combined):
            if rule.enforced:
                found.append(scores.combined[mine][:, [n]])
                owners.append(owner.name)
        return np.concatenate(found, axis=1), owners

    def _looks(self, rule: Rule) -> Bools:
        """`[parts]` which parts a rule looks at."""
        sides = np.asarray([phase in rule.phases for phase in (Phase.PROMPT, Phase.RESPONSE)])
        return np.asarray(sides[self._scores.responses[self._mine].astype(np.intp)])


def _ranges() -> list[tuple[int, float]]:
    """(longer than, up to) of each range of lengths."""
    return list(zip((0, *EDGES), (*EDGES, np.inf), strict=True))


def _lowest(rule: Rule, low: int, up: float) -> float:
    """The lowest threshold of a rule between two lengths."""
    found, before = [], 0.0
    for last, value in rule.lengths or ((None, rule.threshold),):
        until = np.inf if last is None else float(last)
        if before < up and until > low:
            found.append(value)
        before = until
    return min(found)


def _caught(locked: LockedRule, pairs: Thresholds) -> float | None:
    """The share of held-out positives on which a rule fires with other thresholds; None where that is not known."""
    if locked.held_out is None:
        return None
    scores = np.frombuffer(base64.b64decode(locked.held_out), "<f4").astype(np.float64)
    if not len(scores) or len(scores) % (len(EDGES) + 1):
        return None
    return float(fires(BucketMaxima(scores.reshape(-1, len(EDGES) + 1), EDGES), pairs).mean())


def _budget(pair: Pair, loaded: _Loaded, work: _Thresholds, sources: Sequence[Source]) -> SetBudget:
    """The budget as it is written down."""
    settings = work.settings
    written = [part for request in work.requests for part in request.written]
    return SetBudget(
        model=ModelRef(name=Path(pair.loaded.name).name, digest=pair.loaded.digest),
        dictionary=DictionaryRef(
            digest=pair.dictionary.digest, features=pair.dictionary.autoencoder.features
        ),
        rate=settings.rate,
        context=pair.loaded.context,
        sufficient=work.shared.sufficient,
        shared=work.sufficient,
        benign=texts_digest(written),
        edges=list(EDGES),
        policies={
            source.model.metadata.name: budgeted(
                source, settings.weights.get(source.model.metadata.name, 1.0)
            )
            for source in sources
        },
        left_out=loaded.left_out,
        rates=[_measured(rate) for rate in work.shared.rates],
    )


def _measured(rate: SetRate) -> MeasuredRate:
    low, high = rate.interval
    return MeasuredRate.model_validate({**asdict(rate), "low": low, "high": high})


def _with_share(source: Source, budget: SetBudget) -> Source:
    """A policy whose lock says what it spends."""
    if source.lock is None or not budget.shared:
        return source
    share = budget.locked(source.model.metadata.name, clopper_pearson)
    return replace(source, lock=source.lock.model_copy(update={"budget": share}))
