"""The budget of a policy set as it was shared, `budget.json` beside the locks, and what is to be said of it.

It is about one model and one dictionary. It says how often any rule of the set fires on benign texts, by length and
kind, and how much of that each policy spends. The numbers hold as long as the thresholds are those of the locks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from monitor.policy.files.benign import CODE, DIALOGUE, INSTRUCTIONS, PROSE
from monitor.policy.files.lock import (
    BudgetShare,
    DictionaryRef,
    Digest,
    LockedBudget,
    ModelRef,
    Share,
    UncalibratedTexts,
    as_written,
)
from monitor.policy.files.resolve import measured_mode
from monitor.policy.files.source import Source
from monitor.policy.files.yaml_document import PolicyProblems, Problem
from monitor.policy.schema.base import Strict
from monitor.policy.schema.policy import AskedRate
from monitor.records import Mode

BUDGET_FILE = "budget.json"
USUAL = (DIALOGUE, INSTRUCTIONS, PROSE, CODE)
"""Kinds of text that a budget is to hold for."""
ANY = "any"
"""Stands for all kinds of text together."""
Phase = Literal["prompt", "response", "request"]
PHASES: tuple[Phase, ...] = ("prompt", "response", "request")
Count = Annotated[int, Field(ge=0)]


class MeasuredRate(Strict):
    """How often any enforced rule of the set fires on benign texts of one phase, kind and length."""

    phase: Phase
    """`request` is prompt and response together."""
    kind: str
    longer_than: Count
    up_to: Annotated[int, Field(ge=1)] | None
    texts: Count
    fired: Count
    low: Share
    high: Share
    """The exact 95 % interval of the rate."""
    by_policy: dict[str, Count] = Field(default_factory=dict)
    """For each policy that fires on any of them, on how many."""
    alone: dict[str, Count] = Field(default_factory=dict)
    """For each policy that alone fires on any of them, on how many it is alone."""

    @property
    def whole(self) -> bool:
        """Whether it is of all lengths."""
        return self.longer_than == 0 and self.up_to is None

    @property
    def share(self) -> float:
        """The rate; 0 where there are no texts."""
        return self.fired / self.texts if self.texts else 0.0


class BudgetedPolicy(Strict):
    """One policy of the set."""

    weight: Annotated[float, Field(gt=0)] = 1.0
    enforced: list[str]
    """Its rules that act, by name: only these spend."""
    own: list[str] = Field(default_factory=list)
    """Those among them whose thresholds the policy gives, or that combine conditions. The budget does not move them."""
    thresholds: Digest
    """Digest of the thresholds in its lock; of those of the policy where it has none."""


class SetBudget(Strict):
    """The file."""

    api_version: Annotated[Literal["monitor/v1"], Field(alias="apiVersion")] = "monitor/v1"
    kind: Literal["Budget"] = "Budget"
    model: ModelRef
    dictionary: DictionaryRef
    rate: Annotated[float, Field(gt=0, le=0.5)]
    """The share of benign texts of any length and kind on which the enforced rules may fire, all together."""
    context: Annotated[int, Field(ge=1)]
    """Tokens of the model's context; no text is longer."""
    sufficient: Annotated[int, Field(ge=1)]
    """How many texts a length or kind needs."""
    shared: bool
    """False where the texts were too few to share the budget: each rule then takes what it asks for."""
    benign: Digest
    """Digest of the benign texts."""
    edges: list[int]
    """Last token of each range of lengths but the last."""
    policies: dict[str, BudgetedPolicy]
    left_out: dict[str, str] = Field(default_factory=dict)
    """Policies of the folder that are not in it, and why."""
    rates: list[MeasuredRate]

    def rate_of(
        self, phase: str, kind: str, longer_than: int = 0, up_to: int | None = None
    ) -> MeasuredRate | None:
        """One of `rates`; None where there were no such texts."""
        wanted = phase, kind, longer_than, up_to
        return next((r for r in self.rates if (r.phase, r.kind, r.longer_than, r.up_to) == wanted), None)

    @property
    def kinds(self) -> list[str]:
        """The kinds of text, without `any`."""
        return list(dict.fromkeys(r.kind for r in self.rates if r.kind != ANY))

    @property
    def lengths(self) -> list[tuple[int, int | None]]:
        """(longer than, up to) of each range of lengths that the model's context holds, in tokens."""
        ranges = zip((0, *self.edges), (*self.edges, None), strict=True)
        return [(low, up) for low, up in ranges if low < self.context]

    def uncalibrated(self) -> list[UncalibratedTexts]:
        """Lengths, then kinds, for which there were too few prompts or responses; nothing is promised for them."""
        found = []
        for phase in PHASES[:2]:
            # Nobody answers with an instruction.
            kinds = [*USUAL, *(kind for kind in self.kinds if kind not in USUAL)]
            kinds = [kind for kind in kinds if phase == "prompt" or kind != INSTRUCTIONS]
            cells: list[tuple[str, int, int | None]] = [(ANY, *length) for length in self.lengths]
            for kind, low, up in cells + [(kind, 0, None) for kind in kinds]:
                rate = self.rate_of(phase, kind, low, up)
                texts = rate.texts if rate is not None else 0
                if texts < self.sufficient:
                    found.append(
                        UncalibratedTexts(phase=phase, kind=kind, longer_than=low, up_to=up, texts=texts)
                    )
        return found

    def locked(self, policy: str, interval: Callable[[int, int], tuple[float, float]]) -> LockedBudget:
        """What the lock of a policy says of it; `interval` gives that of so many texts of so many."""
        rates = [rate for phase in PHASES if (rate := self.rate_of(phase, ANY)) is not None and rate.texts]
        return LockedBudget(
            rate=self.rate,
            weight=self.policies[policy].weight,
            sufficient=self.sufficient,
            shares=[_share(rate, policy, interval) for rate in rates],
            uncalibrated=self.uncalibrated(),
        )


