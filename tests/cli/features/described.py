"""A small pair whose features were described, and a way to run commands."""

from __future__ import annotations

import torch
import typer
from typer.testing import CliRunner

from monitor.cli.app import app
from monitor.cli.dictionary.describe import describe
from monitor.dictionary.bundle import load_dictionary
from monitor.model.load.model import load_model
from monitor.model.offline.residuals import Harvester
from tests.cli.small_pair import LAYER


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + result.stderr + repr(result.exception)
    return result


def described(*arguments):
    alone = typer.Typer()
    alone.command()(describe)
    result = CliRunner().invoke(alone, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output + repr(result.exception)


def activations(pair, text):
    """`[tokens, features]` of one text, BOS dropped, computed on the side."""
    loaded = load_model(pair.model)
    ids = torch.tensor([loaded.tokenizer(text)["input_ids"]])
    x = Harvester(loaded, LAYER).residuals(ids)[0, 1:]
    return load_dictionary(pair.dictionary).autoencoder.encode(x)
