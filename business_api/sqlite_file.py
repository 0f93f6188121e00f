"""How SQLite files are opened here: for this user only, for several processes at once, safe at power cuts."""

import sqlite3
import time
from pathlib import Path


def connect(path: Path, *, patience: float = 5.0) -> sqlite3.Connection:
    """A connection in autocommit mode, for one thread at a time; waits up to `patience` seconds for others.

    What is committed is on the disk. Raises sqlite3.Error, OSError.
    """
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
    try:
        connection.executescript("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON")
        _share(connection, patience)
    except BaseException:
        connection.close()
        raise
    return connection


def _share(connection: sqlite3.Connection, patience: float) -> None:
    """Switch to write-ahead logging, once per file. SQLite does not wait for others who do the same."""
    until = time.monotonic() + patience
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
