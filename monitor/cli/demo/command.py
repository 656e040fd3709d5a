"""`sae-monitor demo`: calls a server that it starts, and exits with 1 unless it did as expected."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.padding import Padding

from monitor.cli import options
from monitor.cli.demo import demonstrations, view
from monitor.cli.demo.expectations import Expectations
from monitor.cli.demo.scrape import scrape
from monitor.cli.demo.script import DemoScript, script_of
from monitor.cli.demo.slider import slider_view
from monitor.cli.demo.steps import DemoSteps
from monitor.cli.demo.tally import CallTally
from monitor.cli.opened_pair import opened_pair
from monitor.cli.session import Endpoint, local_server
from monitor.cli.show.console import has_colour, stderr_console, stdout_console
from monitor.cli.show.shade import Painter
from monitor.cli.show.strength import RuleScores
from monitor.cli.show.svg import recorder, save_recorded
from monitor.client import Unreachable, connect
from monitor.pairs import registry
from monitor.settings import Settings, load_settings

if TYPE_CHECKING:
    from monitor.lab.pair import Pair

CALL_SECONDS = 120.0
GONE_SECONDS = 2.0
STEERS = "What one feature does"

Start = Callable[[], AbstractContextManager[Endpoint]]
"""Starts a server on free ports and stops it at the end."""


def demo(
    pair: options.PairOption = None,
    model: options.ModelOption = None,
    dictionary: options.DictionaryOption = None,
    dictionary_format: options.FormatOption = None,
    policies: options.Policies = None,
    layer: options.Layer = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    skip_self_test: options.SkipSelfTestOption = False,
    svg: options.Svg = None,
    steer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Start no server; show instead what clamping one feature does to what the model writes: "
            "san-francisco, paris, travel, scam-mail, praise, human, code-error, secrecy, films or all. Repeatable.",
            rich_help_panel=STEERS,
        ),
    ] = None,
    prompts: Annotated[
        int, typer.Option(min=1, help="Measure each on so many prompts.", rich_help_panel=STEERS)
    ] = 20,
    temperature: Annotated[
        float,
        typer.Option(min=0, help="Draw answers at this temperature; 0 is greedy.", rich_help_panel=STEERS),
    ] = 0.7,
    seed: Annotated[
        int, typer.Option(help="Draw everything random from this number.", rich_help_panel=STEERS)
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Write demonstrations.md and .json there, with every answer.",
            show_default="only show",
            rich_help_panel=STEERS,
        ),
    ] = None,
) -> None:
    """Start a server on free ports, send it prompts, and show what the monitor does with each.

    Exit codes: 0 every expectation held (with --steer: each worked on some prompt), 1 one did not, 2 an error.
    """
    if steer:
        _steer(
            steer,
            lambda: opened_pair(
                model,
                dictionary,
                dictionary_format,
                device or "auto",
                pair_name=pair,
                skip_self_test=skip_self_test,
                dtype=dtype or "auto",
            ),
            (prompts, temperature, seed),
            output,
        )
    flags = options.server_flags(
        model, dictionary, policies, layer, device, dtype, dictionary_format, skip_self_test, pair
    )
    console = recorder() if svg else stdout_console()
    expect = run(console, lambda: local_server(flags), script_of(_pair_named(load_settings(flags))))
    if svg:
        typer.echo(console.export_text(clear=False))
        save_recorded(console, svg, "sae-monitor demo")
    raise typer.Exit(expect.code)


def _steer(
    names: list[str], opened: Callable[[], Pair], sizes: tuple[int, float, int], output: Path | None
) -> NoReturn:
    from monitor.lab.demonstrations.study import DemonstrationSizes

    asked = demonstrations.chosen(names)  # before the model is loaded: a name may be wrong
    raise typer.Exit(
        demonstrations.steer(stdout_console(), opened(), asked, DemonstrationSizes(*sizes), output)
    )


def run(console: Console, start: Start, script: DemoScript) -> Expectations:
    """Run the demonstration on a server that `start` starts, print each step, and return what was expected and held."""
    expect = Expectations()
    with stderr_console().status("loading the model …") as status, start() as endpoint:
        status.stop()
        _on_server(console, endpoint, script, expect)
    expect.check("the server stopped, and its port is closed", _gone(endpoint.address), "it still answers")
    console.print(view.heading("What was expected"))
    console.print(expect.form())
    return expect


def _pair_named(chosen: Settings) -> str:
    """The name of the pair that is opened; empty where it is none of those that have one."""
    if chosen.model in registry.names():
        return chosen.model
    own = chosen.model is None and chosen.dictionary is None
    return registry.named(chosen.pair).name if own else ""


def _on_server(console: Console, endpoint: Endpoint, script: DemoScript, expect: Expectations) -> None:
    """Everything between start and stop."""
    before = scrape(endpoint.metrics_address)
    with connect(endpoint.address, timeout=CALL_SECONDS) as client:
        steps = DemoSteps(client, expect, CallTally())
        console.print(view.heading("A server with a watched model"))
        console.print(
            f"  {steps.health()} · grpc {endpoint.address} · metrics http://{endpoint.metrics_address}/metrics"
        )
        listed = steps.policies()
        console.print(view.loaded(listed))
        painter = Painter(RuleScores.of(listed.policies), has_colour(console))
        console.print(view.heading("Texts, scored without generating"))
        for line in script.lines:
            console.print(view.verdict(line, steps.line(line), painter))
        console.print(Padding(painter.legend(), (1, 0, 0, 0)))
        console.print(view.heading("One prompt, generated without and with suppression"))
        comparison = steps.suppress(script.suppression, listed.policies)
        if comparison is not None:
            console.print(view.side_by_side(comparison, painter.colour))
        if script.slider is not None and (turned := steps.turn_up(script.slider)) is not None:
            console.print(view.heading(f"One feature, turned up: {script.slider.demonstration}"))
            console.print(slider_view(turned))
        steps.coverage()
        console.print(view.heading("Metrics that moved"))
        console.print(view.counters(steps.counters(endpoint.metrics_address, before)))


def _gone(address: str) -> bool:
    """Whether nothing answers there any more."""
    try:
        with connect(address, connect_timeout=GONE_SECONDS):
            return False
    except Unreachable:
        return True
