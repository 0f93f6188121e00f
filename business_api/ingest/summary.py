"""What an ingest did: every file, every chunk and every character is accounted for."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, get_args

import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

Status = Literal["added", "changed", "unchanged", "removed", "dropped", "failed", "skipped"]

_SHOWN = 20


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one document.

    added, changed, unchanged: it can be found. removed: it vanished from its folder. dropped: it holds no
    text. failed: it could not be read; an earlier version stays. skipped: it is not a document.

    `chunks` is how many it has now, `chunks_removed` how many it lost. All of its `characters` (of the
    converted text) are `indexed` now, `indexed_before`, or `dropped` for a reason.
    """

    document: str
    path: str
    status: Status
    reason: str = ""
    bytes: int = 0
    chunks: int = 0
    chunks_removed: int = 0
    characters: int = 0
    indexed: int = 0
    indexed_before: int = 0
    dropped: dict[str, int] = {}

    def __post_init__(self) -> None:
        accounted = self.indexed + self.indexed_before + sum(self.dropped.values())
        assert self.characters == accounted, (
            f"{self.document}: {self.characters} characters, {accounted} known"
        )


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The sums over all accounts; `documents` counts them by status, `chunks_added` are this run's."""

    documents: dict[str, int]
    bytes: int
    chunks: int
    chunks_added: int
    chunks_removed: int
    characters: int
    indexed: int
    indexed_before: int
    dropped: dict[str, int]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One ingest: an account per file, in the order read. `published`: something changed for readers.

    `seconds` is the whole run, `embedding_seconds` the part that the embedder worked.
    """

    documents: tuple[Account, ...]
    published: bool
    seconds: float
    embedding_seconds: float

    @property
    def failed(self) -> tuple[Account, ...]:
        """Documents that could not be read."""
        return self._having("failed")

    @property
    def chunks_per_second(self) -> float:
        """Chunks embedded and stored per second of the whole run."""
        return self.totals.chunks_added / self.seconds if self.seconds else 0.0

    @property
    def totals(self) -> Totals:
        """All accounts added up."""
        statuses = Counter(account.status for account in self.documents)
        new = [account for account in self.documents if account.status in ("added", "changed")]
        dropped: Counter[str] = Counter()
        for account in self.documents:
            dropped.update(account.dropped)
        sums = {
            field: sum(getattr(account, field) for account in self.documents)
            for field in ("bytes", "chunks", "chunks_removed", "characters", "indexed", "indexed_before")
        }
        assert sums["characters"] == sums["indexed"] + sums["indexed_before"] + dropped.total()
        return Totals(
            documents={status: statuses[status] for status in get_args(Status)},
            chunks_added=sum(account.chunks for account in new),
            dropped=dict(dropped),
            **sums,
        )

    def as_dict(self) -> dict[str, Any]:
        """Everything, in JSON's types."""
        whole: dict[str, Any] = msgspec.to_builtins(self)
        return {
            "published": self.published,
            "seconds": round(self.seconds, 3),
            "embedding_seconds": round(self.embedding_seconds, 3),
            "chunks_per_second": round(self.chunks_per_second, 2),
            "totals": msgspec.to_builtins(self.totals),
            "documents": whole["documents"],
        }

    def render(self) -> RenderableType:
        """The same for people: totals in a table, then what went wrong, by name."""
        return Group(self._table(), *self._characters(), *self._problems())

    def _having(self, status: Status) -> tuple[Account, ...]:
        return tuple(account for account in self.documents if account.status == status)

    def _table(self) -> Table:
        table = Table("", box=None, pad_edge=False, header_style="dim")
        for column in ("documents", "chunks", "characters"):
            table.add_column(column, justify="right")
        for status in get_args(Status):
            accounts = self._having(status)
            if accounts:
                chunks = sum(
                    account.chunks - (status == "removed") * account.chunks_removed for account in accounts
                )
                characters = sum(account.characters for account in accounts)
                style = "red" if status == "failed" else "yellow" if status == "dropped" else ""
                cells = (f"{number:,}" if number else "" for number in (chunks, characters))
                table.add_row(status, f"{len(accounts):,}", *cells, style=style)
        return table

    def _characters(self) -> Iterable[str]:
        totals = self.totals
        parts = [f"{totals.indexed:,} indexed now", f"{totals.indexed_before:,} indexed before"]
        parts += [f"{number:,} {reason}" for reason, number in totals.dropped.items()]
        yield f"\n{totals.characters:,} characters = {' + '.join(parts)}"
        yield (
            f"{totals.chunks_added:,} chunks added, {totals.chunks_removed:,} removed, "
            f"in {self.seconds:,.1f} s ({self.chunks_per_second:,.1f} chunks/s)"
            f"{'' if self.published else '; nothing to publish'}"
        )

    def _problems(self) -> Iterable[str]:
        named = self.failed + self._having("dropped")
        for account in named[:_SHOWN]:
            colour = "red" if account.status == "failed" else "yellow"
            yield f"[{colour}]{account.status}[/] {escape(account.document)}: {escape(account.reason)}"
        if len(named) > _SHOWN:
            yield f"... and {len(named) - _SHOWN} more: --json lists all"
        skipped = Counter(account.reason for account in self._having("skipped"))
        if skipped:
            reasons = ", ".join(f"{number} x {escape(reason)}" for reason, number in skipped.most_common())
            yield f"[dim]skipped: {reasons}[/]"
