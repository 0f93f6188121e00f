"""Puts records into the store's table, many a statement."""

import contextlib
import itertools
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from business_api.sink.rows import COLUMNS, row

_ROW = f"({', '.join('?' * len(COLUMNS))})"
_TOGETHER = (32, 8, 1)
"""Rows a statement. Each one gives up the interpreter's lock, and then waits for the event loop."""
_READ_TOGETHER = 8
"""Records read before the event loop may have the interpreter, if it waits for it."""
_STATEMENT_BYTES = 256 * 1024
_INSERT = {
    rows: f"INSERT OR IGNORE INTO exchanges VALUES {', '.join([_ROW] * rows)}"  # noqa: S608 - no values
    for rows in _TOGETHER
}
# What is wrong with one record and will stay wrong; anything else is the store's own trouble and may pass.
_UNFIT = (
    msgspec.MsgspecError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.IntegrityError,
    ValueError,
    OverflowError,
    RecursionError,
)


def insert(connection: sqlite3.Connection, records: Sequence[bytes]) -> int:
    """Insert encoded exchanges; gives how many are there, now or before. Raises sqlite3.Error.

    Those that are no exchanges are left out.
    """
    stored = at = 0
    while at < len(records):
        left = records[at : at + _TOGETHER[0]]
        together = next(size for size in _TOGETHER if size == 1 or _fits_a_statement(left, size))
        stored += _insert_rows(connection, list(_fit(left[:together])))
        at += together
    return stored


def _fits_a_statement(records: Sequence[bytes], size: int) -> bool:
    """A statement that has been executed holds on to its rows until the next."""
    return len(records) >= size and sum(map(len, records[:size])) <= _STATEMENT_BYTES


def _fit(records: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
    for place, record in enumerate(records, 1):
        with contextlib.suppress(*_UNFIT):
            yield row(record)
        if place % _READ_TOGETHER == 0:
            time.sleep(0)  # gives up the interpreter's lock


def _insert_rows(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> int:
    """Insert rows at once; where one of them is unfit, each by itself."""
    try:
        if len(rows) in _INSERT:
            connection.execute(_INSERT[len(rows)], list(itertools.chain.from_iterable(rows)))
            return len(rows)
    except _UNFIT:
        if len(rows) == 1:
            return 0
    return sum(_insert_rows(connection, [one]) for one in rows)
