"""A policy file, `apiVersion: monitor/v1`: its fields with their types and defaults, and what they need of each other.

Later versions may add fields; no field changes its meaning.
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
from monitor.policy.schema.threshold import AskedRate as AskedRate
from monitor.policy.schema.threshold import LengthThreshold as LengthThreshold
from monitor.policy.schema.threshold import threshold_at as threshold_at
from monitor.records import Action, ErrorTerm, Mode, Severity, Where

API_VERSION = "monitor/v1"
MOST_CONDITIONS = 64
Pattern = Annotated[str, Field(min_length=1, max_length=200)]
LABEL = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
LabelName = Annotated[str, Field(pattern=LABEL, max_length=64)]


class Metadata(Strict):
    """What the policy is called, and what it is about."""

    name: Name
    """The policy's name, in lower-case words with hyphens. The file must be called NAME.yaml."""
    title: Annotated[str, Field(min_length=1, max_length=120)]
    """The name as people read it."""
    category: Annotated[str, Field(pattern=CATEGORY, max_length=64)]
    """What kind of harm it is about, in lower-case words with underscores. Metrics carry it as a label."""
    severity: Annotated[Severity, Field(strict=False)]
    """How bad it is if a detection is true, not how sure the monitor is. A rule may set another severity."""
    description: Annotated[str, Field(min_length=1, max_length=4000)]
    """What the policy looks for, in a sentence or a few."""
    maturity: Literal["experimental", "beta", "stable"] | None = None
    """How far the policy can be relied on. Left out, it is what the measurements in the lock support, and
    `experimental` where nothing was measured."""
    false_positives: list[Text] = []
    """Known kinds of benign text on which the policy fires."""
    references: list[Text] = []
    """Where the concept is described, such as links to papers."""


class Concept(Strict):
    """What the policy looks for, stated by example texts. `policy fit` learns from them what to read."""

    examples: Annotated[str, Field(pattern=FILE, max_length=200)] | None = None
    """Name of a JSONL file beside the policy. Each row has `text` or the `messages` of a conversation, and a `label`
    (positive, negative or hard_negative). It may have a `kind`, and a `group` that ties variants of a text together."""
    positive: list[Text] = []
    """Texts that show the concept, beside those of the file."""
    negative: list[Text] = []
    """Texts that do not show the concept, beside those of the file."""
    hard_negative: list[Text] = []
    """Benign texts that look like positives, beside those of the file."""
    kind: Literal["request", "response", "statement", "text"] | None = None
    """Where the texts occur, unless a row says it itself: a `request` is a user's turn, a `response` the model's turn,
    a `statement` is read as both, and a `text` stands alone, without a chat template. Left out, they are statements."""
    detector: Literal["features", "probe", "combined"] | None = None
    """What `policy fit` learns: weighted `features`, a `probe` on the residual stream, or both `combined`. Left out,
    the option `--detector` of the fit decides, which takes what detects best on examples that it was not learnt
    from."""

    def checks(self) -> Iterable[FieldCheck]:
        """There are positive texts and others to learn from."""
        return (self._enough,)

    def _enough(self) -> None:
        if self.examples is None and not (self.positive and (self.negative or self.hard_negative)):
            raise refuse(
                [], "a concept needs `examples: FILE.jsonl`, or both `positive` and `negative` texts"
            )


