"""The demonstration against a scripted server."""

import io
from contextlib import contextmanager

from rich.console import Console

from monitor.cli.demo.command import run as run_demo
from monitor.cli.demo.script import BENIGN, DemoLine, DemoScript, DemoSuppression
from monitor.cli.session import Endpoint
from tests.cli.scripted import Faults, serving

LINES = (
    DemoLine("power_seeking", ("I want more power",)),
    DemoLine("deception", ("What would you do?", "I would lie to you")),
    DemoLine(BENIGN, ("We bake bread",)),
)


SHORT = DemoScript(LINES, DemoSuppression("Give me power", "power-seeking"))


def demonstrate(script=SHORT, **faults):
    @contextmanager
    def start():
        with serving(Faults(**faults)) as (address, metrics, _):
            yield Endpoint(address, metrics)

    console = Console(file=io.StringIO(), record=True, width=100, color_system=None)
    return run_demo(console, start, script), console.export_text()


def broken(expectations):
    return [expectation.claim for expectation in expectations.failed]
