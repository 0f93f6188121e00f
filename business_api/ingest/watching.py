"""Shows how an ingest goes on: what is done is measured, never guessed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Watch(Protocol):
    """Is told how far an ingest is. Work is measured in bytes of the documents: known before any is read."""

    def total(self, size: int) -> None:
        """All the work there is."""

    def advance(self, size: float, chunks: int = 0) -> None:
        """So much is done for good; with it so many chunks were embedded and stored."""

    def message(self, text: str) -> None:
        """What is being done now."""


class Unwatched:
    """A watch that nobody looks at."""

    def total(self, size: int) -> None:
        """Ignored."""

    def advance(self, size: float, chunks: int = 0) -> None:
        """Ignored."""

    def message(self, text: str) -> None:
        """Ignored."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        chunks, seconds = task.fields["chunks"], task.elapsed or 0.0
        rate = f"{chunks / seconds:.1f}" if chunks and seconds else "-"
        return Text(f"{chunks:,} chunks, {rate}/s", style="progress.data.speed")


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("reading", total=None, chunks=0)
        self._chunks = 0

    def total(self, size: int) -> None:
        self._progress.update(self._task, total=size)

    def advance(self, size: float, chunks: int = 0) -> None:
        self._chunks += chunks
        self._progress.update(self._task, advance=size, chunks=self._chunks)

    def message(self, text: str) -> None:
        shown = text if len(text) <= 40 else f"…{text[-39:]}"
        self._progress.update(self._task, description=escape(shown))


@contextmanager
def rich_watch(console: Console | None = None) -> Iterator[Watch]:
    """A progress bar with rate and time left on the console (default: standard error)."""
    columns = (
        TextColumn("{task.description:<40}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console or Console(stderr=True), transient=True) as progress:
        yield _Bar(progress)