class Match(Strict):
    """Which requests the policy applies to. Patterns are exact words, or globs with `*`, `?` and `[abc]`; every field
    that is written must match."""

    callers: Annotated[list[Pattern], Field(min_length=1)] | None = None
    """Names of authenticated callers, one of which must match. A caller without a name matches only `*`."""
    labels: Annotated[dict[LabelName, Pattern], Field(min_length=1)] | None = None
    """Labels that the request must carry, each with a pattern for its value. Callers choose their labels, so use this
    only where callers are trusted."""
    models: Annotated[list[Pattern], Field(min_length=1)] | None = None
    """Names of models, one of which must match. For any other model the policy is not loaded and needs no lock."""

    def checks(self) -> Iterable[FieldCheck]:
        """At least one field is written."""
        return (self._something,)

    def _something(self) -> None:
        if not (self.callers or self.labels or self.models):
            raise refuse([], "write `callers:`, `labels:` or `models:`, or leave `match` out")

    def admits(self, caller: str, labels: Mapping[str, str]) -> bool:
        """Whether the policy applies to a request of this caller with these labels."""
        wanted = self.labels or {}
        return fits(self.callers, caller) and all(
            name in labels and fnmatchcase(labels[name], pattern) for name, pattern in wanted.items()
        )


def fits(patterns: Sequence[str] | None, word: str) -> bool:
    """True where one of the patterns matches the word, or where there are no patterns."""
    return patterns is None or any(fnmatchcase(word, pattern) for pattern in patterns)


class RuleModel(CheckModel):
    """When the policy fires, and what happens then."""

    name: Name
    """The rule's name, in lower-case words with hyphens; unique within the policy."""
    severity: Annotated[Severity, Field(strict=False)] | None = None
    """How bad it is if a detection by this rule is true. Left out, it is the policy's severity."""
    action: Literal["alert", "suppress", "block"] = "alert"
    """What happens when the rule fires: `alert` reports it, `suppress` also clamps the features of the `suppress:`
    section, `block` ends the request."""
    mode: Annotated[Mode, Field(strict=False)] | None = None
    """`enforce` acts; `shadow` only records what the rule would have done. Left out, a rule is enforced, unless the
    lock's measurements make the policy `experimental`."""

    @property
    def asks(self) -> Action:
        """The action as a member of the enum `Action`."""
        return Action[self.action.upper()]


class Suppress(Strict):
    """Which features are clamped, and how, so that the model is pushed away from what they stand for."""

    features: Annotated[list[FeatureIndex], Field(min_length=1)] | None = None
    """Indices of the features to clamp. Left out, they are those that `policy fit` chose by their causal effect."""
    target: Annotated[float, Field(ge=-20, le=0)]
    """What the features are set to, in units of each feature's recorded maximum. Negative values push below zero."""
    when: Literal["always", "detected"] = "detected"
    """`detected` clamps once an enforced rule with `action: suppress` has fired; `always`, from the first token on."""
    where: Annotated[Where, Field(strict=False)] = Where.ACTIVE
    """`active` clamps a feature at the tokens where it is active; `everywhere` clamps it at every token."""
    error_term: Annotated[ErrorTerm, Field(strict=False)] = ErrorTerm.KEEP
    """What happens to the part of the residual that the dictionary does not explain. `keep` keeps it. `drop` replaces
    the residual of edited tokens by the edited reconstruction: this is stronger, but needs the whole dictionary in
    memory and an encode and decode of each of those tokens."""
    hold: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """For how many tokens the clamps stay after the score was last at or above the release level. Left out, they stay
    to the end of the request."""
    release_below: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The release level, as a share of the rule's threshold. Needs `hold`; below 1 it keeps clamps from flickering."""

    def checks(self) -> Iterable[FieldCheck]:
        """`hold` needs `when: detected`, `release_below` needs `hold`, and no feature stands twice."""
        yield from (self._starts, self._release)
        yield from once(self.features, ["features"])

    def _starts(self) -> None:
        if self.when == "always" and self.hold is not None:
            raise refuse(["hold"], "`hold` goes with `when: detected`; clamps of `always` never start")

    def _release(self) -> None:
        if self.hold is None and self.release_below != 1.0:
            raise refuse(["release_below"], "`release_below` needs `hold: TOKENS`")


