"""The shape of a policy file, `apiVersion: monitor/v1`.

Knows every field, its type, its default and which fields exclude each other. Does not know files, positions
or any dictionary. Fields are added in later versions; none changes its meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from monitor.policy.schema_base import CATEGORY as CATEGORY
from monitor.policy.schema_base import DIGEST as DIGEST
from monitor.policy.schema_base import FILE as FILE
from monitor.policy.schema_base import NAME as NAME
from monitor.policy.schema_base import FeatureIndex as FeatureIndex
from monitor.policy.schema_base import Name as Name
from monitor.policy.schema_base import Strict as Strict
from monitor.policy.schema_base import Text as Text
from monitor.policy.schema_base import refuse as refuse
from monitor.policy.schema_suppress import Suppress as Suppress
from monitor.records import Action, Mode, Phase, Severity

API_VERSION = "monitor/v1"


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

    @model_validator(mode="after")
    def _enough(self) -> Concept:
        if self.examples is None and not (self.positive and (self.negative or self.hard_negative)):
            raise refuse(
                [], "a concept needs `examples: FILE.jsonl`, or both `positive` and `negative` texts"
            )
        return self


class Pin(Strict):
    """A feature of one dictionary, by its index."""

    index: FeatureIndex
    weight: float = 1.0
    """What one unit of the feature's maximum adds to a token's score."""
    label: Annotated[str, Field(max_length=200)] = ""


class Max(Strict):
    """The token's own score."""

    kind: Literal["max"] = "max"


class Mean(Strict):
    """Sum of the scores so far, divided by max(tokens so far, min_tokens)."""

    kind: Literal["mean"] = "mean"
    min_tokens: Annotated[int, Field(ge=1, le=4096)] = 8
    """Fewer tokens than this count as if the rest had scored zero."""


class TopKMean(Strict):
    """Mean of the k largest positive scores so far; tokens that are missing count as zero."""

    kind: Literal["top_k_mean"] = "top_k_mean"
    k: Annotated[int, Field(ge=1, le=256)] = 4


class Ema(Strict):
    """Exponential moving average, starting at zero: e ← e + (1 − 2^(−1/half_life)) · (score − e)."""

    kind: Literal["ema"] = "ema"
    half_life: Annotated[float, Field(gt=0, le=4096)] = 8.0
    """Tokens after which a score counts half."""


class LongestRun(Strict):
    """How many tokens in a row have scored at least `level`; the threshold is a number of tokens."""

    kind: Literal["longest_run"] = "longest_run"
    level: float


def _shape(value: Any) -> str:
    return "name" if isinstance(value, str) else "settings"


PoolingModel = Annotated[Max | Mean | TopKMean | Ema | LongestRun, Field(discriminator="kind")]
PoolingName = Literal["max", "mean", "top_k_mean", "ema"]
PoolingField = Annotated[
    Annotated[PoolingName, Tag("name")] | Annotated[PoolingModel, Tag("settings")], Discriminator(_shape)
]


def pooling_of(
    value: str | Max | Mean | TopKMean | Ema | LongestRun,
) -> Max | Mean | TopKMean | Ema | LongestRun:
    """The settings that a pooling's name stands for; settings come back as they are."""
    named = {"max": Max, "mean": Mean, "top_k_mean": TopKMean, "ema": Ema}
    return named[value]() if isinstance(value, str) else value


class Rate(Strict):
    """A threshold that `policy fit` sets so that this share of benign texts fires."""

    false_positive_rate: Annotated[float, Field(gt=0, le=0.5)]


def _number_or_rate(value: Any) -> str:
    return "rate" if isinstance(value, dict | Rate) else "number"


ThresholdField = Annotated[
    Annotated[float, Tag("number")] | Annotated[Rate, Tag("rate")], Discriminator(_number_or_rate)
]


