"""`sae-monitor serve`: runs a server in the foreground until a signal stops it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from monitor.cli.errors import ExitCode
from monitor.cli.options import with_every_setting
from monitor.cli.show import words
from monitor.cli.show.console import stderr_console
from monitor.cli.show.printable import printable
from monitor.errors import ConfigurationError
from monitor.settings import Settings, load_settings

if TYPE_CHECKING:
    from monitor.model.load.model import LoadedModel
    from monitor.model.runtime import Runtime
    from monitor.policy.policyset import PolicySet
    from monitor.rpc.server import Addresses, DoorMaker


_LONGEST_OPENING = 120


@with_every_setting()
def serve(**flags: Any) -> None:
    """Serve a model over gRPC, score every token that it runs, and export metrics for Prometheus.

    Without arguments it serves the default pair with the bundled policies, to this machine only. Every flag can also
    be an environment variable (SAE_MONITOR_LISTEN=…) or a line of the settings file (listen: …); a flag wins over both.
    SIGTERM and Ctrl-C let running calls finish. Exit codes: 0 stopped by a signal, 2 wrong settings, files or policies,
    3 the engine died.
    """
    chosen = load_settings(flags)
    run(chosen, partial(_door, chosen))


def run(chosen: Settings, door: Callable[[], DoorMaker | None]) -> None:
    """Load everything, and serve until a signal comes. `door` makes another front door beside gRPC and the page."""
    from monitor.rpc.process.signals import exit_at_signals
    from monitor.telemetry.logs import adopt_libraries, configure, lines_lost
    from monitor.telemetry.output import take_over_output

    take_over_output(lines_lost)
    with exit_at_signals():
        configure(chosen.log_level, chosen.log_format)
        adopt_libraries()
        _serve(chosen, door)


def _serve(chosen: Settings, door: Callable[[], DoorMaker | None]) -> None:
    from monitor.rpc.access.layer import check_access
    from monitor.rpc.decisions.recorder import check_recorder
    from monitor.rpc.process.allocator import limit_retained_memory
    from monitor.rpc.process.user import name_user

    # Before anything large is imported or loaded for nothing.
    check_access(chosen)
    check_recorder(chosen)
    limit_retained_memory()
    name_user()
    from monitor.rpc.assembly import assemble
    from monitor.rpc.process.watchdog import force_exit
    from monitor.rpc.server import Server, run_in_foreground

    # What is missing for these is found before the model is loaded.
    doors = door(), _page(chosen)
    parts = assemble(chosen)
    server = Server(chosen, *parts, door=doors[0], page=doors[1])

    def ready(addresses: Addresses) -> None:
        if chosen.log_format == "console":
            stderr_console().print(start_block(parts.runtime, parts.policies, addresses, chosen))

    # A pass or a reload that hangs would keep Python from ending, long after everybody was told that the server stops.
    run_in_foreground(server, chosen.grace_seconds, ready, lambda: force_exit(ExitCode.DIED))


def _door(chosen: Settings) -> DoorMaker | None:
    """What opens the HTTP port, where one is set."""
    if chosen.http_listen is None:
        return None
    from monitor.http.door import HttpDoor

    return HttpDoor


def _page(chosen: Settings) -> DoorMaker | None:
    """What opens the page's port, where one is set."""
    if chosen.page is None:
        return None
    try:
        from monitor.http.page.door import PageDoor
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"`page` needs the extra `page` ({error.name} is missing): pip install 'sae-monitor[page]'"
        ) from error
    return PageDoor


def start_block(runtime: Runtime, policies: PolicySet, addresses: Addresses, chosen: Settings) -> Table:
    """A table of what the server runs and where it listens, printed once it is ready."""
    loaded, dictionary = runtime.loaded, runtime.dictionary
    features = dictionary.autoencoder.features
    model = f"{_name(Path(loaded.name))}  {words.short_digest(loaded.digest)}"
    table = Table.grid(padding=(0, 2))
    rows = {
        "model": f"{model}  {loaded.devices} {_numbers(loaded, chosen.dtype)}",
        "layer": f"{runtime.layer} of 0 to {runtime.layers - 1}, {loaded.d_model} wide, context {loaded.context}",
        "dictionary": f"{_name(dictionary.path)}  {words.short_digest(dictionary.digest)}  {features} features",
        "requests": _together(runtime),
        "chats": _chats(runtime.tokenise.opening),
        "watched": f"{len(policies.watch)} features, {len(policies.clampable)} of which policies may clamp",
        "policies": f"{_policies(policies)}  {words.short_digest(policies.digest)}",
        "decisions": addresses.decisions,
        "grpc": addresses.grpc,
        "http": addresses.http,
        "page": addresses.page,
        "metrics": f"http://{addresses.metrics}/metrics",
    }
    if chosen.upstream:
        rows = {"guards": chosen.upstream} | rows | {"requests": _streams(runtime)}
    for name, value in rows.items():
        table.add_row(Text(f"  {name}", style="dim"), Text(printable(value)))
    return table


def _numbers(loaded: LoadedModel, setting: str) -> str:
    """The number type of a model; where nobody chose it and another one may be faster, which."""
    from monitor.model.load.host import computes_bfloat16

    dtype = str(loaded.dtype).removeprefix("torch.")
    if setting == "auto" and dtype == "float32" and loaded.devices == "cpu" and computes_bfloat16():
        return f"{dtype} (`--dtype bfloat16` may be faster on this processor)"
    return dtype


def _together(runtime: Runtime) -> str:
    why = runtime.engine.why_separate
    return f"one in a pass, in turns: {why}" if why else "many in a pass (continuous batching)"


def _streams(runtime: Runtime) -> str:
    why = runtime.scorer.why_separate
    return f"streams are read one by one: {why}" if why else "streams are read many in a pass"


def _chats(opening: str | None) -> str:
    """What stands before a conversation, in one line."""
    if opening is None:
        return "none: this model has no chat template"
    written = " ".join(opening.split())
    if not written:
        return "begin with what callers send"
    return f"begin with {written[:_LONGEST_OPENING]}{' …' if len(written) > _LONGEST_OPENING else ''}"


def _policies(policies: PolicySet) -> str:
    return ", ".join(f"{p.name}{'' if p.enforced else ' (shadow)'}" for p in policies.policies) or "none"


def _name(path: Path) -> str:
    """The last two parts of a path; a hub name as it is."""
    return "/".join(path.parts[-2:])
