"""`sae-monitor score`: prints the verdict on a text."""

from __future__ import annotations

from typing import Annotated

import typer

from monitor.cli import options
from monitor.cli.input import as_input, read_text
from monitor.cli.options import Labels, Session, belonging
from monitor.cli.output import as_json, exit_by, picture
from monitor.cli.session import open_session
from monitor.cli.show.console import has_colour, stdout_console
from monitor.cli.show.shade import Painter
from monitor.cli.show.strength import RuleScores
from monitor.cli.show.verdict import scored


def score(
    text: options.Text = None,
    file: options.File = None,
    chat: options.Chat = False,
    system: options.System = None,
    truncate: options.Truncate = False,
    session: Session = None,
    label: Labels = None,
    connect: options.Connect = None,
    pair: options.PairOption = None,
    model: options.ModelOption = None,
    dictionary: options.DictionaryOption = None,
    dictionary_format: options.FormatOption = None,
    policies: options.Policies = None,
    layer: options.Layer = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    skip_self_test: options.SkipSelfTestOption = False,
    timeout: options.Timeout = 120.0,
    json: options.AsJson = False,
    tokens: Annotated[
        bool,
        typer.Option(
            "--tokens/--no-tokens",
            help="Show every token, shaded by its score.",
            rich_help_panel=options.SHOWS,
        ),
    ] = True,
    svg: options.Svg = None,
    exit_zero: options.ExitZero = False,
) -> None:
    """Score a text against the policies.

    The forward pass stops after the layer that is read; nothing is generated. Exit codes: 0 no enforced rule
    matched, 1 one did, 2 an error, or tokens that were not scored.
    """
    flags = options.server_flags(
        model, dictionary, policies, layer, device, dtype, dictionary_format, skip_self_test, pair
    )
    content = as_input(read_text(text, file), chat=chat, system=system, truncate=truncate)
    belonging(content, session, label)
    with open_session(connect, flags, timeout, generates=False) as client:
        rules = RuleScores.of(client.policies().policies)
        answer = client.score(content, include_tokens=tokens)
    picture(svg, "sae-monitor score", rules, lambda painter: scored(answer, painter))
    if json:
        typer.echo(as_json(answer))
    else:
        console = stdout_console()
        console.print(scored(answer, Painter(rules, has_colour(console))))
    exit_by(answer.verdict, exit_zero)