class RuleModel(Strict):
    """When the policy fires, and what happens then."""

    name: Name
    phases: Annotated[list[Annotated[Phase, Field(strict=False)]], Field(min_length=1)] = [
        Phase.PROMPT,
        Phase.RESPONSE,
    ]
    features: Annotated[list[Pin], Field(min_length=1)] | None = None
    """Pinned features of this rule alone; left out, the policy's or the lock's."""
    pooling: PoolingField = "max"
    """How token scores become one number."""
    for_: Annotated[int, Field(alias="for", ge=1, le=4096)] = 1
    """Tokens in a row for which the pooled score must stay at or above the threshold."""
    threshold: ThresholdField
    """A number in the units of the score, or `{false_positive_rate: 0.01}` set by `policy fit`."""
    severity: Annotated[Severity, Field(strict=False)] | None = None
    """Left out: the policy's."""
    action: Literal["alert", "suppress", "block"] = "alert"
    mode: Annotated[Mode, Field(strict=False)] | None = None
    """`shadow` counts what the rule would have done. Left out, the lock's card decides (enforce without a lock)."""

    @property
    def asks(self) -> Action:
        """The action as a record."""
        return Action[self.action.upper()]

    @model_validator(mode="after")
    def _coherent(self) -> RuleModel:
        if len(set(self.phases)) != len(self.phases):
            raise refuse(["phases"], "a phase stands here twice; name each once")
        if isinstance(self.pooling, LongestRun) and self.for_ != 1:
            raise refuse(["for"], "`longest_run` already counts tokens; leave `for` out")
        _once([pin.index for pin in self.features or []], ["features"])
        return self


class PolicyModel(Strict):
    """One policy file."""

    api_version: Annotated[Literal["monitor/v1"], Field(alias="apiVersion")]
    metadata: Metadata
    concept: Concept | None = None
    features: Annotated[list[Pin], Field(min_length=1)] | None = None
    """Pinned by index, instead of a concept."""
    dictionary: Annotated[str, Field(pattern=DIGEST)] | None = None
    """Digest of the dictionary whose features are pinned; another one is refused."""
    rules: list[RuleModel] = []
    suppress: Suppress | None = None
    on_error: Literal["closed", "open"] = "closed"
    """What happens to a request whose tokens could not be scored."""
    refusal: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    """What the caller may be shown instead of the rest, where a rule of this policy blocks."""

    @model_validator(mode="after")
    def _coherent(self) -> PolicyModel:
        if (self.concept is None) == (self.features is None):
            found = "neither" if self.concept is None else "both"
            raise refuse([], f"write `concept:` (examples) or `features:` (pinned); found {found}")
        _once([pin.index for pin in self.features or []], ["features"])
        self._check_rules()
        self._check_suppress()
        return self

    def _check_rules(self) -> None:
        seen: set[str] = set()
        for i, rule in enumerate(self.rules):
            if rule.name in seen:
                raise refuse(["rules", i, "name"], f"a second rule is called `{rule.name}`; rename one")
            seen.add(rule.name)
            if rule.action == "suppress" and self.suppress is None:
                raise refuse(["rules", i, "action"], "`suppress` as an action needs a `suppress:` section")
        if not self.rules and (self.suppress is None or self.suppress.when == "detected"):
            raise refuse([], "a policy needs `rules:`, or `suppress:` with `when: always`")

    def _check_suppress(self) -> None:
        clamp = self.suppress
        if clamp is None:
            return
        _once(clamp.features or [], ["suppress", "features"])
        if clamp.features is None and self.concept is None:
            raise refuse(["suppress"], "pinned policies name the features to clamp: `features: [INDEX, ...]`")
        if clamp.when == "detected" and all(rule.action != "suppress" for rule in self.rules):
            raise refuse(
                ["suppress", "when"], "`detected` needs a rule with `action: suppress`; or write `always`"
            )
        if clamp.hold is not None:
            self._check_release()

    def _check_release(self) -> None:
        """Refuses `hold` where a score never falls again."""
        for i, rule in enumerate(self.rules):
            if rule.action == "suppress" and isinstance(pooling_of(rule.pooling), TopKMean):
                message = (
                    "`top_k_mean` never falls, so `suppress.hold` would never end; pool with `ema` or `mean`"
                )
                raise refuse(["rules", i, "pooling"], message)

    @property
    def needs_lock(self) -> bool:
        """True where `policy fit` must resolve something before the policy can run."""
        rated = any(isinstance(rule.threshold, Rate) for rule in self.rules)
        return rated or self.concept is not None


def _once(indices: Sequence[int], at: Sequence[str | int]) -> None:
    for i, index in enumerate(indices):
        if index in indices[:i]:
            raise refuse([*at, i], f"feature {index} stands here twice; name it once")


def json_schema() -> dict[str, Any]:
    """JSON Schema of a policy file, for editors."""
    return PolicyModel.model_json_schema(by_alias=True)
