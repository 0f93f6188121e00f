"""The store: every exchange in one SQLite file, to be listed, opened, continued and judged.

Any number of threads and processes may use one file. A record is stored once, however often it comes.
"""

import contextlib
import sqlite3
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from business_api.errors import Unavailable
from business_api.exchange import Exchange, Outcome
from business_api.sink.inserting import insert
from business_api.sink.rows import COLUMNS, Summary, summary
from business_api.sqlite_file import connect

Rating = Literal["up", "down"]
Turns = list[tuple[str, str]]
_Rows = list[tuple[Any, ...]]

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS exchanges (
    id TEXT PRIMARY KEY, at REAL NOT NULL, tenant TEXT NOT NULL, key TEXT, assistant TEXT NOT NULL,
    conversation TEXT, outcome TEXT, degraded TEXT NOT NULL, finish_reason TEXT, error TEXT,
    passages INTEGER NOT NULL, citations INTEGER NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER,
    timings_ms TEXT NOT NULL, question TEXT NOT NULL, answer TEXT NOT NULL, record BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS exchanges_by_time ON exchanges (tenant, at, id);
CREATE INDEX IF NOT EXISTS exchanges_by_outcome ON exchanges (tenant, outcome, at, id);
CREATE INDEX IF NOT EXISTS exchanges_by_conversation ON exchanges (tenant, conversation, at, id)
    WHERE conversation IS NOT NULL;
CREATE TABLE IF NOT EXISTS feedback (
    exchange TEXT PRIMARY KEY REFERENCES exchanges (id) ON DELETE CASCADE,
    at REAL NOT NULL, rating TEXT NOT NULL, comment TEXT
) WITHOUT ROWID;
"""
_BATCH = 500
_MOST = 1000
_PREVIEW = 200
_LIST = f"""
SELECT {", ".join(COLUMNS[:-3])}, substr(question, 1, {_PREVIEW}), substr(answer, 1, {_PREVIEW}),
    (SELECT rating FROM feedback WHERE exchange = exchanges.id)
FROM exchanges WHERE tenant = :tenant"""  # noqa: S608 - the names of our own columns
_FILTERS = {
    "outcome": " AND outcome = :outcome",
    "conversation": " AND conversation = :conversation",
    "text": r" AND (question LIKE :text ESCAPE '\' OR answer LIKE :text ESCAPE '\')",
    "before": " AND (at, id) < (SELECT at, id FROM exchanges WHERE id = :before AND tenant = :tenant)",
}


class ExchangeStore:
    """The exchanges of all tenants; every question is asked for one tenant and sees no other's.

    Methods block for microseconds to milliseconds (a search by text longer): call them from a thread. They
    raise Unavailable when the file is locked for longer than `patience` seconds, full or broken. The
    constructor raises ValueError, with the file's name, if it is no such store.
    """

    def __init__(self, path: Path, *, patience: float = 5.0) -> None:
        self._path = path
        self._patience = patience
        self._idle: deque[sqlite3.Connection] = deque()
        try:
            with self._connected() as connection:
                _prepare(connection)
        except (Unavailable, ValueError) as exc:
            self.close()
            raise ValueError(f"{path}: this exchange store cannot be used: {exc.__cause__ or exc}") from exc

    def add(self, records: Sequence[bytes]) -> int:
        """Store encoded exchanges, durably on return; gives how many are stored, now or before.

        Those that are no exchanges are left out. If it raises, a part may be stored: come again with all.
        """
        stored = 0
        with self._connected() as connection:
            for start in range(0, len(records), _BATCH):
                with _transaction(connection):
                    stored += insert(connection, records[start : start + _BATCH])
        return stored

    def list(
        self,
        tenant: str,
        *,
        limit: int = 50,
        before: str | None = None,
        outcome: Outcome | None = None,
        conversation: str | None = None,
        text: str | None = None,
    ) -> list[Summary]:
        """Newest first, at most 1000. `before`: the id of the last one seen, for the next page.

        `text` is looked for in questions and answers, without regard to case in ASCII letters.
        """
        pattern = f"%{_escaped(text)}%" if text else None
        wanted = {"before": before, "outcome": outcome, "conversation": conversation, "text": pattern}
        chosen = {name: value for name, value in wanted.items() if value is not None}
        query = _LIST + "".join(_FILTERS[name] for name in chosen) + " ORDER BY at DESC, id DESC LIMIT :limit"
        values = {"tenant": tenant, "limit": max(1, min(limit, _MOST)), **chosen}
        return [summary(found) for found in self._rows(query, values)]

    def get(self, tenant: str, exchange: str) -> Exchange | None:
        """One exchange with all that happened to it."""
        record = self.get_json(tenant, exchange)
        try:
            return None if record is None else msgspec.json.decode(record, type=Exchange)
        except msgspec.ValidationError as exc:
            raise Unavailable("this exchange was recorded in a form that this version cannot read") from exc

    def get_json(self, tenant: str, exchange: str) -> bytes | None:
        """The record of one exchange as it was written: JSON."""
        query = "SELECT record FROM exchanges WHERE id = ? AND tenant = ?"
        found = self._rows(query, (exchange, tenant))
        return bytes(found[0][0]) if found else None

    def history(self, tenant: str, conversation: str, limit: int) -> Turns:
        """The last answered (question, answer) pairs of a conversation, oldest first."""
        query = (
            "SELECT question, answer FROM exchanges WHERE tenant = ? AND conversation = ?"
            " AND outcome = 'answered' ORDER BY at DESC, id DESC LIMIT ?"
        )
        return [(asked, answer) for asked, answer in self._rows(query, (tenant, conversation, limit))][::-1]

    def outcomes(self, tenant: str, *, since: float = 0.0) -> dict[str, int]:
        """How many exchanges ended how, since a time in seconds of the epoch."""
        query = "SELECT outcome, count(*) FROM exchanges WHERE tenant = ? AND at >= ? GROUP BY outcome"
        return {outcome or "": count for outcome, count in self._rows(query, (tenant, since))}

    def add_feedback(self, tenant: str, exchange: str, rating: Rating, comment: str | None = None) -> bool:
        """Note what a person thought of an answer; the last word counts. False: the tenant has none such."""
        query = (
            "INSERT INTO feedback SELECT id, ?, ?, ? FROM exchanges WHERE id = ? AND tenant = ?"
            " ON CONFLICT (exchange) DO UPDATE SET at = excluded.at, rating = excluded.rating,"
            " comment = excluded.comment"
        )
        with self._connected() as connection:
            return connection.execute(query, (time.time(), rating, comment, exchange, tenant)).rowcount > 0

    def close(self) -> None:
        """Close what is idle. Only after the last call."""
        while self._idle:
            self._idle.pop().close()

    def _rows(self, query: str, values: Any) -> _Rows:
        with self._connected() as connection:
            return connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else uses meanwhile; SQLite's errors end here."""
        with _our_errors():
            connection = self._idle_one() or connect(self._path, patience=self._patience)
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
        self._idle.append(connection)

    def _idle_one(self) -> sqlite3.Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None


@contextlib.contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise Unavailable("the store of exchanges cannot be used right now") from exc


def _prepare(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise ValueError(f"it was written by a newer version ({version} instead of {_VERSION})")
    if version < _VERSION:
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # SQLite itself rolls back after some errors
            connection.execute("ROLLBACK")
        raise


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
