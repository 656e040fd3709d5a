"""`sae-monitor dictionary`: joins the commands that train, check and describe dictionaries."""

from __future__ import annotations

from monitor.cli.dictionary.describe import describe
from monitor.cli.dictionary.info import convert, info
from monitor.cli.dictionary.train import dictionary_app
from monitor.cli.dictionary.verify import verify

dictionary_app.command("info")(info)
dictionary_app.command("convert")(convert)
dictionary_app.command("describe")(describe)
dictionary_app.command("verify")(verify)

__all__ = ["dictionary_app"]
