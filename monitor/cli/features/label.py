"""`features label`: a label written by hand, or plain labels for all features derived from their cards."""

from __future__ import annotations

from typing import Annotated

import typer

from monitor.cli.options import DictionaryOption, FormatOption
from monitor.cli.show.console import stdout_console
from monitor.dictionary.bundle import Dictionary
from monitor.dictionary.cards.auto_labels import name_features
from monitor.dictionary.cards.card_file import load_cards
from monitor.dictionary.cards.labels import save
from monitor.errors import InputError
from monitor.lab.pair import feature_card, need_feature, open_dictionary, open_labels


def label(
    feature: Annotated[int | None, typer.Argument(help="Index of the feature.", metavar="[N]")] = None,
    text: Annotated[
        str | None, typer.Argument(help="The label; an empty text removes the hand label.")
    ] = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Derive a label for every feature from its card; hand labels stay.")
    ] = False,
) -> None:
    """Label a feature by hand, or all of them automatically; hand labels override automatic ones.

    An automatic label is a list of the words that the feature fires on and near. It is no interpretation.
    """
    opened = open_dictionary(dictionary, format=dictionary_format)
    if auto and feature is None and text is None:
        _label_all(opened)
    elif not auto and feature is not None and text is not None:
        path = save(opened.path, open_labels(opened).with_hand(need_feature(opened, feature), text))
        stdout_console().print(f"{path} written", soft_wrap=True)
    else:
        raise InputError('give a feature and a text (`features label 12 "a label"`), or --auto alone')


def _label_all(dictionary: Dictionary) -> None:
    feature_card(dictionary, 0)
    labels = open_labels(dictionary).with_auto(name_features(load_cards(dictionary.path)))
    path = save(dictionary.path, labels)
    stdout_console().print(
        f"{path} written: {len(labels.auto)} automatic, {len(labels.hand)} hand labels", soft_wrap=True
    )
