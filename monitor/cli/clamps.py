"""Clamps as they are typed after `--clamp`: `FEATURE=VALUE[@active|@everywhere]`."""

from __future__ import annotations

import math
from collections.abc import Iterable

import typer

from monitor.v1 import monitor_pb2 as pb

SYNTAX = "FEATURE=VALUE[@active|@everywhere]"
WHERE = {"active": pb.CLAMP_WHERE_ACTIVE, "everywhere": pb.CLAMP_WHERE_EVERYWHERE}
LARGEST_FEATURE = 2**32 - 1


def parse_clamp(text: str) -> pb.Clamp:
    """Parse one clamp. Raises `typer.BadParameter`, which says what is wrong with it."""
    body, at, where = text.partition("@")
    feature, equals, value = body.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is not of the form {SYNTAX}, for example 1234=-0.5@active")
    if at and where not in WHERE:
        raise typer.BadParameter(f"{where!r} in {text!r} is neither 'active' nor 'everywhere'")
    return pb.Clamp(feature=_feature(feature, text), target=_target(value, text), where=_where(where))


def clamp_text(clamp: pb.Clamp) -> str:
    """Write a clamp in the syntax that `parse_clamp` reads."""
    suffix = next((f"@{word}" for word, value in WHERE.items() if value == clamp.where), "")
    return f"{clamp.feature}={clamp.target:g}{suffix}"


def dropping(clamps: Iterable[pb.Clamp], drop: bool) -> list[pb.Clamp]:
    """The clamps, set to drop the error term if `drop`. Raises `typer.BadParameter` for `drop` without any clamp."""
    listed = list(clamps)
    if drop and not listed:
        raise typer.BadParameter(
            "--drop-error-term needs --clamp: only tokens that one edits lose their error term"
        )
    if drop:
        for clamp in listed:
            clamp.error_term = pb.ERROR_TERM_DROP
    return listed


def _feature(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > LARGEST_FEATURE:
        raise typer.BadParameter(f"{text!r} in {whole!r} is not the index of a feature (0, 1, 2, …)")
    return int(text)


def _target(text: str, whole: str) -> float:
    try:
        target = float(text)
    except ValueError:
        target = math.nan
    if not math.isfinite(target):
        raise typer.BadParameter(
            f"{text!r} in {whole!r} is not a finite number (in units of the feature's maximum)"
        )
    return target


def _where(word: str) -> pb.ClampWhere:
    return WHERE.get(word, pb.CLAMP_WHERE_UNSPECIFIED)
