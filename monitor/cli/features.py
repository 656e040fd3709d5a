"""`sae-monitor features`: joins the commands that look at features."""

from __future__ import annotations

import typer

from monitor.cli.features_contrast import contrast
from monitor.cli.features_evaluate import evaluate
from monitor.cli.features_label import label
from monitor.cli.features_map import draw_map
from monitor.cli.features_search import search
from monitor.cli.features_show import near, show

features_app = typer.Typer(no_args_is_help=True, help="Search and look at the features of a dictionary.")
for _name, _command in (
    ("show", show),
    ("near", near),
    ("search", search),
    ("contrast", contrast),
    ("label", label),
    ("map", draw_map),
    ("evaluate", evaluate),
):
    features_app.command(_name)(_command)

__all__ = ["features_app"]
