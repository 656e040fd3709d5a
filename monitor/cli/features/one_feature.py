"""`features show`, `near`, `label` and `map`: what is known of one feature. They need no model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from monitor.cli.features.table import FeatureTableRow, feature_table
from monitor.cli.opened_pair import opened_dictionary
from monitor.cli.options import DictionaryOption, FormatOption, JsonOption, PairOption
from monitor.cli.output import json_line
from monitor.cli.show.console import has_colour, stdout_console
from monitor.cli.show.labels import score_text, summary_text
from monitor.cli.show.printable import one_line
from monitor.cli.show.progress import followed
from monitor.cli.show.shade import Painter
from monitor.cli.show.strength import FeatureReadings
from monitor.dictionary.bundle import Dictionary
from monitor.dictionary.cards.card_file import Context, FeatureCard
from monitor.dictionary.cards.labels import Labels, save
from monitor.dictionary.labeller.dictionary_labels import in_place_of, summary
from monitor.errors import InputError
from monitor.lab.features import label_features, nearest_features
from monitor.lab.pair import feature_card, need_feature, need_statistics, open_labels

SUFFIXES = (".png", ".svg", ".pdf")

FeatureArgument = Annotated[int, typer.Argument(help="Index of the feature.", metavar="N")]


def show(
    feature: FeatureArgument,
    pair_name: PairOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    contexts: Annotated[int, typer.Option(min=0, help="Show at most so many contexts.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Show one feature: maximum, density, label, where it fires, tokens it promotes, neighbours."""
    opened = opened_dictionary(pair_name, dictionary, dictionary_format)
    card = feature_card(opened, need_feature(opened, feature))
    labels = open_labels(opened)
    if as_json:
        typer.echo(json_line(_record(opened, card, labels, contexts)))
        return
    _print(stdout_console(), opened, card, labels, contexts)


