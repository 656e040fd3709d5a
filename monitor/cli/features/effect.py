"""`features effect`: what features of a prompt do to the next token, by ablation and by attribution.

Knows tables. Does not know how an effect is computed (`monitor.model.offline.effects`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from monitor.cli.options import DeviceOption, DictionaryOption, FormatOption, JsonOption, ModelOption
from monitor.cli.show.console import stdout_console
from monitor.cli.show.printable import one_line
from monitor.dictionary.cards.labels import Labels
from monitor.errors import InputError
from monitor.lab.pair import Pair, need_feature, need_statistics, open_labels, open_pair
from monitor.model.offline.effects import Effect, Prompted


def effect(
    prompt: Annotated[str, typer.Option(help="What the model reads.")],
    feature: Annotated[
        int | None,
        typer.Argument(metavar="[N]", help="Index of the feature; left out, those that matter most."),
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="The next token to explain; the likeliest by default.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=100, help="Rows of each table.")] = 8,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Show what a feature does to the next token: with it taken away, by gradients, and directly.

    Without N, the features are ranked by attribution to the token, and the strongest are taken away one by one.
    """
    pair = open_pair(model, dictionary, device, dictionary_format)
    if feature is not None:
        need_feature(pair.dictionary, feature)
    (ids,) = pair.all_ids([prompt], "--prompt")
    unembedding = pair.unembedding
    head = None if unembedding is None else lambda x: unembedding.head(unembedding.norm(x))
    maximum = need_statistics(pair.dictionary).maximum
    prompted = Prompted(pair.harvester, pair.dictionary.autoencoder, maximum, ids, head)
    asked = _Asked(pair, prompted, ids, _token(pair, prompted, token), top, maximum)
    record = _ranking(asked) if feature is None else _one(asked, feature)
    if as_json:
        typer.echo(json.dumps(record, ensure_ascii=False))
    elif feature is None:
        _print_ranking(stdout_console(), record)
    else:
        _print_one(stdout_console(), record)


@dataclass(frozen=True)
class _Asked:
    """What is to be explained."""

    pair: Pair
    prompted: Prompted
    ids: list[int]
    token: int
    top: int
    maximum: Tensor

    def text(self, token: int) -> str:
        """A token for people."""
        return str(self.pair.loaded.tokenizer.decode([token], clean_up_tokenization_spaces=False))

    @property
    def labels(self) -> Labels:
        """Names of features."""
        return open_labels(self.pair.dictionary)

    def reading(self, feature: int, activation: float) -> float:
        """In units of the feature's maximum."""
        return activation / float(self.maximum[feature])


def _token(pair: Pair, prompted: Prompted, wanted: str | None) -> int:
    if wanted is None:
        return int(prompted.probabilities.argmax())
    ids = pair.loaded.tokenizer(wanted, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise InputError(
            f"--token {wanted!r} is {len(ids)} tokens; write one, with the space before it where it has one"
        )
    return int(ids[0])


def _one(asked: _Asked, feature: int) -> dict[str, Any]:
    if not (asked.maximum[feature] > 0 and (asked.prompted.activations[:, feature] > 0).any()):
        raise InputError(f"feature {feature} is active on no token of this prompt; it has no effect here")
    found = asked.prompted.effect(feature)
    attribution = asked.prompted.attribution(asked.token)[:, feature]
    return {
        "feature": feature,
        "label": asked.labels.best(feature),
        "token": asked.text(asked.token),
        "positions": [
            {
                "position": position,
                "text": asked.text(token),
                "reading": asked.reading(feature, float(found.activations[position])),
                "attribution": float(attribution[position]),
            }
            for position, token in enumerate(asked.ids)
            if found.activations[position] > 0
        ],
        "explained": _row(asked, found, asked.token),
        "raised": [_row(asked, found, int(t)) for t in found.ablation.topk(asked.top).indices],
        "lowered": [_row(asked, found, int(t)) for t in (-found.ablation).topk(asked.top).indices],
    }


def _row(asked: _Asked, found: Effect, token: int) -> dict[str, Any]:
    attribution = asked.prompted.attribution(token)[:, found.feature].sum()
    return {
        "text": asked.text(token),
        "probability": float(asked.prompted.probabilities[token]),
        "without": float(found.after[token]),
        "ablation": float(found.ablation[token]),
        "attribution": float(attribution),
        "direct": None if found.direct is None else float(found.direct[token]),
    }


def _ranking(asked: _Asked) -> dict[str, Any]:
    """Features by attribution to the token. The first position counts for nothing: dictionaries do not explain it."""
    attribution = asked.prompted.attribution(asked.token)
    attribution[0] = 0
    usable = (asked.maximum > 0).to(attribution.device)
    total = torch.where(usable, attribution.sum(0), 0.0)
    labels = asked.labels
    rows = []
    for feature in total.abs().topk(asked.top).indices.tolist():
        found = asked.prompted.effect(feature)
        at = int(attribution[:, feature].abs().argmax())
        rows.append(
            {
                "feature": feature,
                "label": labels.best(feature),
                "at": asked.text(asked.ids[at]),
                "reading": asked.reading(feature, float(found.activations[at])),
                **{
                    k: v
                    for k, v in _row(asked, found, asked.token).items()
                    if k not in ("text", "probability")
                },
            }
        )
    probability = float(asked.prompted.probabilities[asked.token])
    return {"token": asked.text(asked.token), "probability": probability, "features": rows}


def _print_one(console: Console, record: dict[str, Any]) -> None:
    console.print(Text(f"feature {record['feature']}  {one_line(record['label'])}", style="bold"))
    where = Table("position", "token", "reading", f"attribution to {record['token']!r}", box=None)
    for row in record["positions"]:
        where.add_row(
            str(row["position"]), repr(row["text"]), f"{row['reading']:.2f}", f"{row['attribution']:+.3f}"
        )
    console.print(where)
    for name, rows in (
        ("explained", [record["explained"]]),
        ("raises", record["raised"]),
        ("lowers", record["lowered"]),
    ):
        table = Table(name, "p", "p without it", "ablation", "attribution", "direct", box=None)
        for row in rows:
            table.add_row(repr(row["text"]), f"{row['probability']:.4f}", *_numbers(row))
        console.print(table)
    console.print(
        "logits against their mean; ablation is exact, attribution first-order, direct without later layers"
    )


def _print_ranking(console: Console, record: dict[str, Any]) -> None:
    console.print(f"next token {record['token']!r}, p {record['probability']:.4f}", markup=False)
    heads = ("feature", "at", "reading", "p without it", "ablation", "attribution", "direct", "label")
    table = Table(*heads, box=None)
    for row in record["features"]:
        reading = f"{row['reading']:.2f}"
        label = Text(one_line(row["label"]))
        table.add_row(str(row["feature"]), repr(row["at"]), reading, *_numbers(row), label)
    console.print(table)


def _numbers(row: dict[str, Any]) -> list[str]:
    direct = "–" if row["direct"] is None else f"{row['direct']:+.3f}"
    return [f"{row['without']:.4f}", f"{row['ablation']:+.3f}", f"{row['attribution']:+.3f}", direct]
