"""`sae-monitor policy explain`: one text under every rule, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from monitor.cli.opened_pair import opened_pair
from monitor.cli.options import (
    DeviceOption,
    DictionaryOption,
    FormatOption,
    ModelOption,
    PairOption,
    SkipSelfTestOption,
)
from monitor.cli.show.console import stdout_console
from monitor.errors import InputError
from monitor.lab.policies import load_set, running_of
from monitor.lab.readings import PairReader
from monitor.model.engine.detokenizer import Vocabulary
from monitor.policy.rules.explain import Explanation, Part, TokenShare
from monitor.policy.rules.explain import explain as explain_rules
from monitor.records import Phase


def explain(
    policies: Annotated[Path, typer.Argument(help="Folder of policies.")],
    text: Annotated[str, typer.Argument(help="The text to explain.")],
    pair_name: PairOption = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    phase: Annotated[
        Phase, typer.Option(help="Take the text for what a caller sent (prompt) or a model wrote (response).")
    ] = Phase.PROMPT,
    device: DeviceOption = "auto",
    skip_self_test: SkipSelfTestOption = False,
) -> None:
    """Show for every rule how far it is from its threshold, and which tokens and features it rests on."""
    reader = PairReader(
        opened_pair(
            model, dictionary, dictionary_format, device, pair_name=pair_name, skip_self_test=skip_self_test
        )
    )
    loaded = load_set(policies, running_of(reader.pair))
    ids, readings = reader.watched(reader.ids(text), loaded.watch)
    if len(ids) < 2:
        raise InputError("the text has no token to score")
    vocabulary = Vocabulary(reader.pair.loaded.tokenizer)
    words = [vocabulary.spelled(ids, position) for position in range(len(ids))]
    found = explain_rules(loaded.policies, readings, phase)
    stdout_console().print(explanation_table(found, words))


def explanation_table(found: tuple[Explanation, ...], words: list[str]) -> Table:
    """One row per rule, nearest to its threshold first, its conditions indented below it."""
    table = Table("policy/rule", "score", "threshold", "fires", "tokens (features)")
    for one in found:
        table.add_row(*_row(one, words))
        for part in one.parts:
            table.add_row(*_part(part, words))
    return table


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
