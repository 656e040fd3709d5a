"""`sae-monitor generate`: generates a text, and prints it as the server releases it."""

from __future__ import annotations

from pathlib import Path

import typer

from monitor.cli import options
from monitor.cli.clamps import dropping
from monitor.cli.input import as_input, as_sampling, read_text
from monitor.cli.options import Labels, Session, belonging
from monitor.cli.output import as_json, exit_by, picture
from monitor.cli.session import open_session
from monitor.cli.show.console import stdout_console
from monitor.cli.show.side_by_side import Compare, columns
from monitor.cli.show.stream import show
from monitor.cli.show.strength import RuleScores
from monitor.cli.show.svg import WIDTH, save_svg
from monitor.cli.show.verdict import generated
from monitor.client import Client
from monitor.v1 import monitor_pb2 as pb


def generate(
    text: options.Text = None,
    file: options.File = None,
    chat: options.Chat = False,
    system: options.System = None,
    truncate: options.Truncate = False,
    session: Session = None,
    label: Labels = None,
    clamp: options.Clamps = None,
    drop_error_term: options.DropErrorTerm = False,
    compare: options.Compared = None,
    max_new_tokens: options.MaxNewTokens = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
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
    timeout: options.Timeout = 600.0,
    json: options.AsJson = False,
    svg: options.Svg = None,
    exit_zero: options.ExitZero = False,
) -> None:
    """Generate a text; every token is scored before it is shown.

    Exit codes: 0 no enforced rule matched, 1 one did, 2 an error, or tokens that were not scored.
    """
    flags = options.server_flags(
        model, dictionary, policies, layer, device, dtype, dictionary_format, skip_self_test, pair
    )
    flags["drop_error_term"] = True if drop_error_term and connect is None else None
    request = pb.Generation(
        input=belonging(
            as_input(read_text(text, file), chat=chat, system=system, truncate=truncate), session, label
        ),
        sampling=_sampling(max_new_tokens, temperature, top_k, top_p, seed, stop),
        clamps=dropping(clamp or [], drop_error_term),
        include_tokens=True,
    )
    with open_session(connect, flags, timeout) as client:
        if compare is not None:
            _compared(client, request, compare, json, svg)
        else:
            _alone(client, request, json, svg, exit_zero)


def _sampling(
    max_new_tokens: int | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    stop: list[str] | None,
) -> pb.Sampling:
    return as_sampling(
        max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, stop=stop
    )


def _alone(client: Client, request: pb.Generation, json: bool, svg: Path | None, exit_zero: bool) -> None:
    """One generation; ends the command with what its verdict says."""
    rules = RuleScores.of(client.policies().policies)
    answer = _whole(client, request) if json else _streamed(client, request, rules)
    picture(svg, "sae-monitor generate", rules, lambda painter: generated(answer, painter))
    exit_by(answer.verdict, exit_zero)


def _compared(client: Client, request: pb.Generation, compare: Compare, json: bool, svg: Path | None) -> None:
    """The same prompt under every value, side by side."""
    answers = [client.generate(one) for one in compare.requests(request)]
    if svg is not None:
        save_svg(columns(compare, answers, WIDTH), svg, "sae-monitor generate")
    if json:
        for answer in answers:
            typer.echo(as_json(answer))
        return
    console = stdout_console()
    console.print(columns(compare, answers, console.width))


def _whole(client: Client, request: pb.Generation) -> pb.GenerateResponse:
    """The answer in one piece, printed as JSON."""
    answer = client.generate(request)
    typer.echo(as_json(answer))
    return answer


def _streamed(client: Client, request: pb.Generation, rules: RuleScores) -> pb.GenerateResponse:
    """The answer as it comes, shown in readable form."""
    with client.generate_stream(request) as events:
        return show(events, rules, stdout_console())
