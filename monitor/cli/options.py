"""Flags that several commands share, each written once.

Knows names, help texts and which settings they become. Does not know what they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from monitor.cli.clamps import SYNTAX, parse_clamp
from monitor.cli.show.side_by_side import SYNTAX as COMPARED
from monitor.cli.show.side_by_side import Compare, parse_compare
from monitor.dictionary.formats import FORMATS
from monitor.errors import InputError
from monitor.v1 import monitor_pb2 as pb

RUNS = "What runs"
READS = "What is read"
SHOWS = "What is shown"
SAMPLES = "How tokens are chosen"

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|FOLDER",
        help="Language model. Default: the demo model.",
        rich_help_panel=RUNS,
    ),
]
Dictionary = Annotated[
    Path | None,
    typer.Option(
        "--dictionary",
        metavar="FOLDER|FILE|hub:ORG/NAME/…",
        help="Its dictionary (sparse autoencoder).",
        rich_help_panel=RUNS,
    ),
]
DictionaryFormat = Annotated[
    str | None,
    typer.Option(
        "--dictionary-format",
        metavar="NAME",
        help="Its checkpoint family, where the files do not tell.",
        rich_help_panel=RUNS,
    ),
]
Policies = Annotated[
    Path | None,
    typer.Option(
        "--policies", metavar="FOLDER", help="Policy files. Default: the bundled ones.", rich_help_panel=RUNS
    ),
]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="auto|cpu|cuda|spread", help="Where it runs.", rich_help_panel=RUNS),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype", metavar="auto|float32|bfloat16|float16", help="Weights' type.", rich_help_panel=RUNS
    ),
]
Layer = Annotated[
    int | None,
    typer.Option(
        "--layer", help="Decoder layer that is read. Default: the dictionary's.", rich_help_panel=RUNS
    ),
]
Settings = Annotated[
    Path | None,
    typer.Option("--settings", metavar="FILE", help="YAML file of settings.", rich_help_panel=RUNS),
]
Connect = Annotated[
    str | None,
    typer.Option(
        "--connect", metavar="HOST:PORT", help="Ask a running server instead.", rich_help_panel=RUNS
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0.001, help="Longest call.", rich_help_panel=RUNS)
]
File = Annotated[
    Path | None,
    typer.Option("--file", metavar="PATH", help="Read the text from a file.", rich_help_panel=READS),
]
Text = Annotated[str | None, typer.Argument(metavar="TEXT|-", help="What to read; - is standard input.")]
Chat = Annotated[
    bool,
    typer.Option("--chat", help="The text is a user's turn: use the chat template.", rich_help_panel=READS),
]
System = Annotated[
    str | None,
    typer.Option("--system", metavar="TEXT", help="System turn (with --chat).", rich_help_panel=READS),
]
Truncate = Annotated[
    bool,
    typer.Option(
        "--truncate", help="Drop tokens from the front of a text that is too long.", rich_help_panel=READS
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the response as JSON.", rich_help_panel=SHOWS)]
Svg = Annotated[
    Path | None,
    typer.Option("--svg", metavar="FILE", help="Save the readable form too.", rich_help_panel=SHOWS),
]
ExitZero = Annotated[
    bool, typer.Option("--exit-zero", help="Exit with 0 where a rule matched.", rich_help_panel=SHOWS)
]
Clamps = Annotated[
    list[pb.Clamp] | None,
    typer.Option(
        "--clamp",
        parser=parse_clamp,
        metavar=SYNTAX,
        help="Set a feature to a value, in units of its maximum. Repeatable.",
        rich_help_panel=SAMPLES,
    ),
]
DropErrorTerm = Annotated[
    bool,
    typer.Option(
        "--drop-error-term",
        help="Leave out what the dictionary does not explain, where a clamp edits.",
        rich_help_panel=SAMPLES,
    ),
]
Compared = Annotated[
    Compare | None,
    typer.Option(
        "--compare",
        parser=parse_compare,
        metavar=COMPARED,
        help="Generate once for each value of a feature, side by side.",
        rich_help_panel=SAMPLES,
    ),
]
MaxNewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", help="Most tokens.", rich_help_panel=SAMPLES)
]
Temperature = Annotated[
    float | None, typer.Option("--temperature", help="0 is greedy.", rich_help_panel=SAMPLES)
]
TopK = Annotated[int | None, typer.Option("--top-k", help="0 keeps all.", rich_help_panel=SAMPLES)]
TopP = Annotated[float | None, typer.Option("--top-p", help="1 keeps all.", rich_help_panel=SAMPLES)]
Seed = Annotated[int | None, typer.Option("--seed", help="Makes it repeatable.", rich_help_panel=SAMPLES)]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", help="End before this text. Repeatable.", rich_help_panel=SAMPLES),
]


def server_flags(
    model: str | None,
    dictionary: Path | None,
    policies: Path | None,
    layer: int | None,
    device: str | None,
    dtype: str | None,
    dictionary_format: str | None = None,
) -> dict[str, Any]:
    """The flags of "What runs" by the names of their settings; None is "not given"."""
    flags: dict[str, Any] = {"model": model, "dictionary": dictionary, "policies": policies}
    flags["dictionary_format"] = dictionary_format
    return flags | {"layer": layer, "device": device, "dtype": dtype}


ModelOption = Annotated[
    str | None, typer.Option("--model", help="Model folder or hub name.", show_default="the bundled model")
]


DictionaryOption = Annotated[
    Path | None,
    typer.Option(
        "--dictionary",
        metavar="FOLDER|FILE|hub:ORG/NAME/…",
        help="Dictionary of the model.",
        show_default="the bundled dictionary",
    ),
]


FormatOption = Annotated[
    str | None,
    typer.Option(
        "--dictionary-format", metavar="NAME", help=f"Checkpoint family, one of {', '.join(FORMATS)}."
    ),
]


DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or spread.")]


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


PANEL = "What it belongs to"

Session = Annotated[
    str | None,
    typer.Option(
        "--session",
        metavar="ID",
        help="Conversation that rules with `scope: session` add up over.",
        rich_help_panel=PANEL,
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="NAME=VALUE",
        help="For policies bound to labels; can be given again.",
        rich_help_panel=PANEL,
    ),
]


def belonging(content: pb.Input, session: str | None, labels: Sequence[str] | None) -> pb.Input:
    """The input with session and labels; `InputError` for a label that is not NAME=VALUE."""
    content.session_id = session or ""
    for label in labels or ():
        name, equals, value = label.partition("=")
        if not (name and equals):
            raise InputError(f"--label {label}: write NAME=VALUE, such as team=risk")
        content.labels[name] = value
    return content


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
