"""`features map`: a picture of a feature's neighbourhood.

Knows the options. Does not know how the layout is found (`layout`) or drawn (`picture`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monitor.cli.features.show import FeatureArgument
from monitor.cli.options import DictionaryOption, FormatOption
from monitor.cli.show.console import stdout_console
from monitor.errors import InputError
from monitor.lab.pair import need_feature, open_dictionary, open_labels

SUFFIXES = (".png", ".svg", ".pdf")


def draw_map(
    feature: FeatureArgument,
    out: Annotated[Path, typer.Option(help="Picture to write: .png, .svg or .pdf.")],
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    size: Annotated[int, typer.Option(min=10, max=1000, help="How many neighbours to draw.")] = 150,
) -> None:
    """Draw the nearest features in two dimensions: near in the picture is near in decoder cosine."""
    from monitor.dictionary.explore.feature_map import draw, neighbourhood

    if out.suffix not in SUFFIXES or not out.parent.is_dir():
        raise InputError(
            f"cannot write {out}; give a file in an existing folder that ends in {', '.join(SUFFIXES)}"
        )
    opened = open_dictionary(dictionary, format=dictionary_format)
    around = neighbourhood(opened.autoencoder.decoder, need_feature(opened, feature), size)
    labels = open_labels(opened)
    density = opened.statistics.density[list(around.features)].tolist() if opened.statistics else None
    draw(around, [labels.best(other) for other in around.features], density, out)
    stdout_console().print(f"{out} written", soft_wrap=True)