def _share(
    rate: MeasuredRate, policy: str, interval: Callable[[int, int], tuple[float, float]]
) -> BudgetShare:
    fired = rate.by_policy.get(policy, 0)
    low, high = interval(fired, rate.texts)
    return BudgetShare(
        phase=rate.phase,
        texts=rate.texts,
        fired=fired / rate.texts,
        low=low,
        high=high,
        alone=rate.alone.get(policy, 0) / rate.texts,
        set=rate.share,
    )


def budget_path(locks: Path) -> Path:
    """The file of the budget in a folder of locks."""
    return locks / BUDGET_FILE


def write_budget(locks: Path, budget: SetBudget) -> Path:
    """Write the budget beside the locks and return its path. A reader never sees half of the file."""
    path = budget_path(locks)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    data = as_written(budget.model_dump(mode="json", by_alias=True))
    rates = ",\n  ".join(json.dumps(rate) for rate in data.pop("rates"))
    head = json.dumps(data, indent=1).removesuffix("\n}")
    partial.write_text(f'{head},\n "rates": [\n  {rates}\n ]\n}}\n', encoding="utf-8")
    partial.replace(path)
    return path


def read_budget(locks: Path) -> SetBudget | None:
    """The budget in a folder of locks; None where there is none. PolicyProblems where the file is no such thing."""
    path = budget_path(locks)
    if not path.exists():
        return None
    try:
        return SetBudget.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        hint = "run `sae-monitor policy budget`, which writes it anew"
        raise PolicyProblems([Problem(str(path), 1, 1, f"`{where}`: {first['msg']}", hint)]) from error


def budgeted(source: Source, weight: float = 1.0) -> BudgetedPolicy:
    """What the budget notes of a policy as it is written and locked now."""
    given = measured_mode(source)
    acting = [rule for rule in source.model.rules if (rule.mode or given) is Mode.ENFORCE]
    return BudgetedPolicy(
        weight=weight,
        enforced=[rule.name for rule in acting],
        own=[rule.name for rule in acting if not isinstance(rule.threshold, AskedRate)],
        thresholds=thresholds_digest(source),
    )


def thresholds_digest(source: Source) -> str:
    """`sha256:` over the thresholds of a policy's rules and conditions, those of its lock where it has one."""
    lock = source.lock
    found: dict[str, object] = {}
    for (section, name), leaf in source.model.leaves().items():
        locked = None if lock is None else (lock.rules if section == "rules" else lock.conditions).get(name)
        value = leaf.threshold if locked is None else locked.threshold
        plain = [one.model_dump() for one in value] if isinstance(value, list) else value
        found[f"{section} {name}"] = plain.model_dump() if isinstance(plain, AskedRate) else plain
    raw = json.dumps(as_written(found), sort_keys=True)
    return "sha256:" + hashlib.sha256(raw.encode()).hexdigest()


