"""Clamps of requests: which are allowed, how those of policies and callers combine, and how they reach the buffers."""

from __future__ import annotations

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
    """Which clamps the operator allows in requests."""

    clamps: CallerClamps = CallerClamps.ANY
    drop: bool = True
    """Whether a clamp may drop the error term, which needs the whole dictionary in memory."""

    def violations(self, clamp: Clamp, path: str) -> Iterator[Violation]:
        """Every way in which a clamp at `path` in the request is not allowed."""
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
    """Raise BadRequest that names every clamp of a request that cannot be applied.

    These are clamps of features that do not exist, were never active or are named twice, and clamps that the operator
    does not allow. `maximum` `[features]` holds the recorded maxima.
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
    if wrong:
        raise BadRequest(*wrong)


def merge(policy: Sequence[Clamp], caller: Sequence[Clamp]) -> tuple[Clamp, ...]:
    """Combine the clamps of policies with those of the caller into one clamp for each feature.

    A caller can strengthen a policy's clamp but not weaken it. A caller's clamp of a feature that no policy clamps is
    taken as it is. Each argument names a feature at most once.
    """
    held = {clamp.feature: clamp for clamp in policy}
    held.update({clamp.feature: clamp.strengthened(held.get(clamp.feature)) for clamp in caller})
    return tuple(held.values())


@dataclass(frozen=True, slots=True)
class ClampRow:
    """A request's clamps as one row over the slots of the feature bank. All its rows in a pass are copies of it."""

    target: Tensor
    """`[slots]` target activations, not in units of the maximum."""
    active: Tensor
    """`[slots]` bool: clamp tokens on which the feature is active."""
    everywhere: Tensor
    """`[slots]` bool: clamp every token."""
    slots: tuple[int, ...]
    """Slots that are clamped."""
    drop: bool = False
    """Drop the error term on the tokens that are edited."""


def clamp_row(clamps: Sequence[Clamp], bank: FeatureBank) -> ClampRow:
    """Clamps as a row over the bank's slots, with targets turned into activations.

    Raises KeyError where a feature has no slot in the bank.
    """
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
    """Write the clamps of the next pass into the buffers.

    `spans` pairs each request's rows with its clamps, None for none; `rows` is the number of rows in the pass.
    """
    clamping = any(row is not None for _, row in spans)
    # Clamps of an earlier pass, which may have been longer, must not stay in the buffers.
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
