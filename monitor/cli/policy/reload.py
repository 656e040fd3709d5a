"""`sae-monitor policy reload`: has a running server read its policy files again."""

from __future__ import annotations

from typing import Annotated

import typer

from monitor.cli.session import connected
from monitor.cli.show import words
from monitor.cli.show.console import stdout_console
from monitor.v1 import monitor_pb2 as pb


def reload(
    address: Annotated[str, typer.Option("--connect", metavar="HOST:PORT", help="Address of the server.")] = (
        "127.0.0.1:50051"
    ),
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait.")] = 60.0,
) -> None:
    """Tell a running server to read its policy files again.

    Needs the admin role. Where a file is wrong, the server's last good policies stay and the exit code is 2.
    """
    with connected(address, timeout) as client:
        answer = client.reload()
    stdout_console().print(said(answer), soft_wrap=True, highlight=False)


def said(answer: pb.ReloadPoliciesResponse) -> str:
    """One line: what is in force now."""
    digest = words.short_digest(answer.digests.policies)
    if not answer.changed:
        return f"the files are those in force ({digest})"
    names = [f"new: {', '.join(answer.added)}"] if answer.added else []
    names += [f"gone: {', '.join(answer.removed)}"] if answer.removed else []
    return "; ".join([f"in force now: {digest}", *names])
