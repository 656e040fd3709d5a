"""What rules and named conditions have in common in a policy file: what is read, its pooling and its threshold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from monitor.policy.schema.base import FeatureIndex, FieldCheck, Strict, Weight, places, refuse
from monitor.policy.schema.expression import Expression
from monitor.policy.schema.pooling import LongestRun, PoolingField
from monitor.policy.schema.threshold import ThresholdField
from monitor.records import Phase, Signal

PhaseList = Annotated[list[Annotated[Phase, Field(strict=False)]], Field(min_length=1)]
BOTH = [Phase.PROMPT, Phase.RESPONSE]


class Pin(Strict):
    """A feature of the dictionary, pinned by its index."""

    index: FeatureIndex
    """The feature's index in the dictionary, from 0."""
    weight: Weight = 1.0
    """What the feature adds to a token's score when it reaches its recorded maximum; negative lowers the score."""
    label: Annotated[str, Field(max_length=200)] = ""
    """A few words that say what the feature stands for; shown in detections."""


class CheckModel(Strict):
    """Token scores that are pooled and compared with a threshold, or named conditions that are combined."""

    phases: PhaseList = BOTH
    """Which tokens are scored: `prompt` (what the model reads), `response` (what it writes), or both, each apart."""
    features: Annotated[list[Pin], Field(min_length=1)] | None = None
    """Features that this part alone reads. Left out, it reads what the policy or its lock names."""
    signal: Annotated[Signal, Field(strict=False)] | None = None
    """An anomaly to read instead of features: `residual_norm`, or `reconstruction_error`, which encodes and decodes
    every token with the whole dictionary."""
    pooling: PoolingField = "max"
    """How the token scores become one number. Write a name, or settings such as `{kind: ema, half_life: 12}`."""
    for_: Annotated[int, Field(alias="for", ge=1, le=4096)] = 1
    """For how many tokens in a row the pooled score must stay at or above the threshold. With `when`: for how many
    tokens in a row the combination must hold."""
    threshold: ThresholdField | None = None
    """The pooled score that is reached: a number; a list of `{up_to: TOKENS, threshold: NUMBER}`, one for each length;
    or `{false_positive_rate: 0.01}`, for which `policy fit` sets the number."""
    scope: Literal["request", "session"] = "request"
    """What the score is pooled over: one `request`, or a `session`, which is all requests of a caller with the same
    `session_id`."""
    when: Expression | None = None
    """A combination of named `conditions` by `all`, `any`, `not` and `at_least`, instead of a score and a threshold."""

    @property
    def own_columns(self) -> bool:
        """True where this part names the features or the signal that it reads."""
        return self.features is not None or self.signal is not None

    def checks(self) -> Iterable[FieldCheck]:
        """The part has one source of scores and a threshold, or a `when` and neither of these."""
        yield self._phases
        if self.when is not None:
            yield from (partial(self._alone, name) for name in self.beside_when)
            return
        yield from (self._threshold, self._one_source, self._run)
        yield from once(self.features, ["features"])

    beside_when: ClassVar[tuple[str, ...]] = ("features", "signal", "pooling", "threshold", "scope")
    """Fields that are refused beside `when`."""

    def _phases(self) -> None:
        if len(set(self.phases)) != len(self.phases):
            raise refuse(["phases"], "a phase stands here twice; name each once")

    def _threshold(self) -> None:
        if self.threshold is None:
            message = "the field `threshold` is missing; write a number, or `when:` with conditions"
            raise refuse(["threshold"], message, unsure=["when"])

    def _one_source(self) -> None:
        if self.features is not None and self.signal is not None:
            raise refuse(["signal"], "write `features` or `signal`, not both")

    def _run(self) -> None:
        if isinstance(self.pooling, LongestRun) and self.for_ != 1:
            raise refuse(["for"], "`longest_run` already counts tokens; leave `for` out")

    def _alone(self, name: str) -> None:
        if name in self.model_fields_set:
            word = name.rstrip("_")
            raise refuse(
                [word], f"`{word}` does not go with `when`; write it into a condition with a threshold"
            )


class ConditionModel(CheckModel):
    """A named score with a threshold, or a named combination, which rules and other conditions refer to by `when`."""

    lasts: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """For how many tokens the condition holds once it is reached; 1 is the token that reached it alone. Left out, it
    holds to the end of the request."""

    beside_when: ClassVar[tuple[str, ...]] = ("phases", "for_", "lasts", *CheckModel.beside_when)


def once(pins: Sequence[Pin | int] | None, at: Sequence[str | int]) -> Iterator[FieldCheck]:
    """Checks that refuse each feature that stands in a list a second time."""
    yield from (partial(_first, pins or (), i, at) for i in places(pins))


def _first(pins: Sequence[Pin | int], i: int, at: Sequence[str | int]) -> None:
    index = _index(pins[i])
    if index in [_index(pin) for pin in pins[:i]]:
        raise refuse([*at, i], f"feature {index} stands here twice; name it once")


def _index(pin: Pin | int) -> int:
    return pin.index if isinstance(pin, Pin) else pin
