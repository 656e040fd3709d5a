"""Progress of long commands on standard error: bars and spinners on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from monitor.cli.show.console import stderr_console

Item = TypeVar("Item")


@contextmanager
def work_of(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show work of a known size; call what this yields with each further amount that is done.

    `what` names the work and `unit` what its size counts, as in "reading: 8,192 of 1,000,000 tokens". Rate and time
    left are shown after the first seconds.
    """
    from monitor.dictionary.training.progress import WorkLines

    console = stderr_console()
    if not console.is_terminal:
        console.print(f"{what}: {total:,} {unit} at most", soft_wrap=True)
        yield WorkLines(what, total, unit, partial(console.print, soft_wrap=True))
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(f"{{task.completed:,.0f}} of {{task.total:,.0f}} {unit}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield partial(bar.advance, task)


def followed(items: Iterable[Item], what: str, total: int, unit: str) -> Iterator[Item]:
    """The items one by one, with progress of what is done with them."""
    with work_of(what, total, unit) as advance:
        for item in items:
            yield item
            advance(1)


@contextmanager
def steps_of(first: str) -> Iterator[Callable[[str], None]]:
    """Show what a command is doing, beginning with `first`; call what this yields with each further step.

    Where output is no terminal, each step is a line with the time since the start.
    """
    console, started = stderr_console(), time.monotonic()
    if console.is_terminal:
        with console.status(first) as status:
            yield status.update
        return

    def tell(text: str) -> None:
        console.print(f"{time.monotonic() - started:6.0f} s  {text}", soft_wrap=True)

    tell(first)
    yield tell
