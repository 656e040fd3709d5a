"""The shape of a policy file, `apiVersion: monitor/v1`.

Knows every field, its type, its default and which fields exclude each other. Does not know files, positions
or any dictionary. Fields are added in later versions; none changes its meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from monitor.policy.schema.base import CATEGORY as CATEGORY
from monitor.policy.schema.base import DIGEST as DIGEST
from monitor.policy.schema.base import FILE as FILE
from monitor.policy.schema.base import NAME as NAME
from monitor.policy.schema.base import FeatureIndex as FeatureIndex
from monitor.policy.schema.base import FieldCheck, places
from monitor.policy.schema.base import Name as Name
from monitor.policy.schema.base import Strict as Strict
from monitor.policy.schema.base import Text as Text
from monitor.policy.schema.base import refuse as refuse
from monitor.policy.schema.check import CheckModel as CheckModel
from monitor.policy.schema.check import ConditionModel as ConditionModel
from monitor.policy.schema.check import Pin as Pin
from monitor.policy.schema.check import once
from monitor.policy.schema.conditions import condition_checks
from monitor.policy.schema.pooling import AnyPooling as AnyPooling
from monitor.policy.schema.pooling import Cumulative as Cumulative
from monitor.policy.schema.pooling import Ema as Ema
from monitor.policy.schema.pooling import LongestRun as LongestRun
from monitor.policy.schema.pooling import Max as Max
from monitor.policy.schema.pooling import Mean as Mean
from monitor.policy.schema.pooling import PoolingModel as PoolingModel
from monitor.policy.schema.pooling import TopKMean as TopKMean
from monitor.policy.schema.pooling import pooling_of as pooling_of
from monitor.policy.schema.probe import ProbeModel as ProbeModel
from monitor.policy.schema.suppress import Suppress as Suppress
from monitor.policy.schema.threshold import AskedRate as AskedRate
from monitor.policy.schema.threshold import LengthThreshold as LengthThreshold
from monitor.policy.schema.threshold import threshold_at as threshold_at
from monitor.records import Action, Mode, Severity

API_VERSION = "monitor/v1"
MOST_CONDITIONS = 64
Pattern = Annotated[str, Field(min_length=1, max_length=200)]
LABEL = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
LabelName = Annotated[str, Field(pattern=LABEL, max_length=64)]


class Metadata(Strict):
    """What the policy is about."""

    name: Name
    """Lower-case words with hyphens; the file is called NAME.yaml."""
    title: Annotated[str, Field(min_length=1, max_length=120)]
    category: Annotated[str, Field(pattern=CATEGORY, max_length=64)]
    """Lower-case words with underscores; a label of metrics."""
    severity: Annotated[Severity, Field(strict=False)]
    """How bad it is when the claim is true; rules may differ."""
    description: Annotated[str, Field(min_length=1, max_length=4000)]
    maturity: Literal["experimental", "beta", "stable"] | None = None
    """Left out, it says what the lock's card supports; `experimental` where nothing was measured."""
    false_positives: list[Text] = []
    """Known kinds of benign text that fire."""
    references: list[Text] = []


class Concept(Strict):
    """What the policy looks for, stated by examples; `policy fit` finds the features."""

    examples: Annotated[str, Field(pattern=FILE, max_length=200)] | None = None
    """A JSONL file beside the policy: rows of text, label (positive, negative, hard_negative), group."""
    positive: list[Text] = []
    negative: list[Text] = []
    hard_negative: list[Text] = []
    """Benign texts that look alike."""
    detector: Literal["features", "probe"] | None = None
    """What the fit is to learn; left out, its `--detector` decides."""

    def checks(self) -> Iterable[FieldCheck]:
        """There is something to learn from."""
        return (self._enough,)

    def _enough(self) -> None:
        if self.examples is None and not (self.positive and (self.negative or self.hard_negative)):
            raise refuse(
                [], "a concept needs `examples: FILE.jsonl`, or both `positive` and `negative` texts"
            )


class Match(Strict):
    """Patterns are exact words, or globs with `*`, `?` and `[abc]`. All that is written must match."""

    callers: Annotated[list[Pattern], Field(min_length=1)] | None = None
    """Names of authenticated callers; a caller without a name matches only `*`."""
    labels: Annotated[dict[LabelName, Pattern], Field(min_length=1)] | None = None
    """Labels of the request. Callers choose them, so bind by labels only where callers are trusted."""
    models: Annotated[list[Pattern], Field(min_length=1)] | None = None
    """Names of models. Where the running one does not match, the policy is not loaded and needs no lock for it."""

    def checks(self) -> Iterable[FieldCheck]:
        """Something is bound."""
        return (self._something,)

    def _something(self) -> None:
        if not (self.callers or self.labels or self.models):
            raise refuse([], "write `callers:`, `labels:` or `models:`, or leave `match` out")

    def admits(self, caller: str, labels: Mapping[str, str]) -> bool:
        """Whether a request of this caller with these labels is meant."""
        wanted = self.labels or {}
        return fits(self.callers, caller) and all(
            name in labels and fnmatchcase(labels[name], pattern) for name, pattern in wanted.items()
        )


