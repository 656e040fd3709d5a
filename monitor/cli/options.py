"""The flags that several commands share, and those that are made from the settings of a server."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape

from monitor.cli.clamps import SYNTAX, parse_clamp
from monitor.cli.show.side_by_side import SYNTAX as COMPARED
from monitor.cli.show.side_by_side import Compare, parse_compare
from monitor.errors import InputError
from monitor.pairs import registry
from monitor.settings import Setting, all_settings
from monitor.v1 import monitor_pb2 as pb

RUNS = "What runs"
READS = "What is read"
SHOWS = "What is shown"
SAMPLES = "How tokens are chosen"
BELONGS = "What the request belongs to"

_SETTINGS = {setting.name: setting for setting in all_settings()}


def _option(name: str) -> Any:
    """The flag of a setting, with the setting's text as its help."""
    setting = _SETTINGS[name]
    flag = f"--{name.replace('_', '-')}"
    return typer.Option(
        f"{flag}/--no-{flag[2:]}" if not setting.values and setting.default is None else flag,
        metavar=setting.values or None,
        help=escape(setting.help + _default(setting)),
        rich_help_panel=setting.group,
        show_default=False,
        autocompletion=_words(setting),
    )


def _words(setting: Setting) -> Callable[[], list[str]] | None:
    """The words that a shell completes the value of a flag with; None where there are none."""
    if setting.name == "pair":
        return lambda: list(registry.names())
    return (lambda: list(setting.choices)) if setting.choices else None


def _default(setting: Setting) -> str:
    """The end of a flag's help: its choices and its default."""
    if setting.name == "pair":
        return f" Default: {registry.DEFAULT}, where neither model nor dictionary is given."
    value, unit = setting.default, setting.name.rpartition("_")[2]
    if value is None or isinstance(value, bool | dict):
        return ""
    if setting.choices:
        return f" One of {', '.join(setting.choices)}. Default: {value}."
    if unit == "bytes":
        size = f"{value >> 20} MiB" if value >= 1 << 20 else f"{value >> 10} KiB"
        return f" Default: {value} ({size})."
    return f" Default: {value:g}." if isinstance(value, float) else f" Default: {value}."


PairOption = Annotated[str | None, _option("pair")]
ModelOption = Annotated[str | None, _option("model")]
DictionaryOption = Annotated[Path | None, _option("dictionary")]
FormatOption = Annotated[str | None, _option("dictionary_format")]
Policies = Annotated[Path | None, _option("policies")]
Device = Annotated[str | None, _option("device")]
Dtype = Annotated[str | None, _option("dtype")]
Layer = Annotated[int | None, _option("layer")]
Connect = Annotated[
    str | None,
    typer.Option(
        "--connect",
        metavar="HOST:PORT",
        help="Ask the server that runs at this address. Default: load the model in this process.",
        rich_help_panel=RUNS,
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        min=0.001,
        help="Longest time to wait for an answer.",
        rich_help_panel=RUNS,
    ),
]

File = Annotated[
    Path | None,
    typer.Option("--file", metavar="PATH", help="Read the text from this file.", rich_help_panel=READS),
]
Text = Annotated[
    str | None, typer.Argument(metavar="TEXT|-", help="The text to read; - reads it from standard input.")
]
Chat = Annotated[
    bool,
    typer.Option(
        "--chat",
        help="Send the text as a user's turn of a conversation, in the model's chat template.",
        rich_help_panel=READS,
    ),
]
System = Annotated[
    str | None,
    typer.Option(
        "--system",
        metavar="TEXT",
        help="Put this system turn before the user's turn. Needs --chat.",
        rich_help_panel=READS,
    ),
]
Truncate = Annotated[
    bool,
    typer.Option(
        "--truncate",
        help="Where the text is longer than the model's context, drop tokens from its front instead of failing.",
        rich_help_panel=READS,
    ),
]

AsJson = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the response as one line of JSON instead of text.", rich_help_panel=SHOWS
    ),
]
Svg = Annotated[
    Path | None,
    typer.Option(
        "--svg",
        metavar="FILE",
        help="Also save what is printed as an SVG picture in this file.",
        rich_help_panel=SHOWS,
    ),
]
ExitZero = Annotated[
    bool,
    typer.Option(
        "--exit-zero", help="Exit with 0 instead of 1 where an enforced rule matched.", rich_help_panel=SHOWS
    ),
]

