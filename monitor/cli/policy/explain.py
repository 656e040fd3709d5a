"""`sae-monitor policy explain`: one text, every rule, nearest to its threshold first.

Knows how to print an explanation. Does not know how it is computed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from monitor.errors import InputError
from monitor.lab.running_policies import load_set, running_of
from monitor.policy.rules.explain import Explanation, Part, TokenShare, explain
from monitor.records import Phase

if TYPE_CHECKING:
    from monitor.lab.readings import PairReader


def explain_text(console: Console, reader: PairReader, folder: Path, text: str, phase: Phase) -> None:
    """Print the explanation of a text; PolicyError where the policies do not fit what runs."""
    policies = load_set(folder, running_of(reader))
    ids = reader.ids(text)
    if len(ids) < 2:
        raise InputError("the text has no token to score")
    found = explain(policies.policies, reader.watched(ids, policies.watch), phase)
    words = [reader.pair.loaded.tokenizer.decode([i]) for i in ids]
    table = Table("policy/rule", "score", "threshold", "fires", "tokens (features)")
    for one in found:
        table.add_row(*_row(one, words))
        for part in one.parts:
            table.add_row(*_part(part, words))
    console.print(table)


def _row(one: Explanation, words: list[str]) -> list[str]:
    fires = f"{one.rule.action.name.lower()} ({one.rule.mode})" if one.fired else "no"
    tokens = "; ".join(_token(share, words) for share in one.tokens[:3])
    return [
        f"{one.policy.name}/{one.rule.name}",
        f"{one.score:.3f}",
        f"{one.threshold:.3f}",
        fires,
        tokens,
    ]


def _part(part: Part, words: list[str]) -> list[str]:
    """A sub-condition, indented below its rule."""
    tokens = "; ".join(_token(share, words) for share in part.tokens[:3])
    reached = "reached" if part.reached else "no"
    return [f"  {part.name}", f"{part.score:.3f}", f"{part.threshold:.3f}", reached, tokens]


def _token(share: TokenShare, words: list[str]) -> str:
    features = ", ".join(f"{f.feature}: {f.reading:.2f}" for f in share.features)
    told = f"{words[share.position].strip() or '·'} {share.score:.2f}"
    return f"{told} ({features})" if features else told
