"""`sae-monitor guard`: a server in front of another one, which lets through what a watching model has scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monitor.cli.options import with_every_setting
from monitor.cli.serve import run
from monitor.settings import Settings, load_settings

if TYPE_CHECKING:
    from monitor.rpc.server import DoorMaker


@with_every_setting
def guard(**flags: Any) -> None:
    """Stand in front of a server of the OpenAI API, and let through what a watching model has scored.

    Give the server's URL with --upstream, and send requests to the guard instead (127.0.0.1:8080, or --http-listen).
    Prompts are scored before they are passed on, and answers, streamed or whole, before they leave. The model that
    watches runs only up to its tapped layer, and generates nothing. Flags, environment variables and the settings file
    are those of `serve`. Exit codes: 0 stopped by a signal, 2 wrong settings, files or policies, 3 the engine died.
    """
    chosen = load_settings(flags)
    run(_of_guard(chosen), _door)


def _of_guard(chosen: Settings) -> Settings:
    """The settings with what a guard needs. Raises ConfigurationError where there is nothing to guard."""
    from monitor.http.guard.door import DEFAULT_LISTEN, check_guard

    found = chosen.model_copy(update={"http_listen": chosen.http_listen or DEFAULT_LISTEN, "max_running": 0})
    check_guard(found)
    return found


def _door() -> DoorMaker:
    from monitor.http.guard.door import GuardDoor

    return GuardDoor