def fits(patterns: Sequence[str] | None, word: str) -> bool:
    """True where one of the patterns matches a word, or there are none."""
    return patterns is None or any(fnmatchcase(word, pattern) for pattern in patterns)


class RuleModel(CheckModel):
    """When the policy fires, and what happens then."""

    name: Name
    severity: Annotated[Severity, Field(strict=False)] | None = None
    """Left out: the policy's."""
    action: Literal["alert", "suppress", "block"] = "alert"
    mode: Annotated[Mode, Field(strict=False)] | None = None
    """`shadow` counts what the rule would have done. Left out, the lock's card decides (enforce without a lock)."""

    @property
    def asks(self) -> Action:
        """The action as a record."""
        return Action[self.action.upper()]


class PolicyModel(Strict):
    """One policy file."""

    api_version: Annotated[Literal["monitor/v1"], Field(alias="apiVersion")]
    metadata: Metadata
    concept: Concept | None = None
    features: Annotated[list[Pin], Field(min_length=1)] | None = None
    """Pinned by index, instead of a concept."""
    probe: ProbeModel | None = None
    """A linear probe of the residual stream at the tapped layer, instead of a concept."""
    dictionary: Annotated[str, Field(pattern=DIGEST)] | None = None
    """Digest of the dictionary whose features are pinned; another one is refused."""
    match: Match | None = None
    """Which requests the policy applies to; left out, all."""
    conditions: (
        Annotated[dict[Name, ConditionModel], Field(min_length=1, max_length=MOST_CONDITIONS)] | None
    ) = None
    """Named parts that rules combine with `when`."""
    rules: list[RuleModel] = []
    suppress: Suppress | None = None
    on_error: Literal["closed", "open"] = "closed"
    """What happens to a request whose tokens could not be scored."""
    refusal: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    """What the caller may be shown instead of the rest, where a rule of this policy blocks."""

    def checks(self) -> Iterable[FieldCheck]:
        """What rules, conditions, clamps and features need of each other."""
        yield from (self._one_source, self._some_source, self._something)
        yield from once(self.features, ["features"])
        for i in places(self.rules):
            yield from (partial(self._own_name, i), partial(self._can_suppress, i), partial(self._falls, i))
        yield from condition_checks(self.conditions, self.rules)
        yield from (self._clamped_features, self._ever_detected)

    def _sources(self) -> list[str]:
        return [name for name in ("concept", "features", "probe") if getattr(self, name) is not None]

    def _one_source(self) -> None:
        named = self._sources()
        if len(named) > 1:
            found = "both" if len(named) == 2 else "all"
            raise refuse([], f"write `concept:` (examples), `features:` (pinned) or `probe:`; found {found}")

    def _some_source(self) -> None:
        if self._sources():
            return
        if not self.rules or any(not check.own_columns for check in self.leaves().values()):
            raise refuse([], "write `concept:` (examples), `features:` (pinned) or `probe:`; found neither")

    def _something(self) -> None:
        if not self.rules and (self.suppress is None or self.suppress.when == "detected"):
            raise refuse([], "a policy needs `rules:`, or `suppress:` with `when: always`")

    def _own_name(self, i: int) -> None:
        rule = self.rules[i]
        if rule.name in [earlier.name for earlier in self.rules[:i]]:
            raise refuse(["rules", i, "name"], f"a second rule is called `{rule.name}`; rename one")

    def _can_suppress(self, i: int) -> None:
        if self.rules[i].action == "suppress" and self.suppress is None:
            raise refuse(["rules", i, "action"], "`suppress` as an action needs a `suppress:` section")

    def _falls(self, i: int) -> None:
        """Refuses `hold` where a score never falls again."""
        rule = self.rules[i]
        held = self.suppress is not None and self.suppress.hold is not None
        if held and rule.action == "suppress" and isinstance(pooling_of(rule.pooling), TopKMean):
            message = (
                "`top_k_mean` never falls, so `suppress.hold` would never end; pool with `ema` or `mean`"
            )
            raise refuse(["rules", i, "pooling"], message)

    def _clamped_features(self) -> None:
        if self.suppress is not None and self.suppress.features is None and self.concept is None:
            raise refuse(["suppress"], "pinned policies name the features to clamp: `features: [INDEX, ...]`")

    def _ever_detected(self) -> None:
        wanted = self.suppress is not None and self.suppress.when == "detected"
        if wanted and all(rule.action != "suppress" for rule in self.rules):
            raise refuse(
                ["suppress", "when"], "`detected` needs a rule with `action: suppress`; or write `always`"
            )

    def leaves(self) -> dict[tuple[str, str], CheckModel]:
        """Everything with a threshold of its own, by (`rules` or `conditions`, name): the lock's sections and keys."""
        rules = {("rules", rule.name): rule for rule in self.rules if rule.when is None}
        parts = (self.conditions or {}).items()
        return {**rules, **{("conditions", name): part for name, part in parts if part.when is None}}

    @property
    def needs_lock(self) -> bool:
        """True where `policy fit` must resolve something before the policy can run."""
        rated = any(isinstance(check.threshold, AskedRate) for check in self.leaves().values())
        return rated or self.concept is not None


def json_schema() -> dict[str, Any]:
    """JSON Schema of a policy file, for editors."""
    return PolicyModel.model_json_schema(by_alias=True)
