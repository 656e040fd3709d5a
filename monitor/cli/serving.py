"""Flags of `sae-monitor serve` that no other command has.

Knows names and help texts. Does not know what they do, nor their defaults, which are the settings'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monitor.cli.options import RUNS

SERVES = "Where it serves"

Listen = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="gRPC. Default: 127.0.0.1:50051.", rich_help_panel=SERVES),
]
MetricsListen = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Prometheus. Default: 127.0.0.1:9464.", rich_help_panel=SERVES),
]
DecisionLog = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|off",
        help="Where decisions are written before they are answered. Default: a folder of this user and port.",
        rich_help_panel=SERVES,
    ),
]
Callers = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Who may call (`sae-monitor token new`).", rich_help_panel=SERVES),
]
TlsCertificate = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="PEM; read again when it changes.", rich_help_panel=SERVES),
]
TlsKey = Annotated[
    Path | None, typer.Option(metavar="FILE", help="PEM, without a password.", rich_help_panel=SERVES)
]
TlsClientCa = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Only clients with certificates of these authorities.", rich_help_panel=SERVES
    ),
]
InsecureListen = Annotated[
    bool | None,
    typer.Option(
        "--insecure-listen", help="Let other machines call without tokens or TLS.", rich_help_panel=SERVES
    ),
]
SkipSelfTest = Annotated[
    bool | None,
    typer.Option(
        "--skip-self-test",
        help="Start although nobody checked that the dictionary fits the model.",
        rich_help_panel=RUNS,
    ),
]
GraceSeconds = Annotated[
    float | None, typer.Option(help="Time for running calls after SIGTERM.", rich_help_panel=SERVES)
]
LogLevel = Annotated[str | None, typer.Option(metavar="debug|info|warning|error", rich_help_panel=SERVES)]
LogFormat = Annotated[str | None, typer.Option(metavar="console|json", rich_help_panel=SERVES)]
