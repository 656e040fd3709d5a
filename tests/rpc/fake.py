"""A runtime without a model: one word is one token, and what a word reads is written in the word.

Implements `monitor.rpc.ports.ModelRuntime` with real threads. `lie` reads 1.0 in feature 7, `bomb` in feature 9, `sick`
cannot be read at all. A generation repeats the prompt's words until it has enough of them or repeats `end`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from monitor.errors import BadRequest, TooLong, Violation
from monitor.model.engine.requests import Lease
from monitor.model.prompts import Content, Prompt
from monitor.policy.policy import Policy, Rule, WeightedFeature
from monitor.policy.policyset import PolicySet
from monitor.policy.schema.policy import Max
from monitor.records import (
    Action,
    Clamp,
    Detection,
    FeatureReading,
    Mode,
    Phase,
    Severity,
    WatchPlan,
)
from tests.rpc.fake_threads import FakeEngine, FakeScorer, Vocabulary

FEATURES = 16


def policy(name: str, feature: int, action: Action, **changes: object) -> Policy:
    """A policy that fires on one word."""
    rule = Rule(
        name="word",
        phases=tuple(Phase),
        features=(WeightedFeature(feature, 1.0),),
        pooling=Max(),
        hold=1,
        threshold=0.5,
        severity=Severity.HIGH,
        action=action,
        mode=changes.pop("mode", Mode.ENFORCE),  # type: ignore[arg-type]
    )
    values: dict[str, object] = {
        "name": name,
        "title": name.title(),
        "category": name,
        "severity": Severity.HIGH,
        "description": f"Looks for {name}.",
        "maturity": "experimental",
        "rules": (rule,),
    }
    return Policy(**(values | changes))  # type: ignore[arg-type]


def policies(closed: bool = True) -> PolicySet:
    """`deception` alerts on `lie` and clamps it, `weapons` blocks on `bomb`."""
    return PolicySet(
        (
            policy("weapons", 9, Action.BLOCK, closed=closed),
            policy("deception", 7, Action.SUPPRESS, closed=closed, clamps=(Clamp(7, -2.0),)),
        ),
        "sha256:" + "c" * 64,
    )


class FakeRuntime:
    """`monitor.rpc.ports.ModelRuntime`."""

    def __init__(self, watch: WatchPlan, context: int = 64) -> None:
        self.context, self.longest_token = context, 1024
        self.model_digest = "sha256:" + "a" * 64
        self.dictionary_digest = "sha256:" + "b" * 64
        self._vocabulary = Vocabulary()
        self.engine = FakeEngine(self._vocabulary, watch)
        self.scorer = FakeScorer(self._vocabulary, watch)
        self.inspecting: Callable[[], None] = lambda: None
        self.unscored, self.sees = 0, True
        self.checks = 0
        """Health checks that asked for the number of unscored passes."""
        self.leases, self._watch = 0, watch
        self.token_text = self._vocabulary.text
        self.token_spelling = self._vocabulary.spelling
        self.token_texts = lambda ids: [self._vocabulary.text(i) for i in ids]
        self.special_ids = frozenset({0})

    def start(self) -> None:
        self.engine.start()
        self.scorer.start()

    def stop(self, grace: float) -> None:
        self.engine.stop(grace)
        self.scorer.stop(grace)

    def prepare(self, needs: object) -> None:
        self.prepared = needs

    def lease(self, watch: WatchPlan, clampable: Sequence[int]) -> Lease:
        self.leases += 1
        return Lease(slice(0, len(watch)), self._released)

    def first_lease(self) -> Lease:
        self.leases += 1
        return Lease(slice(0, len(self._watch)), self._released)

    def _released(self) -> None:
        self.leases -= 1

    def unscored_passes(self) -> int:
        self.checks += 1
        return self.unscored

    def can_see(self) -> bool:
        return self.sees

    def tokenise(
        self, content: Content, *, truncate: bool, room: int, reply: bool, at: datetime | None = None
    ) -> Prompt:
        texts = [content] if isinstance(content, str) else [turn["content"] for turn in content]
        ids = [0, *(self._vocabulary.id(word) for text in texts for word in text.split())]
        extra = len(ids) + room - self.context
        if extra <= 0:
            return Prompt(tuple(ids))
        if not truncate:
            raise TooLong(Violation("text", f"is {len(ids)} tokens long; {self.context} fit"))
        return Prompt((0, *ids[1 + extra :]), extra)

    def respelled(self, found: Detection, ids: Sequence[int]) -> Detection:
        return found

    def placed(self, text: str) -> list[tuple[int, int]]:
        return [(0, 0), *(found.span() for found in re.finditer(r"\S+", text))]

    def placed_behind(self, token: int, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        found = list(re.finditer(r"\S+", text))
        return [self._vocabulary.id(one[0]) for one in found], [one.span() for one in found]

    def check_clamps(self, clamps: Sequence[Clamp]) -> None:
        wrong = [(i, c.feature) for i, c in enumerate(clamps) if c.feature >= FEATURES]
        if wrong:
            raise BadRequest(*(Violation(f"clamps[{i}].feature", f"{f} does not exist") for i, f in wrong))

    def inspect(self, ids: Sequence[int], top_k: int, gone: Callable[[], bool]) -> tuple[Inspected, ...]:
        self.inspecting()
        return tuple(
            Inspected(i, t, self.token_text(t), tuple(FeatureReading(f, 1.0 / (f + 1)) for f in range(top_k)))
            for i, t in enumerate(ids)
        )


@dataclass(frozen=True)
class Inspected:
    position: int
    token_id: int
    text: str
    features: tuple[FeatureReading, ...]
    sink: bool = False
