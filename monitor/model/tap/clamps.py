"""Which clamps hold for a request, and as rows of the tap's buffers.

Knows clamps of policies and callers and how they combine. Does not know tokens, texts or engines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monitor.errors import BadRequest, Violation
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.span import Span
from monitor.model.tap.tap import TapBuffers
from monitor.records import CallerClamps, Clamp, ErrorTerm, Where


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the operator lets requests do with clamps."""

    clamps: CallerClamps = CallerClamps.ANY
    drop: bool = True
    """Whether the error term may be dropped: the whole dictionary is held."""

    def violations(self, clamp: Clamp, path: str) -> Iterator[Violation]:
        """What of a clamp is not allowed."""
        if self.clamps is CallerClamps.NONE:
            yield Violation(path, "this server takes no clamps from requests (its setting caller_clamps)")
        elif self.clamps is CallerClamps.SUPPRESS and clamp.target > 0:
            yield Violation(
                f"{path}.target",
                f"{clamp.target:g} amplifies; this server takes targets of 0 and below (its setting caller_clamps)",
            )
        if clamp.error_term is ErrorTerm.DROP and not self.drop:
            yield Violation(
                f"{path}.error_term",
                "this server does not hold the whole dictionary (its setting drop_error_term); keep the error term",
            )


def check_clamps(
    clamps: Sequence[Clamp],
    features: int,
    maximum: Tensor,
    field: str = "clamps",
    allowed: Allowed = Allowed(),
) -> None:
    """BadRequest naming every clamp that cannot be applied: unknown or never active feature, NaN, twice the same,
    or not allowed by the operator.
    """
    wrong: list[Violation] = []
    seen: set[int] = set()
    for number, clamp in enumerate(clamps):
        path = f"{field}[{number}]"
        if not 0 <= clamp.feature < features:
            wrong.append(
                Violation(
                    f"{path}.feature",
                    f"{clamp.feature} does not exist; the dictionary has 0 to {features - 1}",
                )
            )
        elif float(maximum[clamp.feature]) <= 0:
            wrong.append(
                Violation(
                    f"{path}.feature",
                    f"{clamp.feature} was never active over the corpus; it has no unit to clamp in",
                )
            )
        if clamp.feature in seen:
            wrong.append(
                Violation(f"{path}.feature", f"{clamp.feature} is clamped twice; write one target for it")
            )
        seen.add(clamp.feature)
        wrong.extend(allowed.violations(clamp, path))
        if not math.isfinite(clamp.target):
            wrong.append(
                Violation(
                    f"{path}.target", f"{clamp.target} is not a number; write a finite one, e.g. -2 (maxima)"
                )
            )
    if wrong:
        raise BadRequest(*wrong)


def merge(policy: Sequence[Clamp], caller: Sequence[Clamp]) -> tuple[Clamp, ...]:
    """Clamps of policies and caller, each naming a feature once, as one list.

    A caller can strengthen a policy's clamp but not weaken it; where no policy clamps, the caller's holds as it is.
    """
    held = {clamp.feature: clamp for clamp in policy}
    held.update({clamp.feature: clamp.strengthened(held.get(clamp.feature)) for clamp in caller})
    return tuple(held.values())


@dataclass(frozen=True, slots=True)
class ClampRow:
    """A request's clamps as one row over the bank's slots."""

    target: Tensor
    """`[slots]` in units of activations."""
    active: Tensor
    everywhere: Tensor
    slots: tuple[int, ...]
    drop: bool = False
    """Leave the error term out on the tokens that are edited."""


def clamp_row(clamps: Sequence[Clamp], bank: FeatureBank) -> ClampRow:
    """Look up slots and scale targets by the features' maxima; every feature must be held by the bank."""
    target = torch.zeros(bank.width, dtype=bank.dtype)
    active = torch.zeros(bank.width, dtype=torch.bool)
    everywhere = torch.zeros(bank.width, dtype=torch.bool)
    slots = tuple(bank.slot(clamp.feature) for clamp in clamps)
    for slot, clamp in zip(slots, clamps, strict=True):
        target[slot] = clamp.target * bank.recorded_maximum(clamp.feature)
        (everywhere if clamp.where is Where.EVERYWHERE else active)[slot] = True
    place = bank.device
    drop = any(clamp.error_term is ErrorTerm.DROP for clamp in clamps)
    return ClampRow(target.to(place), active.to(place), everywhere.to(place), slots, drop)


def write_rows(buffers: TapBuffers, spans: Sequence[tuple[Span, ClampRow | None]], rows: int) -> None:
    """Set the clamps of the next pass: rows and clamps of every request.

    All other rows are left alone, and so is the first position of every sequence.
    """
    clamping = any(row is not None for _, row in spans)
    # Clamps of a longer pass stand behind the rows of a shorter one, until a pass reaches so far again.
    if stale := buffers.written:
        buffers.active[:stale].fill_(False)
        buffers.everywhere[:stale].fill_(False)
        buffers.drop[:stale].fill_(False)
    buffers.clamping, buffers.written = clamping, rows if clamping else 0
    buffers.dropping = any(row is not None and row.drop for _, row in spans)
    for span, row in spans:
        if row is not None:
            mine = slice(span.first, span.first + span.count)
            buffers.target[mine] = row.target
            buffers.active[mine] = row.active
            buffers.everywhere[mine] = row.everywhere
            buffers.drop[mine] = row.drop
            if span.position == 0:
                # An attention sink, unlike all that dictionaries are trained on: features read many maxima there that
                # mean nothing, rules pass over it, and a clamp would change the whole text for nothing.
                for edits in (buffers.active, buffers.everywhere, buffers.drop):
                    edits[span.first] = False
