"""`sae-monitor deploy`: the operator's files that come with the package, written out to be used."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from monitor.cli.show.console import stdout_console
from monitor.cli.show.words import counted
from monitor.errors import InputError

deploy_app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Write the files that an operator needs."
)

PARTS = (
    "prometheus/prometheus.yml",
    "prometheus/rules",
    "alertmanager",
    "grafana/dashboards",
    "grafana/provisioning",
    "systemd",
    "envoy",
    "nemo",
    "runbook.md",
)
"""Files and folders below `deploy/` that are exported."""

RUNBOOK = "deploy/runbook.md"
"""The runbook's address in the rules as they are in the repository."""

NEXT = """\
What to do with them:
  prometheus/rules/*.yml             name them under `rule_files` of your Prometheus
  prometheus/prometheus.yml          an example of that, and of the job `sae-monitor` that the rules expect
  alertmanager/alertmanager.yml      routes and inhibitions; put your own receivers in
  grafana/dashboards/*.json          import them; grafana/provisioning does so at every start of Grafana
  systemd/sae-monitor.service        a unit for a server in /opt/sae-monitor
  envoy/envoy.yaml                   Envoy before your inference server, with `sae-monitor guard --envoy` behind it
  nemo/                              a configuration of NeMo Guardrails whose rails ask a sae-monitor
  runbook.md                         what to do at each alert"""


@deploy_app.callback()
def deploy() -> None:
    """Write the files that an operator needs: Prometheus rules, alert routes, dashboards, gateways."""


@deploy_app.command()
def export(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder to write to. It is created if it does not exist.")
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing files that differ.")
    ] = False,
    runbook_url: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Where you publish runbook.md. Every alert links to its entry there."
        ),
    ] = "runbook.md",
) -> None:
    """Write what goes beside a server to a folder: what watches it, what runs it, and gateways that ask it.

    These are Prometheus rules, Alertmanager routes, Grafana dashboards, a systemd unit, the runbook, and
    configurations of Envoy and NeMo Guardrails.

    The files match the metrics of this version of the server. If a file exists and differs, nothing is written and the
    exit code is 2, unless --overwrite is given.
    """
    contents = dict(deploy_files(runbook_url))
    differ = [name for name, text in contents.items() if _differs(folder / name, text)]
    if differ and not overwrite:
        raise InputError(
            f"{folder} has other files of these names: {', '.join(differ)}; "
            "name another folder, or replace them with --overwrite"
        )
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)
    console = stdout_console()
    for name in contents:
        console.print(str(folder / name), soft_wrap=True)
    console.print(f"{counted(len(contents), 'file')} written. {NEXT}", soft_wrap=True)


def deploy_files(runbook_url: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file; rules link to the runbook at `runbook_url`."""
    for part in PARTS:
        for name, file in _files(part, _root().joinpath(*part.split("/"))):
            content = file.read_bytes()
            if name.startswith("prometheus/rules/"):
                content = content.replace(RUNBOOK.encode(), runbook_url.encode())
            yield name, content


def _root() -> Traversable:
    """`deploy/`: inside the installed package, beside it in a checkout."""
    package = resources.files("monitor")
    inside = package.joinpath("deploy_files")
    return inside if inside.is_dir() else package.joinpath("..", "deploy")


def _files(name: str, place: Traversable) -> Iterator[tuple[str, Traversable]]:
    if place.is_file():
        yield name, place
        return
    for child in sorted(place.iterdir(), key=lambda found: found.name):
        if child.name == "__pycache__":  # of a checkout
            continue
        yield from _files(f"{name}/{child.name}", child)


def _differs(path: Path, content: bytes) -> bool:
    return path.exists() and (not path.is_file() or path.read_bytes() != content)
