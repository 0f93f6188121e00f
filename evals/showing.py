"""Shows how far an evaluation is."""

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

EVERY = 0.25
"""Seconds between two pictures of a bar."""


def shown(items: Sequence[T], doing: str) -> Iterator[T]:
    """The items, with a progress bar on standard error while they are worked on.

    It is drawn between two items and by no thread of its own: CPU time is measured meanwhile.
    """
    columns = (
        TextColumn("{task.description:<44}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, auto_refresh=False, disable=quiet) as progress:
        task = progress.add_task(doing, total=len(items))
        drawn = time.monotonic()
        for item in items:
            yield item
            progress.advance(task)
            if time.monotonic() - drawn > EVERY:
                progress.refresh()
                drawn = time.monotonic()