def budgeted_sources(budget: SetBudget | None, sources: Sequence[Source]) -> list[Source]:
    """The policies of a folder that a budget is about: those that have a lock for its pair, or need none."""
    if budget is None:
        return [source for source in sources if source.lock is not None]
    return [
        source
        for source in sources
        if source.model.metadata.name not in budget.left_out
        and (source.lock is None or source.lock.model.digest == budget.model.digest)
    ]


def set_notes(sources: Sequence[Source]) -> tuple[str, ...]:
    """What must be known of the set of policies that is loaded with the locks of one pair; see `budget_notes`."""
    places = {source.lock_file.parent for source in sources if source.lock_file is not None}
    try:
        budget = read_budget(min(places)) if places else None
    except PolicyProblems as error:
        return (str(error),)
    locks = [source.lock for source in sources if source.lock is not None]
    if budget is not None and any(lock.model.digest != budget.model.digest for lock in locks):
        return (f"{BUDGET_FILE} is of another model, {budget.model.name}; run `sae-monitor policy budget`",)
    return tuple(budget_notes(budget, sources))


def budget_notes(budget: SetBudget | None, sources: Sequence[Source]) -> Iterator[str]:
    """What must be known of the budget of a set: what it does not hold for. Each is a sentence.

    `sources` are the policies that apply to its model, with their locks.
    """
    now = {source.model.metadata.name: budgeted(source) for source in sources}
    acting = {name for name, policy in now.items() if policy.enforced}
    if budget is None:
        if len(acting) > 1:
            yield (
                f"nobody has measured on how many benign texts the {len(acting)} policies fire together: "
                "`sae-monitor policy budget` shares one rate over their rules"
            )
        return
    yield from _changed(budget, now, acting)
    if not budget.shared:
        yield (
            f"there were too few benign texts to share a budget ({budget.sufficient} of a length are needed): every "
            "rule takes the rate that it asks for; name more with `policy budget --benign`"
        )
        return
    for phase in PHASES[:2]:
        few = [one for one in budget.uncalibrated() if one.phase == phase]
        if few:
            listed = ", ".join(f"{_texts(one.kind, one.longer_than, one.up_to)} ({one.texts})" for one in few)
            yield (
                f"no rate is promised for {phase}s of {listed}: {budget.sufficient} benign texts are needed of each; "
                "name more with `policy budget --benign`"
            )
    for rate in budget.rates:
        if rate.texts >= budget.sufficient and rate.low > budget.rate:
            what = _texts(rate.kind, rate.longer_than, rate.up_to)
            yield (
                f"the set fires on {rate.share:.1%} ({rate.low:.1%} to {rate.high:.1%}) of benign {rate.phase}s of "
                f"{what}, above its budget of {budget.rate:.1%}{_loud(budget, rate)}"
            )


def _changed(budget: SetBudget, now: Mapping[str, BudgetedPolicy], acting: set[str]) -> Iterator[str]:
    """A note where the set is not the one that the budget was shared over."""
    then = {name for name, policy in budget.policies.items() if policy.enforced}
    moved = {
        name
        for name in acting & then
        if (now[name].thresholds, now[name].enforced)
        != (budget.policies[name].thresholds, budget.policies[name].enforced)
    }
    if differ := sorted(moved | (acting ^ then)):
        yield (
            f"{', '.join(differ)}: thresholds or modes are not those that the budget was shared over; run "
            "`sae-monitor policy budget`"
        )


def _loud(budget: SetBudget, rate: MeasuredRate) -> str:
    """Which policies with thresholds of their own fire there."""
    own = [name for name, policy in budget.policies.items() if policy.own and rate.by_policy.get(name)]
    return f"; {', '.join(own)} has thresholds of its own, which no budget moves" if own else ""


def _texts(kind: str, longer_than: int, up_to: int | None) -> str:
    """Texts of a kind and length, in words."""
    if up_to is not None:
        length = f"{longer_than + 1:,} to {up_to:,} tokens"
    else:
        length = f"more than {longer_than:,} tokens" if longer_than else "any length"
    if kind == ANY:
        return length
    return f"kind {kind}, {length}" if longer_than or up_to is not None else f"kind {kind}"