class PolicyModel(Strict):
    """One policy file."""

    api_version: Annotated[Literal["monitor/v1"], Field(alias="apiVersion")]
    """The version of this format: `monitor/v1`."""
    metadata: Metadata
    """Name, title, category and severity of the policy, and what it is about."""
    concept: Concept | None = None
    """What the policy looks for, stated by examples. Write this, `features` or `probe`."""
    features: Annotated[list[Pin], Field(min_length=1)] | None = None
    """Features of the dictionary to read, pinned by index, instead of a concept."""
    probe: ProbeModel | None = None
    """A linear probe of the residual stream at the tapped layer to read, instead of a concept."""
    dictionary: Annotated[str, Field(pattern=DIGEST)] | None = None
    """Digest of the dictionary that the pinned features belong to. With any other dictionary the policy is refused."""
    match: Match | None = None
    """Which requests and models the policy applies to. Left out, it applies to all."""
    conditions: (
        Annotated[dict[Name, ConditionModel], Field(min_length=1, max_length=MOST_CONDITIONS)] | None
    ) = None
    """Named scores and combinations that rules refer to by `when`."""
    rules: list[RuleModel] = []
    """When the policy fires, and what happens then. May be empty where `suppress` has `when: always`."""
    suppress: Suppress | None = None
    """Which features are clamped, and how, so that the model is pushed away from the concept."""
    on_error: Literal["closed", "open"] = "closed"
    """What happens to a request whose tokens could not be scored: `closed` blocks it; `open` lets it pass, and its
    verdict is `UNKNOWN`."""
    deadline_seconds: Annotated[float, Field(gt=0, le=3600)] | None = None
    """Longest time that text of another server waits to be scored, in front of which this stands as a guard. What was
    not scored by then is left to `on_error`. Left out, it waits as long as the guard's own settings say."""
    refusal: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    """A text that the caller may be shown in place of the rest, where a rule of this policy blocks."""

    def checks(self) -> Iterable[FieldCheck]:
        """Sources, rules, conditions and clamps fit together."""
        yield from (self._one_source, self._some_source, self._something)
        yield from once(self.features, ["features"])
        for i in places(self.rules):
            yield from (partial(self._own_name, i), partial(self._can_suppress, i), partial(self._falls, i))
        yield from condition_checks(self.conditions, self.rules)
        yield from (self._clamped_features, self._ever_detected, self._source_read, self._refusal_shown)

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
        """Refuses `suppress.hold` where the pooled score never falls, so that the clamps would never end."""
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

    def _source_read(self) -> None:
        """Refuses a source that nothing reads, since every rule and condition names its own."""
        named = self._sources()
        clamped = self.suppress is not None and self.suppress.features is None
        if len(named) != 1 or not self.rules or (named[0] == "concept" and clamped):
            return
        leaves = self.leaves().values()
        if leaves and all(check.own_columns for check in leaves):
            message = f"nothing reads `{named[0]}`: every rule and condition names its own features or signal"
            raise refuse([named[0]], f"{message}; remove it, or theirs")

    def _refusal_shown(self) -> None:
        if self.refusal and all(rule.action != "block" for rule in self.rules):
            raise refuse(
                ["refusal"],
                "`refusal` is shown where a rule blocks; give a rule `action: block`, or remove it",
            )

    def leaves(self) -> dict[tuple[str, str], CheckModel]:
        """Every rule and condition with a threshold of its own, by (`rules` or `conditions`, name), as in the lock."""
        rules = {("rules", rule.name): rule for rule in self.rules if rule.when is None}
        parts = (self.conditions or {}).items()
        return {**rules, **{("conditions", name): part for name, part in parts if part.when is None}}

    @property
    def needs_lock(self) -> bool:
        """True where the policy cannot run without a lock: it has a concept, or asks for a false-positive rate."""
        rated = any(isinstance(check.threshold, AskedRate) for check in self.leaves().values())
        return rated or self.concept is not None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a policy file, for editors."""
    return PolicyModel.model_json_schema(by_alias=True)
