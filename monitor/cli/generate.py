"""`sae-monitor generate`: a watched generation, shown as it is released."""

from __future__ import annotations

import typer

from monitor.cli import options
from monitor.cli.client import Client
from monitor.cli.console import stdout_console
from monitor.cli.measure import RuleScores
from monitor.cli.output import as_json, leave, picture
from monitor.cli.reading import as_input, as_sampling, read_text
from monitor.cli.render import generated
from monitor.cli.session import open_session
from monitor.cli.streaming import show
from monitor.v1 import monitor_pb2 as pb


def generate(
    text: options.Text = None,
    file: options.File = None,
    chat: options.Chat = False,
    system: options.System = None,
    truncate: options.Truncate = False,
    clamp: options.Clamps = None,
    max_new_tokens: options.MaxNewTokens = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    connect: options.Connect = None,
    model: options.Model = None,
    dictionary: options.Dictionary = None,
    dictionary_format: options.DictionaryFormat = None,
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
    flags = options.server_flags(model, dictionary, policies, layer, device, dtype, dictionary_format)
    request = pb.Generation(
        input=as_input(read_text(text, file), chat=chat, system=system, truncate=truncate),
        sampling=as_sampling(
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
        answer = _whole(client, request) if json else _streamed(client, request, rules)
    picture(svg, "sae-monitor generate", rules, lambda painter: generated(answer, painter))
    leave(answer.verdict, exit_zero)


def _whole(client: Client, request: pb.Generation) -> pb.GenerateResponse:
    """The answer in one piece, printed as JSON."""
    answer = client.generate(pb.GenerateRequest(generation=request))
    typer.echo(as_json(answer))
    return answer


def _streamed(client: Client, request: pb.Generation, rules: RuleScores) -> pb.GenerateResponse:
    """The answer as it comes, shown in readable form."""
    return show(client.generate_stream(pb.GenerateStreamRequest(generation=request)), rules, stdout_console())
