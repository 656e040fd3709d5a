"""What is read, pooled and compared with a threshold: the part that rules and named conditions share.

Knows fields and which of them exclude each other. Does not know policies or locks.
"""

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
    """A feature of one dictionary, by its index."""

    index: FeatureIndex
    weight: Weight = 1.0
    """What one unit of the feature's maximum adds to a token's score."""
    label: Annotated[str, Field(max_length=200)] = ""


class CheckModel(Strict):
    """Token scores, pooled and compared with a threshold; or conditions combined."""

    phases: PhaseList = BOTH
    features: Annotated[list[Pin], Field(min_length=1)] | None = None
    """Pinned features of this part alone; left out, the policy's or the lock's."""
    signal: Annotated[Signal, Field(strict=False)] | None = None
    """An anomaly instead of features: `residual_norm` or `reconstruction_error` of each token."""
    pooling: PoolingField = "max"
    """How token scores become one number."""
    for_: Annotated[int, Field(alias="for", ge=1, le=4096)] = 1
    """Tokens in a row for which the pooled score must stay at or above the threshold, or the combination hold."""
    threshold: ThresholdField | None = None
    """A number in the units of the score; a list of `{up_to: TOKENS, threshold: NUMBER}` by length; or
    `{false_positive_rate: 0.01}` set by `policy fit`."""
    scope: Literal["request", "session"] = "request"
    """`session`: scores are pooled over all requests of a caller with the same `session_id`."""
    when: Expression | None = None
    """Names of `conditions` combined by `all`, `any`, `not` and `at_least`, instead of a score and a threshold."""

    @property
    def own_columns(self) -> bool:
        """True where it says itself what it reads."""
        return self.features is not None or self.signal is not None

    def checks(self) -> Iterable[FieldCheck]:
        """What goes with a threshold, and what with `when`."""
        yield self._phases
        if self.when is not None:
            yield from (partial(self._alone, name) for name in self.beside_when)
            return
        yield from (self._threshold, self._one_source, self._run)
        yield from once(self.features, ["features"])

    beside_when: ClassVar[tuple[str, ...]] = ("features", "signal", "pooling", "threshold", "scope")
    """Fields that mean nothing beside `when`."""

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
    """A named part of rules. Once reached it holds to the end of the request, unless `lasts` says otherwise."""

    lasts: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Tokens for which it holds: 1 is the token alone that reached it. Left out, to the end of the request."""

    beside_when: ClassVar[tuple[str, ...]] = ("phases", "for_", "lasts", *CheckModel.beside_when)


def once(pins: Sequence[Pin | int] | None, at: Sequence[str | int]) -> Iterator[FieldCheck]:
    """Refuse every feature that stands in a list a second time."""
    yield from (partial(_first, pins or (), i, at) for i in places(pins))


def _first(pins: Sequence[Pin | int], i: int, at: Sequence[str | int]) -> None:
    index = _index(pins[i])
    if index in [_index(pin) for pin in pins[:i]]:
        raise refuse([*at, i], f"feature {index} stands here twice; name it once")


def _index(pin: Pin | int) -> int:
    return pin.index if isinstance(pin, Pin) else pin