def near(
    feature: FeatureArgument,
    pair_name: PairOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    limit: Annotated[int, typer.Option("-k", "--limit", min=1, help="Show so many neighbours.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the features whose decoder rows point the most nearly the same way."""
    opened = opened_dictionary(pair_name, dictionary, dictionary_format)
    labels, statistics = open_labels(opened), opened.statistics
    rows = [
        FeatureTableRow(
            other,
            {
                "cosine": round(cosine, 3),
                "density": float(statistics.density[other]) if statistics else None,
                "maximum": float(statistics.maximum[other]) if statistics else None,
            },
            labels.best(other),
        )
        for other, cosine in nearest_features(opened, feature, limit)
    ]
    if as_json:
        typer.echo(
            json_line({"feature": feature, "label": labels.best(feature), "near": [r.record() for r in rows]})
        )
        return
    console = stdout_console()
    console.print(Text(f"nearest to feature {feature} {one_line(labels.best(feature))}", style="bold"))
    console.print(feature_table(rows))


def label(
    feature: Annotated[int | None, typer.Argument(help="Index of the feature.", metavar="[N]")] = None,
    text: Annotated[
        str | None, typer.Argument(help="The label; an empty text removes the hand label.")
    ] = None,
    pair_name: PairOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    auto: Annotated[
        bool,
        typer.Option(
            "--auto",
            help="Make a label for every feature again, from its card and the places that `dictionary describe` kept; "
            "hand labels stay.",
        ),
    ] = False,
) -> None:
    """Label a feature by hand, or all of them automatically; hand labels override automatic ones.

    An automatic label says on which words the feature fires and what stands around them. It is tried on places that it
    was not made from, and reads "unclear" where it predicts them no better than chance.
    """
    opened = opened_dictionary(pair_name, dictionary, dictionary_format)
    if auto and feature is None and text is None:
        _label_all(opened)
    elif not auto and feature is not None and text is not None:
        path = save(opened.path, open_labels(opened).with_hand(need_feature(opened, feature), text))
        stdout_console().print(f"{path} written", soft_wrap=True)
    else:
        raise InputError('give a feature and a text (`features label 12 "a label"`), or --auto alone')


def _label_all(dictionary: Dictionary) -> None:
    named = open_labels(dictionary)  # before the long part: labels of another dictionary are refused
    features = dictionary.autoencoder.features
    made = list(followed(label_features(dictionary), "labelling", features, "features"))
    labels = in_place_of(named, made)
    path = save(dictionary.path, labels)
    console = stdout_console()
    console.print(
        f"{path} written: {len(labels.auto)} automatic, {len(labels.hand)} hand labels", soft_wrap=True
    )
    console.print(summary_text(summary(made)), soft_wrap=True)


def draw_map(
    feature: FeatureArgument,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Write the picture to this .png, .svg or .pdf file.")
    ],
    pair_name: PairOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    size: Annotated[int, typer.Option(min=10, max=1000, help="Draw so many neighbours.")] = 150,
) -> None:
    """Draw the nearest features in two dimensions: near in the picture is near in decoder cosine."""
    from monitor.dictionary.explore.feature_map import draw, neighbourhood

    if out.suffix not in SUFFIXES or not out.parent.is_dir():
        raise InputError(
            f"cannot write {out}; give a file in an existing folder that ends in {', '.join(SUFFIXES)}"
        )
    opened = opened_dictionary(pair_name, dictionary, dictionary_format)
    around = neighbourhood(opened.autoencoder.decoder, need_feature(opened, feature), size)
    labels = open_labels(opened)
    density = opened.statistics.density[list(around.features)].tolist() if opened.statistics else None
    draw(around, [labels.best(other) for other in around.features], density, out)
    stdout_console().print(f"{out} written", soft_wrap=True)


def shaded(context: Context, painter: Painter) -> Text:
    """A context on one line, tokens shaded by activation in units of the feature's maximum."""
    line = Text()
    for token, level in zip(context.tokens, context.levels, strict=True):
        line.append_text(painter.piece(one_line(token), level / 100))
    return line


def painter_for(console: Console) -> Painter:
    """Shades by strength alone: no rule and no evidence."""
    return Painter(FeatureReadings(frozenset()), has_colour(console))


def _print(console: Console, dictionary: Dictionary, card: FeatureCard, labels: Labels, limit: int) -> None:
    statistics = need_statistics(dictionary)
    maximum, density = float(statistics.maximum[card.feature]), float(statistics.density[card.feature])
    kind = "hand label" if labels.by_hand(card.feature) else _automatic(labels, card.feature)
    named = labels.best(card.feature)
    console.print(
        Text.assemble(
            (f"feature {card.feature}", "bold"),
            "  ",
            one_line(named),
            (f"  ({kind})" if named else "", "dim"),
        )
    )
    console.print(
        f"maximum {maximum:.3g}   active on {density:.3%} of {statistics.tokens:,} tokens", style="dim"
    )
    if not maximum:
        console.print("never active on the corpus: readings of it have no unit, so no policy can use it")
    painter = painter_for(console)
    for context in card.contexts[:limit]:
        console.print(Text.assemble((f"{context.peak:8.3g}  ", "dim"), shaded(context, painter)))
    _print_words(console, "promotes", card.promoted)
    _print_words(console, "suppresses", card.suppressed)
    _print_neighbours(console, card, labels)


def _automatic(labels: Labels, feature: int) -> str:
    guess = labels.guesses.get(feature)
    tried = f"tried {one_line(guess)}" if guess else ""
    return ": ".join(filter(None, ("automatic label", tried, score_text(labels.scores.get(feature)))))


def _print_words(console: Console, verb: str, tokens: Iterable[tuple[str, float]]) -> None:
    shown = [f"“{one_line(token)}” {change:+.2f}" for token, change in tokens]
    if shown:
        console.print(Text.assemble((f"{verb:<11}", "bold"), "  ".join(shown)))


def _print_neighbours(console: Console, card: FeatureCard, labels: Labels) -> None:
    table = Table.grid(padding=(0, 2))
    for other, cosine in card.neighbours:
        table.add_row(
            Text(f"  {other}"), Text(f"{cosine:+.2f}", style="dim"), Text(one_line(labels.best(other)))
        )
    if card.neighbours:
        console.print(Text("neighbours (decoder cosine)", style="bold"))
        console.print(table)


def _record(dictionary: Dictionary, card: FeatureCard, labels: Labels, limit: int) -> dict[str, object]:
    statistics = need_statistics(dictionary)
    record = asdict(card)
    record["contexts"] = record["contexts"][:limit]
    return {
        "feature": card.feature,
        "label": labels.best(card.feature),
        "label_by_hand": labels.by_hand(card.feature),
        "label_score": asdict(score) if (score := labels.scores.get(card.feature)) else None,
        "label_tried": labels.guesses.get(card.feature),
        "maximum": float(statistics.maximum[card.feature]),
        "density": float(statistics.density[card.feature]),
        "tokens": statistics.tokens,
    } | record
