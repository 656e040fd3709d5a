"""`sae-monitor generate`: a watched generation, shown as it is released."""

from __future__ import annotations

from typing import Annotated

import typer

from monitor.cli import options
from monitor.cli.clamps import SYNTAX, parse_clamp
from monitor.cli.console import stdout_console
from monitor.cli.measure import RuleScores
from monitor.cli.output import as_json, leave, picture
from monitor.cli.reading import as_input, read_text
from monitor.cli.render import generated
from monitor.cli.session import open_session
from monitor.cli.streaming import show
from monitor.v1 import monitor_pb2 as pb

SAMPLES = "How tokens are chosen"


def generate(
    text: options.Text = None,
    file: options.File = None,
    chat: options.Chat = False,
    system: options.System = None,
    truncate: options.Truncate = False,
    clamp: Annotated[
        list[pb.Clamp] | None,
        typer.Option(
            parser=parse_clamp,
            metavar=SYNTAX,
            help="Set a feature to a value, in units of its maximum. Repeatable.",
            rich_help_panel=SAMPLES,
        ),
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Most tokens.", rich_help_panel=SAMPLES)] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.", rich_help_panel=SAMPLES)] = None,
    top_k: Annotated[int | None, typer.Option(help="0 keeps all.", rich_help_panel=SAMPLES)] = None,
    top_p: Annotated[float | None, typer.Option(help="1 keeps all.", rich_help_panel=SAMPLES)] = None,
    seed: Annotated[int | None, typer.Option(help="Makes it repeatable.", rich_help_panel=SAMPLES)] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End before this text. Repeatable.", rich_help_panel=SAMPLES)
    ] = None,
    connect: options.Connect = None,
    model: options.Model = None,
    dictionary: options.Dictionary = None,
    policies: options.Policies = None,
    layer: options.Layer = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    timeout: options.Timeout = 600.0,
    json: options.AsJson = False,
    svg: options.Svg = None,
    exit_zero: options.ExitZero = False,
) -> None:
    """Generate a text; every token is scored before it is shown.

    Exit codes: 0 no enforced rule matched, 1 one did, 2 an error, or tokens that were not scored.
    """
    flags = options.server_flags(model, dictionary, policies, layer, device, dtype)
    request = pb.Generation(
        input=as_input(read_text(text, file), chat=chat, system=system, truncate=truncate),
        sampling=pb.Sampling(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            stop=stop,
        ),
        clamps=clamp,
        include_tokens=True,
    )
    with open_session(connect, flags, timeout) as client:
        rules = RuleScores.of(client.policies().policies)
        if json:
            answer = client.generate(pb.GenerateRequest(generation=request))
            typer.echo(as_json(answer))
        else:
            events = client.generate_stream(pb.GenerateStreamRequest(generation=request))
            answer = show(events, rules, stdout_console())
    picture(svg, "sae-monitor generate", rules, lambda painter: generated(answer, painter))
    leave(answer.verdict, exit_zero)