Clamps = Annotated[
    list[pb.Clamp] | None,
    typer.Option(
        "--clamp",
        parser=parse_clamp,
        metavar=SYNTAX,
        help="Set a feature to this value, in units of its recorded maximum, on tokens where it is active or "
        "everywhere. Where neither is said: everywhere for a value above 0, else where it is active. Repeatable.",
        rich_help_panel=SAMPLES,
    ),
]
DropErrorTerm = Annotated[
    bool,
    typer.Option(
        "--drop-error-term",
        help="On tokens that a clamp edits, leave out the part of the activation that the dictionary does not explain.",
        rich_help_panel=SAMPLES,
    ),
]
Compared = Annotated[
    Compare | None,
    typer.Option(
        "--compare",
        parser=parse_compare,
        metavar=COMPARED,
        help="Generate once without and once with each of these values of a feature, and show them side by side. "
        "Where neither is said, a value above 0 holds on every token, any other where the feature is active.",
        rich_help_panel=SAMPLES,
    ),
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(
        "--max-new-tokens", help="Maximum number of tokens to generate. Default: 64.", rich_help_panel=SAMPLES
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        help="Divide the logits by this before sampling. Default: 0, which takes the likeliest token.",
        rich_help_panel=SAMPLES,
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(
        "--top-k",
        help="Sample from this many of the likeliest tokens. Default: 0, which keeps all.",
        rich_help_panel=SAMPLES,
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        help="Sample from the smallest set of tokens that has this probability in total. Default: 1, which keeps "
        "all.",
        rich_help_panel=SAMPLES,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        help="Seed of the random numbers for sampling, which makes it repeatable.",
        rich_help_panel=SAMPLES,
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        "--stop",
        metavar="TEXT",
        help="End the generation before this text. Repeatable.",
        rich_help_panel=SAMPLES,
    ),
]

Session = Annotated[
    str | None,
    typer.Option(
        "--session",
        metavar="ID",
        help="Id of the conversation. Rules with `scope: session` add up their scores over all its requests.",
        rich_help_panel=BELONGS,
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="NAME=VALUE",
        help="Label of the request, by which policies can be limited to some requests. Repeatable.",
        rich_help_panel=BELONGS,
    ),
]

LocksOption = Annotated[
    str | None,
    typer.Option(
        "--locks",
        metavar="NAME",
        help="Keep the locks of this model and dictionary in the folder locks/NAME of the policies. Default: the "
        "folder with such locks; else the name of the pair; else one made of the model's name and both digests.",
    ),
]
DeviceOption = Annotated[str, _option("device")]
SkipSelfTestOption = Annotated[bool, _option("skip_self_test")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of text.")]


def belonging(content: pb.Input, session: str | None, labels: Sequence[str] | None) -> pb.Input:
    """Add session and labels to an input. Raises InputError for a label that is not NAME=VALUE."""
    content.session_id = session or ""
    for label in labels or ():
        name, equals, value = label.partition("=")
        if not (name and equals):
            raise InputError(f"--label {label}: write NAME=VALUE, such as team=risk")
        content.labels[name] = value
    return content


def server_flags(
    model: str | None,
    dictionary: Path | None,
    policies: Path | None,
    layer: int | None,
    device: str | None,
    dtype: str | None,
    dictionary_format: str | None = None,
    skip_self_test: bool = False,
    pair: str | None = None,
) -> dict[str, Any]:
    """The flags of the group "What runs" by the names of their settings; None if not given."""
    flags: dict[str, Any] = {"pair": pair, "model": model, "dictionary": dictionary, "policies": policies}
    flags["dictionary_format"] = dictionary_format
    flags["skip_self_test"] = skip_self_test or None
    return flags | {"layer": layer, "device": device, "dtype": dtype}


Command = TypeVar("Command", bound=Callable[..., None])


def with_every_setting(*others: inspect.Parameter) -> Callable[[Command], Command]:
    """Give a command a flag for every setting of a server. It is called with the flags by name, None if not given.

    Values stay text. `load_settings` checks them, as it checks environment variables and the settings file. `others`
    are parameters that the command has besides.
    """
    first = [one for one in others if one.kind is not inspect.Parameter.KEYWORD_ONLY]
    last = [one for one in others if one.kind is inspect.Parameter.KEYWORD_ONLY]

    def given(command: Command) -> Command:
        command.__signature__ = inspect.Signature([*first, *_parameters(), *last])  # type: ignore[attr-defined]
        return command

    return given


def _parameters() -> Iterator[inspect.Parameter]:
    for name, setting in _SETTINGS.items():
        kind = str | None if setting.values else bool | None
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, _option(name)]
        )
